"""The training command: files, determinism, resumption, dropout, errors."""

import json
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoTokenizer, pipeline

from knn_ner.data.batching import shuffled_batches
from knn_ner.data.corpus import read_corpus
from knn_ner.train import main, parse_arguments, train
from knn_ner.utils.errors import UserError

ROOT = Path(__file__).resolve().parents[2]
QUICK = ("--max_epochs", 2, "--lr", 3e-3, "--train_batch_size", 16, "--seed", 3, "--device", "cpu")


@pytest.fixture(scope="module")
def arguments(tiny_corpus, tiny_encoder):
    """The command line of a training in a given folder."""

    def make(save_path, *further):
        line = (
            *("--data_dir", tiny_corpus, "--file_name", "word.bmes"),
            *("--bert_path", tiny_encoder, "--save_path", save_path),
            *QUICK,
            *further,
        )
        return [str(part) for part in line]

    return make


def weights(folder):
    from safetensors.torch import load_file

    return load_file(folder / "model" / "model.safetensors")


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_the_command_writes_model_results_and_logs(run, trained, tiny_corpus):
    assert {path.name for path in (trained / "model").iterdir()} >= {
        "config.json",
        "model.safetensors",
        "tokenizer.json",
    }
    results = json.loads((trained / "train_results.json").read_text())
    assert results["dev"]["f1"] == pytest.approx(results["best_epoch_dev_f1"])
    assert results["dev"]["f1"] > 0
    assert (trained / "logs" / "csv" / "version_0" / "metrics.csv").is_file()
    assert list((trained / "logs" / "tensorboard").rglob("events*"))
    assert not list(trained.rglob("last.ckpt"))


def test_same_seed_same_weights_and_resuming_changes_nothing(arguments, tmp_path, monkeypatch):
    """Interrupted after its first epoch and resumed, a run ends with the weights of an undisturbed one."""
    whole = train(parse_arguments(arguments(tmp_path / "whole")))
    again = train(parse_arguments(arguments(tmp_path / "again")))
    assert same(weights(tmp_path / "whole"), weights(tmp_path / "again"))
    assert whole["dev"] == again["dev"]

    from knn_ner.model.lightning_module import Tagger

    step = Tagger.training_step

    def die_in_the_second_epoch(self, batch, index):
        if self.current_epoch == 1 and index == 2:
            raise RuntimeError("power failure")
        return step(self, batch, index)

    with monkeypatch.context() as patch:
        patch.setattr(Tagger, "training_step", die_in_the_second_epoch)
        with pytest.raises(RuntimeError, match="power failure"):
            train(parse_arguments(arguments(tmp_path / "resumed")))
    assert not (tmp_path / "resumed" / "model").exists()
    resumed = train(parse_arguments(arguments(tmp_path / "resumed", "--resume")))
    assert same(weights(tmp_path / "whole"), weights(tmp_path / "resumed"))
    assert resumed["steps"] == whole["steps"]


def test_control_c_leaves_a_run_that_can_be_resumed(arguments, tmp_path):
    line = [sys.executable, "-m", "knn_ner.train", *arguments(tmp_path, "--max_epochs", "500")]
    with subprocess.Popen(line, cwd=ROOT, stderr=subprocess.PIPE, text=True) as process:
        for message in process.stderr:
            if message.startswith("epoch 3/500"):
                process.send_signal(signal.SIGINT)
                break
        messages = process.stderr.read().splitlines()
    assert process.returncode == 130
    assert messages[-2:] == [
        f"{tmp_path}: --resume continues after the last finished epoch",
        "interrupted",
    ]
    assert (tmp_path / "checkpoints" / "resume" / "last.ckpt").is_file()


def test_another_seed_gives_other_weights(arguments, tmp_path, trained):
    train(parse_arguments(arguments(tmp_path, "--seed", "4", "--max_epochs", "1")))
    assert not same(weights(tmp_path), weights(trained))


def test_dropout_is_on_in_training_and_off_in_scoring(arguments, tmp_path, monkeypatch):
    """A Hugging Face model loads in evaluation mode, which Lightning would keep."""
    from knn_ner.model.lightning_module import Tagger

    modes = {"train": set(), "dev": set()}
    for name, hook in (("train", "training_step"), ("dev", "validation_step")):
        original = getattr(Tagger, hook)

        def noted(self, batch, index, name=name, original=original):
            modes[name].add(
                self.model.training and self.model.base_model.embeddings.dropout.training
            )
            return original(self, batch, index)

        monkeypatch.setattr(Tagger, hook, noted)
    train(parse_arguments(arguments(tmp_path, "--max_epochs", "2")))
    assert modes == {"train": {True}, "dev": {False}}


def test_no_decay_on_biases_and_layer_norms(arguments, tmp_path, monkeypatch):
    import pytorch_lightning as pl

    groups = {}
    configure = pl.Trainer.fit

    def fit(self, module, *args, **options):
        configure(self, module, *args, **options)
        names = {id(parameter): name for name, parameter in module.model.named_parameters()}
        for group in self.optimizers[0].param_groups:
            groups[group["weight_decay"]] = {names[id(parameter)] for parameter in group["params"]}

    monkeypatch.setattr(pl.Trainer, "fit", fit)
    train(parse_arguments(arguments(tmp_path, "--max_epochs", "1", "--weight_decay", "0.02")))
    assert set(groups) == {0.0, 0.02}
    assert all(name.endswith("bias") or "LayerNorm" in name for name in groups[0.0])
    assert not any("bias" in name or "LayerNorm" in name for name in groups[0.02])
    assert {"classifier.bias", "bert.embeddings.LayerNorm.weight"} <= groups[0.0]


def test_the_model_folder_opens_in_a_transformers_pipeline(trained, tiny_corpus):
    """Hugging Face's own pipeline gives, piece for piece, the tags of our inference."""
    from knn_ner.settings import RunSettings
    from knn_ner.tagging.split import make_split
    from knn_ner.tagging.trained_tagger import load

    corpus = read_corpus(tiny_corpus, "word.bmes", splits=("test",))
    tagger = load(trained / "model", 512, corpus)
    split = make_split(corpus, "test", tagger.encoding)
    rows = tagger.predict(split.encoded, RunSettings(batch_size=8, device="cpu"))
    theirs = pipeline("token-classification", model=str(trained / "model"), ignore_labels=[])
    for sentence, tags in list(zip(split.sentences, split.piece_tags(rows), strict=True))[:20]:
        found = theirs(" ".join(sentence.words))
        assert [piece["entity"] for piece in found] == tags


def test_long_sentences_train_and_score_through_windows(arguments, tmp_path):
    results = train(parse_arguments(arguments(tmp_path, "--max_length", "12", "--max_epochs", "1")))
    gold = sum(counts["support"] for counts in results["test"]["per_type"].values())
    corpus = read_corpus(*arguments(tmp_path)[1:4:2], splits=("test",))
    tags = [tag for s in corpus.splits["test"] for tag in s.tags]
    assert gold == sum(tag[0] in "BS" for tag in tags)


def test_first_piece_labels_and_early_stopping(arguments, tmp_path):
    line = arguments(tmp_path, "--piece_labels", "first", "--patience", "1", "--max_epochs", "9")
    results = train(parse_arguments([*line, "--lr", "1e-9"]))
    assert results["epochs"] == 2  # the second scoring is no better than the first
    config = json.loads((tmp_path / "model" / "config.json").read_text())
    made = config["knn_ner"]
    assert (made["units"], made["piece_labels"]) == ("words", "first")


def test_resuming_with_other_settings_is_refused(fails, arguments, tmp_path):
    train(parse_arguments(arguments(tmp_path, "--max_epochs", "1")))
    assert fails(main, *arguments(tmp_path, "--resume", "--lr", "1")) == (
        f"error: {tmp_path}: --lr 1.0 found, expected 0.003 as when this run began; give the same "
        "settings, or leave out --resume to begin anew"
    )


@pytest.mark.parametrize(
    ("vocabulary", "flags", "share"),
    [
        ("我 们 在 北 京", (), "100%"),
        ("the of a in road to The Of", ("--no-lowercase",), r"\d\d%"),
        ("the of a in road to the on .", (), r"\d\d%"),
        (None, (), None),
    ],
)
def test_a_tokeniser_that_does_not_fit_is_told(
    arguments, tiny_encoder, tmp_path, vocabulary, flags, share, capfd
):
    if vocabulary is not None:
        shutil.copytree(tiny_encoder, tmp_path / "encoder")
        for name in ("tokenizer.json", "tokenizer_config.json"):
            (tmp_path / "encoder" / name).unlink()
        words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *vocabulary.split()]
        (tmp_path / "encoder" / "vocab.txt").write_text("\n".join(dict.fromkeys(words)))
        flags = (*flags, "--bert_path", str(tmp_path / "encoder"))
    line = arguments(tmp_path / "s", "--max_epochs", "1", *flags)
    train(parse_arguments(line))
    warned = re.search(
        r"^warning: (.*) of the training words give the unknown word piece \[UNK\]; ",
        capfd.readouterr().err,
        re.M,
    )
    assert bool(warned) == bool(share) and (not share or re.fullmatch(share, warned[1]))


def test_no_lowercase_is_kept_with_the_tagger(arguments, tmp_path, tiny_encoder):
    results = train(parse_arguments(arguments(tmp_path, "--no-lowercase", "--max_epochs", "1")))
    assert results["settings"]["lowercase"] is False
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "model")
    assert tokenizer.tokenize("THE") != tokenizer.tokenize("the")
    before = AutoTokenizer.from_pretrained(tiny_encoder)
    assert before.tokenize("THE") == before.tokenize("the") == tokenizer.tokenize("the")
    message = "--lowercase True found, expected False as when this run began"
    with pytest.raises(UserError, match=message):
        train(parse_arguments(arguments(tmp_path, "--lowercase", "--max_epochs", "1", "--resume")))


ERRORS = {
    "no encoder": (
        ("--bert_path", "nowhere/at-all"),
        "error: nowhere/at-all: no tokeniser could be loaded, expected a folder or a Hugging Face hub name",
    ),
    "a bad number": (
        ("--lr", "-1"),
        "error: argument --lr: -1.0 found, a number above 0 expected; see python -m knn_ner.train --help",
    ),
    "an unknown flag": (
        ("--learning_rate", "1"),
        "error: --learning_rate: no such flag; did you mean --lr?; see python -m knn_ner.train --help",
    ),
    "another head": (("--classifier", "mlp"), "error: --classifier mlp:"),
}


@pytest.mark.parametrize(("flags", "message"), ERRORS.values(), ids=ERRORS.keys())
def test_errors_are_one_line(fails, arguments, tmp_path, flags, message):
    assert fails(main, *arguments(tmp_path / "new", *flags)).startswith(message)
    assert not (tmp_path / "new" / "model").exists()


def test_labels_must_be_there(fails, arguments, tmp_path, corpus_folder):
    folder = corpus_folder(file_name="word.bmes")
    line = [*arguments(tmp_path), "--data_dir", str(folder)]
    assert fails(main, *line) == (
        f"error: {folder}/ner_labels.txt: not found; make it with "
        f"`python get_labels.py --data-dir {folder} --file-name FILE_NAME`"
    )


@pytest.mark.parametrize(("select_by", "kept"), [("f1", "epoch=0"), ("piece_f1", "epoch=2")])
def test_of_equal_scores_the_published_way_keeps_the_last(arguments, tmp_path, select_by, kept):
    """A learning rate that changes nothing: all epochs score the same."""
    flags = ("--lr", "1e-12", "--max_epochs", "3", "--select_by", select_by)
    train(parse_arguments(arguments(tmp_path, *flags)))
    (checkpoint,) = (tmp_path / "checkpoints").glob("*.ckpt")
    assert checkpoint.name.startswith(kept)


def test_random_batches_hold_every_window_once():
    lengths = list(range(100, 0, -1))
    random = shuffled_batches(lengths, 8, 1, 0, by_length=False)
    assert sorted(index for batch in random for index in batch) == list(range(100))
    assert random == shuffled_batches(lengths, 8, 1, 0, by_length=False)
    assert random != shuffled_batches(lengths, 8, 1, 1, by_length=False)
    spread = [max(batch) - min(batch) for batch in random]
    assert (
        np.mean(spread)
        > 40
        > np.mean([max(b) - min(b) for b in shuffled_batches(lengths, 8, 1, 0)])
    )
