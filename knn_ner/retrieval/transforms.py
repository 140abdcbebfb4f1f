"""A fixed affine map from hidden states to keys, fitted on a store's keys and kept with them.

The published rule compares hidden states as they are. Their directions are far from equal: a few carry
most of the variance, and with it most of every cosine. Whitening (Kessy, Lewin and Strimmer, Optimal
Whitening and Decorrelation, 2018) makes them equal; fewer directions make a smaller store.
"""

import hashlib
import io
import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from tqdm import tqdm

from knn_ner.errors import UserError

# torch and scipy are imported where they are needed: a command that only looks at a store starts at once.
if TYPE_CHECKING:
    from torch import Tensor

    from knn_ner.retrieval.datastore import Datastore

NONE = "none"
KINDS = ("whiten", "svd")
# Added to the variance of each direction, as a part of the largest: directions in which hidden states
# hardly differ hold noise, which must not count as much as the others.
DAMPING = 1e-2
# Keys taken at once, in float64.
FITTED_KEYS = 8192


@dataclass(frozen=True, eq=False)
class KeyTransform:
    """x -> (x - mean) @ matrix.

    name: what it was fitted as, such as `whiten` or `svd:96`. mean: (d,) float32. matrix: (d, D) float32.
    """

    name: str
    mean: np.ndarray
    matrix: np.ndarray

    def __call__(self, vectors: "Tensor") -> "Tensor":
        """(m, d) float -> (m, D) float32, on the same device."""
        from knn_ner.products import full_precision

        mean, matrix = (part.to(vectors.device) for part in self._parts)
        with full_precision(vectors.device, vectors.shape[1]):
            return (vectors.float() - mean) @ matrix

    def of_array(self, vectors: np.ndarray) -> np.ndarray:
        """The same of an array."""
        import torch

        return self(torch.from_numpy(np.array(vectors))).numpy()

    @property
    def width(self) -> int:
        """D, of the keys."""
        return self.matrix.shape[1]

    @cached_property
    def id(self) -> str:
        """The name with a hash of the numbers: equal for equal maps only."""
        digest = hashlib.sha256()
        for part in (self.mean, self.matrix):
            digest.update(f"{part.shape}".encode())
            digest.update(np.ascontiguousarray(part, "<f4").tobytes())
        return f"{self.name} {digest.hexdigest()}"

    def to_bytes(self) -> bytes:
        """The content of an .npz file."""
        stream = io.BytesIO()
        np.savez(stream, name=np.array(self.name), mean=self.mean, matrix=self.matrix)
        return stream.getvalue()

    @classmethod
    def read(cls, file: Path) -> "KeyTransform":
        """Read what `to_bytes` gave. Raises UserError for anything else."""
        try:
            with np.load(file) as content:
                return cls(str(content["name"]), content["mean"], content["matrix"])
        except FileNotFoundError:
            raise UserError(f"{file}: not found; build the datastore again") from None
        except (ValueError, KeyError, OSError) as error:
            raise UserError(
                f"{file}: not the transform of a datastore ({error}); build the datastore again"
            ) from None

    @cached_property
    def _parts(self) -> tuple["Tensor", "Tensor"]:
        import torch

        return torch.from_numpy(self.mean), torch.from_numpy(self.matrix)


@dataclass(frozen=True)
class KeyRecipe:
    """How a tagger's pass becomes keys, and so queries: a property of the store, never of its reader.

    layer: which vectors are taken (see `model.layers`). transform: what they go through, if anything.
    """

    layer: str = "last"
    transform: KeyTransform | None = None


PUBLISHED = KeyRecipe()


def parse_transform(name: str, width: int) -> tuple[str, int]:
    """`whiten`, `whiten:96` or `svd:96` for keys `width` wide -> the kind, and how wide it makes them.

    Raises `UserError` for anything else.
    """
    kind, colon, dims = name.partition(":")
    if kind not in KINDS or (colon and not re.fullmatch(r"[1-9]\d*", dims)):
        raise UserError(
            f"--key_transform {name}: expected none, whiten, whiten:D or svd:D with D dimensions"
        )
    if kind != "whiten" and not colon:
        raise UserError(
            f"--key_transform {kind}: expected {kind}:D with D dimensions to keep, as in {kind}:96"
        )
    if colon and int(dims) > width:
        raise UserError(f"--key_transform {name}: keys are {width} wide; keep no more than that")
    return kind, int(dims) if colon else width


def fit_transform(store: "Datastore", name: str) -> KeyTransform:
    """Fit a transform on the keys of a store, in two passes over them, in float64.

    With m the mean, and V and s the eigenvectors and eigenvalues of the covariance, the largest D first,
    `whiten` is x -> (x - m) V / sqrt(s + DAMPING * s[0]): after it, but for the damping, all directions
    have the same variance. Which basis whitened keys have changes neither their cosines nor their
    distances. `svd:D` is x -> x V, with V of the second moment: it keeps cosines nearly what they are
    (without the mean, which principal components leave out, they are others).

    All are scaled, which no cosine sees, so that two keys are 1 apart on average in squared distance:
    the temperatures that suit one store then suit another.

    Raises `UserError` for a name that is none, a store whose keys are transformed already, and one of
    fewer than two entries.
    """
    from scipy.linalg import eigh

    kind, width = parse_transform(name, store.dim)
    if store.transform is not None:
        raise UserError(
            f"{store.path}: its keys are transformed already ({store.transform.name}); build it anew"
        )
    if store.entries < 2:
        raise UserError(
            f"{store.path}: {store.entries} entries, expected two at least to fit {name}"
        )
    mean = np.zeros(store.dim)
    centre = kind != "svd"
    scatter = np.zeros((store.dim, store.dim))
    with tqdm(
        total=2 * store.entries, unit="entry", unit_scale=True, desc="fit", delay=1
    ) as progress:
        for _, keys in store.blocks(FITTED_KEYS):
            mean += keys.sum(axis=0, dtype=np.float64)
            progress.update(len(keys))
        mean /= store.entries
        for _, keys in store.blocks(FITTED_KEYS):
            centred = keys - mean * centre
            scatter += centred.T @ centred
            progress.update(len(keys))
    values, vectors = eigh(scatter / store.entries)
    values, vectors = values[::-1][:width].clip(min=0), vectors[:, ::-1][:, :width]
    if not values[0] > 0:
        raise UserError(f"{store.path}: all keys are equal, so that no transform fits them")
    if kind == "whiten":
        factors = 1 / (values + DAMPING * values[0])
        values, vectors = values * factors, vectors * np.sqrt(factors)
    # Two keys are twice as far apart, in squared distance, as one is from the mean.
    spread = values.sum() if centre else values.sum() - np.square(mean @ vectors).sum()
    vectors = vectors / np.sqrt(2 * spread)
    mean = (mean * centre).astype(np.float32)
    return KeyTransform(name, mean, np.ascontiguousarray(vectors, np.float32))
