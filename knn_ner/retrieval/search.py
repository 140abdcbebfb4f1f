"""Nearest neighbours in a datastore: what every index offers (`Searcher`), and exact search."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from knn_ner.errors import UserError
from knn_ner.retrieval.candidates import RunningCandidates
from knn_ner.retrieval.datastore import Datastore
from knn_ner.retrieval.similarity import check_similarity, exact_similarity, norm, product_error
from knn_ner.retrieval.vote import check_temperature, vote, vote_weights

# Bytes for the scores and candidates of the queries that are taken together; more is not faster.
WORKING_BYTES = 64 << 20
# Keys taken from the store at once.
BLOCK_KEYS = 8192
# Candidate keys held at once, in float32, while their similarity is computed.
RESCORED_KEYS = 8192
# Matrix libraries have other kernels, which round otherwise, for a handful of rows: queries are
# padded to this many.
SMALLEST_PRODUCT = 16


@dataclass(frozen=True)
class SearchResult:
    """The neighbours of q queries, best first; equal similarities by lower index.

    Attributes:
        similarities: (q, k) float32.
        indices: (q, k) int64, entries of the datastore.
    """

    similarities: Tensor
    indices: Tensor


def check_k(k: int) -> None:
    """Raise UserError unless k is at least 1, or -1."""
    if k < 1 and k != -1:
        raise UserError(f"k {k}: expected at least 1, or -1 for every entry of the datastore")


class Searcher(ABC):
    """An index over a datastore.

    Args:
        store: the datastore.
        similarity: "cosine" or "l2" (minus the squared Euclidean distance).
        device: where queries are searched and results lie.

    Raises UserError for another similarity, or a datastore without entries.
    """

    def __init__(
        self, store: Datastore, similarity: str = "cosine", device: str | torch.device = "cpu"
    ):
        check_similarity(similarity)
        if not store.entries:
            raise UserError(f"{store.path}: no entries to search; add labelled sentences to it")
        self.store = store
        self.similarity = similarity
        self.device = torch.device(device)

    @abstractmethod
    def search(self, queries: Tensor, k: int) -> SearchResult:
        """The k nearest entries of each query; all n entries if k > n.

        Args:
            queries: (q, dim) float.
            k: at least 1.

        Raises UserError for k below 1, and for queries that are not finite or not as wide as the
        keys.
        """

    def vote_all(self, queries: Tensor, temperatures: Sequence[float]) -> Tensor:
        """The vote of every entry (k = -1) at each temperature.

        Args:
            queries: (q, dim) float.
            temperatures: each above 0.

        Returns: (temperatures, q, labels) float32. Raises UserError as `search` does, for a
        temperature that is not above 0, and if the index does not visit every entry.
        """
        raise UserError(f"k -1: {type(self).__name__} does not visit every entry; search exactly")

    def log_weights(
        self, queries: Tensor, temperature: float, without: Tensor | None = None
    ) -> Tensor:
        """What each label has in the vote of every entry: the log of the sum of exp(similarity / T).

        `vote_all` is the softmax of it; here the share of a single entry can be told.

        Args:
            queries, temperature: as in `vote_all`.
            without: (q, m) int64, m different entries for each query that have no vote; fewer than
                there are.

        Returns: (q, labels) float64, -inf for a label that no entry has. Raises UserError as
        `vote_all` does.
        """
        raise UserError(f"k -1: {type(self).__name__} does not visit every entry; search exactly")

    def votes(self, queries: Tensor, k: int, temperature: float) -> Tensor:
        """P_knn: the vote of k neighbours or, with k = -1, of every entry.

        Args: as in `search` and `vote`.

        Returns: (q, labels) float32, over the datastore's labels.
        """
        check_temperature(temperature)
        if k == -1:
            return self.vote_all(queries, [temperature])[0]
        found = self.search(queries, k)
        labels = self.neighbour_labels(found.indices)
        return vote(found.similarities, labels, len(self.store.labels), temperature)

    def neighbour_labels(self, indices: Tensor) -> Tensor:
        """Label ids of entries, int64 in the shape of `indices`."""
        labels = self.store.label_ids[indices.cpu().numpy()]
        return torch.from_numpy(labels.astype(np.int64)).to(self.device)

    def rescore(self, queries: Tensor, candidates: Tensor) -> SearchResult:
        """Order candidate entries, (q, c) int64, by their exact similarity to (q, dim) queries."""
        candidates = candidates.sort(dim=1).values
        similarities = torch.empty(candidates.shape, device=self.device)
        step = max(1, RESCORED_KEYS // candidates.shape[1])
        for start in range(0, len(queries), step):
            rows = candidates[start : start + step].cpu().numpy()
            keys = torch.from_numpy(self.store.gather(rows.reshape(-1))).to(self.device).float()
            norms = torch.from_numpy(self.store.norms[rows]).to(self.device)
            similarities[start : start + step] = exact_similarity(
                queries[start : start + step], keys.view(*rows.shape, -1), norms, self.similarity
            )
        return _best_first(similarities, candidates)

    def checked(self, queries: Tensor) -> Tensor:
        """The queries in float32 on this index's device. Raises UserError as `search` does."""
        if queries.ndim != 2 or queries.shape[1] != self.store.dim:
            raise UserError(
                f"{self.store.path}: keys are {self.store.dim} wide, but the hidden states to "
                f"search for have the shape {tuple(queries.shape)}; use the model that the "
                "datastore was built with"
            )
        queries = queries.detach().to(self.device, torch.float32)
        if not queries.isfinite().all():
            raise UserError(
                "hidden states to search for are not finite; "
                "look for a model that diverged, or use --precision 32"
            )
        return queries


def _best_first(similarities: Tensor, indices: Tensor) -> SearchResult:
    """Sort rows by similarity; of equal ones, what came first stays first."""
    similarities, order = similarities.sort(dim=1, descending=True, stable=True)
    return SearchResult(similarities, indices.gather(1, order))


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
                merged = _best_first(
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
