"""The best scores of many queries, kept while scores come in blocks."""

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

# Scores that are partitioned at once. This bounds the memory beside the candidates themselves.
PARTITIONED_SCORES = 1 << 20
# Candidates kept beyond k: at least so many, and at least this share of k. The last candidate then usually lies too
# far behind the k-th neighbour for rounding to matter.
SPARE_CANDIDATES = 64
SPARE_SHARE = 0.25


@dataclass(frozen=True)
class Candidates:
    """Entries that may be the neighbours of q queries.

    Attributes:
        scores: (q, c) float32, similarities by matrix product, in no order.
        indices: (q, c) int64, the entries.
        floor: (q,) float32, an upper bound of the scores of all other entries; minus infinity if there are none.
    """

    scores: Tensor
    indices: Tensor
    floor: Tensor


class RunningCandidates:
    """Keeps the best candidates of each query while scores come in blocks.

    Most scores are below a bar and cost one comparison. Scores above it are appended to the query's row. When a row is
    full, its best candidates stay, and the bar rises to the worst of them.

    Args:
        queries: number of queries q.
        k: number of neighbours wanted; some more candidates are kept.
        device: device of the scores.
        entries: number of entries whose scores will come.
        sample: (q, s) scores of a sample of these entries, which set the first bar.
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
        sampled = 0 if sample is None else sample.shape[1]
        rank = _sample_rank(self.kept, entries, sampled)
        if sample is not None and rank is not None:
            self.bar = kth_best(sample, rank)[:, 0]
        size = _row_size(k, entries, sampled)
        self.scores = torch.full((queries, size), -torch.inf, device=device)
        self.indices = torch.zeros(queries, size, dtype=torch.int64, device=device)
        self.filled = torch.zeros(queries, dtype=torch.int64, device=device)

    @staticmethod
    def bytes_per_query(k: int, entries: int, sample: int) -> int:
        """Memory for a query: its row, and the positions of scores that are about to be appended."""
        return _row_size(k, entries, sample) * (4 + 8) + kept_for(k) * 4 * 8

    def add(self, start: int, scores: Tensor) -> None:
        """Add the scores, (q, b), of the entries start to start + b - 1."""
        if self.bar.min() == -torch.inf:
            self._add_all(start, scores)
            return
        above, counts = self._above_bar(scores)
        if self._overflows(counts):
            self._keep_best()
            above, counts = self._above_bar(scores)
        if self._overflows(counts):
            self._keep_best(start, scores)
            return
        # Flat positions in the rows of candidates.
        width, size = scores.shape[1], self.scores.shape[1]
        rows = torch.arange(len(scores), device=scores.device)
        before = rows * size + self.filled - counts.cumsum(0) + counts
        positions = torch.arange(len(above), device=above.device)
        positions += before.repeat_interleave(counts)
        columns = above - (rows * width).repeat_interleave(counts)
        self.scores.view(-1).scatter_(0, positions, scores.reshape(-1).index_select(0, above))
        self.indices.view(-1).scatter_(0, positions, columns + start)
        self.filled += counts

    def best(self, entries: int) -> tuple[Tensor, Tensor]:
        """The best c of the `entries` seen, all of them or more than k, in any order.

        Returns:
            Scores and indices, each (q, c). Where fewer scores passed the first bar, a row ends in minus infinity.
        """
        if entries > self.kept:
            self._keep_best()
        count = min(self.kept, entries)
        return self.scores[:, :count], self.indices[:, :count]

    def _add_all(self, start: int, scores: Tensor) -> None:
        """`add` without a bar, when all rows hold the same number of scores."""
        first = int(self.filled[0])
        stop = first + scores.shape[1]
        if stop > self.scores.shape[1]:
            self._keep_best(start, scores)
            return
        self.scores[:, first:stop] = scores
        self.indices[:, first:stop] = torch.arange(scores.shape[1], device=scores.device) + start
        self.filled += scores.shape[1]

    def _above_bar(self, scores: Tensor) -> tuple[Tensor, Tensor]:
        """Flat positions of the scores above the bar, row by row, and their number in each row."""
        passing = scores > self.bar[:, None]
        if passing.device.type == "cpu":
            # Several times as fast as PyTorch where few scores pass.
            above = torch.from_numpy(np.flatnonzero(passing.numpy()))
        else:
            above = passing.view(-1).nonzero()[:, 0]
        return above, torch.bincount(above // scores.shape[1], minlength=len(scores))

    def _overflows(self, counts: Tensor) -> bool:
        return bool((self.filled + counts).max() > self.scores.shape[1])

    def _keep_best(self, start: int = 0, scores: Tensor | None = None) -> None:
        """Reduce each row, together with further scores if given, to its best candidates."""
        size = self.scores.shape[1]
        width = size if scores is None else size + scores.shape[1]
        step = max(1, PARTITIONED_SCORES // width)
        for first in range(0, len(self.scores), step):
            part = slice(first, first + step)
            joined = self.scores[part]
            if scores is not None:
                joined = torch.cat([joined, scores[part]], dim=1)
            order = order_of_best(joined, self.kept)
            best = joined.gather(1, order)
            held = self.indices[part].gather(1, order.clamp(max=size - 1))
            self.indices[part, : self.kept] = torch.where(order < size, held, order - size + start)
            self.scores[part, : self.kept] = best
            self.filled[part] = (best > -torch.inf).sum(dim=1)
            # A row with fewer candidates keeps its bar.
            self.bar[part] = torch.maximum(best.amin(dim=1), self.bar[part])
        self.scores[:, self.kept :] = -torch.inf


def _sample_rank(kept: int, entries: int, sample: int) -> int | None:
    """The rank in a sample whose score at least `kept` of all entries almost certainly reach.

    The number of the `kept` best entries in the sample is binomial. The rank lies more than four standard deviations
    above its mean. It is None if the sample is too small.
    """
    expected = kept * sample / entries
    rank = math.ceil(expected + 4 * math.sqrt(expected) + 4)
    return rank if rank <= sample // 2 else None


def _row_size(k: int, entries: int, sample: int) -> int:
    rank = _sample_rank(kept_for(k), entries, sample)
    passing = 0 if rank is None else 2 * rank * entries // sample
    return max(2 * kept_for(k), passing)


def kept_for(k: int) -> int:
    """The number of candidates that a full row is reduced to."""
    return k + max(SPARE_CANDIDATES, math.ceil(SPARE_SHARE * k))


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
        position = scores.shape[1] - k
        return torch.from_numpy(np.partition(scores.numpy(), position, axis=1)[:, position, None])
    return scores.topk(k, dim=1).values[:, -1:]
