"""The tag of the mix without the whole vote: a search stops as soon as the tag is certain.

Only the arg max of knn_weight * P_knn + (1 - knn_weight) * P_tagger matters. These stages follow each other, from
the cheapest to the most expensive, until the tag of a token is certain:

1. "cover": balls around the keys bound the vote for the tagger's own label (`ball_cover`);
2. "product": similarities by matrix product, with a bounded rounding error, bound the vote (`vote_bounds`);
3. "search": the neighbours are found exactly.

The tags equal those of an exhaustive search. With an approximate index, a stage "index" comes first. Its answer is
taken where more than half of the vote could go to another label without a change of the tag. Only there can a tag
differ.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor

from knn_ner.search.ball_cover import Cover, covers_of
from knn_ner.search.exact import BLOCK_KEYS, ExactSearch
from knn_ner.search.faiss_search import FaissSearch
from knn_ner.search.interpolation import SKIP_MARGIN, LabelAlignment, interpolate, predict
from knn_ner.search.searcher import Searcher
from knn_ner.search.similarity import FLOAT32_ROUNDING
from knn_ner.search.vote import vote, vote_bounds
from knn_ner.settings import VoteSettings

# Neighbours in the stage "index", and the share of their vote that may be for another label. With fewer neighbours,
# or half of the vote, a few tags are wrong where k and temperature are high.
INDEX_NEIGHBOURS = 64
DOUBTED_VOTE_SHARE = 0.55
# A label that leads the mix by this much is clear at any knn_weight.
CLEAR_LEAD = 0.9
# The similarities of an index are coarse. At temperatures below this many times the error of a matrix product, the
# vote depends on differences between similarities that the index cannot tell.
PRODUCT_ERRORS_PER_TEMPERATURE = 50
# Tokens that a cover is tried on. To be used further, it has to settle a share of them that saves its cost: a ball
# costs as much as this many keys of a matrix product.
TRIAL_TOKENS = 128
KEYS_PER_BALL = 4
# Entries up to which the tokens that an approximate index leaves open are searched exactly.
MAX_EXACT_ENTRIES = 1 << 21

# The stages of exact search, in their order.
STAGES = ("cover", "product", "search")

# Queries and base to tags, -1 where a tag is not certain.
Stage = Callable[[Tensor, Tensor], Tensor]


@dataclass
class EarlyTermination:
    """Decides the tags of tokens.

    Attributes:
        searcher: search over the datastore.
        alignment: the labels of tagger and datastore.
        settings: k, temperature and knn_weight.
        expected: number of tokens to expect; for few of them no covers are built.
        settled: number of tags that each stage settled, by its name.
    """

    searcher: Searcher
    alignment: LabelAlignment
    settings: VoteSettings
    expected: int = 0
    settled: dict[str, int] = field(default_factory=dict)
    _covers: list[Cover] | None = None
    # Tokens that a cover was tried on, and tags that it settled.
    _trials: dict[int, tuple[int, int]] = field(default_factory=dict)

    def tags(self, queries: Tensor, base: Tensor) -> Tensor:
        """The tags of the mix.

        Args:
            queries: (q, dim) float.
            base: (q, L) the tagger's distribution over the labels of `alignment`.

        Returns:
            (q,) int64, indices into these labels.

        Raises:
            UserError: as `Searcher.search` does.
        """
        queries = self.searcher.checked(queries)
        tags = torch.full((len(queries),), -1, device=queries.device)
        for name, stage in self._stages():
            open_ = (tags < 0).nonzero()[:, 0]
            if not len(open_):
                break
            tags[open_] = stage(queries[open_], base[open_])
            count = int((tags[open_] >= 0).sum())
            self.settled[name] = self.settled.get(name, 0) + count
        return tags

    def _stages(self) -> Iterator[tuple[str, Stage]]:
        searcher: Searcher = self.searcher
        k = self.settings.k
        if isinstance(searcher, ExactSearch):
            for number in range(len(self.covers())):
                yield "cover", partial(self._by_cover, number)
            if k != -1:
                yield "product", partial(self._by_product, searcher)
        elif isinstance(searcher, FaissSearch) and k != -1:
            yield "index", partial(self._by_index, searcher)
            if searcher.store.entries <= MAX_EXACT_ENTRIES:
                searcher = searcher.exact
                yield "product", partial(self._by_product, searcher)
        yield "search", partial(self._by_search, searcher)

    def covers(self) -> list[Cover]:
        """The covers of the store, if they are kept with it or enough tokens are expected to build them."""
        if self._covers is None:
            # On an accelerator a matrix product is faster than a cover.
            on_cpu = self.searcher.device.type == "cpu"
            store, similarity = self.searcher.store, self.searcher.similarity
            self._covers = covers_of(store, similarity, self.expected) if on_cpu else []
        return self._covers

    def _by_cover(self, number: int, queries: Tensor, base: Tensor) -> Tensor:
        """The tags that a cover settles; none after a trial that settled too few."""
        cover = self.covers()[number]
        needed = KEYS_PER_BALL * len(cover.centres) / self.searcher.store.entries
        tags = torch.full((len(queries),), -1, device=queries.device)
        start = 0
        while start < len(queries):
            asked, settled = self._trials.get(number, (0, 0))
            if asked >= TRIAL_TOKENS and settled < needed * asked:
                break
            stop = len(queries)
            if asked < TRIAL_TOKENS:
                stop = min(start + TRIAL_TOKENS - asked, stop)
            part = slice(start, stop)
            tags[part] = self._bounded(cover, queries[part], base[part])
            found = int((tags[part] >= 0).sum())
            self._trials[number] = asked + stop - start, settled + found
            start = stop
        return tags

    def _bounded(self, cover: Cover, queries: Tensor, base: Tensor) -> Tensor:
        """The tagger's own label where the lower bound of its vote makes it certain; -1 elsewhere."""
        tags = predict(base)
        stored = self.alignment.stored_labels(tags).cpu()
        k, temperature = self.settings.k, self.settings.temperature
        shares = cover.least_share(queries.cpu(), stored, k, temperature)[:, None].to(base.device)
        least = torch.zeros_like(base).scatter_(1, tags[:, None], shares)
        # The rest of the vote may be for one label.
        most = (1 - shares).expand_as(base).scatter(1, tags[:, None], 1)
        return self._certain(base, least, most)

    def _by_product(self, exact: ExactSearch, queries: Tensor, base: Tensor) -> Tensor:
        """The tag of the vote by a matrix product, where its rounding cannot change the tag; -1 elsewhere."""
        k = min(self.settings.k, exact.store.entries)
        tags = torch.full((len(queries),), -1, device=queries.device)
        for part, found in exact.candidates(queries, k):
            bounds = vote_bounds(
                found,
                exact.neighbour_labels(found.indices),
                len(exact.store.labels),
                self.settings.k if exact.store.weights is not None else k,
                self.settings.temperature,
                exact.product_error(queries[part]),
                exact.neighbour_weights(found.indices),
            )
            tags[part] = self._certain(base[part], *map(self.alignment.votes, bounds))
        return tags

    def _by_index(self, index: FaissSearch, queries: Tensor, base: Tensor) -> Tensor:
        """The tag of the vote of a few neighbours that an index finds, where it is clear; -1 elsewhere."""
        k, temperature = self.settings.k, self.settings.temperature
        found = index.approximate(queries, min(INDEX_NEIGHBOURS, k))
        votes = vote(
            found.similarities,
            index.neighbour_labels(found.indices),
            len(index.store.labels),
            temperature,
            index.neighbour_weights(found.indices),
            k,
        )
        mixed = self._mix(base, self.alignment.votes(votes))
        first, second = mixed.topk(2, dim=1).values.unbind(dim=1)
        clear = first - second > min(2 * DOUBTED_VOTE_SHARE * self.settings.knn_weight, CLEAR_LEAD)
        clear &= found.similarities[:, -1] > -torch.inf
        clear &= PRODUCT_ERRORS_PER_TEMPERATURE * index.exact.product_error(queries) < temperature
        return predict(mixed).where(clear, -1)

    def _by_search(self, searcher: Searcher, queries: Tensor, base: Tensor) -> Tensor:
        votes = searcher.votes(queries, self.settings.k, self.settings.temperature)
        return predict(self._mix(base, self.alignment.votes(votes)))

    def _mix(self, base: Tensor, votes: Tensor) -> Tensor:
        return interpolate(base, votes, self.settings.knn_weight)

    def _certain(self, base: Tensor, least: Tensor, most: Tensor) -> Tensor:
        """The labels that come first in the mix for all votes within bounds, (q, L) each; -1 elsewhere."""
        lowest, highest = self._mix(base, least), self._mix(base, most)
        own, tags = lowest.max(dim=1)
        others = highest.scatter(1, tags[:, None], -torch.inf).amax(dim=1)
        # The weights of the vote are summed in float32, with an error that grows with their number.
        k = self.settings.k if self.settings.k != -1 else BLOCK_KEYS
        summed = min(k, self.searcher.store.entries)
        return tags.where(own > others + SKIP_MARGIN + 4 * FLOAT32_ROUNDING * summed, -1)
