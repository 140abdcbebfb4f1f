"""A tiny random ChineseBERT in the published layout, made on the fly."""

from collections.abc import Iterable
from pathlib import Path

from knn_ner.synthetic.chinesebert import write_chinesebert_encoder
from knn_ner.synthetic.size import Size


def make_chinesebert_folder(
    path: str | Path,
    characters: Iterable[str],
    hidden_size: int = 32,
    layers: int = 2,
    seed: int = 0,
) -> Path:
    """Write a ChineseBERT folder whose vocabulary covers `characters`, and return its path."""
    size = Size(hidden_size=hidden_size, layers=layers)
    write_chinesebert_encoder(path, characters, size, seed=seed)
    return Path(path)
