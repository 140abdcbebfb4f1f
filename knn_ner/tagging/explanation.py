"""What decided each entity: for its words the neighbours, their shares, and the answer without them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields

import numpy as np
import torch

from knn_ner.search.interpolation import LabelAlignment
from knn_ner.search.searcher import Searcher
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
from knn_ner.tagging.neighbours import Weighed, weigh
from knn_ner.tagging.split import Split
from knn_ner.tagging.tag import Tagging

# Words whose neighbours are held at once.
WORDS_AT_ONCE = 1024
# Of the vote; a label that has less is left out.
SMALLEST_VOTE = 0.001


@dataclass
class ExplainedText:
    """A text with what was found in it, and why.

    entities: those of the mix, and those that the tagger alone found, in the order of the text.
    evidence: for each word of an entity, and for the words that were asked for.
    hidden: (dim,) float32 for each of these words, what its neighbours were looked up with.
    around: (m,) for each of these words, its m nearest entries of the datastore, if they were asked for.
    """

    prediction: Prediction
    entities: list[ExplainedEntity]
    evidence: dict[int, WordEvidence]
    hidden: dict[int, np.ndarray]
    around: dict[int, np.ndarray]


@dataclass
class Explainer:
    """Explains texts that were tagged together.

    tagging: of `split`; it has kept what was searched. predictions: one for each sentence of `split`.
    neighbours: how many to show of each word. around: how many entries to name, shown or not.
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
        """Explain each text; `also`: for each of them, further words to give the evidence for.

        The words of `also` have to be among what was searched, as those of entities are.
        """
        words = [
            self._words(prediction, further)
            for prediction, further in zip(self.predictions, also, strict=True)
        ]
        evidence = self._evidence(words)
        for number, prediction in enumerate(self.predictions):
            found = [next(evidence) for _ in words[number]]
            why = {word.word: word for word, _, _ in found}
            yield ExplainedText(
                prediction,
                self._entities(number, prediction, why),
                why,
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
            weighed = weigh(
                self.searcher,
                self.alignment,
                queries,
                base[places[part]],
                self.settings,
                self.neighbours,
                self.around,
            )
            states, around = queries.cpu().numpy(), weighed.entries[:, : self.around].numpy()
            for place, (word, row) in enumerate(zip(flat[part], rows[part], strict=True)):
                evidence = self._word(word, row, weighed, place, sentences)
                yield evidence, states[place], around[place]

    def _word(
        self, word: int, row: int, weighed: Weighed, place: int, sentences: dict[int, dict]
    ) -> WordEvidence:
        """The evidence for a word, whose first piece is a row of the split and a place in `weighed`."""
        labels, tagging = self.tagging.labels, self.tagging
        without = int(weighed.without[place].argmax())
        shares = weighed.shares[place].tolist()
        neighbours = zip(
            weighed.entries[place, : len(shares)].tolist(),
            weighed.similarities[place, : len(shares)].tolist(),
            shares,
            strict=True,
        )
        return WordEvidence(
            word,
            base=labels[tagging.base[row]],
            base_score=float(tagging.base_scores[row]),
            label=labels[tagging.knn[row]],
            score=float(tagging.knn_scores[row]),
            vote=self._vote(weighed.vote[place].tolist()),
            neighbours=[self._neighbour(*neighbour, sentences) for neighbour in neighbours],
            without=labels[without],
            without_score=float(weighed.without[place, without]),
        )

    def _vote(self, shares: list[float]) -> dict[str, float]:
        by_label = zip(self.alignment.labels, shares, strict=True)
        ordered = sorted(by_label, key=lambda item: -item[1])
        return {label: share for label, share in ordered if share >= SMALLEST_VOTE}

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
        alone = [entity for entity in prediction.base_entities if entity.span not in spans]
        for entity in sorted((*prediction.entities, *alone), key=lambda entity: entity.words):
            why = tuple(evidence[word] for word in range(*entity.words))
            without = overlapping(entity, self._without(number, prediction, why))
            answer = overlapping(entity, prediction.entities)
            both = entity.span in spans and entity.span in base_spans
            explained.append(
                ExplainedEntity(
                    **{field.name: getattr(entity, field.name) for field in fields(Entity)},
                    found_by="both" if both else "knn" if entity.span in spans else "base",
                    evidence=why,
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
