"""Tag sentences with the mix of tagger and nearest neighbours."""

import dataclasses
import enum
import time
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from knn_ner.data.batching import sentence_chunks
from knn_ner.data.tags import OUTSIDE
from knn_ner.datastore.key_transform import PUBLISHED
from knn_ner.parallel.process_group import ProcessGroup, SharedProgress
from knn_ner.search.early_termination import STAGES, EarlyTermination
from knn_ner.search.interpolation import LabelAlignment, interpolate, needs_search
from knn_ner.search.searcher import Searcher
from knn_ner.settings import RunSettings, VoteSettings
from knn_ner.tagging.split import Split
from knn_ner.tagging.trained_tagger import TrainedTagger

# Word pieces whose hidden states are held at once, whatever the size of the split.
CHUNK_ROWS = 1 << 15


class Scope(enum.Enum):
    """Which labelled tokens are searched, and how far. The tags are the same for all."""

    TAGS = "tags"
    """Those that a vote can change, until the tag is certain; votes and probabilities stay unknown."""
    VOTES = "votes"
    """Those that a vote can change, with their whole vote."""
    ENTITIES = "entities"
    """These, and those that the tagger does not label `O`: each entity has its probability in the mix."""
    ALL = "all"
    """Every token."""


@dataclass
class Searched:
    """Rows that were searched, and what their neighbours are looked up with.

    Attributes:
        rows: (M,) ascending.
        hidden: (M, dim) float32, made as the store's keys are.
        base: (M, L) float32, the tagger's distribution over the labels of a `Tagging`.
    """

    rows: np.ndarray
    hidden: Tensor
    base: Tensor


@dataclass
class Tagging:
    """What inference gives for the R rows (word pieces, special tokens included) of a split.

    Attributes:
        labels: the labels that ids index: the tagger's, then those that only the datastore has.
        base, knn: (R,) label ids, of the tagger alone and of the mix.
        base_scores, knn_scores: (R,) float32, the probability of that label; NaN in `knn_scores` where the row
            was not searched or its vote is unknown.
        margin: (R,) float32, the tagger's highest probability less its second highest.
        vote: (R,) the label with the largest share of the neighbours' vote.
        agreement: (R,) float32, that share; NaN where it is unknown.
        tokens: number of scored rows.
        searched: number of rows whose neighbours were looked up.
        settled: with `Scope.TAGS`, the number of tags that each stage of the cascade settled.
        kept: what was searched, chunk by chunk, if it was to be kept.
        seconds: of encoding and of searching.
    """

    labels: list[str]
    base: np.ndarray
    knn: np.ndarray
    base_scores: np.ndarray
    knn_scores: np.ndarray
    margin: np.ndarray
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
    tagger: TrainedTagger,
    split: Split,
    searcher: Searcher | None,
    vote: VoteSettings | None,
    run: RunSettings,
    *,
    scope: Scope = Scope.VOTES,
    also: np.ndarray | None = None,
    keep: bool = False,
    device: torch.device | None = None,
    share: tuple[int, int] = (0, 1),
    progress: tqdm | SharedProgress | None = None,
) -> Tagging:
    """Tag a split chunk by chunk: encode, search where a vote can change the tag, mix.

    Args:
        tagger: the tagger.
        split: sentences in its word pieces.
        searcher: search over the datastore; None for the tagger alone.
        vote: k, temperature and knn_weight; None for the tagger alone.
        run: how the encoder runs.
        scope: which tokens are searched, and how far.
        also: (R,) bool, rows to search in any case.
        keep: whether to return hidden states and distributions of what was searched.
        device: where to compute, if not where `run` says.
        share: (i, n): this is process i of n; the other processes tag the other rows.
        progress: a bar that advances by the number of pieces.
    """
    size = len(split.gold)
    alignment = LabelAlignment(tagger.labels, searcher.store.labels if searcher else [])
    tagging = Tagging(
        alignment.labels,
        base=np.zeros(size, np.int64),
        knn=np.full(size, -1),
        base_scores=np.zeros(size, np.float32),
        knn_scores=np.full(size, np.nan, np.float32),
        margin=np.zeros(size, np.float32),
        vote=np.zeros(size, np.int64),
        agreement=np.full(size, np.nan, np.float32),
    )
    weight = vote.knn_weight if searcher and vote else 0.0
    outside = tagger.labels.index(OUTSIDE)
    termination = None
    if searcher is not None and vote is not None and scope is Scope.TAGS:
        termination = EarlyTermination(searcher, alignment, vote, settled=tagging.settled)
    first = 0
    for chunk in sentence_chunks(split.encoded, CHUNK_ROWS):
        start = time.perf_counter()
        parts: list[tuple[np.ndarray, Tensor, Tensor]] = []
        for batch in tagger.hidden_states(
            chunk,
            run,
            searcher.store.recipe if searcher else PUBLISHED,
            device=device,
            share=share,
            progress=progress,
        ):
            rows = first + batch.rows.numpy()
            base = alignment.base(batch.logits.softmax(-1))
            label = base.argmax(-1)
            tagging.base[rows] = label.cpu().numpy()
            likeliest = base.topk(min(2, base.shape[1]), dim=-1).values.cpu().numpy()
            tagging.base_scores[rows] = likeliest[:, 0]
            tagging.margin[rows] = likeliest[:, 0] - likeliest[:, 1:].sum(axis=1)
            wanted = needs_search(base, weight)
            if scope is Scope.ENTITIES:
                wanted |= label != outside
            chosen = (wanted.cpu().numpy() | (scope is Scope.ALL)) & split.scored[rows]
            tagging.tokens += int(split.scored[rows].sum())
            if also is not None:
                chosen |= also[rows]
            if searcher is not None and chosen.any():
                there = torch.from_numpy(chosen).to(base.device)
                parts.append((rows[chosen], base[there], batch.keys(there)))
        first += sum(map(len, chunk))
        searching = time.perf_counter()
        if searcher is not None and vote is not None and parts:
            # In the order of the corpus, so that results do not depend on the batches.
            all_rows, bases, states = zip(*parts, strict=True)
            rows = np.concatenate(all_rows)
            order = np.argsort(rows)
            rows, base, hidden = rows[order], torch.cat(bases)[order], torch.cat(states)[order]
            if termination is not None:
                # Estimated from the rows so far.
                termination.expected = (tagging.searched + len(rows)) * size // first
                tagging.knn[rows] = termination.tags(hidden, base).cpu().numpy()
            else:
                votes = alignment.votes(searcher.votes(hidden, vote.k, vote.temperature))
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
    # A row that was not searched keeps the tagger's own label.
    tagging.knn = np.where(tagging.knn < 0, tagging.base, tagging.knn)
    return tagging


def gather_taggings(tagging: Tagging, group: ProcessGroup) -> Tagging:
    """The tags of all rows, in every process, from those of each process; seconds are the slowest's."""
    if group.size == 1:
        return tagging
    arrays: dict[str, Any] = {}
    for each in dataclasses.fields(tagging):
        array = getattr(tagging, each.name)
        if isinstance(array, np.ndarray):
            # Rows of other processes are 0 or NaN here; what no process knows stays NaN.
            largest = group.all_reduce_max(np.nan_to_num(array, nan=-1))
            if array.dtype.kind == "f":
                largest[largest < 0] = np.nan
            arrays[each.name] = largest
    counts = [tagging.settled.get(stage, 0) for stage in STAGES]
    told = group.all_gather(tagging.tokens, tagging.searched, *counts)
    tokens, searched, *settled = (sum(column) for column in zip(*told, strict=True))
    seconds = group.all_reduce_max(np.array(list(tagging.seconds.values())))
    return dataclasses.replace(
        tagging,
        **arrays,
        tokens=tokens,
        searched=searched,
        settled={stage: count for stage, count in zip(STAGES, settled, strict=True) if count},
        seconds=dict(zip(tagging.seconds, seconds.tolist(), strict=True)),
    )
