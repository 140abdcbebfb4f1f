"""Fixtures: the reference data, and corpora, encoders and trained taggers made on the fly."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

# No test may reach for the network. Read when huggingface_hub is imported, hence before the imports below.
os.environ["HF_HUB_OFFLINE"] = "1"

from get_labels import write_labels
from knn_ner.data.corpus import read_corpus
from knn_ner.synthetic.bert import write_bert_encoder
from knn_ner.synthetic.corpus import write_corpus
from knn_ner.synthetic.size import Size
from knn_ner.utils.command import run_main
from knn_ner.utils.messages import show_messages

# Tests read the messages of functions that they call without a command line.
show_messages()

ROOT = Path(__file__).resolve().parent.parent

# A suite that a shell runs in the background inherits from it that Ctrl-C is ignored, and so would the
# commands whose answer to Ctrl-C is tested.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder with `data/` and `reference/` beside the checkout; a test that asks for it skips without."""
    folder = ROOT.parent / "shared"
    if not (folder / "reference").is_dir():
        pytest.skip("reference data (the folder `shared` beside the checkout) is not here")
    return folder


@pytest.fixture(scope="session")
def run():
    """Run a command line from the repository root: `run("-m", "knn_ner.train", ...)`."""

    def run_python(*arguments: object, code: int = 0, **options) -> subprocess.CompletedProcess:
        finished = subprocess.run(
            [sys.executable, *map(str, arguments)],
            cwd=ROOT,
            env=os.environ | {"HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": ""},
            capture_output=True,
            text=True,
            **options,
        )
        assert finished.returncode == code, finished.stderr[-3000:]
        return finished

    return run_python


@pytest.fixture
def fails(capfd, monkeypatch):
    """Run an entry point that must end with exit code 2; gives the last line that it prints to stderr."""

    def run_failing(main, *argv: object) -> str:
        monkeypatch.setattr(sys, "argv", ["command", *map(str, argv)])
        monkeypatch.setenv("HF_HUB_OFFLINE", "1")
        capfd.readouterr()
        with pytest.raises(SystemExit) as exit_:
            run_main(main)
        assert exit_.value.code == 2
        captured = capfd.readouterr()
        assert captured.out == "" and "Traceback" not in captured.err
        return captured.err.splitlines()[-1]

    return run_failing


@pytest.fixture
def corpus_folder(tmp_path):
    """Write a corpus: `corpus_folder(train="...", dev=b"...")` makes train.F, dev.F and test.F."""

    def write(file_name: str = "bmes", **splits: str | bytes) -> Path:
        folder = tmp_path / "corpus"
        folder.mkdir(exist_ok=True)
        default = "Ada B-PER\nLovelace E-PER\nwrote O\n\n"
        for split in ("train", "dev", "test"):
            content = splits.get(split, default)
            content = content if isinstance(content, bytes) else content.encode()
            (folder / f"{split}.{file_name}").write_bytes(content)
        return folder

    return write


@pytest.fixture(scope="session")
def tiny_corpus(tmp_path_factory) -> Path:
    """A small English corpus of the repository's own generator, with its label set."""
    folder = tmp_path_factory.mktemp("corpus")
    write_corpus(folder, seed=1, sizes={"train": 300, "dev": 60, "test": 60})
    write_labels(folder, "word.bmes")
    return folder


@pytest.fixture(scope="session")
def tiny_encoder(tiny_corpus, tmp_path_factory) -> Path:
    """A BERT of random weights with word pieces of the tiny corpus."""
    folder = tmp_path_factory.mktemp("encoder")
    corpus = read_corpus(tiny_corpus, "word.bmes", splits=("train",))
    words = [word for sentence in corpus.splits["train"] for word in sentence.words]
    size = Size(hidden_size=32, layers=2, heads=2)
    write_bert_encoder(folder, words, size, vocabulary_size=400)
    return folder


@pytest.fixture(scope="session")
def trained(run, tiny_corpus, tiny_encoder, tmp_path_factory) -> Path:
    """A tagger trained on the tiny corpus by the command line; `trained / "model"` is its folder."""
    folder = tmp_path_factory.mktemp("trained")
    run(
        *("-m", "knn_ner.train", "--data_dir", tiny_corpus, "--file_name", "word.bmes"),
        *("--bert_path", tiny_encoder, "--save_path", folder, "--max_epochs", 15),
        *("--lr", 3e-3, "--train_batch_size", 16, "--seed", 3),
    )
    return folder


@pytest.fixture(scope="session")
def datastore(run, tiny_corpus, trained, tmp_path_factory) -> Path:
    """The datastore of that tagger, built by the command line."""
    folder = tmp_path_factory.mktemp("store") / "datastore"
    run(
        *("-m", "knn_ner.build_datastore", "--data_dir", tiny_corpus, "--file_name", "word.bmes"),
        *("--model_path", trained / "model", "--datastore_path", folder),
    )
    return folder
