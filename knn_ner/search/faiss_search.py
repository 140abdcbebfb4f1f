"""Approximate search by a FAISS index that is kept in the datastore."""

import logging
import math
from collections.abc import Sequence
from functools import cache

import numpy as np
import torch
from torch import Tensor

from knn_ner.datastore.reader import Datastore
from knn_ner.search.distributed import StorePart, merge_nearest
from knn_ner.search.exact import ExactSearch
from knn_ner.search.faiss_index import LoadedIndex
from knn_ner.search.faiss_library import faiss_errors, graphs_of, lists_of, load_faiss
from knn_ner.search.searcher import Searcher, SearchResult, best_first
from knn_ner.search.similarity import norm, product_error
from knn_ner.utils.errors import UserError

logger = logging.getLogger(__name__)

# Candidates of an index that stores less than the keys: so many for each neighbour wanted, and some more.
# On hidden states, by PCA64 or PQ48 of 384 dimensions, recall hardly grows with more.
CANDIDATES_PER_NEIGHBOUR = 2
FURTHER_CANDIDATES = 64

# The lists that an index visits by default: this part of them, or a few, for any query; and as many as hold so
# many times the neighbours wanted.
VISITED_LISTS = 1 / 32
FEWEST_LISTS = 8
VISITED_PER_NEIGHBOUR = 8
# What a first look visits.
GLANCED_LISTS = 4
# What a graph keeps beside those that it is to find.
FURTHER_VISITED = 64

# Bytes for the candidates of queries that are searched together.
WORKING_BYTES = 64 << 20
# Rows of a product: always as many, as matrix libraries round otherwise for others.
TRANSFORMED_ROWS = 32


class FaissSearch(Searcher):
    """Search by an index, with the similarities and the order of exact search.

    The index finds candidates, more than neighbours wanted; `exact_similarity` of their keys decides. What was
    added to the store after the index was built is searched exactly, and merged. Where the index comes
    back with fewer than k, it visits more lists, and in the end the query is searched exactly. With a
    `Flat` index the neighbours are those of `ExactSearch`.

    The same index, settings and queries give the same neighbours.

    Args:
        store, similarity, device: as for `Searcher`.
        loaded: the index, whose record stands for the store.
        nprobe: lists to visit; if not given, 1/32 of them (at least 8), and as many as hold eight times
            the neighbours wanted.
        ef_search: candidates that an HNSW graph keeps on its way; if not given, 64 more than are to be found.

    Raises `UserError` for a setting that the index does not have.
    """

    def __init__(
        self,
        store: Datastore,
        similarity: str = "cosine",
        device: str | torch.device = "cpu",
        *,
        loaded: LoadedIndex,
        nprobe: int | None = None,
        ef_search: int | None = None,
    ):
        super().__init__(store, similarity, device)
        self.loaded = loaded
        self.indexed = loaded.record.entries
        self.nprobe, self.ef_search = nprobe, ef_search
        self._lists, self._graphs = lists_of(loaded.index), graphs_of(loaded.index)
        for flag, value, there in (
            ("--nprobe", nprobe, self._lists is not None),
            ("--ef_search", ef_search, bool(self._graphs)),
        ):
            if value is not None and not there:
                kind = "inverted lists (IVF)" if flag == "--nprobe" else "graph (HNSW)"
                raise UserError(
                    f'{flag} {value}: index "{loaded.record.index}" has no {kind}, so it has no such '
                    "setting; leave it out"
                )
            if value is not None and value < 1:
                raise UserError(f"{flag} {value}: expected at least 1")
        self.exact = ExactSearch(store, similarity, device)
        added = store.entries - self.indexed
        self._tail = (
            ExactSearch(StorePart(store, self.indexed, store.entries), similarity, device)
            if added
            else None
        )

    @classmethod
    def open(
        cls,
        store: Datastore,
        name: str,
        similarity: str = "cosine",
        device: str | torch.device = "cpu",
        **settings: int | None,
    ) -> "FaissSearch":
        """Search by the index of that name in the store.

        Raises `UserError` as `LoadedIndex.read` and for a setting that the index does not have.
        """
        loaded = LoadedIndex.read(store, name, similarity, torch.device(device))
        return cls(store, similarity, device, loaded=loaded, **settings)

    def search(self, queries: Tensor, k: int) -> SearchResult:
        queries, k = self._checked(queries, k)
        group = max(1, WORKING_BYTES // (32 * self._wanted(k)))
        found = [self._nearest(part, k) for part in queries.split(group)]
        return SearchResult(
            torch.cat([part.similarities for part in found]),
            torch.cat([part.indices for part in found]),
        )

    def approximate(self, queries: Tensor, k: int) -> SearchResult:
        """The k entries that the index itself finds, with its own similarities: a cheap first look.

        Of inverted lists a few are visited, and nothing is re-scored; entries added since it was built are
        compared exactly. Where fewer are found, rows end in similarity -inf and entry 0. Arguments and
        errors as for `search`.
        """
        queries, k = self._checked(queries, k)
        glanced = self.nprobe or GLANCED_LISTS
        scores, indices = self._ask(queries, min(k, self.indexed), k, glanced=glanced)
        missing = indices < 0
        result = SearchResult(
            scores.masked_fill(missing, -torch.inf), indices.masked_fill(missing, 0)
        )
        result = self._with_tail(queries, result, k)
        short = k - result.indices.shape[1]
        return SearchResult(
            torch.nn.functional.pad(result.similarities, (0, short), value=-torch.inf),
            torch.nn.functional.pad(result.indices, (0, short)),
        )

    def vote_all(self, queries: Tensor, temperatures: Sequence[float]) -> Tensor:
        _say_that_all_vote()
        return self.exact.vote_all(queries, temperatures)

    def log_weights(
        self, queries: Tensor, temperature: float, without: Tensor | None = None
    ) -> Tensor:
        _say_that_all_vote()
        return self.exact.log_weights(queries, temperature, without)

    def _checked(self, queries: Tensor, k: int) -> tuple[Tensor, int]:
        if k < 1:
            raise UserError(f"k {k}: expected at least 1 neighbour to search for")
        limit = self.loaded.largest_k
        if limit is not None and k > limit:
            raise UserError(
                f"k {k}: faiss finds at most {limit} neighbours on a GPU, unless it is built with cuVS; "
                "give a smaller k, --device cpu, or search without --index"
            )
        return self.checked(queries), min(k, self.store.entries)

    def _wanted(self, k: int) -> int:
        """How many candidates to ask for."""
        if self.loaded.whole:
            wanted = k + max(16, k // 16)
        else:
            wanted = CANDIDATES_PER_NEIGHBOUR * k + FURTHER_CANDIDATES
        return min(wanted, self.indexed, self.loaded.largest_k or wanted)

    def _nearest(self, queries: Tensor, k: int) -> SearchResult:
        wanted = self._wanted(k)
        enough = min(k, self.indexed)
        scores, indices = self._ask(queries, wanted, k)
        factor = 2
        while self._lists is not None and self._probes(k, factor // 2) < self._lists.nlist:
            short = ((indices >= 0).sum(dim=1) < enough).nonzero()[:, 0]
            if not len(short):
                break
            scores[short], indices[short] = self._ask(queries[short], wanted, k, factor)
            factor *= 2
        unsure = (indices >= 0).sum(dim=1) < enough
        found = self._with_tail(queries, self._rescored(queries, indices, enough), k)
        if self.loaded.everything and wanted < self.indexed:
            # As in `ExactSearch`: what is no candidate is no better than the worst that is one.
            bar = found.similarities[:, -1] - self._score_error(queries)
            unsure |= scores[:, -1] >= bar
        if unsure.any():
            exact = self.exact.search(queries[unsure], k)
            found.similarities[unsure] = exact.similarities
            found.indices[unsure] = exact.indices
        return found

    def _with_tail(self, queries: Tensor, found: SearchResult, k: int) -> SearchResult:
        """The k best of what was found in the index and of the entries that it does not cover."""
        if self._tail is None:
            return found
        added = self._tail.search(queries, k)
        return merge_nearest(
            [found, SearchResult(added.similarities, added.indices + self.indexed)], k
        )

    def _rescored(self, queries: Tensor, indices: Tensor, k: int) -> SearchResult:
        """The best k of (q, c) candidates, of which some rows lack some (-1)."""
        missing = indices < 0
        if not missing.any():
            found = self.rescore(queries, indices)
            return SearchResult(found.similarities[:, :k], found.indices[:, :k])
        # Filled with the row's first candidate; of equal entries, which then stand side by side, one counts.
        filled = torch.where(missing, indices[:, :1].clamp(min=0), indices)
        found = self.rescore(queries, filled)
        again = torch.zeros_like(missing)
        again[:, 1:] = found.indices[:, 1:] == found.indices[:, :-1]
        found = best_first(found.similarities.masked_fill(again, -torch.inf), found.indices)
        return SearchResult(found.similarities[:, :k], found.indices[:, :k])

    def _ask(
        self, queries: Tensor, wanted: int, k: int, factor: int = 1, glanced: int | None = None
    ) -> tuple[Tensor, Tensor]:
        """What the index finds: similarities by its own measure, (q, wanted), and entries, -1 where none.

        glanced: lists to visit, if not as many as k neighbours take.
        """
        vectors = queries
        if self.similarity == "cosine":
            norms = norm(queries)[:, None]
            vectors = queries / norms.where(norms > 0, 1)
        vectors = self._transformed(np.ascontiguousarray(vectors.cpu().numpy()))
        load_faiss()
        with self.loaded.lock, faiss_errors(f'index "{self.loaded.record.index}"'):
            if self._lists is not None:
                probes = min(glanced, self._lists.nlist) if glanced else self._probes(k, factor)
                self._lists.nprobe = probes
            for graph in self._graphs:
                graph.hnsw.efSearch = self.ef_search or self._visits(wanted) + FURTHER_VISITED
            distances, entries = self.loaded.index.search(vectors, wanted)
        distances = torch.from_numpy(distances).to(self.device)
        scores = 1 - distances / 2 if self.similarity == "cosine" else -distances
        return scores, torch.from_numpy(entries).to(self.device)

    def _visits(self, wanted: int) -> int:
        """How many a graph has to find: entries, or the lists of which it is a graph."""
        return wanted if self._lists is None else self._lists.nprobe

    def _probes(self, k: int, factor: int = 1) -> int:
        """Lists to visit for k neighbours."""
        lists = self._lists.nlist
        nprobe = self.nprobe or math.ceil(
            max(FEWEST_LISTS, VISITED_LISTS * lists)
            + VISITED_PER_NEIGHBOUR * k * lists / self.indexed
        )
        return min(factor * nprobe, lists, self.loaded.largest_k or lists)

    def _transformed(self, vectors: np.ndarray) -> np.ndarray:
        """Queries as the index compares them, each the same whatever the others are."""
        if not self.loaded.transforms:
            return vectors
        count = len(vectors)
        vectors = np.pad(vectors, ((0, -count % TRANSFORMED_ROWS), (0, 0)))
        for transform in self.loaded.transforms:
            blocks = np.split(vectors, len(vectors) // TRANSFORMED_ROWS)
            vectors = np.concatenate([transform.apply(block) for block in blocks])
        return vectors[:count]

    def _score_error(self, queries: Tensor) -> Tensor:
        """How far a similarity by an index that compares everything can be off: (q,)."""
        dim = self.store.dim
        if self.similarity == "cosine":
            return product_error(torch.ones(len(queries), device=self.device), 1.0, dim, "l2") / 2
        return product_error(norm(queries), float(self.store.norms.max()), dim, "l2")


@cache
def _say_that_all_vote() -> None:
    logger.info(
        "k -1: every stored token votes, so that keys are searched exactly, without the index"
    )
