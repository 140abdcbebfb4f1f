"""A fixed affine map from hidden states to keys, fitted on the keys of a datastore and stored with them.

The paper compares hidden states without a transform. A few directions have most of the variance of hidden states, and
dominate every cosine. Whitening (Kessy, Lewin and Strimmer, Optimal Whitening and Decorrelation, 2018) makes the
variances equal; fewer directions make a smaller datastore.
"""

import hashlib
import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING
from zipfile import BadZipFile

import numpy as np

from knn_ner.utils.errors import UserError
from knn_ner.utils.files import atomic_writer

# torch is imported where it is needed: commands that only read a datastore start at once.
if TYPE_CHECKING:
    from torch import Tensor

NONE = "none"
KINDS = ("whiten", "svd")


@dataclass(frozen=True, eq=False)
class KeyTransform:
    """The map x -> (x - mean) @ matrix.

    Attributes:
        name: what was fitted, such as `whiten` or `svd:96`.
        mean: (d,) float32.
        matrix: (d, D) float32.
    """

    name: str
    mean: np.ndarray
    matrix: np.ndarray

    def __call__(self, vectors: "Tensor") -> "Tensor":
        """Transform vectors: (m, d) float -> (m, D) float32, on the same device."""
        from knn_ner.utils.device import full_precision

        mean, matrix = (part.to(vectors.device) for part in self._tensors)
        with full_precision(vectors.device):
            return (vectors.float() - mean) @ matrix

    def of_array(self, vectors: np.ndarray) -> np.ndarray:
        """Transform vectors: (m, d) float -> (m, D) float32."""
        import torch

        return self(torch.from_numpy(np.array(vectors))).numpy()

    @property
    def width(self) -> int:
        """D, the dimensions of a key."""
        return self.matrix.shape[1]

    @cached_property
    def id(self) -> str:
        """The name and a hash of the numbers."""
        digest = hashlib.sha256()
        for part in (self.mean, self.matrix):
            digest.update(f"{part.shape}".encode())
            digest.update(np.ascontiguousarray(part, "<f4").tobytes())
        return f"{self.name} {digest.hexdigest()}"

    def write(self, file: Path) -> None:
        """Write the transform to an .npz file."""
        with atomic_writer(file, binary=True, fsync=True) as stream:
            np.savez(stream, name=np.array(self.name), mean=self.mean, matrix=self.matrix)

    @classmethod
    def read(cls, file: Path) -> "KeyTransform":
        """Read a file of `write`; raises UserError for any other file."""
        try:
            with np.load(file) as content:
                return cls(str(content["name"]), content["mean"], content["matrix"])
        except (ValueError, KeyError, OSError, BadZipFile) as error:
            raise UserError(
                f"{file}: not the transform of a datastore ({error}); build the datastore again"
            ) from None

    @cached_property
    def _tensors(self) -> tuple["Tensor", "Tensor"]:
        import torch

        return torch.from_numpy(self.mean), torch.from_numpy(self.matrix)


@dataclass(frozen=True)
class KeyRecipe:
    """How hidden states become keys and queries; the datastore determines it.

    Attributes:
        layer: name of the hidden state (`model.key_layers`).
        transform: the transform of the hidden state, if any.
    """

    layer: str = "last"
    transform: KeyTransform | None = None


PUBLISHED = KeyRecipe()


def parse_transform(name: str, width: int) -> tuple[str, int]:
    """Parse the name of a transform: `whiten`, `whiten:D` or `svd:D`.

    Args:
        name: the name.
        width: dimensions of the keys before the transform.

    Returns:
        The kind, and the dimensions of the keys after the transform.

    Raises:
        UserError: for any other name, or more dimensions than the keys have.
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
