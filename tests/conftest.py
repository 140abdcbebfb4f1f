"""Fixtures: the reference data, and corpora, encoders and trained taggers made on the fly."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


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
