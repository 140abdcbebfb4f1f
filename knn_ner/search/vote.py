"""From neighbours to a distribution over labels (arXiv 2203.17103, section 3.2)."""

from collections.abc import Sequence

import torch
from torch import Tensor

from knn_ner.settings import check_temperature


def vote_weights(behind: Tensor, temperature: float) -> Tensor:
    """exp(behind / T) for similarities less the largest one, `behind` <= 0, of any shape.

    The smallest weight is exp(-80), about 1e-35: nothing beside the largest, which is 1, but below
    it exponentials leave the range of float32 and take ten times as long.
    """
    return (behind / temperature).clamp_(min=-80).exp_()


def counted(counts: Tensor, k: float) -> Tensor:
    """How often each neighbour votes if k votes are cast, nearest first: (q, m) -> (q, m).

    counts: how many entries each stands for. The neighbour at which they come to more than k votes as
    often as is left.
    """
    before = counts.cumsum(dim=1) - counts
    return (k - before).clamp(min=0).minimum(counts)


def vote(
    similarities: Tensor,
    labels: Tensor,
    num_labels: int,
    temperature: float,
    counts: Tensor | None = None,
    k: int | None = None,
) -> Tensor:
    """P_knn(y|x), proportional to the sum of exp(similarity / T) over the neighbours with label y.

    Args:
        similarities: (q, k) float, best first.
        labels: (q, k) int64, the neighbours' label ids.
        num_labels: number of labels L.
        temperature: T, above 0.
        counts: (q, k) float, how many entries each neighbour stands for; one, if not given.
        k: how many entries vote, if not all neighbours.

    Returns: (q, L) float32, rows that sum to 1. Raises UserError for a temperature that is not
    above 0.
    """
    if k is None:
        k = similarities.shape[1] if counts is None else torch.inf
    return vote_prefixes(similarities, labels, num_labels, temperature, [k], counts)[0]


def vote_prefixes(
    similarities: Tensor,
    labels: Tensor,
    num_labels: int,
    temperature: float,
    ks: Sequence[float],
    counts: Tensor | None = None,
) -> Tensor:
    """`vote` of the best k neighbours for each k of `ks`, in one pass over the neighbours.

    Args: as in `vote`; `ks` ascending, each at least 1, beyond the number of neighbours (or of what
    they stand for) as much as that number.

    Returns: (len(ks), q, L) float32.
    """
    check_temperature(temperature)
    weights = vote_weights(similarities - similarities[:, :1], temperature)
    mass = weights.new_zeros(len(weights), num_labels)
    votes = []
    start = 0
    cast = None if counts is None else torch.zeros_like(counts)
    for k in ks:
        if counts is None:
            mass.scatter_add_(1, labels[:, start:k], weights[:, start:k])
            start = k
        else:
            before, cast = cast, counted(counts, k)
            mass.scatter_add_(1, labels, weights * (cast - before))
        votes.append(mass / mass.sum(dim=1, keepdim=True))
    return torch.stack(votes)
