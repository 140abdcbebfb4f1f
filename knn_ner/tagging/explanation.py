"""What decided each entity: the neighbours of its words, their shares of the vote, and the answer without them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields

import numpy as np
import torch
from torch import Tensor

from knn_ner.search.interpolation import LabelAlignment, interpolate
from knn_ner.search.searcher import Searcher
from knn_ner.search.vote import counted, vote, vote_weights
from knn_ner.settings import VoteSettings
from knn_ner.tagging.entities import (
    Entity,
    ExplainedEntity,
    Neighbour,
    Prediction,
    WordEvidence,
    find_entities,
    overlapping,
)
from knn_ner.tagging.split import Split
from knn_ner.tagging.tag import Tagging

# Words whose neighbours are held at once.
WORDS_AT_ONCE = 1024
# Labels with a smaller share of the vote are left out.
SMALLEST_SHARE = 0.001


@dataclass
class ExplainedText:
    """A text, what was found in it, and why.

    Attributes:
        prediction: tags and entities of the text.
        entities: those of the mix and those of the tagger alone, in the order of the text.
        evidence: by word, for each word of an entity and each word that was asked for.
        hidden: by word, (dim,) float32, what its neighbours were looked up with.
        around: by word, (m,) its m nearest entries of the datastore, if they were asked for.
    """

    prediction: Prediction
    entities: list[ExplainedEntity]
    evidence: dict[int, WordEvidence]
    hidden: dict[int, np.ndarray]
    around: dict[int, np.ndarray]


@dataclass
class NeighbourShares:
    """The nearest entries of q tokens, best first, and their part in the mix.

    Attributes:
        entries: (q, m) int64, entries of the datastore.
        similarities: (q, m) float32.
        shares: (q, n) float64, n <= m: the share of each of the first n entries in the vote of all that vote.
        vote: (q, L) P_knn.
        without: (q, L) the mix if those n entries were not in the datastore. With a finite k the next nearest take
            their places; where no entry is left, this is the tagger's distribution.
    """

    entries: Tensor
    similarities: Tensor
    shares: Tensor
    vote: Tensor
    without: Tensor


def neighbour_shares(
    searcher: Searcher,
    alignment: LabelAlignment,
    hidden: Tensor,
    base: Tensor,
    settings: VoteSettings,
    shown: int,
    around: int = 0,
) -> NeighbourShares:
    """Search for the neighbours of q tokens and compute their shares of the vote.

    Args:
        searcher: search over the datastore.
        alignment: of the tagger's and the datastore's labels.
        hidden: (q, dim).
        base: (q, L), the tagger's distribution over the labels of `alignment`.
        settings: k, temperature and knn_weight.
        shown: number of neighbours to compute shares of; at most k.
        around: number of neighbours to return at least, whether they vote or not.

    Raises:
        UserError: as `Searcher.search`.
    """
    temperature, k = settings.temperature, settings.k
    shown = min(shown, searcher.store.entries, k if k > 0 else shown)
    found = searcher.search(hidden, max(k + shown if k > 0 else shown, around))
    labels = alignment.vote_labels(searcher.neighbour_labels(found.indices))
    nothing_left = searcher.store.entries <= shown
    base = base.to(found.similarities.device)
    votes_without = base
    counts = searcher.neighbour_weights(found.indices)
    if counts is None:
        counts = torch.ones_like(found.similarities)
    if k > 0:
        behind = found.similarities - found.similarities[:, :1]
        weights = (vote_weights(behind, temperature) * counted(counts, k)).double()
        shares = (weights / weights.sum(1, keepdim=True))[:, :shown]
        how = base.shape[1], temperature
        votes = vote(found.similarities, labels, *how, counts, k)
        if not nothing_left:
            later = slice(shown, None)
            votes_without = vote(
                found.similarities[:, later], labels[:, later], *how, counts[:, later], k
            )
    else:
        whole = searcher.log_weights(hidden, temperature)
        behind = found.similarities[:, :shown].double() - whole.largest[:, None]
        exponents = behind / temperature - whole.logs.logsumexp(1, keepdim=True)
        shares = exponents.exp() * counts[:, :shown]
        votes = alignment.votes(whole.logs.softmax(1).float())
        if not nothing_left:
            rest = searcher.log_weights(hidden, temperature, found.indices[:, :shown])
            votes_without = alignment.votes(rest.logs.softmax(1).float())
    without = base if nothing_left else interpolate(base, votes_without, settings.knn_weight)
    kept = slice(0, max(shown, around))
    return NeighbourShares(
        found.indices[:, kept].cpu(),
        found.similarities[:, kept].cpu(),
        shares.cpu(),
        votes.cpu(),
        without.cpu(),
    )


@dataclass
class Explainer:
    """Explains texts that were tagged together.

    Attributes:
        predictions: one for each sentence of `split`.
        split: the texts in word pieces.
        tagging: the tags of `split`, with what was searched.
        searcher: search over the datastore.
        alignment: of the tagger's and the datastore's labels.
        settings: k, temperature and knn_weight.
        neighbours: number of neighbours to show of each word.
        around: number of entries to name around each word, shown or not.
    """

    predictions: Sequence[Prediction]
    split: Split
    tagging: Tagging
    searcher: Searcher
    alignment: LabelAlignment
    settings: VoteSettings
    neighbours: int
    around: int = 0

    def explain(self, also: Sequence[Sequence[int]]) -> Iterator[ExplainedText]:
        """Explain each text.

        Args:
            also: for each text, further words to give the evidence for; they have to be among what was searched.
        """
        words = [
            self._words(prediction, further)
            for prediction, further in zip(self.predictions, also, strict=True)
        ]
        evidence = self._evidence(words)
        for number, prediction in enumerate(self.predictions):
            found = [next(evidence) for _ in words[number]]
            of_word = {word.word: word for word, _, _ in found}
            yield ExplainedText(
                prediction,
                self._entities(number, prediction, of_word),
                of_word,
                {word.word: hidden for word, hidden, _ in found},
                {word.word: around for word, _, around in found},
            )

    @staticmethod
    def _words(prediction: Prediction, further: Sequence[int]) -> list[int]:
        entities = (*prediction.entities, *prediction.base_entities)
        return sorted({*further}.union(*(range(*entity.words) for entity in entities)))

    def _evidence(
        self, words: Sequence[Sequence[int]]
    ) -> Iterator[tuple[WordEvidence, np.ndarray, np.ndarray]]:
        """Evidence, hidden state and surrounding entries of the words of all texts, in order."""
        flat = [word for chosen in words for word in chosen]
        if not flat:
            return
        rows = np.concatenate(
            [
                self.split.first_rows[number] + self.split.encoded[number].first_piece[chosen]
                for number, chosen in enumerate(words)
                if chosen
            ]
        )
        searched = np.concatenate([part.rows for part in self.tagging.kept])
        hidden = torch.cat([part.hidden for part in self.tagging.kept])
        base = torch.cat([part.base for part in self.tagging.kept])
        places = np.searchsorted(searched, rows)
        sentences: dict[int, dict] = {}
        for start in range(0, len(flat), WORDS_AT_ONCE):
            part = slice(start, start + WORDS_AT_ONCE)
            queries = hidden[places[part]]
            found = neighbour_shares(
                self.searcher,
                self.alignment,
                queries,
                base[places[part]],
                self.settings,
                self.neighbours,
                self.around,
            )
            states, around = queries.cpu().numpy(), found.entries[:, : self.around].numpy()
            for place, (word, row) in enumerate(zip(flat[part], rows[part], strict=True)):
                evidence = self._word(word, row, found, place, sentences)
                yield evidence, states[place], around[place]

    def _word(
        self, word: int, row: int, found: NeighbourShares, place: int, sentences: dict[int, dict]
    ) -> WordEvidence:
        """The evidence for a word, whose first piece is a row of the split and a place in `found`."""
        labels, tagging = self.tagging.labels, self.tagging
        without = int(found.without[place].argmax())
        shares = found.shares[place].tolist()
        neighbours = zip(
            found.entries[place, : len(shares)].tolist(),
            found.similarities[place, : len(shares)].tolist(),
            shares,
            strict=True,
        )
        return WordEvidence(
            word,
            base=labels[tagging.base[row]],
            base_score=float(tagging.base_scores[row]),
            label=labels[tagging.knn[row]],
            score=float(tagging.knn_scores[row]),
            vote=self._vote(found.vote[place].tolist()),
            neighbours=[self._neighbour(*neighbour, sentences) for neighbour in neighbours],
            without=labels[without],
            without_score=float(found.without[place, without]),
        )

    def _vote(self, shares: list[float]) -> dict[str, float]:
        by_label = zip(self.alignment.labels, shares, strict=True)
        ordered = sorted(by_label, key=lambda item: -item[1])
        return {label: share for label, share in ordered if share >= SMALLEST_SHARE}

    def _neighbour(
        self, entry: int, similarity: float, share: float, sentences: dict[int, dict]
    ) -> Neighbour:
        """A neighbour with its sentence; `sentences` holds those that were read before."""
        store = self.searcher.store
        sentence_id = int(store.sentence_ids[entry])
        if sentence_id not in sentences:
            sentences[sentence_id] = store.sentence(sentence_id)
        sentence = sentences[sentence_id]
        return Neighbour(
            label=store.labels[store.label_ids[entry]],
            similarity=similarity,
            share=share,
            sentence_id=sentence_id,
            words=sentence["words"],
            tags=sentence["tags"],
            word=int(store.positions[entry]),
            entry=entry,
        )

    def _entities(
        self, number: int, prediction: Prediction, evidence: dict[int, WordEvidence]
    ) -> list[ExplainedEntity]:
        explained = []
        spans = {entity.span for entity in prediction.entities}
        base_spans = {entity.span for entity in prediction.base_entities}
        base_only = [entity for entity in prediction.base_entities if entity.span not in spans]
        for entity in sorted((*prediction.entities, *base_only), key=lambda entity: entity.words):
            of_entity = tuple(evidence[word] for word in range(*entity.words))
            without = overlapping(entity, self._without(number, prediction, of_entity))
            answer = overlapping(entity, prediction.entities)
            both = entity.span in spans and entity.span in base_spans
            explained.append(
                ExplainedEntity(
                    **{field.name: getattr(entity, field.name) for field in fields(Entity)},
                    found_by="both" if both else "knn" if entity.span in spans else "base",
                    evidence=of_entity,
                    without=without,
                    decisive=[other.span for other in without] != [other.span for other in answer],
                )
            )
        return explained

    def _without(
        self, number: int, prediction: Prediction, words: Sequence[WordEvidence]
    ) -> list[Entity]:
        """The entities of a text if the neighbours of some of its words were not in the datastore."""
        first, last = self.split.first_rows[number : number + 2]
        labels = self.tagging.knn[first:last].copy()
        first_piece = self.split.encoded[number].first_piece
        scores = self.tagging.scores[first + first_piece].tolist()
        for word in words:
            labels[first_piece[word.word]] = self.tagging.labels.index(word.without)
            scores[word.word] = word.without_score
        decoded, _ = self.split.decoder.words(labels, np.array([number]))
        tags = [self.tagging.labels[label] for label in decoded]
        return find_entities(prediction.text, tags, scores, self.split.scheme)
