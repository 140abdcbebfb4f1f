"""What each neighbour had in a decision: its share of the vote, and what the vote is without it."""

from dataclasses import dataclass

import torch
from torch import Tensor

from knn_ner.search.interpolation import LabelAlignment, interpolate
from knn_ner.search.searcher import Searcher
from knn_ner.search.vote import counted, vote, vote_weights
from knn_ner.settings import VoteSettings


@dataclass
class Weighed:
    """The neighbours of q tokens, best first, and what they had in the mix.

    entries: (q, m) int64, of the datastore. similarities: (q, m) float32.
    shares: (q, n) float64, of the first n <= m, as a part of the whole vote.
    vote: (q, L) P_knn.
    without: (q, L) the mix if those n were not in the datastore, so that with a finite k the next ones
        move up; the tagger alone if no entry is left.
    """

    entries: Tensor
    similarities: Tensor
    shares: Tensor
    vote: Tensor
    without: Tensor


def weigh(
    searcher: Searcher,
    alignment: LabelAlignment,
    hidden: Tensor,
    base: Tensor,
    settings: VoteSettings,
    shown: int,
    around: int = 0,
) -> Weighed:
    """Search for q tokens and weigh their first `shown` neighbours, or the k that vote if these are fewer.

    hidden: (q, dim). base: (q, L), the tagger's distribution over the labels of `alignment`.
    around: how many neighbours to return at least, whether they vote or not.

    Raises `UserError` as `Searcher.search` does.
    """
    temperature, k = settings.temperature, settings.k
    shown = min(shown, searcher.store.entries, k if k > 0 else shown)
    found = searcher.search(hidden, max(k + shown if k > 0 else shown, around))
    labels = alignment.vote_labels(searcher.neighbour_labels(found.indices))
    nothing_left = searcher.store.entries <= shown
    counts = searcher.neighbour_weights(found.indices)
    if counts is None:
        counts = torch.ones_like(found.similarities)
    if k > 0:
        behind = found.similarities - found.similarities[:, :1]
        weights = (vote_weights(behind, temperature) * counted(counts, k)).double()
        shares = (weights / weights.sum(1, keepdim=True))[:, :shown]
        how = base.shape[1], temperature
        votes = vote(found.similarities, labels, *how, counts, k)
        if not nothing_left:
            later = slice(shown, None)
            votes_without = vote(
                found.similarities[:, later], labels[:, later], *how, counts[:, later], k
            )
    else:
        whole = searcher.log_weights(hidden, temperature)
        exponents = found.similarities[:, :shown].double() / temperature
        shares = (exponents - whole.logsumexp(1, keepdim=True)).exp() * counts[:, :shown]
        votes = alignment.votes(whole.softmax(1).float())
        if not nothing_left:
            rest = searcher.log_weights(hidden, temperature, found.indices[:, :shown])
            votes_without = alignment.votes(rest.softmax(1).float())
    base = base.to(votes.device)
    return Weighed(
        found.indices[:, : max(shown, around)].cpu(),
        found.similarities[:, : max(shown, around)].cpu(),
        shares.cpu(),
        votes.cpu(),
        (base if nothing_left else interpolate(base, votes_without, settings.knn_weight)).cpu(),
    )
