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

from knn_ner.utils.errors import UserError

# torch and scipy are imported where they are needed: a command that only looks at a store starts at once.
if TYPE_CHECKING:
    from torch import Tensor

NONE = "none"
KINDS = ("whiten", "svd")


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
        from knn_ner.utils.device import full_precision

        mean, matrix = (part.to(vectors.device) for part in self._parts)
        with full_precision(vectors.device):
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
