"""Tag sentences with the mix of tagger and nearest neighbours: what `infer` and `KnnTagger` share."""

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from knn_ner.data.loading import sentence_chunks
from knn_ner.data.tags import OUTSIDE
from knn_ner.model.representations import represent
from knn_ner.pipeline import LoadedTagger, Split
from knn_ner.retrieval.datastore import Datastore
from knn_ner.retrieval.decide import Decider
from knn_ner.retrieval.interpolation import (
    KnnSettings,
    LabelAlignment,
    interpolate,
    needs_search,
)
from knn_ner.retrieval.search import Searcher
from knn_ner.retrieval.transforms import PUBLISHED

# Word pieces whose hidden states are held at once, whatever the size of the split.
CHUNK_ROWS = 1 << 15


@dataclass
class Searched:
    """Rows that were searched: what their neighbours are looked up with.

    rows: (M,) ascending. hidden: (M, dim) float32, made as the store's keys are. base: (M, L) float32,
    the tagger's distribution over the labels of a `Tagging`.
    """

    rows: np.ndarray
    hidden: Tensor
    base: Tensor


@dataclass
class Tagging:
    """What inference gives for the R rows (word pieces, special tokens included) of a split.

    labels: the labels that ids index: the tagger's, then those that only the datastore has.
    base, knn: (R,) label ids, of the tagger alone and of the mix.
    base_scores, knn_scores: (R,) float32, the probability of that label; that of the mix is known (not
        NaN) where the row was searched.
    lead: (R,) float32, by how much the tagger's likeliest label leads the next.
    vote: (R,) the label that got most of the neighbours' vote; agreement: (R,) float32, its share, NaN
        where the row was not searched.
    tokens: rows that are scored; searched: those whose neighbours were looked up.
    settled: if only tags were searched for, how many each way of `retrieval.decide` has settled.
    kept: what was searched, chunk by chunk, if it was to be kept.
    """

    labels: list[str]
    base: np.ndarray
    knn: np.ndarray
    base_scores: np.ndarray
    knn_scores: np.ndarray
    lead: np.ndarray
    vote: np.ndarray
    agreement: np.ndarray
    tokens: int = 0
    searched: int = 0
    settled: dict[str, int] = field(default_factory=dict)
    kept: list[Searched] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=lambda: {"encode": 0.0, "search": 0.0})

    @property
    def scores(self) -> np.ndarray:
        """(R,) float32: the probability in the mix where that is known, else the tagger's own."""
        return np.where(np.isnan(self.knn_scores), self.base_scores, self.knn_scores)


def tag(
    tagger: LoadedTagger,
    split: Split,
    searcher: Searcher | None,
    settings: KnnSettings | None,
    *,
    search: str = "needed",
    also: np.ndarray | None = None,
    keep: bool = False,
    **how: Any,
) -> Tagging:
    """Tag a split, chunk by chunk: encode, search where a vote can change the tag, mix.

    searcher, settings: None for the tagger alone.
    search: the tokens to search, of those that carry a label: `needed`, where a vote can change the tag;
        `entities`, also where the tagger does not say `O`, so that each entity's tokens have their
        probability in the mix; `all`; or `tags`, as `needed`, but only as far as it takes to know the tag
        (see `retrieval.decide`), so that votes and probabilities stay unknown. The tags are the same.
    also: (R,) bool, rows to search in any case.
    keep: whether to return hidden states and distributions of what was searched.
    how: device, batch_size, ... as for `representations.represent`.
    """
    size = len(split.gold)
    alignment = LabelAlignment(tagger.labels, searcher.store.labels if searcher else [])
    tagging = Tagging(
        alignment.labels,
        base=np.zeros(size, np.int64),
        knn=np.full(size, -1),
        base_scores=np.zeros(size, np.float32),
        knn_scores=np.full(size, np.nan, np.float32),
        lead=np.zeros(size, np.float32),
        vote=np.zeros(size, np.int64),
        agreement=np.full(size, np.nan, np.float32),
    )
    weight = settings.knn_weight if searcher else 0.0
    outside = tagger.labels.index(OUTSIDE)
    decider = None
    if searcher is not None and search == "tags":
        decider = Decider(searcher, alignment, settings, settled=tagging.settled)
    first = 0
    for chunk in sentence_chunks(split.encoded, CHUNK_ROWS):
        start = time.perf_counter()
        parts: list[tuple[np.ndarray, Tensor, Tensor]] = []
        for batch in represent(
            tagger.model,
            chunk,
            pad_id=tagger.tokenizer.pad_token_id,
            max_length=tagger.max_length,
            recipe=searcher.store.recipe if searcher else PUBLISHED,
            **how,
        ):
            rows = first + batch.rows.numpy()
            base = alignment.base(batch.logits.softmax(-1))
            label = base.argmax(-1)
            tagging.base[rows] = label.cpu().numpy()
            likeliest = base.topk(min(2, base.shape[1]), dim=-1).values.cpu().numpy()
            tagging.base_scores[rows] = likeliest[:, 0]
            tagging.lead[rows] = likeliest[:, 0] - likeliest[:, 1:].sum(axis=1)
            wanted = needs_search(base, weight)
            if search == "entities":
                wanted |= label != outside
            chosen = (wanted.cpu().numpy() | (search == "all")) & split.scored[rows]
            tagging.tokens += int(split.scored[rows].sum())
            if also is not None:
                chosen |= also[rows]
            if searcher is not None and chosen.any():
                there = torch.from_numpy(chosen).to(base.device)
                parts.append((rows[chosen], base[there], batch.keys(there)))
        first += sum(map(len, chunk))
        searching = time.perf_counter()
        if parts:
            rows = np.concatenate([part[0] for part in parts])
            # In the order of the corpus, whatever the batches were.
            order = np.argsort(rows)
            rows = rows[order]
            base, hidden = (torch.cat([part[i] for part in parts])[order] for i in (1, 2))
            if decider is not None:
                # Of rows like those that there were so far.
                decider.expected = (tagging.searched + len(rows)) * size // first
                tagging.knn[rows] = decider.decide(hidden, base).cpu().numpy()
            else:
                votes = alignment.votes(searcher.votes(hidden, settings.k, settings.temperature))
                mixed = interpolate(base, votes, weight)
                tagging.knn[rows] = mixed.argmax(-1).cpu().numpy()
                tagging.knn_scores[rows] = mixed.amax(-1).cpu().numpy()
                tagging.vote[rows] = votes.argmax(-1).cpu().numpy()
                tagging.agreement[rows] = votes.amax(-1).cpu().numpy()
            tagging.searched += len(rows)
            if keep:
                tagging.kept.append(Searched(rows, hidden, base))
        tagging.seconds["encode"] += searching - start
        tagging.seconds["search"] += time.perf_counter() - searching
    # What was not searched keeps the tagger's own label.
    tagging.knn = np.where(tagging.knn < 0, tagging.base, tagging.knn)
    return tagging


def open_datastore(path: str | Path, tagger: LoadedTagger) -> Datastore:
    """Open a datastore that this tagger made.

    Raises `UserError` when it was made with anything else.
    """
    store = Datastore.open(path)
    store.check_made_with(tagger.made_with)
    return store
