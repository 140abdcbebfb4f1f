"""What speaks against the label of each stored token: its neighbours in other sentences, and the tagger.

The keys are in the datastore, so nothing is encoded: a token's stored key is the query, and the
tagger's distribution is its classifier over that key. Only where keys are not what the classifier sees
(another layer, or a transform) are the sentences encoded again, for the latter.
"""

import hashlib
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from knn_ner.data.batching import first_rows
from knn_ner.data.corpus import Sentence
from knn_ner.data.encoding import IGNORED
from knn_ner.data.tags import OUTSIDE
from knn_ner.datastore.key_transform import PUBLISHED
from knn_ner.datastore.reader import Datastore
from knn_ner.model.backbone import only_head
from knn_ner.model.encode import hidden_states
from knn_ner.search.interpolation import LabelAlignment, interpolate
from knn_ner.search.searcher import Searcher, SearchResult
from knn_ner.search.vote import vote
from knn_ner.settings import VoteSettings
from knn_ner.tagging.trained_tagger import TrainedTagger
from knn_ner.utils.errors import UserError

# Queries whose neighbours are held at once.
QUERY_ROWS = 1024
# Windows encoded at once, where sentences are.
ENCODED_SENTENCES = 32
# A label's usual probability counts as if this many tokens of it were certain: of a label that hardly
# occurs, nothing is usual.
CERTAIN = 10


@dataclass
class Evidence:
    """For each of the n entries of a datastore.

    labels: the labels that ids index: the tagger's, then those that only the datastore has.
    given: (n,) ids of the stored labels. likeliest: (n,) ids of the labels that the mix of vote and
        tagger finds likeliest.
    rival: (n,) ids of the likeliest labels but the given ones.
    probability: (n,) float32, what the mix gives the given label.
    score: (n,) float32, 0 to 1, how much speaks against the given label; 0 for special tokens.
    copies, otherwise: (n,) int32, other sentences of the same words, and how many of them have
        another label here.
    """

    labels: list[str]
    given: np.ndarray
    likeliest: np.ndarray
    rival: np.ndarray
    probability: np.ndarray
    score: np.ndarray
    copies: np.ndarray
    otherwise: np.ndarray


@dataclass
class Groups:
    """The entries of a datastore by the words of their sentences.

    of_entry: (n,) int64, equal for entries of sentences with the same words, case included.
    sizes: (groups,) entries of each.
    first: (n,) int64, the entry at the same place in the first sentence of the group.
    """

    of_entry: np.ndarray
    sizes: np.ndarray
    first: np.ndarray


def group_sentences(store: Datastore) -> Groups:
    """Find the sentences that are copies of each other."""
    # The entries of a sentence follow each other.
    starts = np.flatnonzero(np.diff(store.sentence_ids, prepend=-1))
    lengths = np.diff(starts, append=store.entries)
    numbers: dict[tuple[bytes, int], int] = {}
    first_start: list[int] = []
    group = np.empty(len(starts), np.int64)
    for place, (start, length) in enumerate(zip(starts, lengths, strict=True)):
        words = store.sentence(int(store.sentence_ids[start]))["words"]
        # The length too: windows of another size may have cut a copy that was added later.
        key = (hashlib.blake2b("\n".join(words).encode(), digest_size=16).digest(), int(length))
        group[place] = numbers.setdefault(key, len(numbers))
        if group[place] == len(first_start):
            first_start.append(start)
    of_entry = np.repeat(group, lengths)
    offsets = np.arange(store.entries) - np.repeat(starts, lengths)
    first = np.asarray(first_start, np.int64)[of_entry] + offsets
    return Groups(of_entry, np.bincount(of_entry), first)


def neighbours_elsewhere(
    searcher: Searcher, groups: Groups, entries: np.ndarray, k: int
) -> SearchResult:
    """The k nearest entries of other sentences, (q, k), for the entries (q,).

    Sentences of the same words count as the same sentence: their keys are equal, so that a copied
    error would only be confirmed by its copies. Where fewer than k are left, the rest has similarity
    -inf.
    """
    own = groups.of_entry[entries]
    k = min(k, searcher.store.entries)
    similarities = torch.full((len(entries), k), -torch.inf, device=searcher.device)
    indices = torch.zeros(len(entries), k, dtype=torch.int64, device=searcher.device)
    # As many more are searched for as there are entries of the same words: of most sentences, few.
    classes = np.ceil(np.log2(groups.sizes[own])).astype(int)
    for size_class in np.unique(classes):
        rows = np.flatnonzero(classes == size_class)
        queries = torch.from_numpy(searcher.store.gather(entries[rows])).float()
        found = searcher.search(queries, k + int(groups.sizes[own[rows]].max()))
        there = groups.of_entry[found.indices.cpu().numpy()]
        same = torch.from_numpy(there == own[rows, None]).to(searcher.device)
        order = same.int().sort(dim=1, stable=True).indices[:, :k]
        left = found.similarities.masked_fill(same, -torch.inf)
        similarities[rows] = left.gather(1, order)
        indices[rows] = found.indices.gather(1, order)
    return SearchResult(similarities, indices)


def tagger_probabilities(tagger: TrainedTagger, searcher: Searcher, entries: np.ndarray) -> Tensor:
    """The tagger's own distribution for stored entries, (q,) -> (q, its labels) float32.

    Its classifier sees the stored key, which may be rounded to float16; if keys are something else, the
    sentences are encoded anew.
    """
    classifier = only_head(tagger.model.eval().to(searcher.device))
    if searcher.store.recipe != PUBLISHED or classifier is None:
        return _encoded_probabilities(tagger, searcher, entries)
    keys = torch.from_numpy(searcher.store.gather(entries)).float().to(searcher.device)
    with torch.inference_mode():
        return classifier(keys).float().softmax(-1)


def _encoded_probabilities(
    tagger: TrainedTagger, searcher: Searcher, entries: np.ndarray
) -> Tensor:
    store = searcher.store
    ids, sentence_of = np.unique(store.sentence_ids[entries], return_inverse=True)
    stored = [store.sentence(sentence_id) for sentence_id in ids.tolist()]
    encoded = tagger.encoding_with(store.labels).encode(
        [Sentence(sentence["words"], sentence["tags"]) for sentence in stored]
    )
    # The entries of a sentence follow each other, as its pieces with a label do.
    starts = np.flatnonzero(np.diff(store.sentence_ids, prepend=-1))
    places = entries - starts[np.searchsorted(starts, entries, side="right") - 1]
    pieces = [np.flatnonzero(sentence.labels != IGNORED) for sentence in encoded]
    firsts = first_rows(encoded)
    rows = [
        firsts[number] + pieces[number][place]
        for number, place in zip(sentence_of.tolist(), places.tolist(), strict=True)
    ]
    probabilities = torch.empty(int(firsts[-1]), len(tagger.labels), device=searcher.device)
    for batch in hidden_states(
        tagger.model,
        encoded,
        pad_id=tagger.tokenizer.pad_token_id,
        max_length=tagger.max_length,
        batch_size=ENCODED_SENTENCES,
        device=searcher.device,
    ):
        probabilities[batch.rows.to(searcher.device)] = batch.logits.softmax(-1)
    return probabilities[rows]


def gather_evidence(
    tagger: TrainedTagger,
    searcher: Searcher,
    groups: Groups,
    settings: VoteSettings,
    progress: tqdm,
) -> Evidence:
    """Weigh every entry; `progress` is moved on by the number of entries.

    With P = knn_weight * vote + (1 - knn_weight) * tagger of its own label, an entry's score is
    1 - P / P', not below 0, where P' is the mean P of all entries of that label: low for `product`, whose
    tokens nobody is sure of, high for `O`. If its copies have another label more often than that, their
    part (the entry itself among them) is the score.

    Raises `UserError` if the datastore holds fewer than two different sentences.
    """
    store = searcher.store
    if len(groups.sizes) < 2:
        raise UserError(
            f"{store.path}: {len(groups.sizes)} different sentence found, expected two at least: "
            "each is held against the others"
        )
    size = store.entries
    alignment = LabelAlignment(tagger.labels, store.labels)
    given = np.array([alignment.labels.index(label) for label in store.labels])[store.label_ids]
    evidence = Evidence(
        alignment.labels,
        given,
        likeliest=given.copy(),
        rival=np.full(size, alignment.labels.index(OUTSIDE)),
        probability=np.ones(size, np.float32),
        score=np.zeros(size, np.float32),
        copies=np.zeros(size, np.int32),
        otherwise=np.zeros(size, np.int32),
    )
    # Copies have equal keys: only the first of them is searched for, and its neighbours are theirs.
    members = np.flatnonzero(store.positions >= 0)
    members = members[np.argsort(groups.first[members], kind="stable")]
    borders = np.flatnonzero(np.diff(groups.first[members], prepend=-1))
    progress.total = len(members)
    progress.refresh()
    for begin in range(0, len(borders), QUERY_ROWS):
        runs = np.append(borders[begin : begin + QUERY_ROWS + 1], len(members))
        runs = runs[: QUERY_ROWS + 1]
        entries = members[runs[:-1]]
        found = neighbours_elsewhere(searcher, groups, entries, settings.k)
        there = searcher.neighbour_labels(found.indices)
        votes = vote(found.similarities, there, len(store.labels), settings.temperature)
        base = alignment.base(tagger_probabilities(tagger, searcher, entries))
        votes = alignment.votes(votes)
        mixed = interpolate(base, votes, settings.knn_weight)
        rows = members[runs[0] : runs[-1]]
        query = np.repeat(np.arange(len(entries)), np.diff(runs))
        _weigh(evidence, rows, query, mixed.cpu().numpy())
        progress.update(len(rows))
    probability = evidence.probability[members]
    counts, sums = (
        np.bincount(given[members], weights, len(evidence.labels))
        for weights in (None, probability)
    )
    usual = (sums + CERTAIN) / (counts + CERTAIN)
    surprise = np.clip(1 - probability / usual[given[members]], 0, 1)
    among_copies = evidence.otherwise[members] / (evidence.copies[members] + 1)
    evidence.score[members] = np.maximum(surprise, among_copies)
    return evidence


def _weigh(evidence: Evidence, rows: np.ndarray, query: np.ndarray, mixed: np.ndarray) -> None:
    """Fill in the entries `rows`; `query` (ascending) says which of the distributions is theirs."""
    given = evidence.given[rows]
    evidence.probability[rows] = mixed[query, given]
    evidence.likeliest[rows] = mixed.argmax(1)[query]
    others = mixed[query]
    others[np.arange(len(rows)), given] = -1
    evidence.rival[rows] = others.argmax(1)
    counts = np.zeros((len(mixed), len(evidence.labels)), np.int32)
    np.add.at(counts, (query, given), 1)
    evidence.copies[rows] = counts.sum(1)[query] - 1
    evidence.otherwise[rows] = counts.sum(1)[query] - counts[query, given]
