"""Exact search: every query against every key."""

from collections.abc import Iterator, Sequence
from functools import cached_property

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from knn_ner.datastore.reader import Datastore
from knn_ner.search.candidates import Candidates, RunningCandidates
from knn_ner.search.searcher import LogWeights, Searcher, SearchResult, best_first
from knn_ner.search.similarity import has_bounded_rounding, norm, product_error
from knn_ner.search.vote import LOWEST_EXPONENT, limited_temperature, vote_weights
from knn_ner.utils.device import full_precision
from knn_ner.utils.errors import UserError

# Bytes for the scores and candidates of the queries that are searched together. More is not faster on a CPU; an
# accelerator computes more at once.
WORKING_BYTES = {"cpu": 64 << 20, "cuda": 1 << 30}
# The share of an accelerator's free memory that resident keys may take.
RESIDENT_SHARE = 0.5
# Keys read from the store at once.
BLOCK_KEYS = 8192
# Keys, evenly spread over the store, whose scores set the first bar of the candidates. In a smaller store than
# SAMPLED_ENTRIES they would save nothing.
SAMPLE_KEYS = 4096
SAMPLED_ENTRIES = 8 * SAMPLE_KEYS
# Matrix libraries round a product of a few rows differently. Queries are padded to a multiple of this number.
ROW_MULTIPLE = 16
# Where the rounding of a matrix product may change an exponent, similarity / T, by more than this, every entry votes
# by its exact similarity.
MAX_EXPONENT_ERROR = 0.1


class ExactSearch(Searcher):
    """Compares every query with every key, a block of keys at a time.

    Beside the result it needs a limited amount of memory, whatever the sizes of store and batch. A matrix product
    finds candidates, and `exact_similarity` sorts them. The neighbours are those of a full sort by similarity and
    index, however queries and keys are grouped.

    Args:
        store, similarity, device: as for `Searcher`.
        block_keys: keys read from the store at once; each value takes 4 bytes, and 2 or 4 as stored.
        working_bytes: memory for the scores and candidates of the queries that are searched together, at least
            one; by default as much as suits the device.
        resident: whether the keys stay on the device, as they are stored, after the first search; otherwise each
            search reads them from the memory map. By default they stay on a CUDA device if they fit in half of its
            free memory, and not on a CPU.
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
        with full_precision(self.device, fastest=True):
            for part in self._groups(len(queries), k):
                nearest = self._nearest(queries[part], k)
                found.similarities[part] = nearest.similarities
                found.indices[part] = nearest.indices
        return found

    def candidates(self, queries: Tensor, k: int) -> Iterator[tuple[slice, Candidates]]:
        """The entries with the best scores by matrix product, more than k of them if there are.

        Args:
            queries: (q, dim) float.
            k: at least 1.

        Yields:
            A part of the queries, and its candidates.

        Raises:
            UserError: as `search` does.
        """
        queries = self.checked(queries)
        k = min(k, self.store.entries)
        with full_precision(self.device, fastest=True):
            for part in self._groups(len(queries), k):
                yield part, self._candidates(queries[part], k)

    def product_error(self, queries: Tensor) -> Tensor:
        """The largest difference of a score by matrix product from the similarity: (q, dim) -> (q,)."""
        largest, bounded = self._norms
        error = product_error(norm(queries), largest, self.store.dim, self.similarity)
        return error if bounded else torch.full_like(error, torch.inf)

    @cached_property
    def _norms(self) -> tuple[float, bool]:
        """The largest norm of a key, and whether similarities of all keys have a bounded rounding error."""
        norms = torch.from_numpy(self.store.norms)
        bounded = self.similarity == "l2" or bool(has_bounded_rounding(norms).all())
        return float(norms.max()), bounded

    def vote_all(self, queries: Tensor, temperatures: Sequence[float]) -> Tensor:
        """The vote of every entry (k = -1) at each temperature, in one pass over the keys.

        Arguments, result and errors as in `Searcher`.
        """
        return self._log_weights(queries, temperatures).logs.softmax(dim=2).float()

    def log_weights(
        self, queries: Tensor, temperature: float, without: Tensor | None = None
    ) -> LogWeights:
        found = self._log_weights(queries, [temperature], without)
        return LogWeights(found.logs[0], found.largest[0])

    def _groups(self, queries: int, k: int) -> Iterator[slice]:
        """Slices of the queries that are searched together."""
        needed = RunningCandidates.bytes_per_query(k, self.store.entries, self._sample_size)
        group = max(1, self.working_bytes // (5 * self.block_keys + needed))
        for start in range(0, queries, group):
            yield slice(start, start + group)

    def _nearest(self, queries: Tensor, k: int) -> SearchResult:
        candidates = self._candidates(queries, k)
        found = self.rescore(queries, candidates.indices)
        # Other entries score at most the floor. Where the floor is not clearly below the k-th neighbour, as among
        # many equal keys, the choice of candidates may depend on rounding.
        bar = found.similarities[:, k - 1] - self.product_error(queries)
        unsure = (candidates.floor >= bar).nonzero()[:, 0]
        if len(unsure):
            nearest = self._all_above(queries[unsure], bar[unsure], k)
            found.similarities[unsure, :k] = nearest.similarities
            found.indices[unsure, :k] = nearest.indices
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
        # Rows in which fewer scores than expected passed the first bar.
        short = (floor == -torch.inf).nonzero()[:, 0]
        if len(short):
            rest = self._candidates(queries[short], k, sampled=False)
            scores[short], indices[short], floor[short] = rest.scores, rest.indices, rest.floor
        return Candidates(scores, indices, floor)

    def _all_above(self, queries: Tensor, bar: Tensor, k: int) -> SearchResult:
        """The k nearest of the entries whose scores reach the bar, (q,). There are k of them."""
        best = [
            SearchResult(bar.new_empty(1, 0), bar.new_empty(1, 0, dtype=torch.int64))
            for _ in queries
        ]
        for rows, entries, similarities in self._exact_above(queries, bar):
            for row in rows.unique().tolist():
                more, own = rows == row, best[row]
                merged = best_first(
                    torch.cat([own.similarities, similarities[more][None]], dim=1),
                    torch.cat([own.indices, entries[more][None]], dim=1),
                )
                best[row] = SearchResult(merged.similarities[:, :k], merged.indices[:, :k])
        return SearchResult(
            torch.cat([found.similarities for found in best]),
            torch.cat([found.indices for found in best]),
        )

    def _exact_above(self, queries: Tensor, bar: Tensor) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """The entries whose scores reach the bar, (q,), block by block: rows, entries and similarities, (m,) each."""
        for start, scores in self._scores(queries):
            rows, columns = (scores >= bar[:, None]).nonzero(as_tuple=True)
            entries = start + columns
            similarities = torch.empty(len(rows), device=self.device)
            for part in torch.arange(len(rows), device=self.device).split(self.block_keys):
                similarities[part] = self.similarities_of(queries[rows[part]], entries[part, None])[
                    :, 0
                ]
            yield rows, entries, similarities

    def _log_weights(
        self, queries: Tensor, temperatures: Sequence[float], without: Tensor | None = None
    ) -> LogWeights:
        """`log_weights` at each temperature: logs (temperatures, q, labels) and largest (temperatures, q)."""
        temperatures = [limited_temperature(temperature) for temperature in temperatures]
        queries = self.checked(queries)
        if without is None:
            without = torch.zeros(len(queries), 0, dtype=torch.int64)
        without = without.to(self.device)
        # Allocated before the buffers of a group: a result between them would keep them from being used again,
        # which costs 30 MB for each group.
        shape = len(temperatures), len(queries)
        largest = torch.empty(shape, device=self.device)
        logs = torch.empty(*shape, len(self.store.labels), dtype=torch.float64, device=self.device)
        error = 2 * self.product_error(queries)
        with full_precision(self.device):
            for rows in torch.arange(len(queries), device=self.device).split(
                max(1, self.working_bytes // (8 * self.block_keys))
            ):
                logs[:, rows], largest[:, rows] = self._weigh(
                    queries[rows], temperatures, without[rows]
                )
                for number, temperature in enumerate(temperatures):
                    coarse = rows[error[rows] > MAX_EXPONENT_ERROR * temperature]
                    bar = largest[number, coarse] - error[coarse] + LOWEST_EXPONENT * temperature
                    if len(coarse):
                        logs[number, coarse], largest[number, coarse] = self._weigh_exactly(
                            queries[coarse], temperature, without[coarse], bar
                        )
        return LogWeights(logs, largest)

    def _weigh(
        self, queries: Tensor, temperatures: Sequence[float], without: Tensor
    ) -> tuple[Tensor, Tensor]:
        """`_log_weights` by a matrix product."""
        count, num_labels = len(queries), len(self.store.labels)
        queries = _padded(queries)
        mass = queries.new_zeros(len(temperatures), num_labels, len(queries), dtype=torch.float64)
        # Not -inf, as the difference of two of them is NaN.
        lowest = torch.finfo(queries.dtype).min
        largest = queries.new_full((len(queries),), lowest)
        label_ids = torch.from_numpy(self.store.label_ids)
        for start, scores in self._scores(queries):
            block = slice(start, start + scores.shape[1])
            rows, columns = ((without >= start) & (without < block.stop)).nonzero(as_tuple=True)
            left_out = rows, without[rows, columns] - start
            scores[left_out] = lowest
            members = functional.one_hot(
                label_ids[block].to(self.device, torch.int64), num_labels
            ).float()  # (keys, labels)
            if self.store.weights is not None:
                members *= torch.from_numpy(self.store.weights[block]).to(self.device)[:, None]
            before, largest = largest, torch.maximum(largest, scores.amax(dim=1))
            scores -= largest[:, None]
            for number, temperature in enumerate(temperatures):
                weights = vote_weights(scores, temperature)
                weights[left_out] = 0
                mass[number] *= ((before - largest).double() / temperature).exp()
                # Labels first: with queries first, the rounding of a row depends on the other rows.
                mass[number] += members.T @ weights.T
        return mass.log().transpose(1, 2)[:, :count], largest[:count]

    def _weigh_exactly(
        self, queries: Tensor, temperature: float, without: Tensor, bar: Tensor
    ) -> tuple[Tensor, Tensor]:
        """`_log_weights` at one temperature, by the exact similarities of the entries whose scores reach the bar.

        The others have no weight in comparison.
        """
        num_labels = len(self.store.labels)
        mass = queries.new_zeros(len(queries), num_labels, dtype=torch.float64)
        largest = queries.new_full((len(queries),), torch.finfo(queries.dtype).min)
        for rows, entries, similarities in self._exact_above(queries, bar):
            voting = (without[rows] != entries[:, None]).all(dim=1)
            rows, entries, similarities = rows[voting], entries[voting], similarities[voting]
            before, largest = largest, largest.scatter_reduce(0, rows, similarities, "amax")
            mass *= ((before - largest).double() / temperature).exp()[:, None]
            weights = vote_weights(similarities - largest[rows], temperature).double()
            counts = self.neighbour_weights(entries)
            places = rows * num_labels + self.neighbour_labels(entries)
            mass.view(-1).index_add_(0, places, weights if counts is None else weights * counts)
        return mass.log(), largest

    def _scores(self, queries: Tensor) -> Iterator[tuple[int, Tensor]]:
        """Similarities by matrix product, off by at most `product_error`, a block of keys at a time.

        Yields:
            The first entry of the block, and the scores, (q, keys of the block), always in the same buffer.
        """
        queries, norms = self._scaled(queries)
        size = min(self.block_keys, self.store.entries)
        # Allocating buffers of this size for each block would cost more than the conversion.
        converted = torch.empty(size, self.store.dim, device=self.device)
        buffer = torch.empty(len(queries) * size, device=self.device)
        for start, block in self._stored_blocks(size):
            keys = converted[: len(block)].copy_(block)
            scores = buffer[: len(queries) * len(block)].view(len(queries), len(block))
            key_norms = self.store.norms[start : start + len(block)]
            self._multiply(queries, norms, self._scale(keys, key_norms), scores)
            yield start, scores[: len(norms)]

    def _stored_blocks(self, size: int) -> Iterator[tuple[int, Tensor]]:
        """All keys in order, as they are stored: (start, (keys, dim)), valid until the next block."""
        if self._resident is None:
            yield from self._mapped_blocks(size)
            return
        for start in range(0, self.store.entries, size):
            yield start, self._resident[start : start + size]

    def _mapped_blocks(self, size: int) -> Iterator[tuple[int, Tensor]]:
        """`_stored_blocks` from the memory map, always in the same buffer."""
        buffer = torch.from_numpy(np.empty((size, self.store.dim), self.store.dtype))
        for start, block in self.store.blocks(size):
            np.copyto(buffer.numpy()[: len(block)], block)
            yield start, buffer[: len(block)]

    @cached_property
    def _resident(self) -> Tensor | None:
        """All keys on the device, as they are stored, if they stay there: (n, dim)."""
        if not self._keys_stay():
            return None
        dtype = torch.from_numpy(np.empty(0, self.store.dtype)).dtype
        keys = torch.empty(self.store.entries, self.store.dim, dtype=dtype, device=self.device)
        for start, block in self._mapped_blocks(min(self.block_keys, self.store.entries)):
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
        """Queries scaled and padded for the matrix product, and the norms of those given."""
        norms = norm(queries)
        if self.similarity == "cosine":
            queries = queries / norms.where(norms > 0, 1)[:, None]
        return _padded(queries), norms

    def _scale(self, keys: Tensor, key_norms: np.ndarray) -> tuple[Tensor, Tensor]:
        """Keys scaled for the matrix product, in place, and their norms."""
        norms = torch.from_numpy(key_norms).to(self.device)
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
        return SAMPLE_KEYS if self.store.entries >= SAMPLED_ENTRIES else 0

    @cached_property
    def _sample(self) -> tuple[Tensor, Tensor]:
        """Keys evenly spread over the store, scaled, and their norms."""
        entries = np.linspace(0, self.store.entries - 1, self._sample_size).astype(np.int64)
        keys = torch.from_numpy(self.store.gather(entries)).to(self.device, torch.float32)
        return self._scale(keys, self.store.norms[entries])

    def _sample_scores(self, queries: Tensor) -> Tensor:
        queries, norms = self._scaled(queries)
        scores = torch.empty(len(queries), self._sample_size, device=self.device)
        self._multiply(queries, norms, self._sample, scores)
        return scores[: len(norms)]


def _padded(queries: Tensor) -> Tensor:
    return functional.pad(queries, (0, 0, 0, -len(queries) % ROW_MULTIPLE))
