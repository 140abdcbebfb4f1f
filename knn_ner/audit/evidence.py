"""Evidence for the label of each stored token: its neighbours in other sentences, and the tagger.

A token's stored key is the query, and the tagger's distribution is its classifier applied to that key, so no sentence
is encoded. Only if the keys are not what the classifier sees (another layer, or a transform), the sentences are encoded
again for the tagger's distribution.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from knn_ner.audit.stored_sentences import StoredSentences
from knn_ner.data.batching import first_rows
from knn_ner.data.corpus import Sentence
from knn_ner.data.encoding import IGNORED
from knn_ner.data.tags import OUTSIDE
from knn_ner.datastore.key_transform import PUBLISHED
from knn_ner.model.backbone import only_head
from knn_ner.search.interpolation import LabelAlignment, interpolate
from knn_ner.search.searcher import Searcher, SearchResult
from knn_ner.search.vote import vote
from knn_ner.settings import RunSettings, VoteSettings
from knn_ner.tagging.trained_tagger import TrainedTagger
from knn_ner.utils.errors import UserError

# Queries whose neighbours are held at once.
QUERIES_AT_ONCE = 1024
# cleanlab's score of a given label: its probability.
CLEANLAB_METHOD = "self_confidence"


@dataclass
class Evidence:
    """Evidence for the labels of the n entries of a datastore.

    Attributes:
        labels: the labels that ids refer to: those of the tagger, then those that only the datastore has.
        given: (n,) ids of the stored labels.
        likeliest: (n,) ids of the labels with the highest probability in the mix of vote and tagger.
        alternative: (n,) ids of the labels with the highest probability, except the given ones.
        score: (n,) float32, 0 to 1; the higher, the less likely is the given label. 0 for special tokens.
    """

    labels: list[str]
    given: np.ndarray
    likeliest: np.ndarray
    alternative: np.ndarray
    score: np.ndarray


def neighbours_elsewhere(
    searcher: Searcher, stored: StoredSentences, entries: np.ndarray, k: int
) -> SearchResult:
    """Search the k nearest entries in other sentences: (q,) entries -> (q, k) neighbours.

    Copies of the own sentence are left out too: their keys are equal, so a copied error would confirm itself. If fewer
    than k are left, the rest have similarity -inf.
    """
    own = stored.copies_of_entry[entries]
    k = min(k, searcher.store.entries)
    similarities = torch.full((len(entries), k), -torch.inf, device=searcher.device)
    indices = torch.zeros(len(entries), k, dtype=torch.int64, device=searcher.device)
    # A search for k plus the number of own entries finds at least k others. Queries are grouped by that number, so that
    # sentences with many copies do not slow down the rest.
    size_classes = np.ceil(np.log2(stored.copy_sizes[own])).astype(int)
    for size_class in np.unique(size_classes):
        rows = np.flatnonzero(size_classes == size_class)
        queries = torch.from_numpy(searcher.store.gather(entries[rows])).float()
        nearest = searcher.search(queries, k + int(stored.copy_sizes[own[rows]].max()))
        copies = stored.copies_of_entry[nearest.indices.cpu().numpy()]
        is_own = torch.from_numpy(copies == own[rows, None]).to(searcher.device)
        order = is_own.int().sort(dim=1, stable=True).indices[:, :k]
        others = nearest.similarities.masked_fill(is_own, -torch.inf)
        similarities[rows] = others.gather(1, order)
        indices[rows] = nearest.indices.gather(1, order)
    return SearchResult(similarities, indices)


@dataclass
class Auditor:
    """Compares the labels of a datastore with neighbours and tagger.

    Attributes:
        tagger: the tagger of the datastore.
        searcher: searches the datastore.
        settings: the settings of the vote.
        stored: the sentences of the datastore.
    """

    tagger: TrainedTagger
    searcher: Searcher
    settings: VoteSettings

    def __post_init__(self) -> None:
        self.stored = StoredSentences(self.searcher.store)

    def opinions(self, entries: np.ndarray) -> tuple[SearchResult, Tensor, Tensor]:
        """The k neighbours of q entries, their vote (q, labels of the datastore), and the tagger's distribution
        (q, labels of the tagger).
        """
        nearest = neighbours_elsewhere(self.searcher, self.stored, entries, self.settings.k)
        labels = self.searcher.neighbour_labels(nearest.indices)
        number = len(self.searcher.store.labels)
        votes = vote(nearest.similarities, labels, number, self.settings.temperature)
        classifier = only_head(self.tagger.model.eval().to(self.searcher.device))
        if self.searcher.store.recipe != PUBLISHED or classifier is None:
            return nearest, votes, self._encoded_probabilities(entries)
        keys = torch.from_numpy(self.searcher.store.gather(entries)).float()
        with torch.inference_mode():
            base = classifier(keys.to(self.searcher.device)).float().softmax(-1)
        return nearest, votes, base

    def gather_evidence(self, progress: tqdm) -> Evidence:
        """Compute the evidence for every entry; `progress` advances by the number of entries.

        P = knn_weight * vote + (1 - knn_weight) * tagger, and the score is 1 - the quality that cleanlab gives the
        stored label by P. If a larger share of the copies (this sentence included) has another label, that share is
        the score.

        Raises:
            UserError: if the datastore holds fewer than two different sentences.
        """
        from cleanlab.rank import get_label_quality_scores

        store, stored = self.searcher.store, self.stored
        if len(stored.copy_sizes) < 2:
            raise UserError(f"{store.path}: expected at least 2 different sentences, found 1")
        alignment = LabelAlignment(self.tagger.labels, store.labels)
        given = np.array([alignment.labels.index(label) for label in store.labels])[store.label_ids]
        likeliest, score = given.copy(), np.zeros(store.entries, np.float32)
        alternative = np.full(store.entries, alignment.labels.index(OUTSIDE))
        # Copies have equal keys, so only the first copy of an entry is a query; its result is that of all copies.
        entries = np.flatnonzero(store.positions >= 0)
        entries = entries[np.argsort(stored.first_copy[entries], kind="stable")]
        starts = np.flatnonzero(np.diff(stored.first_copy[entries], prepend=-1))
        starts = np.append(starts, len(entries))
        progress.total = len(entries)
        progress.refresh()
        for begin in range(0, len(starts) - 1, QUERIES_AT_ONCE):
            part = starts[begin : begin + QUERIES_AT_ONCE + 1]
            queries, rows = entries[part[:-1]], entries[part[0] : part[-1]]
            _, votes, base = self.opinions(queries)
            votes, base = alignment.votes(votes), alignment.base(base)
            mixed = interpolate(base, votes, self.settings.knn_weight).cpu().numpy()

            query_of_row = np.repeat(np.arange(len(queries)), np.diff(part))
            probabilities = mixed[query_of_row]
            quality = get_label_quality_scores(given[rows], probabilities, method=CLEANLAB_METHOD)
            counts = np.zeros(mixed.shape)
            np.add.at(counts, (query_of_row, given[rows]), 1)
            agreeing = (counts / counts.sum(axis=1, keepdims=True))[query_of_row, given[rows]]
            score[rows] = 1 - np.minimum(quality, agreeing).clip(0, 1)
            likeliest[rows] = probabilities.argmax(axis=1)
            probabilities[np.arange(len(rows)), given[rows]] = -1
            alternative[rows] = probabilities.argmax(axis=1)
            progress.update(len(rows))
        return Evidence(alignment.labels, given, likeliest, alternative, score)

    def _encoded_probabilities(self, entries: np.ndarray) -> Tensor:
        tagger, stored, device = self.tagger, self.stored, self.searcher.device
        numbers = np.searchsorted(stored.first_entry, entries, side="right") - 1
        chosen, sentence_of = np.unique(numbers, return_inverse=True)
        sentences = [stored.sentences[number] for number in chosen]
        encoded = tagger.encoding_with(self.searcher.store.labels).encode(
            [Sentence(each["words"], each["tags"]) for each in sentences]
        )
        # The entries of a sentence are its word pieces with a label, in the same order.
        pieces = [np.flatnonzero(sentence.labels != IGNORED) for sentence in encoded]
        firsts, offsets = first_rows(encoded), entries - stored.first_entry[numbers]
        rows = [
            firsts[number] + pieces[number][offset]
            for number, offset in zip(sentence_of, offsets, strict=True)
        ]
        probabilities = torch.empty(int(firsts[-1]), len(tagger.labels), device=device)
        for batch in tagger.hidden_states(encoded, RunSettings(), device=device):
            probabilities[batch.rows.to(device)] = batch.logits.softmax(-1)
        return probabilities[rows]
