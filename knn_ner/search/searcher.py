"""Search for the nearest neighbours in a datastore: the interface of all indexes."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from knn_ner.datastore.reader import Datastore
from knn_ner.search.similarity import check_similarity, exact_similarity
from knn_ner.search.vote import vote
from knn_ner.settings import EXACT
from knn_ner.utils.errors import UserError

# Candidate keys in float32 whose similarity is computed at once: as many as fit into the cache of a CPU, or keep an
# accelerator busy.
RESCORED_KEYS = {"cpu": 1 << 11, "cuda": 1 << 18}
# Neighbours, of all queries together, whose votes are counted at once.
VOTES_AT_ONCE = 1 << 22


@dataclass(frozen=True)
class SearchResult:
    """The neighbours of q queries, best first; equal similarities by lower index.

    Attributes:
        similarities: (q, k) float32.
        indices: (q, k) int64, entries of the datastore.
    """

    similarities: Tensor
    indices: Tensor


@dataclass(frozen=True)
class LogWeights:
    """The weights of the labels in the vote of every entry, which are sums of exp(similarity / T).

    They are kept relative to the largest similarity: when T approaches 0, their own logarithms lose all digits.

    Attributes:
        logs: (q, labels) float64, log of the sum of exp((similarity - largest) / T); minus infinity for a label
            without entries.
        largest: (q,) float32, the largest similarity.
    """

    logs: Tensor
    largest: Tensor


class Searcher(ABC):
    """Search over a datastore.

    Args:
        store: the datastore.
        similarity: "cosine" or "l2" (minus the squared Euclidean distance).
        device: the device that searches and holds results.

    Raises:
        UserError: for another similarity, or a datastore without entries.
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

    @property
    def index_name(self) -> str:
        """The value of `--index` that selects this search."""
        return EXACT

    def reopened(self, store: Datastore) -> "Searcher":
        """The same search over a later state of the datastore."""
        return type(self)(store, self.similarity, self.device)

    @abstractmethod
    def search(self, queries: Tensor, k: int) -> SearchResult:
        """The k nearest entries of each query; all n entries if k > n.

        Args:
            queries: (q, dim) float.
            k: at least 1.

        Raises:
            UserError: for k below 1, and for queries that are not finite or not as wide as the keys.
        """

    def vote_all(self, queries: Tensor, temperatures: Sequence[float]) -> Tensor:
        """The vote of every entry (k = -1) at each temperature: (temperatures, q, labels) float32.

        Raises:
            UserError: as `search` does, for a temperature that is not above 0, and if the index does not visit
                every entry.
        """
        raise UserError(f"k -1: {type(self).__name__} does not visit every entry; search exactly")

    def log_weights(
        self, queries: Tensor, temperature: float, without: Tensor | None = None
    ) -> LogWeights:
        """The weights of the labels in the vote of every entry, whose softmax is `vote_all`.

        Args:
            queries: (q, dim) float.
            temperature: above 0.
            without: (q, m) int64, m different entries for each query that do not vote; fewer than there are.

        Raises:
            UserError: as `vote_all` does.
        """
        raise UserError(f"k -1: {type(self).__name__} does not visit every entry; search exactly")

    def votes(self, queries: Tensor, k: int, temperature: float) -> Tensor:
        """P_knn, the vote of the k nearest entries or, with k = -1, of every entry: (q, labels) float32.

        Raises:
            UserError: as `search` does, and for a temperature that is not above 0.
        """
        if k == -1:
            return self.vote_all(queries, [temperature])[0]
        parts = []
        for part in queries.split(max(1, VOTES_AT_ONCE // max(1, min(k, self.store.entries)))):
            found = self.search(part, k)
            labels = self.neighbour_labels(found.indices)
            counts = self.neighbour_weights(found.indices)
            num_labels = len(self.store.labels)
            parts.append(vote(found.similarities, labels, num_labels, temperature, counts, k))
        return torch.cat(parts)

    def neighbour_labels(self, indices: Tensor) -> Tensor:
        """Label ids of entries, int64 in the shape of `indices`."""
        labels = self.store.label_ids[indices.cpu().numpy()]
        return torch.from_numpy(labels.astype(np.int64)).to(self.device)

    def neighbour_weights(self, indices: Tensor) -> Tensor | None:
        """The number of entries that each stands for, float32 in the shape of `indices`; None if each is one."""
        if self.store.weights is None:
            return None
        return torch.from_numpy(self.store.weights[indices.cpu().numpy()]).to(self.device)

    def keys_of(self, entries: Tensor) -> Tensor:
        """Keys of entries: (m,) int64 -> (m, dim) float32, on the device of this search."""
        return torch.from_numpy(self.store.gather(entries.cpu().numpy())).to(self.device).float()

    def similarities_of(self, queries: Tensor, entries: Tensor) -> Tensor:
        """`exact_similarity` of (q, dim) queries to their own (q, c) entries: (q, c) float32."""
        similarities = torch.empty(entries.shape, device=self.device)
        step = max(1, RESCORED_KEYS[self.device.type] // entries.shape[1])
        for start in range(0, len(queries), step):
            part = slice(start, start + step)
            own = entries[part]
            keys = self.keys_of(own.reshape(-1)).view(*own.shape, -1)
            norms = torch.from_numpy(self.store.norms[own.cpu().numpy()]).to(self.device)
            similarities[part] = exact_similarity(queries[part], keys, norms, self.similarity)
        return similarities

    def rescore(self, queries: Tensor, candidates: Tensor) -> SearchResult:
        """Sort candidate entries, (q, c) int64, by their exact similarity to (q, dim) queries."""
        candidates = candidates.sort(dim=1).values
        return best_first(self.similarities_of(queries, candidates), candidates)

    def checked(self, queries: Tensor) -> Tensor:
        """The queries in float32 on the device of this search.

        Raises:
            UserError: as `search` does.
        """
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


def best_first(similarities: Tensor, indices: Tensor) -> SearchResult:
    """Sort rows by similarity; equal ones keep their order."""
    similarities, order = similarities.sort(dim=1, descending=True, stable=True)
    return SearchResult(similarities, indices.gather(1, order))
