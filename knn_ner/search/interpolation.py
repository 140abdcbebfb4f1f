"""The mix of vote and tagger: P = w * P_knn + (1 - w) * P_tagger (arXiv 2203.17103, section 3.2)."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

# Lead, mix and votes are computed in float32, with errors of about 1e-6. Tokens whose lead is this close to the
# limit are searched.
SKIP_MARGIN = 1e-5


def interpolate(base: Tensor, votes: Tensor, knn_weight: float) -> Tensor:
    """P(y|x) = knn_weight * P_knn(y|x) + (1 - knn_weight) * P_tagger(y|x).

    Args:
        base: (q, L) the tagger's probabilities.
        votes: (q, L) the neighbours' vote, over the same labels.
        knn_weight: 0 to 1.

    Returns:
        (q, L) float32, or float64 if an argument is.
    """
    if base.shape != votes.shape:
        raise ValueError(f"base {tuple(base.shape)} and votes {tuple(votes.shape)} differ in shape")
    return knn_weight * _at_least_float32(votes) + (1 - knn_weight) * _at_least_float32(base)


def predict(probabilities: Tensor) -> Tensor:
    """The most likely label of each row, the lowest index among equals: (q, L) -> (q,) int64."""
    return probabilities.argmax(dim=1)


def needs_search(base: Tensor, knn_weight: float) -> Tensor:
    """Which tokens a vote could change.

    With p1 and p2 the tagger's two highest probabilities, the most likely label leads any other in the mix by at
    least (1 - w) * (p1 - p2) - w. Where that is above 0, no vote changes the arg max.

    Args:
        base: (q, L) the tagger's probabilities over all labels of tagger and datastore (`LabelAlignment.base`).
        knn_weight: w, 0 to 1.

    Returns:
        (q,) bool.
    """
    if knn_weight == 0 or base.shape[1] == 1:
        return torch.zeros(len(base), dtype=torch.bool, device=base.device)
    first, second = _at_least_float32(base).topk(2, dim=1).values.unbind(dim=1)
    # Negated, so that tokens with a probability of NaN are searched.
    return ~((1 - knn_weight) * (first - second) > knn_weight + SKIP_MARGIN)


def searched_share(margin: np.ndarray) -> dict[str, float]:
    """The share of tokens that need a search at some knn_weights; from 0.5 on it is 1.

    Args:
        margin: (tokens,) the tagger's highest probability less its second highest.
    """
    return {
        f"{weight:.2f}": round(float(((1 - weight) * margin <= weight + SKIP_MARGIN).mean()), 6)
        for weight in np.linspace(0.02, 0.5, 25)
    }


class LabelAlignment:
    """Puts the tagger's probabilities and the datastore's votes over one list of labels.

    The tagger's labels come first, in its order, then those that only the datastore has. A label that one of
    them lacks gets probability 0 there. If both have the same list, nothing is copied.

    Attributes:
        labels: the common list.
    """

    def __init__(self, tagger_labels: Sequence[str], store_labels: Sequence[str]):
        self.labels = list(dict.fromkeys([*tagger_labels, *store_labels]))
        index = {label: number for number, label in enumerate(self.labels)}
        self._base_columns = [index[label] for label in tagger_labels]
        self._vote_columns = [index[label] for label in store_labels]

    def base(self, probabilities: Tensor) -> Tensor:
        """(q, tagger's labels) -> (q, all labels)."""
        return self._spread(probabilities, self._base_columns)

    def votes(self, votes: Tensor) -> Tensor:
        """(..., datastore's labels) -> (..., all labels)."""
        return self._spread(votes, self._vote_columns)

    def vote_labels(self, label_ids: Tensor) -> Tensor:
        """Label ids of the datastore, of any shape, as indices into `labels`."""
        return torch.tensor(self._vote_columns, device=label_ids.device)[label_ids]

    def stored_labels(self, ids: Tensor) -> Tensor:
        """Indices into `labels`, of any shape, as label ids of the datastore; -1 for labels that it lacks."""
        stored = torch.full((len(self.labels),), -1, device=ids.device)
        stored[self._vote_columns] = torch.arange(len(self._vote_columns), device=ids.device)
        return stored[ids]

    def _spread(self, columns: Tensor, to: list[int]) -> Tensor:
        if to == list(range(len(self.labels))):
            return columns
        spread = columns.new_zeros(*columns.shape[:-1], len(self.labels))
        spread[..., to] = columns
        return spread


def _at_least_float32(probabilities: Tensor) -> Tensor:
    return probabilities if probabilities.dtype == torch.float64 else probabilities.float()
