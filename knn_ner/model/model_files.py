"""Checks of the files of a model folder, for damage that transformers reports badly or not at all."""

import json
import struct
import zipfile
from pathlib import Path

from knn_ner.utils.errors import UserError
from knn_ner.utils.files import read_json

LFS_POINTER = b"version https://git-lfs"
TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
    "*.model",
)
# In the order in which transformers looks for them.
WEIGHT_FILES = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)


def check_tokenizer_files(folder: Path) -> None:
    """Check that the tokeniser files of a folder have content.

    Raises:
        UserError: if one is empty or a Git LFS pointer, or `merges.txt` is missing beside `vocab.json`.
    """
    for pattern in TOKENIZER_FILES:
        for file in folder.glob(pattern):
            _check_content(file)
    lone = (folder / "vocab.json").is_file() and not (folder / "tokenizer.json").is_file()
    if lone and not (folder / "merges.txt").is_file():
        raise UserError(
            f"{folder / 'merges.txt'}: not found, expected beside vocab.json; copy it there"
        )


def check_weight_files(folder: Path) -> None:
    """Check that the weight files of a folder are there and whole.

    Raises:
        UserError: if there is none, or one is missing, empty, a Git LFS pointer or cut off.
    """
    present = [folder / name for name in WEIGHT_FILES if (folder / name).is_file()]
    if not present:
        raise UserError(
            f"{folder}: no {WEIGHT_FILES[0]} or {WEIGHT_FILES[2]} found; copy the weights there"
        )
    _check_content(present[0])
    files = present[:1]
    if present[0].suffix == ".json":
        files = [
            folder / name for name in sorted(set(read_json(present[0])["weight_map"].values()))
        ]
    for file in files:
        if not file.is_file():
            raise UserError(f"{file}: not found, expected by {present[0].name}; copy it there")
        _check_content(file)
        _check_length(file)


def _check_content(file: Path) -> None:
    with file.open("rb") as opened:
        start = opened.read(len(LFS_POINTER))
    if start == LFS_POINTER:
        raise UserError(
            f"{file}: a Git LFS pointer found, expected the file; fetch it with `git lfs pull`"
        )
    if not start:
        raise UserError(f"{file}: an empty file found; copy it again")


def _check_length(file: Path) -> None:
    if file.suffix != ".safetensors":
        with file.open("rb") as opened:
            is_archive = opened.read(2) == b"PK"
        if is_archive and not zipfile.is_zipfile(file):
            raise UserError(f"{file}: the end of the archive is missing; copy it again")
        return
    size = file.stat().st_size
    try:
        with file.open("rb") as opened:
            (header_size,) = struct.unpack("<Q", opened.read(8))
            header = json.loads(opened.read(min(header_size, size)))
        ends = [
            entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"
        ]
    except (struct.error, ValueError, KeyError, TypeError, AttributeError):
        raise UserError(f"{file}: no safetensors header found; copy the file again") from None
    expected = 8 + header_size + max(ends, default=0)
    if size != expected:
        raise UserError(
            f"{file}: {size} bytes found, expected {expected} by its header; copy it again"
        )
