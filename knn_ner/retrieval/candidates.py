"""The best scores seen so far, for many queries at once."""

import numpy as np
import torch
from torch import Tensor

# Scores that are sorted out at once; bounds what that takes beside the candidates themselves.
SORTED_SCORES = 1 << 20


class RunningCandidates:
    """Keeps the best candidates of each query while scores come in blocks.

    Most scores are below a bar, the worst that a query still keeps, and cost one comparison; what
    is above it is appended to the query's row, and only a full row is sorted out.

    Args:
        queries: number of queries q.
        k: number of neighbours wanted. Some more candidates are kept, so that the last of them is
            usually too far behind the k-th neighbour for rounding to matter.
        device: where the scores are.
    """

    def __init__(self, queries: int, k: int, device: torch.device):
        self.kept = _kept(k)
        self.scores = torch.full((queries, 2 * self.kept), -torch.inf, device=device)
        self.indices = torch.zeros(queries, 2 * self.kept, dtype=torch.int64, device=device)
        self.filled = torch.zeros(queries, dtype=torch.int64, device=device)
        self.bar = torch.full((queries,), -torch.inf, device=device)

    @staticmethod
    def bytes_per_query(k: int) -> int:
        """What a query needs: its row, and the places of scores that are about to be appended."""
        return 2 * _kept(k) * (4 + 8) + _kept(k) * 4 * 8

    def add(self, start: int, scores: Tensor) -> None:
        """Take in the scores, (q, b), of the entries start to start + b - 1."""
        above, counts = self._above_bar(scores)
        if self._overflows(counts):
            self._keep_best()
            above, counts = self._above_bar(scores)
        if self._overflows(counts):
            self._keep_best(start, scores)
            return
        rows, columns = above.nonzero(as_tuple=True)
        # These are ordered by row: a place among a row's is a place among all, less those before.
        place = torch.arange(len(rows), device=rows.device)
        place += (self.filled - counts.cumsum(0) + counts)[rows]
        self.scores[rows, place] = scores[rows, columns]
        self.indices[rows, place] = columns + start
        self.filled += counts

    def best(self, entries: int) -> tuple[Tensor, Tensor]:
        """The best c of the `entries` seen, all of them or more than k, in any order.

        Returns: scores and indices, each (q, c).
        """
        if entries > self.kept:
            self._keep_best()
        count = min(self.kept, entries)
        return self.scores[:, :count], self.indices[:, :count]

    def _above_bar(self, scores: Tensor) -> tuple[Tensor, Tensor]:
        above = scores > self.bar[:, None]
        # As bytes: booleans are summed ten times as slowly.
        return above, above.view(torch.uint8).sum(dim=1, dtype=torch.int32)

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
            order = _order_of_best(joined, self.kept)
            best = joined.gather(1, order)
            held = self.indices[part].gather(1, order.clamp(max=room - 1))
            self.indices[part, : self.kept] = torch.where(order < room, held, order - room + start)
            self.scores[part, : self.kept] = best
            self.filled[part] = (best > -torch.inf).sum(dim=1)
            self.bar[part] = best.amin(dim=1)
        self.scores[:, self.kept :] = -torch.inf


def _order_of_best(scores: Tensor, count: int) -> Tensor:
    """Columns of the `count` largest scores of each row, in any order."""
    if scores.device.type == "cpu":
        # Several times as fast as topk, which sorts pairs.
        order = np.argpartition(scores.numpy(), scores.shape[1] - count, axis=1)
        return torch.from_numpy(order)[:, scores.shape[1] - count :]
    return scores.topk(count, dim=1, sorted=False).indices


def _kept(k: int) -> int:
    return k + max(16, k // 16)
