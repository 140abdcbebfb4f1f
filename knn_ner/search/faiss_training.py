"""An empty index of a datastore, trained on a sample of its keys."""

import logging
import math
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from knn_ner.datastore.reader import Datastore
from knn_ner.search.faiss_library import (
    faiss_errors,
    lists_of,
    load_faiss,
    parts,
    reason_of,
    transforms,
)
from knn_ner.utils.errors import UserError

logger = logging.getLogger(__name__)

# Keys that an index is trained on: what product quantisers make use of, or so many for each list.
TRAINING_KEYS = 1 << 16
TRAINING_KEYS_PER_LIST = 64
# FAISS warns, hundreds of times, of fewer points than this for each centroid.
FEW_PER_LIST = 39

# The most lists that `auto` takes: with more, training takes long, and is better done with a graph over
# the lists (IVF65536_HNSW32,SQfp16).
MOST_LISTS = 1 << 14


def recommended(entries: int) -> str:
    """The index that `auto` stands for: about 4 sqrt(entries) lists, and vectors in float16.

    Keys are float16 on disk as a rule, so that little is lost against `Flat`, which takes twice the bytes
    and is slower.
    """
    lists = 2 ** round(math.log2(4 * math.sqrt(max(1, entries))))
    while lists > 1 and lists * FEW_PER_LIST > entries:
        lists //= 2
    return f"IVF{min(lists, MOST_LISTS)},SQfp16" if lists > 1 else "Flat"


def trained_index(store: Datastore, name: str, similarity: str, seed: int) -> Any:
    """An empty index that was trained on a sample of the keys."""
    faiss = load_faiss()
    what = f'index "{name}"'
    with faiss_errors(what):
        try:
            index = faiss.index_factory(store.dim, name, faiss.METRIC_L2)
        except RuntimeError as error:
            raise UserError(_advice(what, str(error), store.dim)) from None
    lists = lists_of(index)
    nlist = lists.nlist if lists is not None else 0
    if nlist > store.entries:
        raise UserError(
            f"{what}: {nlist} lists for {store.entries} entries; take fewer lists, such as "
            f'"{recommended(store.entries)}"'
        )
    if nlist * FEW_PER_LIST > store.entries:
        logger.info(
            f"{what}: {store.entries / nlist:.0f} entries for each list, where {FEW_PER_LIST} or more are "
            f'good; "{recommended(store.entries)}" has fewer lists'
        )
    _spare(index)
    if not index.is_trained:
        size = min(store.entries, max(TRAINING_KEYS, TRAINING_KEYS_PER_LIST * nlist))
        logger.info(f"{what}: training on {size} of {store.entries} keys")
        chosen = np.random.default_rng(seed).choice(store.entries, size, replace=False)
        keys = prepared_keys(store, np.sort(chosen), similarity)
        with (
            faiss_errors(what, "take an index that learns less, such as IVF with SQfp16, or Flat"),
            _quiet_rotations(index),
        ):
            index.train(keys)
    return index


@contextmanager
def _quiet_rotations(index: Any) -> Iterator[None]:
    """Train OPQ without a warning of a small sample for each of its quantisers, in each round."""
    faiss = load_faiss()
    rotations = [part for part in transforms(index)[0] if isinstance(part, faiss.OPQMatrix)]
    # The rotation knows its quantiser by address alone.
    quantizers = [faiss.ProductQuantizer(part.d_out, part.M, 8) for part in rotations]
    for rotation, quantizer in zip(rotations, quantizers, strict=True):
        quantizer.cp.min_points_per_centroid = 1
        rotation.pq = quantizer
    try:
        yield
    finally:
        for rotation in rotations:
            rotation.pq = None


def _spare(index: Any) -> None:
    """Leave out of training what is not needed, and warnings of small samples."""
    for part in parts(index):
        # Takes seconds for each quantiser, and serves a search that is not made here.
        if hasattr(part, "do_polysemous_training"):
            part.do_polysemous_training = False
        for learning in (part, getattr(part, "pq", None)):
            if hasattr(learning, "cp"):
                learning.cp.min_points_per_centroid = 1


def prepared_keys(store: Datastore, entries: np.ndarray, similarity: str) -> np.ndarray:
    """Keys as an index holds them, (m, dim) float32: normalised for cosine similarity."""
    keys = store.gather(entries).astype(np.float32)
    if similarity == "cosine":
        norms = store.norms[entries, None]
        np.divide(keys, norms, out=keys, where=norms > 0)
    return keys


def _advice(what: str, error: str, dim: int) -> str:
    """What to do about a string that FAISS makes no index of."""
    if "multiple of the number of subquantizers" in error:
        sizes = [size for size in range(2, dim // 2 + 1) if dim % size == 0]
        return (
            f"{what}: the number after PQ has to divide the width of the vectors; keys are {dim} wide, so "
            f"take one of {', '.join(map(str, sizes))}, or the width that a transform before it gives"
        )
    if re.search(r"could not parse|not recogni[sz]ed|invalid", error):
        return (
            f"{what}: faiss knows no such index; give a string of its index_factory, such as Flat, HNSW32, "
            '"IVF1024,SQfp16" or "IVF1024,PQ48"'
        )
    return f"{what}: {reason_of(RuntimeError(error))}; give another string of FAISS's index_factory"
