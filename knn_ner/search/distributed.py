"""Exact search by several processes: each searches its part of the store for the queries of all."""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from knn_ner.datastore.reader import Datastore
from knn_ner.parallel.process_group import ProcessGroup
from knn_ner.search.candidates import kept_for
from knn_ner.search.exact import BLOCK_KEYS, Candidates, ExactSearch
from knn_ner.search.searcher import SearchResult, best_first
from knn_ner.settings import check_temperature


class StorePart:
    """Entries `first` to `last` - 1 of a datastore, numbered from 0: what a `Searcher` reads of one.

    Attributes and methods are those of `Datastore`.
    """

    def __init__(self, store: Datastore, first: int, last: int):
        self.first, self.entries = first, last - first
        self.path, self.labels = store.path, store.labels
        self.dim, self.dtype = store.dim, store.dtype
        self.label_ids = store.label_ids[first:last]
        self.norms = store.norms[first:last]
        self.weights = None if store.weights is None else store.weights[first:last]
        self._store = store

    def rows(self, start: int, stop: int) -> np.ndarray:
        return self._store.rows(self.first + start, self.first + stop)

    def blocks(self, size: int) -> Iterator[tuple[int, np.ndarray]]:
        for start in range(0, self.entries, size):
            yield start, self.rows(start, min(start + size, self.entries))

    def gather(self, indices: np.ndarray) -> np.ndarray:
        return self._store.gather(indices + self.first)


def part_borders(entries: int, parts: int, block_keys: int = BLOCK_KEYS) -> list[int]:
    """Where the parts of a store begin, and where the last one ends: (parts + 1,), ascending.

    Parts are of whole blocks, as many entries as a search takes at once, since a product of other
    shape rounds otherwise, which counts in a vote of all entries at a low temperature.
    """
    blocks = -(-entries // block_keys)
    return [min(entries, block_keys * (blocks * number // parts)) for number in range(parts + 1)]


def merge_nearest(parts: Sequence[SearchResult], k: int) -> SearchResult:
    """The k nearest entries, or as many as there are, from those of each part of a store.

    Args:
        parts: of the same queries, in the order of the store, with entries of the whole store.
        k: at least 1; each part has its k nearest, or all that it holds.
    """
    # Parts come in the order of their entries, so that of equals the lower index stays first.
    found = best_first(
        torch.cat([part.similarities for part in parts], dim=1),
        torch.cat([part.indices for part in parts], dim=1),
    )
    return SearchResult(found.similarities[:, :k], found.indices[:, :k])


def merge_candidates(parts: Sequence[Candidates], k: int) -> Candidates:
    """The candidates for the k nearest entries of a store, from those of each of its parts.

    Args:
        parts: of the same queries, with entries of the whole store.
        k: at least 1.
    """
    scores = torch.cat([part.scores for part in parts], dim=1)
    indices = torch.cat([part.indices for part in parts], dim=1)
    floor = torch.stack([part.floor for part in parts]).amax(dim=0)
    kept = kept_for(k)
    if kept >= scores.shape[1]:
        return Candidates(scores, indices, floor)
    best, order = scores.topk(kept + 1, dim=1)
    return Candidates(
        best[:, :kept], indices.gather(1, order[:, :kept]), floor.maximum(best[:, kept])
    )


def merge_log_weights(parts: Sequence[Tensor]) -> Tensor:
    """`Searcher.log_weights` over a store from those over its parts: (q, labels) float64 each.

    Sums differ from those over the whole by the rounding of exponentials in float32, some 1e-7.
    """
    return torch.stack(list(parts)).logsumexp(dim=0)


class DistributedSearch(ExactSearch):
    """Exact search, shared by the processes of a group; one for each of them.

    The product of queries and keys is shared: each process multiplies the queries of all with the
    keys of its part of the store. What comes of it for its own queries, it looks at alone.

    Such a product is a round in which all processes take part, each with its own queries or none:
    one that has no more of them keeps answering the others in `finish`, which all must call at last.
    As a context manager it does so at the end, unless an error ends the context.

    Args:
        store, similarity, device: as for `Searcher`, the same in all processes.
        group: the processes.
        block_keys: as for `ExactSearch`.
    """

    def __init__(
        self,
        store: Datastore,
        similarity: str,
        device: str | torch.device,
        group: ProcessGroup,
        *,
        block_keys: int = BLOCK_KEYS,
    ):
        # Of the whole store each process reads the keys of its own queries' candidates alone.
        super().__init__(store, similarity, device, block_keys=block_keys, resident=False)
        self.group = group
        borders = part_borders(store.entries, group.size, block_keys)
        first, last = borders[group.rank : group.rank + 2]
        # More processes than blocks leave some without entries.
        self._part = None
        if last > first:
            part = StorePart(store, first, last)
            self._part = ExactSearch(part, similarity, device, block_keys=block_keys)

    def __enter__(self) -> "DistributedSearch":
        return self

    def __exit__(self, exception: type[BaseException] | None, *_: object) -> None:
        if exception is None:
            self.finish()

    def finish(self) -> None:
        """Answer the other processes until none has any more queries."""
        nothing = torch.zeros(0, self.store.dim, device=self.device)
        while self._round(nothing, 0) is not None:
            pass

    def vote_all(self, queries: Tensor, temperatures: Sequence[float]) -> Tensor:
        weights = [self.log_weights(queries, temperature) for temperature in temperatures]
        return torch.stack(weights).softmax(dim=2).float()

    def log_weights(
        self, queries: Tensor, temperature: float, without: Tensor | None = None
    ) -> Tensor:
        if without is not None:
            raise ValueError("entries cannot be left out of what several processes search")
        check_temperature(temperature)
        return self._round(self.checked(queries), -1, temperature)

    def _candidates(self, queries: Tensor, k: int, sampled: bool = True) -> Candidates:
        return self._round(queries, k)

    def _round(
        self, queries: Tensor, k: int, temperature: float = 0.0
    ) -> Candidates | Tensor | None:
        """What comes of the product with this process's queries; None if no process has any more.

        k: -1 for log weights, and 0 if this process has no more queries.
        """
        # The temperature as an integer of the same bits.
        bits = int(np.float64(temperature).view(np.int64))
        told = self.group.all_gather(len(queries), k, bits)
        asked = {(k, bits) for _, k, bits in told if k}
        if not asked:
            return None
        ((k, bits),) = asked
        counts = [count for count, *_ in told]
        queries = self.group.all_gather_rows(queries, counts)
        if k == -1:
            return self._all_log_weights(queries, counts, float(np.int64(bits).view(np.float64)))
        return self._all_candidates(queries, counts, k)

    def _all_candidates(self, queries: Tensor, counts: list[int], k: int) -> Candidates:
        found = Candidates(
            queries.new_empty(len(queries), 0),
            queries.new_empty(len(queries), 0, dtype=torch.int64),
            queries.new_full((len(queries),), -torch.inf),
        )
        if self._part is not None:
            parts = [part for _, part in self._part.candidates(queries, k)]
            found = Candidates(
                torch.cat([part.scores for part in parts]),
                torch.cat([part.indices for part in parts]) + self._part.store.first,
                torch.cat([part.floor for part in parts]),
            )
        widths = [width for (width,) in self.group.all_gather(found.scores.shape[1])]
        scores, indices, floors = (
            self._to_their_owners(values, counts, wide)
            for values, wide in (
                (found.scores, widths),
                (found.indices, widths),
                (found.floor[:, None], [1] * self.group.size),
            )
        )
        parts = zip(scores, indices, floors, strict=True)
        return merge_candidates([Candidates(s, i, floor[:, 0]) for s, i, floor in parts], k)

    def _all_log_weights(self, queries: Tensor, counts: list[int], temperature: float) -> Tensor:
        labels = len(self.store.labels)
        weights = queries.new_full((len(queries), labels), -torch.inf, dtype=torch.float64)
        if self._part is not None:
            weights = self._part.log_weights(queries, temperature)
        self.group.barrier()
        return merge_log_weights(self._to_their_owners(weights, counts, [labels] * self.group.size))

    def _to_their_owners(
        self, values: Tensor, counts: list[int], widths: list[int]
    ) -> list[Tensor]:
        """What each process has for the queries of this one, (its queries, width) each.

        Args:
            values: (queries of all, width) of this process.
            counts, widths: how many queries each process has, and how wide its values are.
        """
        own, width = counts[self.group.rank], widths[self.group.rank]
        received = self.group.all_to_all(
            values.reshape(-1),
            send=[count * width for count in counts],
            receive=[own * width for width in widths],
        )
        return [part.view(own, width) for part, width in zip(received, widths, strict=True)]
