"""Nearest neighbours in a datastore: what every index offers."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from knn_ner.datastore.reader import Datastore
from knn_ner.search.similarity import check_similarity, exact_similarity
from knn_ner.search.vote import vote
from knn_ner.settings import check_temperature
from knn_ner.utils.errors import UserError

# Candidate keys held at once, in float32, while their similarity is computed: what stays in a CPU's
# cache, and what an accelerator takes in one go.
RESCORED_KEYS = {"cpu": 1 << 11, "cuda": 1 << 18}
# Neighbours, of all queries together, whose votes are counted at once.
VOTING = 1 << 22


@dataclass(frozen=True)
class SearchResult:
    """The neighbours of q queries, best first; equal similarities by lower index.

    Attributes:
        similarities: (q, k) float32.
        indices: (q, k) int64, entries of the datastore.
    """

    similarities: Tensor
    indices: Tensor


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
        group = max(1, VOTING // max(1, min(k, self.store.entries)))
        return torch.cat([self._votes(part, k, temperature) for part in queries.split(group)])

    def _votes(self, queries: Tensor, k: int, temperature: float) -> Tensor:
        found = self.search(queries, k)
        labels = self.neighbour_labels(found.indices)
        counts = self.neighbour_weights(found.indices)
        return vote(found.similarities, labels, len(self.store.labels), temperature, counts, k)

    def neighbour_labels(self, indices: Tensor) -> Tensor:
        """Label ids of entries, int64 in the shape of `indices`."""
        labels = self.store.label_ids[indices.cpu().numpy()]
        return torch.from_numpy(labels.astype(np.int64)).to(self.device)

    def neighbour_weights(self, indices: Tensor) -> Tensor | None:
        """How many entries each stands for, float32 in the shape of `indices`; None if each is one."""
        if self.store.weights is None:
            return None
        return torch.from_numpy(self.store.weights[indices.cpu().numpy()]).to(self.device)

    def keys_of(self, entries: Tensor) -> Tensor:
        """Keys of entries: (m,) int64 -> (m, dim) float32, on this index's device."""
        return torch.from_numpy(self.store.gather(entries.cpu().numpy())).to(self.device).float()

    def rescore(self, queries: Tensor, candidates: Tensor) -> SearchResult:
        """Order candidate entries, (q, c) int64, by their exact similarity to (q, dim) queries."""
        candidates = candidates.sort(dim=1).values
        similarities = torch.empty(candidates.shape, device=self.device)
        held = RESCORED_KEYS.get(self.device.type, RESCORED_KEYS["cpu"])
        step = max(1, held // candidates.shape[1])
        for start in range(0, len(queries), step):
            part = candidates[start : start + step]
            keys = self.keys_of(part.reshape(-1)).view(*part.shape, -1)
            norms = torch.from_numpy(self.store.norms[part.cpu().numpy()]).to(self.device)
            similarities[start : start + step] = exact_similarity(
                queries[start : start + step], keys, norms, self.similarity
            )
        return best_first(similarities, candidates)

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


def best_first(similarities: Tensor, indices: Tensor) -> SearchResult:
    """Sort rows by similarity; of equal ones, what came first stays first."""
    similarities, order = similarities.sort(dim=1, descending=True, stable=True)
    return SearchResult(similarities, indices.gather(1, order))
