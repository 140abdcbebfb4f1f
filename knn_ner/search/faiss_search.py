"""Approximate search by a FAISS index that is kept in the datastore's folder."""

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
from knn_ner.search.faiss_index import LoadedIndex, StaleIndexError, build_command, fitting_record
from knn_ner.search.faiss_library import faiss_errors, graphs_of, lists_of, load_faiss
from knn_ner.search.searcher import LogWeights, Searcher, SearchResult, best_first
from knn_ner.search.similarity import norm, product_error
from knn_ner.utils.errors import UserError

logger = logging.getLogger(__name__)

# Candidates of an index that stores less than the keys: so many for each neighbour, and some more. With PCA64 or PQ48
# on hidden states of 384 dimensions, more candidates hardly increase recall.
CANDIDATES_PER_NEIGHBOUR = 2
FURTHER_CANDIDATES = 64
# Lists that an index visits by default: this share of them, at least so many, and as many as hold so many entries for
# each neighbour.
VISITED_LIST_SHARE = 1 / 32
MIN_VISITED_LISTS = 8
VISITED_ENTRIES_PER_NEIGHBOUR = 8
# Lists that an approximate search visits.
APPROXIMATE_LISTS = 4
# Candidates that a graph keeps beside those that it has to find.
FURTHER_VISITED = 64
# Memory for the candidates of queries that are searched together.
WORKING_BYTES = 64 << 20
# Rows that are transformed at once. Matrix libraries round a product of another number of rows differently.
TRANSFORMED_ROWS = 32
# An index that lacks more than this share of its entries is worth extending.
UNINDEXED_SHARE = 0.1


class FaissSearch(Searcher):
    """Search by an index, with the similarities and the order of exact search.

    The index finds more candidates than neighbours, and the `exact_similarity` of their keys decides. Entries added to
    the store after the index was built are searched exactly, and merged. If the index finds fewer than k candidates,
    it visits more lists, and at last the query is searched exactly. With a `Flat` index the neighbours are those of
    `ExactSearch`. The same index, settings and queries give the same neighbours.

    Args:
        store, similarity, device: as for `Searcher`.
        loaded: the index, which must fit the store.
        nprobe: lists to visit; if not given, 1/32 of them (at least 8), and as many as hold eight times the neighbours
            wanted.
        ef_search: candidates that an HNSW graph keeps; if not given, 64 more than it has to find.

    Raises:
        UserError: for a setting that the index does not have.
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
        for flag, value, kind, there in (
            ("--nprobe", nprobe, "inverted lists (IVF)", self._lists is not None),
            ("--ef_search", ef_search, "graph (HNSW)", bool(self._graphs)),
        ):
            if value is not None and not there:
                raise UserError(
                    f'{flag} {value}: index "{self.index_name}" has no {kind}, so it has no such '
                    "setting; leave it out"
                )
            if value is not None and value < 1:
                raise UserError(f"{flag} {value}: expected at least 1")
        self.exact = ExactSearch(store, similarity, device)
        self._added: ExactSearch | None = None
        if store.entries > self.indexed:
            added = StorePart(store, self.indexed, store.entries)
            self._added = ExactSearch(added, similarity, device)

    @classmethod
    def open(
        cls,
        store: Datastore,
        name: str,
        similarity: str = "cosine",
        device: str | torch.device = "cpu",
        **settings: int | None,
    ) -> "FaissSearch":
        """Search by the index of that name in the store's folder.

        Raises:
            UserError: as `LoadedIndex.read`, and for a setting that the index does not have.
        """
        loaded = LoadedIndex.read(store, name, similarity, torch.device(device))
        return cls(store, similarity, device, loaded=loaded, **settings)

    @property
    def index_name(self) -> str:
        return self.loaded.record.index

    def reopened(self, store: Datastore) -> Searcher:
        """The same search over a later state of the datastore, with the index in memory if it still fits.

        If the index in the folder no longer fits either, search is exact, which is logged.
        """
        loaded = self.loaded
        try:
            record = fitting_record(store, self.index_name, self.similarity)
            if record.file != loaded.record.file:
                loaded = LoadedIndex.read(store, self.index_name, self.similarity, self.device)
        except StaleIndexError:
            command = build_command(store.path, self.index_name, self.similarity)
            logger.info(
                f'{store.path}: index "{self.index_name}" is of other entries by now, so search is exact; '
                f"bring it up to date with {command}"
            )
            return self.exact.reopened(store)
        settings = {"nprobe": self.nprobe, "ef_search": self.ef_search}
        return FaissSearch(store, self.similarity, self.device, loaded=loaded, **settings)

    def log_unindexed(self) -> None:
        """Log the number of entries that the index lacks, if they are many."""
        added = self.store.entries - self.indexed
        if added > UNINDEXED_SHARE * self.indexed:
            command = build_command(self.store.path, self.index_name, self.similarity)
            logger.info(
                f'{self.store.path}: {added} entries were added since index "{self.index_name}" was built, '
                f"and are searched exactly; {command} takes them in"
            )

    def search(self, queries: Tensor, k: int) -> SearchResult:
        queries, k = self._checked(queries, k)
        group = max(1, WORKING_BYTES // (32 * self._candidates_for(k)))
        found = [self._nearest(part, k) for part in queries.split(group)]
        return SearchResult(
            torch.cat([part.similarities for part in found]),
            torch.cat([part.indices for part in found]),
        )

    def approximate(self, queries: Tensor, k: int) -> SearchResult:
        """The k entries that the index finds in a few lists, with its own approximate similarities.

        Entries that the index lacks are compared exactly. Where fewer than k are found, rows end in similarity -inf
        and entry 0. Arguments and errors as for `search`.
        """
        queries, k = self._checked(queries, k)
        lists = self.nprobe or APPROXIMATE_LISTS
        scores, indices = self._ask(queries, min(k, self.indexed), lists)
        missing = indices < 0
        found = SearchResult(
            scores.masked_fill(missing, -torch.inf), indices.masked_fill(missing, 0)
        )
        found = self._with_added(queries, found, k)
        short = k - found.indices.shape[1]
        return SearchResult(
            torch.nn.functional.pad(found.similarities, (0, short), value=-torch.inf),
            torch.nn.functional.pad(found.indices, (0, short)),
        )

    def vote_all(self, queries: Tensor, temperatures: Sequence[float]) -> Tensor:
        _log_that_all_vote()
        return self.exact.vote_all(queries, temperatures)

    def log_weights(
        self, queries: Tensor, temperature: float, without: Tensor | None = None
    ) -> LogWeights:
        _log_that_all_vote()
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

    def _candidates_for(self, k: int) -> int:
        """The number of candidates to ask for."""
        if self.loaded.whole:
            count = k + max(16, k // 16)
        else:
            count = CANDIDATES_PER_NEIGHBOUR * k + FURTHER_CANDIDATES
        return min(count, self.indexed, self.loaded.largest_k or count)

    def _nearest(self, queries: Tensor, k: int) -> SearchResult:
        count, enough = self._candidates_for(k), min(k, self.indexed)
        lists = self._lists_for(k)
        scores, indices = self._ask(queries, count, lists)
        while self._lists is not None and lists < self._lists.nlist:
            short = ((indices >= 0).sum(dim=1) < enough).nonzero()[:, 0]
            if not len(short):
                break
            lists *= 2
            scores[short], indices[short] = self._ask(queries[short], count, lists)
        unsure = (indices >= 0).sum(dim=1) < enough
        found = self._with_added(queries, self._rescored(queries, indices, enough), k)
        if self.loaded.flat and count < self.indexed:
            # As in `ExactSearch`: other entries score at most as much as the worst candidate.
            bar = found.similarities[:, -1] - self._score_error(queries)
            unsure |= scores[:, -1] >= bar
        if unsure.any():
            exact = self.exact.search(queries[unsure], k)
            found.similarities[unsure] = exact.similarities
            found.indices[unsure] = exact.indices
        return found

    def _with_added(self, queries: Tensor, found: SearchResult, k: int) -> SearchResult:
        """The k best of those found in the index and of the entries that it lacks."""
        if self._added is None:
            return found
        added = self._added.search(queries, k)
        return merge_nearest(
            [found, SearchResult(added.similarities, added.indices + self.indexed)], k
        )

    def _rescored(self, queries: Tensor, indices: Tensor, k: int) -> SearchResult:
        """The best k of (q, c) candidates, of which some are missing (-1)."""
        missing = indices < 0
        # A missing candidate repeats the row's first one. Equal entries are adjacent in the result, and one counts.
        filled = torch.where(missing, indices[:, :1].clamp(min=0), indices)
        found = self.rescore(queries, filled)
        if missing.any():
            repeated = torch.zeros_like(missing)
            repeated[:, 1:] = found.indices[:, 1:] == found.indices[:, :-1]
            similarities = found.similarities.masked_fill(repeated, -torch.inf)
            found = best_first(similarities, found.indices)
        return SearchResult(found.similarities[:, :k], found.indices[:, :k])

    def _ask(self, queries: Tensor, count: int, lists: int) -> tuple[Tensor, Tensor]:
        """The answer of the index: its own similarities and the entries, (q, count); entry -1 if it finds fewer.

        Args:
            queries: (q, dim).
            count: number of candidates.
            lists: number of lists to visit, if the index has any.
        """
        if self.similarity == "cosine":
            norms = norm(queries)[:, None]
            queries = queries / norms.where(norms > 0, 1)
        vectors = self._transformed(np.ascontiguousarray(queries.cpu().numpy()))
        load_faiss()
        with self.loaded.lock, faiss_errors(f'index "{self.index_name}"'):
            # A graph finds entries, or the lists of which it is a graph.
            visited = count
            if self._lists is not None:
                visited = self._lists.nprobe = min(
                    lists, self._lists.nlist, self.loaded.largest_k or lists
                )
            for graph in self._graphs:
                graph.hnsw.efSearch = self.ef_search or visited + FURTHER_VISITED
            distances, entries = self.loaded.index.search(vectors, count)
        scores = torch.from_numpy(distances).to(self.device)
        scores = 1 - scores / 2 if self.similarity == "cosine" else -scores
        return scores, torch.from_numpy(entries).to(self.device)

    def _lists_for(self, k: int) -> int:
        """The number of lists to visit for k neighbours; 0 if the index has no lists."""
        if self._lists is None:
            return 0
        share = max(MIN_VISITED_LISTS, VISITED_LIST_SHARE * self._lists.nlist)
        held = VISITED_ENTRIES_PER_NEIGHBOUR * k * self._lists.nlist / self.indexed
        return self.nprobe or math.ceil(share + held)

    def _transformed(self, vectors: np.ndarray) -> np.ndarray:
        """Queries as the index compares them, each independent of the others."""
        count = len(vectors)
        if self.loaded.transforms:
            vectors = np.pad(vectors, ((0, -count % TRANSFORMED_ROWS), (0, 0)))
        for transform in self.loaded.transforms:
            blocks = np.split(vectors, len(vectors) // TRANSFORMED_ROWS)
            vectors = np.concatenate([transform.apply(block) for block in blocks])
        return vectors[:count]

    def _score_error(self, queries: Tensor) -> Tensor:
        """The largest error of a similarity by a flat index: (q,)."""
        dim = self.store.dim
        if self.similarity == "cosine":
            return product_error(torch.ones(len(queries), device=self.device), 1.0, dim, "l2") / 2
        return product_error(norm(queries), float(self.store.norms.max()), dim, "l2")


@cache
def _log_that_all_vote() -> None:
    logger.info(
        "k -1: every stored token votes, so that keys are searched exactly, without the index"
    )
