"""The best scores seen so far, for many queries at once."""

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

# Scores that are sorted out at once; bounds what that takes beside the candidates themselves.
SORTED_SCORES = 1 << 20
# Candidates beyond the wanted ones, at least and as a share of these: the last of them is then
# usually too far behind the k-th neighbour for rounding to matter.
SPARE = 64
SPARE_SHARE = 0.25


@dataclass(frozen=True)
class Candidates:
    """Entries that may be the neighbours of q queries.

    Attributes:
        scores: (q, c) float32, their similarities as a matrix product gives them, in no order.
        indices: (q, c) int64, which they are.
        floor: (q,) float32, what no other entry's score exceeds; minus infinity if there is no other.
    """

    scores: Tensor
    indices: Tensor
    floor: Tensor


class RunningCandidates:
    """Keeps the best candidates of each query while scores come in blocks.

    Most scores are below a bar and cost one comparison; what is above it is appended to the query's
    row, and only a full row is sorted out, which raises the bar to the worst that is kept.

    Args:
        queries: number of queries q.
        k: number of neighbours wanted; some more candidates are kept.
        device: where the scores are.
        entries: number of entries whose scores will come.
        sample: (q, s) the scores of a sample of these, to set the first bar by.
    """

    def __init__(
        self,
        queries: int,
        k: int,
        device: torch.device,
        entries: int,
        sample: Tensor | None = None,
    ):
        self.kept = kept_for(k)
        self.bar = torch.full((queries,), -torch.inf, device=device)
        rank = sample_rank(self.kept, entries, sample.shape[1]) if sample is not None else None
        if rank is not None:
            self.bar = kth_best(sample, rank)[:, 0]
        # Scores that a first bar lets through without being sought are not kept: then there is no
        # telling what is below the worst candidate.
        self.first_bar = self.bar
        room = room_for(k, entries, 0 if sample is None else sample.shape[1])
        self.scores = torch.full((queries, room), -torch.inf, device=device)
        self.indices = torch.zeros(queries, room, dtype=torch.int64, device=device)
        self.filled = torch.zeros(queries, dtype=torch.int64, device=device)

    @staticmethod
    def bytes_per_query(k: int, entries: int, sample: int) -> int:
        """What a query needs: its row, and the places of scores that are about to be appended."""
        return room_for(k, entries, sample) * (4 + 8) + kept_for(k) * 4 * 8

    def add(self, start: int, scores: Tensor) -> None:
        """Take in the scores, (q, b), of the entries start to start + b - 1."""
        if self.bar.min() == -torch.inf:
            self._take_all(start, scores)
            return
        above, counts = self._above_bar(scores)
        if self._overflows(counts):
            self._keep_best()
            above, counts = self._above_bar(scores)
        if self._overflows(counts):
            self._keep_best(start, scores)
            return
        # Flat places: a place among a row's is a place among all, less those before.
        width, room = scores.shape[1], self.scores.shape[1]
        rows = torch.arange(len(scores), device=scores.device)
        before = rows * room + self.filled - counts.cumsum(0) + counts
        places = torch.arange(len(above), device=above.device)
        places += before.repeat_interleave(counts)
        columns = above - (rows * width).repeat_interleave(counts)
        self.scores.view(-1).scatter_(0, places, scores.reshape(-1).index_select(0, above))
        self.indices.view(-1).scatter_(0, places, columns + start)
        self.filled += counts

    def best(self, entries: int) -> tuple[Tensor, Tensor]:
        """The best c of the `entries` seen, all of them or more than k, in any order.

        Returns: scores and indices, each (q, c). A row in which the first bar has let through fewer ends
        in scores of minus infinity.
        """
        if entries > self.kept:
            self._keep_best()
        count = min(self.kept, entries)
        return self.scores[:, :count], self.indices[:, :count]

    def _take_all(self, start: int, scores: Tensor) -> None:
        """As `add` does while there is no bar, and rows are equally full."""
        first = int(self.filled[0])
        stop = first + scores.shape[1]
        if stop > self.scores.shape[1]:
            self._keep_best(start, scores)
            return
        self.scores[:, first:stop] = scores
        self.indices[:, first:stop] = torch.arange(scores.shape[1], device=scores.device) + start
        self.filled += scores.shape[1]

    def _above_bar(self, scores: Tensor) -> tuple[Tensor, Tensor]:
        """Flat places of the scores above the bar, by row, and how many each row has."""
        passing = scores > self.bar[:, None]
        if passing.device.type == "cpu":
            # Several times as fast as PyTorch's where few pass.
            above = torch.from_numpy(np.flatnonzero(passing.numpy()))
        else:
            above = passing.view(-1).nonzero()[:, 0]
        return above, torch.bincount(above // scores.shape[1], minlength=len(scores))

    def _overflows(self, counts: Tensor) -> bool:
        return bool((self.filled + counts).max() > self.scores.shape[1])

    def _keep_best(self, start: int = 0, scores: Tensor | None = None) -> None:
        """Reduce each row, with the scores of further entries if given, to its best candidates."""
        room = self.scores.shape[1]
        width = room if scores is None else room + scores.shape[1]
        step = max(1, SORTED_SCORES // width)
        for first in range(0, len(self.scores), step):
            part = slice(first, first + step)
            joined = self.scores[part]
            if scores is not None:
                joined = torch.cat([joined, scores[part]], dim=1)
            order = order_of_best(joined, self.kept)
            best = joined.gather(1, order)
            held = self.indices[part].gather(1, order.clamp(max=room - 1))
            self.indices[part, : self.kept] = torch.where(order < room, held, order - room + start)
            self.scores[part, : self.kept] = best
            self.filled[part] = (best > -torch.inf).sum(dim=1)
            # A row that is not full yet keeps its first bar.
            self.bar[part] = torch.maximum(best.amin(dim=1), self.first_bar[part])
        self.scores[:, self.kept :] = -torch.inf


def sample_rank(kept: int, entries: int, sample: int) -> int | None:
    """The rank in a sample whose score at least `kept` of all entries reach, all but surely.

    Of the `kept` best entries, a binomial number is in the sample; four standard deviations and some
    more are allowed for. None if the sample is too small to tell.
    """
    expected = kept * sample / entries
    rank = math.ceil(expected + 4 * math.sqrt(expected) + 4)
    return rank if rank <= sample // 2 else None


def room_for(k: int, entries: int, sample: int) -> int:
    """Candidates that a query has room for, before they are sorted out."""
    kept = kept_for(k)
    rank = sample_rank(kept, entries, sample) if sample else None
    passing = 0 if rank is None else 2 * rank * entries // sample
    return max(2 * kept, passing)


def kept_for(k: int) -> int:
    """Candidates that are kept of a query in the end."""
    return k + max(SPARE, math.ceil(SPARE_SHARE * k))


def order_of_best(scores: Tensor, count: int) -> Tensor:
    """Columns of the `count` largest scores of each row, in any order."""
    if scores.device.type == "cpu":
        # Several times as fast as topk, which sorts pairs.
        order = np.argpartition(scores.numpy(), scores.shape[1] - count, axis=1)
        return torch.from_numpy(order)[:, scores.shape[1] - count :]
    return scores.topk(count, dim=1, sorted=False).indices


def kth_best(scores: Tensor, k: int) -> Tensor:
    """The k-th largest score of each row: (q, m) -> (q, 1)."""
    if scores.device.type == "cpu":
        place = scores.shape[1] - k
        return torch.from_numpy(np.partition(scores.numpy(), place, axis=1)[:, place, None])
    return scores.topk(k, dim=1).values[:, -1:]
