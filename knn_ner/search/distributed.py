"""Exact search by several processes: each searches its part of the datastore for the queries of all."""

from collections.abc import Sequence
from typing import cast

import numpy as np
import torch
from torch import Tensor

from knn_ner.datastore.reader import Datastore
from knn_ner.parallel.process_group import ProcessGroup
from knn_ner.search.candidates import Candidates, kept_for
from knn_ner.search.exact import BLOCK_KEYS, ExactSearch
from knn_ner.search.searcher import LogWeights, SearchResult, best_first
from knn_ner.search.vote import limited_temperature


class StorePart(Datastore):
    """Entries `first` to `last` - 1 of a datastore, numbered from 0, with all that a `Searcher` reads.

    Attributes and methods are those of `Datastore`.
    """

    def __init__(self, store: Datastore, first: int, last: int):
        self.first = first
        self.path, self.manifest, self.transform = store.path, store.manifest, store.transform
        self.label_ids = store.label_ids[first:last]
        self.norms = store.norms[first:last]
        self.weights = None if store.weights is None else store.weights[first:last]
        self._store = store

    def rows(self, start: int, stop: int) -> np.ndarray:
        return self._store.rows(self.first + start, self.first + stop)

    def gather(self, indices: np.ndarray) -> np.ndarray:
        return self._store.gather(indices + self.first)


def part_borders(entries: int, parts: int, block_keys: int = BLOCK_KEYS) -> list[int]:
    """The first entry of each part of a datastore, and the end of the last part: (parts + 1,), ascending.

    Parts are whole blocks of a search. Products of another shape would round differently, which matters in a vote of
    all entries at a low temperature.
    """
    blocks = -(-entries // block_keys)
    return [min(entries, block_keys * (blocks * number // parts)) for number in range(parts + 1)]


def merge_nearest(parts: Sequence[SearchResult], k: int) -> SearchResult:
    """The k nearest entries, or as many as there are, from those of each part of a datastore.

    Args:
        parts: results for the same queries, in the order of the datastore, with entries of the whole datastore. Each
            part has its k nearest entries, or all that it holds.
        k: at least 1.
    """
    # In the order of the entries, so that of equal similarities the lower index comes first.
    found = best_first(
        torch.cat([part.similarities for part in parts], dim=1),
        torch.cat([part.indices for part in parts], dim=1),
    )
    return SearchResult(found.similarities[:, :k], found.indices[:, :k])


def merge_candidates(parts: Sequence[Candidates], k: int) -> Candidates:
    """The candidates for the k nearest entries of a datastore, from those of each part.

    Args:
        parts: candidates for the same queries, with entries of the whole datastore.
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


def merge_log_weights(parts: Sequence[LogWeights], temperature: float) -> LogWeights:
    """`Searcher.log_weights` over a datastore from those over its parts.

    Sums differ from those over the whole by the rounding of exponentials in float32, about 1e-7.
    """
    temperature = limited_temperature(temperature)
    largest = torch.stack([part.largest for part in parts]).amax(dim=0)
    logs = [
        part.logs + ((part.largest - largest).double() / temperature)[:, None] for part in parts
    ]
    return LogWeights(torch.stack(logs).logsumexp(dim=0), largest)


class DistributedSearch(ExactSearch):
    """Exact search, shared by the processes of a group.

    Each process multiplies the queries of all processes with the keys of its part of the datastore, and rescores the
    candidates of its own queries.

    Such a product is a round in which all processes take part, each with its own queries or none. A process without
    further queries keeps answering the others in `finish`, which all must call at the end. The context manager
    calls it, unless an error ends the context.

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
        # Of the whole store, each process only reads the keys of its own queries' candidates.
        super().__init__(store, similarity, device, block_keys=block_keys, resident=False)
        self.group = group
        first, last = part_borders(store.entries, group.size, block_keys)[group.rank :][:2]
        # With more processes than blocks, some have no entries.
        self._part: ExactSearch | None = None
        self._first = first
        if last > first:
            part = StorePart(store, first, last)
            self._part = ExactSearch(part, similarity, device, block_keys=block_keys)
            # All parts have the same bounds of rounding.
            self._part.__dict__["_norms"] = self._norms

    def __enter__(self) -> "DistributedSearch":
        return self

    def __exit__(self, exception: type[BaseException] | None, *_: object) -> None:
        if exception is None:
            self.finish()

    def finish(self) -> None:
        """Answer the other processes until none has further queries."""
        nothing = torch.zeros(0, self.store.dim, device=self.device)
        while self._round(nothing, 0) is not None:
            pass

    def vote_all(self, queries: Tensor, temperatures: Sequence[float]) -> Tensor:
        logs = [self.log_weights(queries, temperature).logs for temperature in temperatures]
        return torch.stack(logs).softmax(dim=2).float()

    def log_weights(
        self, queries: Tensor, temperature: float, without: Tensor | None = None
    ) -> LogWeights:
        if without is not None:
            raise ValueError("a search by several processes cannot leave out entries")
        temperature = limited_temperature(temperature)
        return cast(LogWeights, self._round(self.checked(queries), -1, temperature))

    def _candidates(self, queries: Tensor, k: int, sampled: bool = True) -> Candidates:
        return cast(Candidates, self._round(queries, k))

    def _round(
        self, queries: Tensor, k: int, temperature: float = 0.0
    ) -> Candidates | LogWeights | None:
        """The candidates or log weights of this process's queries; None if no process has further queries.

        Args:
            queries: (q, dim).
            k: number of neighbours; -1 for log weights, 0 if this process has no further queries.
            temperature: for log weights.
        """
        # The bits of the temperature as an integer.
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
                torch.cat([part.indices for part in parts]) + self._first,
                torch.cat([part.floor for part in parts]),
            )
        widths = [width for (width,) in self.group.all_gather(found.scores.shape[1])]
        scores = self._to_their_owners(found.scores, counts, widths)
        indices = self._to_their_owners(found.indices, counts, widths)
        floors = self._to_their_owners(found.floor[:, None], counts, [1] * self.group.size)
        merged = zip(scores, indices, floors, strict=True)
        return merge_candidates([Candidates(s, i, floor[:, 0]) for s, i, floor in merged], k)

    def _all_log_weights(
        self, queries: Tensor, counts: list[int], temperature: float
    ) -> LogWeights:
        # The last column is the largest similarity.
        width = len(self.store.labels) + 1
        columns = queries.new_full((len(queries), width), -torch.inf, dtype=torch.float64)
        if self._part is not None:
            found = self._part.log_weights(queries, temperature)
            columns = torch.cat([found.logs, found.largest[:, None].double()], dim=1)
        self.group.barrier()
        received = self._to_their_owners(columns, counts, [width] * self.group.size)
        parts = [LogWeights(part[:, :-1], part[:, -1]) for part in received]
        return merge_log_weights(parts, temperature)

    def _to_their_owners(
        self, values: Tensor, counts: list[int], widths: list[int]
    ) -> list[Tensor]:
        """Send the rows of each process's queries to it: (its queries, width) from each process.

        Args:
            values: (queries of all processes, width) of this process.
            counts: number of queries of each process.
            widths: width of the values of each process.
        """
        own, width = counts[self.group.rank], widths[self.group.rank]
        received = self.group.all_to_all(
            values.reshape(-1),
            send=[count * width for count in counts],
            receive=[own * width for width in widths],
        )
        return [part.view(own, width) for part, width in zip(received, widths, strict=True)]
