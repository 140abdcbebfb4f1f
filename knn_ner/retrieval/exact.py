"""Exact search: every query against every key."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from knn_ner.errors import UserError
from knn_ner.retrieval.candidates import RunningCandidates
from knn_ner.retrieval.datastore import Datastore
from knn_ner.retrieval.search import Searcher, SearchResult, best_first
from knn_ner.retrieval.similarity import norm, product_error
from knn_ner.retrieval.vote import check_temperature, vote_weights

# Bytes for the scores and candidates of the queries that are taken together; more is not faster.
WORKING_BYTES = 64 << 20
# Keys taken from the store at once.
BLOCK_KEYS = 8192
# Matrix libraries have other kernels, which round otherwise, for a handful of rows: queries are
# padded to this many.
SMALLEST_PRODUCT = 16


@contextmanager
def _full_precision(device: torch.device) -> Iterator[None]:
    """Products of float32 in float32, not TF32 or bfloat16, whatever the tagger runs in."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        with torch.autocast(device.type, enabled=False):
            yield
    finally:
        torch.set_float32_matmul_precision(before)


def _padded(queries: Tensor) -> Tensor:
    return functional.pad(queries, (0, 0, 0, max(0, SMALLEST_PRODUCT - len(queries))))


class ExactSearch(Searcher):
    """Every query against every key, a block of keys at a time.

    Beside the result it holds a bounded amount, whatever the sizes of store and batch. A matrix
    product finds candidates, `exact_similarity` decides: the neighbours are those of a full sort by
    similarity and index, however queries and keys are grouped.

    Args:
        store, similarity, device: as for `Searcher`.
        block_keys: keys taken from the store at once; 4 bytes, and 2 or 4 as stored, for each
            value.
        working_bytes: for the scores and candidates of the queries that are searched together; at
            least one is.
    """

    def __init__(
        self,
        store: Datastore,
        similarity: str = "cosine",
        device: str | torch.device = "cpu",
        *,
        block_keys: int = BLOCK_KEYS,
        working_bytes: int = WORKING_BYTES,
    ):
        super().__init__(store, similarity, device)
        self.block_keys = block_keys
        self.working_bytes = working_bytes

    def search(self, queries: Tensor, k: int) -> SearchResult:
        queries = self.checked(queries)
        if k < 1:
            raise UserError(f"k {k}: expected at least 1 neighbour to search for")
        k = min(k, self.store.entries)
        found = SearchResult(
            torch.empty(len(queries), k, device=self.device),
            torch.empty(len(queries), k, dtype=torch.int64, device=self.device),
        )
        per_query = 5 * self.block_keys + RunningCandidates.bytes_per_query(k)
        group = max(1, self.working_bytes // per_query)
        with _full_precision(self.device):
            for start in range(0, len(queries), group):
                part = self._nearest(queries[start : start + group], k)
                found.similarities[start : start + group] = part.similarities
                found.indices[start : start + group] = part.indices
        return found

    def vote_all(self, queries: Tensor, temperatures: Sequence[float]) -> Tensor:
        """The vote of every entry (k = -1) at each temperature, in one pass over the keys.

        What is held for a query is a sum for each label and temperature, of
        exp((similarity - largest so far) / T). Arguments, result and errors as in `Searcher`.
        """
        return self._log_weights(queries, temperatures).softmax(dim=2).float()

    def log_weights(
        self, queries: Tensor, temperature: float, without: Tensor | None = None
    ) -> Tensor:
        return self._log_weights(queries, [temperature], without)[0]

    def _nearest(self, queries: Tensor, k: int) -> SearchResult:
        candidates = RunningCandidates(len(queries), k, self.device)
        for start, scores in self._scores(queries):
            candidates.add(start, scores)
        scores, indices = candidates.best(self.store.entries)
        found = self.rescore(queries, indices)
        if indices.shape[1] < self.store.entries:
            # What is not a candidate has a score no better than the worst candidate's. Where that
            # is not clearly worse than the k-th neighbour, as among many equal keys, rounding may
            # have chosen.
            bar = found.similarities[:, k - 1] - self._product_error(queries)
            unsure = (scores.amin(dim=1) >= bar).nonzero()[:, 0]
            if len(unsure):
                settled = self._all_above(queries[unsure], bar[unsure], k)
                found.similarities[unsure, :k] = settled.similarities
                found.indices[unsure, :k] = settled.indices
        return SearchResult(found.similarities[:, :k], found.indices[:, :k])

    def _all_above(self, queries: Tensor, bar: Tensor, k: int) -> SearchResult:
        """The k best of the entries that score at least `bar`, (q,), by rescoring every one.

        The caller knows that there are k of them.
        """
        best = [
            SearchResult(bar.new_empty(1, 0), bar.new_empty(1, 0, dtype=torch.int64))
            for _ in queries
        ]
        for start, scores in self._scores(queries):
            rows, columns = (scores >= bar[:, None]).nonzero(as_tuple=True)
            for row in rows.unique().tolist():
                more = self.rescore(queries[row, None], start + columns[rows == row][None])
                merged = best_first(
                    torch.cat([best[row].similarities, more.similarities], dim=1),
                    torch.cat([best[row].indices, more.indices], dim=1),
                )
                best[row] = SearchResult(merged.similarities[:, :k], merged.indices[:, :k])
        return SearchResult(
            torch.cat([found.similarities for found in best]),
            torch.cat([found.indices for found in best]),
        )

    def _log_weights(
        self, queries: Tensor, temperatures: Sequence[float], without: Tensor | None = None
    ) -> Tensor:
        """`log_weights` at each temperature: (temperatures, q, labels) float64."""
        for temperature in temperatures:
            check_temperature(temperature)
        queries = self.checked(queries)
        if without is None:
            without = torch.zeros(len(queries), 0, dtype=torch.int64)
        without = without.to(self.device)
        group = max(1, self.working_bytes // (8 * self.block_keys))
        with _full_precision(self.device):
            weights = [
                self._weigh(_padded(part), temperatures, left_out)[:, : len(part)]
                for part, left_out in zip(queries.split(group), without.split(group), strict=True)
            ]
        return torch.cat(weights, dim=1)

    def _weigh(self, queries: Tensor, temperatures: Sequence[float], without: Tensor) -> Tensor:
        num_labels = len(self.store.labels)
        mass = queries.new_zeros(len(temperatures), num_labels, len(queries), dtype=torch.float64)
        # Not -inf: the difference of two of them is no number.
        lowest = torch.finfo(queries.dtype).min
        largest = queries.new_full((len(queries),), lowest)
        label_ids = torch.from_numpy(self.store.label_ids)
        for start, scores in self._scores(queries):
            rows, columns = ((without >= start) & (without < start + scores.shape[1])).nonzero(
                as_tuple=True
            )
            scores[rows, without[rows, columns] - start] = lowest
            label_block = label_ids[start : start + scores.shape[1]].to(self.device, torch.int64)
            members = functional.one_hot(label_block, num_labels).float()  # (keys, labels)
            if self.store.weights is not None:
                block_weights = self.store.weights[start : start + scores.shape[1]]
                members *= torch.from_numpy(block_weights).to(self.device)[:, None]
            before, largest = largest, torch.maximum(largest, scores.amax(dim=1))
            scores -= largest[:, None]
            for number, temperature in enumerate(temperatures):
                mass[number] *= ((before - largest) / temperature).exp()
                # Labels first: with queries first, rounding depends on a query's place among the
                # others.
                mass[number] += members.T @ vote_weights(scores, temperature).T
        scale = torch.tensor(temperatures, dtype=torch.float64, device=self.device)[:, None, None]
        return (mass.log() + largest.double() / scale).transpose(1, 2)

    def _scores(self, queries: Tensor) -> Iterator[tuple[int, Tensor]]:
        """Similarities by matrix product, good to `_product_error`, a block of keys at a time.

        Yields: (start, (q, keys of the block)), always in the same buffer.
        """
        padded = _padded(queries)
        norms = norm(padded)[:, None]
        if self.similarity == "cosine":
            padded = padded / norms.where(norms > 0, 1)
        size = min(self.block_keys, self.store.entries)
        # Buffers that stay: fresh ones of this size cost more than the conversion.
        stored = torch.from_numpy(np.empty((size, self.store.dim), self.store.dtype))
        converted = torch.empty(size, self.store.dim, device=self.device)
        buffer = torch.empty(len(padded) * size, device=self.device)
        for start, block in self.store.blocks(size):
            np.copyto(stored.numpy()[: len(block)], block)
            keys = converted[: len(block)].copy_(stored[: len(block)])
            key_norms = torch.from_numpy(self.store.norms[start : start + len(block)])
            key_norms = key_norms.to(self.device)
            scores = buffer[: len(padded) * len(block)].view(len(padded), len(block))
            if self.similarity == "cosine":
                keys /= key_norms.where(key_norms > 0, 1)[:, None]
                torch.mm(padded, keys.T, out=scores)
            else:
                torch.sub(-norms.square(), key_norms.square(), out=scores)
                scores.addmm_(padded, keys.T, alpha=2)
            yield start, scores[: len(queries)]

    def _product_error(self, queries: Tensor) -> Tensor:
        largest = float(self.store.norms.max())
        return product_error(norm(queries), largest, self.store.dim, self.similarity)
