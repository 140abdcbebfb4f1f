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
from functools import partial

import torch
from torch import Tensor

from knn_ner.search.ball_cover import Cover, covers_of
from knn_ner.search.exact import ExactSearch
from knn_ner.search.faiss_search import FaissSearch
from knn_ner.search.interpolation import SKIP_MARGIN, LabelAlignment, interpolate
from knn_ner.search.searcher import Searcher
from knn_ner.search.share_bounds import share_bounds
from knn_ner.search.vote import vote
from knn_ner.settings import VoteSettings

# Neighbours that an approximate index is asked for at first, and the share of their vote that may be for
# another label without changing the tag: fewer neighbours, or half of the vote, now and then settle
# a tag wrongly where k and temperature are high.
FIRST_NEIGHBOURS = 64
DOUBTED = 0.55
# A mix as clear as this is enough for any knn_weight.
CLEAR = 0.9
# Tokens that a cover is tried on, and the share of them that it has to settle to be asked for more, as
# a multiple of its balls to an entry: a ball costs about that many keys of a product.
TRIED = 128
COST_OF_BALL = 4
# Entries up to which what an approximate index leaves open is searched exactly.
EXACT_UP_TO = 1 << 21


# The stages of exact search, in their order.
STAGES = ("cover", "product", "search")


@dataclass
class EarlyTermination:
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
    settings: VoteSettings
    expected: int = 0
    settled: dict[str, int] = field(default_factory=dict)
    _covers: list[Cover] | None = None
    _tried: dict[int, tuple[int, int]] = field(default_factory=dict)

    def tags(self, queries: Tensor, base: Tensor) -> Tensor:
        """The tags of the mix.

        Args:
            queries: (q, dim) float.
            base: (q, L) the tagger's distribution over the labels of `alignment`.

        Returns: (q,) int64, indices into these labels. Raises UserError as `Searcher.search` does.
        """
        queries = self.searcher.checked(queries)
        tags = torch.full((len(queries),), -1, device=queries.device)
        for name, way in self._stages():
            open_ = (tags < 0).nonzero()[:, 0]
            if not len(open_):
                break
            tags[open_] = way(queries[open_], base[open_])
            count = int((tags[open_] >= 0).sum())
            self.settled[name] = self.settled.get(name, 0) + count
        return tags

    def _stages(self):
        if isinstance(self.searcher, FaissSearch) and self.settings.k != -1:
            yield "index", self._by_index
            if self.searcher.store.entries > EXACT_UP_TO:
                yield "search", self._by_search
                return
            yield "product", self._by_product
        elif isinstance(self.searcher, ExactSearch):
            for number in range(len(self.covers())):
                yield "cover", partial(self._by_cover, number)
            if self.settings.k != -1:
                yield "product", self._by_product
        yield "search", self._by_search

    def covers(self) -> list[Cover]:
        """The covers of the store, if there are any or enough tokens will come for them to be worth making."""
        if self._covers is None:
            self._covers = []
            # Balls are asked on the CPU; on an accelerator, a product is sooner done.
            if self.searcher.device.type == "cpu":
                self._covers = covers_of(
                    self.searcher.store, self.searcher.similarity, self.expected
                )
        return self._covers

    def _by_cover(self, number: int, queries: Tensor, base: Tensor) -> Tensor:
        """What a cover settles; -1 elsewhere, and where it has settled too little to be worth asking."""
        cover = self.covers()[number]
        worth = COST_OF_BALL * len(cover.centres) / self.searcher.store.entries
        tags = torch.full((len(queries),), -1, device=queries.device)
        start = 0
        while start < len(queries):
            asked, settled = self._tried.get(number, (0, 0))
            if asked >= TRIED and settled < worth * asked:
                break
            stop = len(queries) if asked >= TRIED else min(start + TRIED - asked, len(queries))
            part = slice(start, stop)
            tags[part] = self._bounded(cover, queries[part], base[part])
            found = int((tags[part] >= 0).sum())
            self._tried[number] = asked + stop - start, settled + found
            start = stop
        return tags

    def _bounded(self, cover: Cover, queries: Tensor, base: Tensor) -> Tensor:
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
            least, most = share_bounds(
                found,
                exact.neighbour_labels(found.indices),
                len(exact.store.labels),
                self.settings.k if exact.store.weights is not None else k,
                self.settings.temperature,
                exact.product_error(queries[part]),
                exact.neighbour_weights(found.indices),
            )
            least, most = self.alignment.votes(least), self.alignment.votes(most)
            tags[part] = self._certain(base[part], least, most)
        return tags

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
        least = torch.zeros_like(base).scatter_(1, tags[:, None], shares[:, None])
        # The rest of the vote may be for one label.
        most = (1 - shares)[:, None].expand_as(base).scatter(1, tags[:, None], 1)
        return self._certain(base, least, most)

    def _certain(self, base: Tensor, least: Tensor, most: Tensor) -> Tensor:
        """The labels that come first in the mix for all votes within bounds, (q, L) each; -1 elsewhere."""
        lowest, highest = self._mix(base, least), self._mix(base, most)
        own, tags = lowest.max(dim=1)
        others = highest.scatter(1, tags[:, None], -torch.inf).amax(dim=1)
        return tags.where(own > others + SKIP_MARGIN, -1)


def _lead(mixed: Tensor) -> Tensor:
    first, second = mixed.topk(2, dim=1).values.unbind(dim=1)
    return first - second
