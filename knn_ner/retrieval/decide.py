"""The tag of the mix without all of its vote: as soon as the votes still missing cannot change it.

The published rule needs the arg max of knn_weight * P_knn + (1 - knn_weight) * P_tagger alone. From
the cheapest to the dearest, until a token's tag is certain:

1. balls around the keys bound the vote for the tagger's own label from below (`cover.py`);
2. a matrix product with all keys gives the vote up to rounding, which is bounded;
3. the neighbours are found exactly.

The tags are those of an exhaustive search. An approximate index is asked first, and its answer taken
where more than half of the vote might be for another label without changing the tag: that is the one
place where tags can differ.
"""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from knn_ner.retrieval.cover import ENTRIES_PER_BALL, MOST_BALLS, ROUNDS, Cover, covers_of
from knn_ner.retrieval.exact import Candidates, ExactSearch
from knn_ner.retrieval.faiss_search import FaissSearch
from knn_ner.retrieval.interpolation import (
    SKIP_MARGIN,
    KnnSettings,
    LabelAlignment,
    interpolate,
)
from knn_ner.retrieval.search import Searcher
from knn_ner.retrieval.vote import vote

# Neighbours that an approximate index is asked for at first, and the share of their vote that may be for
# another label without changing the tag: fewer neighbours, or half of the vote, now and then settle
# a tag wrongly where k and temperature are high.
FIRST_NEIGHBOURS = 64
DOUBTED = 0.55
# A mix as clear as this is enough for any knn_weight.
CLEAR = 0.9
# Entries up to which what an approximate index leaves open is searched exactly.
EXACT_UP_TO = 1 << 21
# A cover is built if it spares more than this times what it costs.
WORTH = 2


@dataclass
class Decider:
    """Decides the tags of tokens.

    Args:
        searcher: the index.
        alignment: of the tagger's and the datastore's labels.
        settings: k, temperature, knn_weight.
        expected: how many tokens will come, for what is worth preparing.

    Attributes:
        settled: how many tags each of the ways has settled, by its name.
    """

    searcher: Searcher
    alignment: LabelAlignment
    settings: KnnSettings
    expected: int = 0
    settled: dict[str, int] = field(default_factory=dict)
    _covers: list[Cover] | None = None

    def decide(self, queries: Tensor, base: Tensor) -> Tensor:
        """The tags of the mix.

        Args:
            queries: (q, dim) float.
            base: (q, L) the tagger's distribution over the labels of `alignment`.

        Returns: (q,) int64, indices into these labels. Raises UserError as `Searcher.search` does.
        """
        queries = self.searcher.checked(queries)
        tags = torch.full((len(queries),), -1, device=queries.device)
        for name, way in self._ways():
            open_ = (tags < 0).nonzero()[:, 0]
            if not len(open_):
                break
            tags[open_] = way(queries[open_], base[open_])
            count = int((tags[open_] >= 0).sum())
            self.settled[name] = self.settled.get(name, 0) + count
        return tags

    def _ways(self):
        if isinstance(self.searcher, FaissSearch) and self.settings.k != -1:
            yield "index", self._by_index
            if self.searcher.store.entries > EXACT_UP_TO:
                yield "search", self._by_search
                return
            yield "product", self._by_product
        elif isinstance(self.searcher, ExactSearch):
            for cover in self.covers():
                yield (
                    "cover",
                    lambda queries, base, cover=cover: self._by_cover(cover, queries, base),
                )
            if self.settings.k != -1:
                yield "product", self._by_product
        yield "search", self._by_search

    def covers(self) -> list[Cover]:
        """The covers of the store, if there are any or enough tokens will come for them to be worth making."""
        if self._covers is None:
            store = self.searcher.store
            # In numbers of keys that are multiplied.
            cost = (ROUNDS + 1) * min(store.entries // ENTRIES_PER_BALL, MOST_BALLS)
            build = self.expected > WORTH * cost
            self._covers = covers_of(store, self.searcher.similarity, build)
        return self._covers

    def _by_cover(self, cover: Cover, queries: Tensor, base: Tensor) -> Tensor:
        """The tagger's own label where the least vote for it is enough; -1 elsewhere."""
        tags = base.argmax(dim=1)
        shares = cover.least_share(
            queries.cpu(),
            self.alignment.stored_labels(tags).cpu(),
            self.settings.k,
            self.settings.temperature,
        )
        return self._where_certain(tags, shares.to(base.device), base)

    def _by_product(self, queries: Tensor, base: Tensor) -> Tensor:
        """The tag of the vote by a matrix product, where its rounding cannot matter; -1 elsewhere."""
        exact = self.searcher if isinstance(self.searcher, ExactSearch) else self.searcher.exact
        k = min(self.settings.k, exact.store.entries)
        tags = torch.full((len(queries),), -1, device=queries.device)
        for part, found in exact.candidates(queries, k):
            labels = exact.neighbour_labels(found.indices)
            best, order = found.scores.topk(k, dim=1)
            votes = self._vote(exact, best, found.indices.gather(1, order), labels.gather(1, order))
            likeliest = self._mix(base[part], votes).argmax(dim=1)
            shares = self._least_share(exact, queries[part], found, labels, likeliest, k)
            tags[part] = self._where_certain(likeliest, shares, base[part])
        return tags

    def _least_share(
        self,
        exact: ExactSearch,
        queries: Tensor,
        found: Candidates,
        labels: Tensor,
        tags: Tensor,
        k: int,
    ) -> Tensor:
        """What the votes for `tags` are at least, whatever the rounding of the product; 0 if unknown.

        As in `cover.py`: all keys of other labels are put nearer, by twice the error of a score.
        """
        error = 2 * exact.product_error(queries)[:, None]
        ours = labels == self.alignment.stored_labels(tags)[:, None]
        scores = torch.where(ours, found.scores, found.scores + error)
        best, order = scores.topk(k, dim=1)
        ours = ours.gather(1, order).long()
        shares = vote(
            best,
            ours,
            2,
            self.settings.temperature,
            exact.neighbour_weights(found.indices.gather(1, order)),
            self.settings.k,
        )[:, 1]
        # A key that is no candidate might have taken part.
        return shares.where(found.floor + error[:, 0] < best[:, -1], 0)

    def _by_index(self, queries: Tensor, base: Tensor) -> Tensor:
        """The tag of the nearest few that an approximate index finds, where it is clear; -1 elsewhere."""
        count = min(FIRST_NEIGHBOURS, self.settings.k)
        found = self.searcher.approximate(queries, count)
        labels = self.searcher.neighbour_labels(found.indices)
        votes = self._vote(self.searcher, found.similarities, found.indices, labels)
        mixed = self._mix(base, votes)
        clear = _lead(mixed) > min(2 * DOUBTED * self.settings.knn_weight, CLEAR)
        clear &= found.similarities[:, -1] > -torch.inf
        return mixed.argmax(dim=1).where(clear, -1)

    def _by_search(self, queries: Tensor, base: Tensor) -> Tensor:
        votes = self.searcher.votes(queries, self.settings.k, self.settings.temperature)
        return self._mix(base, self.alignment.votes(votes)).argmax(dim=1)

    def _vote(
        self, searcher: Searcher, similarities: Tensor, indices: Tensor, labels: Tensor
    ) -> Tensor:
        """The vote of neighbours, best first, over the labels of `alignment`."""
        votes = vote(
            similarities,
            labels,
            len(searcher.store.labels),
            self.settings.temperature,
            searcher.neighbour_weights(indices),
            self.settings.k,
        )
        return self.alignment.votes(votes)

    def _mix(self, base: Tensor, votes: Tensor) -> Tensor:
        return interpolate(base, votes, self.settings.knn_weight)

    def _where_certain(self, tags: Tensor, shares: Tensor, base: Tensor) -> Tensor:
        """The tags whose votes' least `shares` put them before all others; -1 elsewhere."""
        weight = self.settings.knn_weight
        own = base.gather(1, tags[:, None])[:, 0]
        others = base.scatter(1, tags[:, None], -torch.inf).amax(dim=1)
        # The rest of the vote may be for one label, the likeliest of the others.
        lead = weight * (2 * shares - 1) + (1 - weight) * (own - others)
        return tags.where(lead > SKIP_MARGIN, -1)


def _lead(mixed: Tensor) -> Tensor:
    first, second = mixed.topk(2, dim=1).values.unbind(dim=1)
    return first - second
