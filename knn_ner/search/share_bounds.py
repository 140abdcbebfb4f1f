"""What each label's share of a vote is at least and at most, when similarities are known up to an error."""

import torch
from torch import Tensor

from knn_ner.search.candidates import Candidates, kth_best
from knn_ner.search.vote import counted, vote_weights
from knn_ner.settings import check_temperature


def share_bounds(
    found: Candidates,
    labels: Tensor,
    num_labels: int,
    k: int,
    temperature: float,
    error: Tensor,
    counts: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Bounds of `vote.vote` of the k nearest, whatever their similarities are within the error.

    If no score is off by more than e, the k-th best similarity is at most e from the k-th best score s.
    So what scores above s + 2e is among the k nearest, what scores below s - 2e is not, and a neighbour's
    part in the vote is off by a factor of at most exp(e / T).

    Args:
        found: candidates of q queries, c for each, at least k unless there are no others.
        labels: (q, c) int64, their label ids.
        num_labels: number of labels L.
        k: how many entries vote.
        temperature: T, above 0.
        error: (q,) how far a score is from the similarity, at most.
        counts: (q, c) float, how many entries each candidate stands for; one, if not given.

    Returns: the least and the largest shares, (q, L) float32 each; 0 and 1 where nothing is known. Raises
    UserError for a temperature that is not above 0.
    """
    check_temperature(temperature)
    scores, error = found.scores, error[:, None]
    kth = kth_best(scores, k) if counts is None else _kth_of_counted(scores, counts, k)
    certain = scores > kth + 2 * error
    doubtful = (scores >= kth - 2 * error) & ~certain
    weights = vote_weights(scores - scores.amax(dim=1, keepdim=True), temperature)
    if counts is not None:
        left = k - (counts * certain).sum(dim=1, keepdim=True)
        weights = weights * torch.where(certain, counts, counts.minimum(left))
    # Where there is but one for the last place, it is the one.
    certain |= doubtful & (doubtful.sum(dim=1, keepdim=True) == 1)
    nothing = weights.new_zeros(len(weights), num_labels)
    least = nothing.scatter_add(1, labels, weights * certain)
    most = nothing.scatter_add(1, labels, weights * (certain | doubtful))
    factor = (error / temperature).exp()
    least, most = least / factor, most * factor
    # 0 / 0: what all have is for one label, and nothing is known of how much that is.
    least_share = (least / (least + _others(most))).nan_to_num(1)
    most_share = (most / (most + _others(least))).nan_to_num(0)
    # An entry that is no candidate might take part.
    known = found.floor[:, None] < kth - 2 * error
    return least_share.where(known, 0), most_share.where(known, 1)


def _others(mass: Tensor) -> Tensor:
    """What all labels but each have together, (q, L) -> (q, L)."""
    return (mass.sum(dim=1, keepdim=True) - mass).clamp(min=0)


def _kth_of_counted(scores: Tensor, counts: Tensor, k: int) -> Tensor:
    """The score at which candidates, best first, come to k entries: (q, c) -> (q, 1)."""
    scores, order = scores.sort(dim=1, descending=True)
    voting = (counted(counts.gather(1, order), k) > 0).sum(dim=1, keepdim=True)
    return scores.gather(1, voting - 1)
