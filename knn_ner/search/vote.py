"""The vote of the neighbours: a distribution over labels (arXiv 2203.17103, section 3.2)."""

from collections.abc import Sequence

import torch
from torch import Tensor

from knn_ner.search.candidates import Candidates, kth_best
from knn_ner.settings import check_temperature

# The largest weight is 1. Weights below exp(-80), about 1e-35, would add nothing to it, but leave the range of normal
# float32 numbers and take ten times as long.
LOWEST_EXPONENT = -80
# Differences of float32 similarities are 0 or between 1e-45 and 1e39: outside of this range of temperatures, a vote no
# longer depends on the temperature.
TEMPERATURE_RANGE = (1e-50, 1e50)
# Lower temperatures are subnormal or 0 in float32.
LOWEST_FLOAT32_TEMPERATURE = 1e-37


def limited_temperature(temperature: float) -> float:
    """The temperature in TEMPERATURE_RANGE that gives the same vote; its quotients are finite in float64.

    Raises:
        UserError: if the temperature is not above 0.
    """
    check_temperature(temperature)
    lowest, highest = TEMPERATURE_RANGE
    return min(max(temperature, lowest), highest)


def vote_weights(behind: Tensor, temperature: float) -> Tensor:
    """exp(behind / T), but at least exp(-80).

    Args:
        behind: similarities less the largest one, so at most 0; any shape.
        temperature: T, above 0.

    Raises:
        UserError: if the temperature is not above 0.
    """
    temperature = limited_temperature(temperature)
    precise = behind.double() if temperature < LOWEST_FLOAT32_TEMPERATURE else behind
    return (precise / temperature).clamp_(min=LOWEST_EXPONENT).exp_().to(behind.dtype)


def counted(counts: Tensor, k: float) -> Tensor:
    """How often each neighbour votes if k votes are cast, nearest first: (q, m) -> (q, m).

    Each votes as often as it counts. The one that would exceed k casts the remaining votes.
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

    As T approaches 0, the neighbours with the highest similarity share the vote.

    Args:
        similarities: (q, k) float, best first.
        labels: (q, k) int64, the neighbours' label ids.
        num_labels: number of labels L.
        temperature: T, above 0.
        counts: (q, k) float, how many entries each neighbour stands for; one if not given.
        k: how many entries vote, if not all neighbours.

    Returns:
        (q, L) float32, rows that sum to 1.

    Raises:
        UserError: if the temperature is not above 0.
    """
    votes = torch.inf if k is None else k
    if k is None and counts is None:
        votes = similarities.shape[1]
    return vote_prefixes(similarities, labels, num_labels, temperature, [votes], counts)[0]


def vote_prefixes(
    similarities: Tensor,
    labels: Tensor,
    num_labels: int,
    temperature: float,
    ks: Sequence[float],
    counts: Tensor | None = None,
) -> Tensor:
    """`vote` for each k of `ks`, ascending, in one pass over the neighbours: (len(ks), q, L) float32.

    A larger k than there are votes means all votes.
    """
    weights = vote_weights(similarities - similarities[:, :1], temperature)
    mass = weights.new_zeros(len(weights), num_labels)
    votes = []
    start = 0
    cast = torch.zeros_like(weights)
    for k in ks:
        if counts is None:
            part = slice(start, int(k))
            mass.scatter_add_(1, labels[:, part], weights[:, part])
            start = int(k)
        else:
            before, cast = cast, counted(counts, k)
            mass.scatter_add_(1, labels, weights * (cast - before))
        votes.append(mass / mass.sum(dim=1, keepdim=True))
    return torch.stack(votes)


def vote_bounds(
    found: Candidates,
    labels: Tensor,
    num_labels: int,
    k: int,
    temperature: float,
    error: Tensor,
    counts: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Bounds of the `vote` of the k nearest for all similarities that differ from the scores by at most the error.

    The k-th best similarity differs from the k-th best score s by at most the error e. So a candidate with a score
    above s + 2e is among the k nearest, and one with a score below s - 2e is not. The odds of a label change by a
    factor of at most exp(2e / T). They are compared as logarithms, as this factor has no limit.

    Args:
        found: candidates of q queries, c for each, at least k unless there are no others.
        labels: (q, c) int64, their label ids.
        num_labels: number of labels L.
        k: how many entries vote.
        temperature: T, above 0.
        error: (q,) largest difference of a score from the similarity.
        counts: (q, c) float, how many entries each candidate stands for; one if not given.

    Returns:
        The lowest and the highest share of each label, (q, L) float64 each; 0 and 1 where nothing is known.
    """
    temperature = limited_temperature(temperature)
    scores, error = found.scores, error[:, None]
    kth = kth_best(scores, k) if counts is None else _kth_of_counted(scores, counts, k)
    certain = scores > kth + 2 * error
    possible = scores >= kth - 2 * error
    doubtful = possible & ~certain
    # Each label's weights are relative to its own best score, so that they do not vanish.
    best = torch.full((len(scores), num_labels), -torch.inf, device=scores.device).scatter_reduce(
        1, labels, scores.masked_fill(~possible, -torch.inf), "amax"
    )
    behind = (scores - best.gather(1, labels)).masked_fill(~possible, 0)
    weights = vote_weights(behind, temperature).double()
    if counts is not None:
        left = k - (counts * certain).sum(dim=1, keepdim=True)
        weights = weights * torch.where(certain, counts, counts.minimum(left))
    # A single doubtful candidate takes the last place.
    certain |= doubtful & (doubtful.sum(dim=1, keepdim=True) == 1)
    nothing = weights.new_zeros(best.shape)
    offset = (best - scores.amax(dim=1, keepdim=True)).double() / temperature
    lowest = nothing.scatter_add(1, labels, weights * certain).log() + offset
    highest = nothing.scatter_add(1, labels, weights * possible).log() + offset
    factor = 2 * error.double() / temperature
    others = _log_of_others(highest)
    least = (lowest - others - factor).sigmoid().masked_fill(others == -torch.inf, 1)
    most = (highest - _log_of_others(lowest) + factor).sigmoid()
    most = most.masked_fill(highest == -torch.inf, 0)
    # An entry that is no candidate may be among the k nearest.
    known = found.floor[:, None] < kth - 2 * error
    return least.where(known, 0), most.where(known, 1)


def _log_of_others(logs: Tensor) -> Tensor:
    """log of the sum of exp(logs) over all other labels, (q, L) -> (q, L)."""
    # Sums from both ends: a difference from the total would lose the small ones.
    nothing = logs.new_full((len(logs), 1), -torch.inf)
    before = torch.cat([nothing, logs[:, :-1].logcumsumexp(dim=1)], dim=1)
    after = torch.cat([logs[:, 1:].flip(1).logcumsumexp(dim=1).flip(1), nothing], dim=1)
    return torch.logaddexp(before, after)


def _kth_of_counted(scores: Tensor, counts: Tensor, k: int) -> Tensor:
    """The score at which candidates, best first, reach k entries: (q, c) -> (q, 1)."""
    scores, order = scores.sort(dim=1, descending=True)
    voting = (counted(counts.gather(1, order), k) > 0).sum(dim=1, keepdim=True)
    return scores.gather(1, voting - 1)
