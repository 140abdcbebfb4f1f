"""Exact search: every query against every key."""

from collections.abc import Iterator, Sequence
from functools import cached_property

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from knn_ner.datastore.reader import Datastore
from knn_ner.search.candidates import Candidates, RunningCandidates
from knn_ner.search.searcher import Searcher, SearchResult, best_first
from knn_ner.search.similarity import norm, product_error
from knn_ner.search.vote import vote_weights
from knn_ner.settings import check_temperature
from knn_ner.utils.device import full_precision
from knn_ner.utils.errors import UserError

# Bytes for the scores and candidates of the queries that are taken together; on a CPU more is not
# faster, and an accelerator has more to do at once.
WORKING_BYTES = {"cpu": 64 << 20, "cuda": 1 << 30}
# Of an accelerator's free memory, what keys may take to stay there.
RESIDENT_SHARE = 0.5
# Keys taken from the store at once.
BLOCK_KEYS = 8192
# Keys, evenly over the store, whose scores come first and tell what is worth keeping of the others;
# in a store of fewer than some times as many they would save nothing.
SAMPLE_KEYS = 4096
SAMPLED_FROM = 8 * SAMPLE_KEYS
# Matrix libraries have other kernels, which round otherwise, for a handful of rows: queries are
# padded to this many.
SMALLEST_PRODUCT = 16


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
            least one is. By default as much as suits the device.
        resident: whether the keys stay on the device, as they are stored, once they were searched; if
            not, they come from the memory map each time. By default they stay on a CUDA device, if
            they fit in half of its free memory, and on a CPU they are where they can be searched.
    """

    def __init__(
        self,
        store: Datastore,
        similarity: str = "cosine",
        device: str | torch.device = "cpu",
        *,
        block_keys: int = BLOCK_KEYS,
        working_bytes: int | None = None,
        resident: bool | None = None,
    ):
        super().__init__(store, similarity, device)
        self.block_keys = block_keys
        usual = WORKING_BYTES.get(self.device.type, WORKING_BYTES["cpu"])
        self.working_bytes = working_bytes or usual
        self._stays = resident

    def search(self, queries: Tensor, k: int) -> SearchResult:
        queries = self.checked(queries)
        if k < 1:
            raise UserError(f"k {k}: expected at least 1 neighbour to search for")
        k = min(k, self.store.entries)
        found = SearchResult(
            torch.empty(len(queries), k, device=self.device),
            torch.empty(len(queries), k, dtype=torch.int64, device=self.device),
        )
        with full_precision(self.device):
            for part in self._groups(len(queries), k):
                nearest = self._nearest(queries[part], k)
                found.similarities[part] = nearest.similarities
                found.indices[part] = nearest.indices
        return found

    def candidates(self, queries: Tensor, k: int) -> Iterator[tuple[slice, Candidates]]:
        """The entries that score best in a matrix product, more than k of them if there are.

        Args: as for `search`. Yields: a part of the queries, and theirs.
        """
        queries = self.checked(queries)
        k = min(k, self.store.entries)
        with full_precision(self.device):
            for part in self._groups(len(queries), k):
                yield part, self._candidates(queries[part], k)

    def product_error(self, queries: Tensor) -> Tensor:
        """How far a score of `candidates` is from the similarity, at most: (q, dim) -> (q,)."""
        return product_error(norm(queries), self._largest_norm, self.store.dim, self.similarity)

    @cached_property
    def _largest_norm(self) -> float:
        return float(self.store.norms.max())

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

    def _groups(self, queries: int, k: int) -> Iterator[slice]:
        """Queries that are searched together."""
        needed = RunningCandidates.bytes_per_query(k, self.store.entries, self._sample_size)
        group = max(1, self.working_bytes // (5 * self.block_keys + needed))
        for start in range(0, queries, group):
            yield slice(start, start + group)

    def _nearest(self, queries: Tensor, k: int) -> SearchResult:
        candidates = self._candidates(queries, k)
        found = self.rescore(queries, candidates.indices)
        # What is not a candidate scores no better than the worst candidate. Where that is not clearly
        # worse than the k-th neighbour, as among many equal keys, rounding may have chosen.
        bar = found.similarities[:, k - 1] - self.product_error(queries)
        unsure = (candidates.floor >= bar).nonzero()[:, 0]
        if len(unsure):
            settled = self._all_above(queries[unsure], bar[unsure], k)
            found.similarities[unsure, :k] = settled.similarities
            found.indices[unsure, :k] = settled.indices
        return SearchResult(found.similarities[:, :k], found.indices[:, :k])

    def _candidates(self, queries: Tensor, k: int, sampled: bool = True) -> Candidates:
        sample = self._sample_scores(queries) if sampled and self._sample_size else None
        entries = self.store.entries
        running = RunningCandidates(len(queries), k, self.device, entries, sample)
        for start, scores in self._scores(queries):
            running.add(start, scores)
        scores, indices = running.best(entries)
        floor = scores.amin(dim=1)
        if indices.shape[1] == entries:
            return Candidates(scores, indices, torch.full_like(floor, -torch.inf))
        # The sample has promised too much.
        short = (floor == -torch.inf).nonzero()[:, 0]
        if len(short):
            rest = self._candidates(queries[short], k, sampled=False)
            scores[short], indices[short], floor[short] = rest.scores, rest.indices, rest.floor
        return Candidates(scores, indices, floor)

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
        # There before the buffers of a group: a result that is left where they were, and keeps them from being
        # used again, costs 30 MB for each.
        weights = torch.empty(
            len(temperatures),
            len(queries),
            len(self.store.labels),
            dtype=torch.float64,
            device=self.device,
        )
        with full_precision(self.device):
            for start in range(0, len(queries), group):
                part = slice(start, start + group)
                found = self._weigh(_padded(queries[part]), temperatures, without[part])
                weights[:, part] = found[:, : len(queries[part])]
        return weights

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
        """Similarities by matrix product, good to `product_error`, a block of keys at a time.

        Yields: (start, (q, keys of the block)), always in the same buffer.
        """
        queries, norms = self._scaled(queries)
        size = min(self.block_keys, self.store.entries)
        # Buffers that stay: fresh ones of this size cost more than the conversion.
        converted = torch.empty(size, self.store.dim, device=self.device)
        buffer = torch.empty(len(queries) * size, device=self.device)
        for start, block in self._stored_blocks(size):
            keys = converted[: len(block)].copy_(block)
            scores = buffer[: len(queries) * len(block)].view(len(queries), len(block))
            key_norms = self.store.norms[start : start + len(block)]
            self._multiply(queries, norms, self._scale(keys, key_norms), scores)
            yield start, scores[: len(norms)]

    def _stored_blocks(self, size: int) -> Iterator[tuple[int, Tensor]]:
        """All keys in order, as they are stored: (start, (keys, dim)), for the moment alone."""
        if self._resident is None:
            yield from self._mapped_blocks(size)
            return
        for start in range(0, self.store.entries, size):
            yield start, self._resident[start : start + size]

    def _mapped_blocks(self, size: int) -> Iterator[tuple[int, Tensor]]:
        """As `_stored_blocks`, from the memory map, always in the same buffer."""
        buffer = torch.from_numpy(np.empty((size, self.store.dim), self.store.dtype))
        for start, block in self.store.blocks(size):
            np.copyto(buffer.numpy()[: len(block)], block)
            yield start, buffer[: len(block)]

    @cached_property
    def _resident(self) -> Tensor | None:
        """All keys on the device, as they are stored, if they are to stay there: (n, dim)."""
        if not self._keys_stay():
            return None
        size = min(self.block_keys, self.store.entries)
        keys = None
        for start, block in self._mapped_blocks(size):
            if keys is None:
                shape = self.store.entries, self.store.dim
                keys = torch.empty(shape, dtype=block.dtype, device=self.device)
            keys[start : start + len(block)] = block
        return keys

    def _keys_stay(self) -> bool:
        if self._stays is not None:
            return self._stays
        if self.device.type != "cuda":
            return False
        free, _ = torch.cuda.mem_get_info(self.device)
        needed = self.store.entries * self.store.dim * self.store.dtype.itemsize
        return needed <= RESIDENT_SHARE * free

    def keys_of(self, entries: Tensor) -> Tensor:
        if self._resident is None:
            return super().keys_of(entries)
        return self._resident[entries].float()

    def _scaled(self, queries: Tensor) -> tuple[Tensor, Tensor]:
        """Queries as they are multiplied, at least `SMALLEST_PRODUCT`, and the norms of those given."""
        norms = norm(queries)
        if self.similarity == "cosine":
            queries = queries / norms.where(norms > 0, 1)[:, None]
        return functional.pad(queries, (0, 0, 0, max(0, SMALLEST_PRODUCT - len(queries)))), norms

    def _scale(self, keys: Tensor, norms: np.ndarray) -> tuple[Tensor, Tensor]:
        """Keys as they are multiplied, in place, and their norms."""
        norms = torch.from_numpy(norms).to(self.device)
        if self.similarity == "cosine":
            keys /= norms.where(norms > 0, 1)[:, None]
        return keys, norms

    def _multiply(
        self, queries: Tensor, query_norms: Tensor, scaled: tuple[Tensor, Tensor], out: Tensor
    ) -> None:
        keys, norms = scaled
        if self.similarity == "cosine":
            torch.mm(queries, keys.T, out=out)
            return
        squares = functional.pad(query_norms.square(), (0, len(queries) - len(query_norms)))
        torch.sub(-squares[:, None], norms.square(), out=out)
        out.addmm_(queries, keys.T, alpha=2)

    @property
    def _sample_size(self) -> int:
        return SAMPLE_KEYS if self.store.entries >= SAMPLED_FROM else 0

    @cached_property
    def _sample(self) -> tuple[Tensor, Tensor]:
        """Keys evenly over the store, scaled, and their norms."""
        entries = np.linspace(0, self.store.entries - 1, self._sample_size).astype(np.int64)
        keys = torch.from_numpy(self.store.gather(entries)).to(self.device, torch.float32)
        return self._scale(keys, self.store.norms[entries])

    def _sample_scores(self, queries: Tensor) -> Tensor:
        queries, norms = self._scaled(queries)
        scores = torch.empty(len(queries), self._sample_size, device=self.device)
        self._multiply(queries, norms, self._sample, scores)
        return scores[: len(norms)]
