"""What "similar" means: one definition, to the last bit, for every index, batch size and device.

A matrix product gives the same pair of vectors slightly different values in matrices of different
shapes. It is good for finding candidates; the similarity that counts, and that orders neighbours,
is `exact_similarity`.
"""

import math

import torch
from torch import Tensor

from knn_ner.utils.errors import UserError

SIMILARITIES = ("cosine", "l2")

FLOAT32_ROUNDING = 2.0**-24


def check_similarity(similarity: str) -> None:
    """Raise UserError unless `similarity` is one of SIMILARITIES."""
    if similarity not in SIMILARITIES:
        raise UserError(f"similarity {similarity!r}: expected one of {', '.join(SIMILARITIES)}")


def fold_sum(values: Tensor) -> Tensor:
    """Sum over the last axis, half onto half: (m, d) -> (m,). Overwrites `values`.

    Each step is elementwise, so a row's sum does not depend on the other rows, the threads or the
    device; the rounding error grows with log2(d) only.
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
    """Euclidean norms, summed by `fold_sum`: (m, d) -> (m,)."""
    return fold_sum(vectors.square()).sqrt()


def exact_similarity(queries: Tensor, keys: Tensor, key_norms: Tensor, similarity: str) -> Tensor:
    """Similarity of each query to each of its own keys. Overwrites `keys`.

    Args:
        queries: (q, d) float32.
        keys: (q, c, d) float32, c keys for each query.
        key_norms: (q, c) float32, the store's norms of these keys.
        similarity: "cosine" (0 where a vector is zero) or "l2" (minus the squared Euclidean
            distance).

    Returns: (q, c) float32. Equal keys get equal values.
    """
    rows = keys.view(-1, keys.shape[-1])
    if similarity == "l2":
        keys -= queries[:, None]
        return -fold_sum(rows.square_()).view(key_norms.shape)
    keys *= queries[:, None]
    products = fold_sum(rows).view(key_norms.shape)
    norms = norm(queries)[:, None] * key_norms
    return torch.where(norms > 0, products / norms, torch.zeros_like(products))


def product_error(
    query_norms: Tensor, largest_key_norm: float, dim: int, similarity: str
) -> Tensor:
    """How far a matrix product in float32 can be from `exact_similarity`, at most: (q,) -> (q,).

    By the standard bound for a sum of d products in any order (Higham, Accuracy and Stability of
    Numerical Algorithms, section 3.1), d * 2^-24 * |q| |k|; rounding in the norms, in the scaling
    and in `fold_sum` adds at most a few dozen units. For "l2" the error is relative to the terms
    that cancel, hence (|q| + |k|)^2.
    """
    units = (dim + 4 * math.ceil(math.log2(dim + 1)) + 32) * FLOAT32_ROUNDING
    if similarity == "l2":
        return units * (query_norms + largest_key_norm).square()
    return torch.full_like(query_norms, units)
