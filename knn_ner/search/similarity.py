"""The similarity of two vectors: equal to the last bit for every index, batch size and device.

A matrix product rounds the similarity of a pair of vectors differently in matrices of different shapes. It is good
enough to find candidates. Neighbours are sorted and weighted by `exact_similarity`.
"""

import math

import torch
from torch import Tensor

from knn_ner.utils.errors import UserError

SIMILARITIES = ("cosine", "l2")

FLOAT32_ROUNDING = 2.0**-24
SMALLEST_NORMAL = 2.0**-126
# The norms at which sums of squares are finite, normal float32 numbers. The cosine of other vectors has no bound of
# rounding.
NORM_RANGE = (1e-15, 1e15)


def check_similarity(similarity: str) -> None:
    """Raise `UserError` unless `similarity` is one of SIMILARITIES."""
    if similarity not in SIMILARITIES:
        raise UserError(f"similarity {similarity!r}: expected one of {', '.join(SIMILARITIES)}")


def _fold_sum(values: Tensor) -> Tensor:
    """Sum over the last axis by adding one half to the other: (m, d) -> (m,). Overwrites `values`.

    Each step is elementwise, so the sum of a row does not depend on the other rows, the threads or the device. The
    rounding error grows with log2(d) only.
    """
    width = values.shape[-1]
    while width > 1:
        half = width // 2
        values[:, :half] += values[:, half : 2 * half]
        if width % 2:
            values[:, 0] += values[:, width - 1]
        width = half
    return values[:, 0]


def norm(vectors: Tensor) -> Tensor:
    """Euclidean norms: (m, d) -> (m,)."""
    return _fold_sum(vectors.square()).sqrt()


def has_bounded_rounding(norms: Tensor) -> Tensor:
    """Whether the cosine of vectors with these norms has a bounded rounding error: bool, same shape."""
    lowest, highest = NORM_RANGE
    return (norms == 0) | ((norms >= lowest) & (norms <= highest))


def exact_similarity(queries: Tensor, keys: Tensor, key_norms: Tensor, similarity: str) -> Tensor:
    """Similarity of each query to its own keys. Overwrites `keys`.

    Args:
        queries: (q, d) float32.
        keys: (q, c, d) float32, c keys for each query.
        key_norms: (q, c) float32, the store's norms of these keys.
        similarity: "cosine" (0 where a vector is zero) or "l2" (minus the squared Euclidean distance).

    Returns:
        (q, c) float32. Equal keys get equal values.
    """
    rows = keys.view(-1, keys.shape[-1])
    if similarity == "l2":
        keys -= queries[:, None]
        return -_fold_sum(rows.square_()).view(key_norms.shape)
    keys *= queries[:, None]
    products = _fold_sum(rows).view(key_norms.shape)
    norms = norm(queries)[:, None] * key_norms
    return torch.where(norms > 0, products / norms, torch.zeros_like(products))


def rounding_error(dim: int) -> float:
    """Largest rounding error of `exact_similarity`: absolute for "cosine", relative for "l2"."""
    return (4 * math.ceil(math.log2(dim + 1)) + 32) * FLOAT32_ROUNDING


def product_error(
    query_norms: Tensor, largest_key_norm: float, dim: int, similarity: str
) -> Tensor:
    """Largest difference of a similarity by matrix product in float32 from `exact_similarity`: (q,) -> (q,).

    A sum of d products in any order is off by at most d * 2^-24 * |q| |k| (Higham, Accuracy and Stability of Numerical
    Algorithms, section 3.1). Norms, scaling and the exact similarity add `rounding_error`. For "l2" the error is
    relative to the terms that cancel, hence (|q| + |k|)^2. It is infinite where it has no bound.
    """
    units = dim * FLOAT32_ROUNDING + rounding_error(dim)
    if similarity == "l2":
        return units * (query_norms + largest_key_norm).square() + dim * SMALLEST_NORMAL
    return torch.full_like(query_norms, units).where(has_bounded_rounding(query_norms), torch.inf)
