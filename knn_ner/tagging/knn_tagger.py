"""`KnnTagger`: a trained tagger with its datastore, for use from Python.

from knn_ner import KnnTagger
tagger = KnnTagger.from_pretrained("S/model", datastore="P")
for entity in tagger.predict("Ada Lovelace wrote to Charles Babbage."):
    print(entity.type, entity.text, entity.start, entity.end, entity.score)
"""

import threading
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import cast

import numpy as np
from tqdm import tqdm

from knn_ner.data.corpus import Sentence
from knn_ner.data.tags import OUTSIDE, scheme_of_labels
from knn_ner.datastore.reader import Datastore
from knn_ner.search.index_choice import searcher_for
from knn_ner.search.interpolation import LabelAlignment
from knn_ner.search.searcher import Searcher
from knn_ner.search.tuned_settings import choose_vote
from knn_ner.settings import (
    EXACT,
    Device,
    IndexSettings,
    Precision,
    RunSettings,
    Similarity,
    TunedIndexSettings,
    VoteFlags,
    VoteSettings,
    group_of,
)
from knn_ner.tagging.edit_sentences import add_sentences
from knn_ner.tagging.entities import Entity, ExplainedEntity, Prediction, predictions_of
from knn_ner.tagging.explanation import ExplainedText, Explainer
from knn_ner.tagging.split import Split
from knn_ner.tagging.tag import Scope, Tagging, tag
from knn_ner.tagging.texts import Text, is_one, read_text
from knn_ner.tagging.trained_tagger import TrainedTagger, load_alone, load_for_datastore, word_rule
from knn_ner.utils.device import choose_device
from knn_ner.utils.errors import UserError

# Texts that are tagged together: enough to fill batches of similar length, few enough to hold.
TEXTS_AT_ONCE = 256
# A progress bar shows after so many seconds.
BAR_AFTER = 2.0

Input = str | Sequence[str]


class KnnTagger:
    """Finds entities with the mix of a tagger and its nearest neighbours, or with the tagger alone.

    `from_pretrained` makes one. Several threads may use it.

    Attributes:
        tagger: network, tokeniser and encoding.
        store: the datastore as it was when it was opened or last refreshed; None for the tagger alone.
        settings: k, temperature and knn_weight; None without a datastore. They may be set.
        similarity: `cosine` or `l2`.
        word_rule: the rule of `knn_ner.data.word_splitting` by which raw text is split into words.
        run: how the encoder runs.
        device: where the encoder runs.
    """

    def __init__(
        self,
        tagger: TrainedTagger,
        store: Datastore | None = None,
        settings: VoteSettings | None = None,
        search: IndexSettings | None = None,
        run: RunSettings | None = None,
    ):
        search, run = search or IndexSettings(), run or RunSettings()
        self.tagger = tagger
        self.store = store
        self.settings = settings
        self.similarity = search.similarity
        self.word_rule = word_rule(tagger, store)
        self.run = run
        self.device = choose_device(run.device)
        self._lock = threading.Lock()
        self._searcher: Searcher | None = None
        if store is not None:
            k = settings.k if settings else None
            self._searcher = searcher_for(store, search, self.device, k)

    @classmethod
    def from_pretrained(
        cls,
        model: str | Path,
        datastore: str | Path | None = None,
        *,
        k: int | None = None,
        temperature: float | None = None,
        knn_weight: float | None = None,
        similarity: Similarity | None = None,
        index: str = EXACT,
        nprobe: int | None = None,
        ef_search: int | None = None,
        device: Device = "auto",
        max_length: int = 512,
        batch_size: int = 32,
        precision: Precision = "32",
        workers: int = 0,
    ) -> "KnnTagger":
        """Load a tagger and the datastore that it made.

        Args:
            model: the tagger: a folder or a hub name.
            datastore: the datastore's folder; without one, the tagger alone answers.
            k: number of neighbours that vote; -1: every entry. What is not given of k, temperature, knn_weight and
                similarity is what `knn_ner.tune` chose for the datastore; the log says so.
            temperature: T of exp(similarity / T).
            knn_weight: weight of the neighbours' vote in the mix, from 0 to 1.
            similarity: `cosine` or `l2`.
            index: `exact`, `auto`, or the name of an index. Entries that were added after the index was built are
                searched exactly.
            nprobe: lists of an IVF index to visit.
            ef_search: candidates that an HNSW index keeps.
            device: `auto`, `cpu` or `cuda`.
            max_length: word pieces in a window; longer texts go through overlapping windows.
            batch_size: windows in a batch.
            precision: `32`, `16` or `bf16`.
            workers: data loading processes.

        Raises:
            UserError: if tagger or datastore cannot be loaded or do not belong together, or a setting is out of
                range or neither given nor tuned.
        """
        return cls.from_settings(
            model,
            datastore,
            VoteFlags(k=k, temperature=temperature, knn_weight=knn_weight),
            TunedIndexSettings(
                similarity=similarity, index=index, nprobe=nprobe, ef_search=ef_search
            ),
            RunSettings(
                max_length=max_length,
                batch_size=batch_size,
                device=device,
                precision=precision,
                workers=workers,
            ),
        )

    @classmethod
    def from_settings(
        cls,
        model: str | Path,
        datastore: str | Path | None,
        vote: VoteFlags,
        search: IndexSettings,
        run: RunSettings,
    ) -> "KnnTagger":
        """`from_pretrained` with settings, as the commands have them."""
        if datastore is None:
            if search.index != EXACT:
                raise UserError(
                    f"index {search.index!r} is given, but no datastore that it is in; give both"
                )
            return cls(load_alone(model, run.max_length), run=run)
        settings, similarity, _ = choose_vote(datastore, vote, search.similarity)
        tagger = load_for_datastore(model, run.max_length, datastore)
        chosen = group_of(IndexSettings, search, similarity=similarity)
        return cls(tagger, Datastore.open(datastore), settings, chosen, run)

    @property
    def labels(self) -> list[str]:
        """The labels that a word can get: the tagger's, then those that only the datastore has."""
        stored = self.store.labels if self.store else []
        return list(dict.fromkeys([*self.tagger.labels, *stored]))

    def predict(
        self,
        inputs: Input | Sequence[Input],
        *,
        words: bool | None = None,
        settings: VoteSettings | None = None,
    ) -> list[Entity] | list[list[Entity]]:
        """Find the entities of one text or sentence, or of each of several.

        Offsets count the characters of the text. The text of a sentence of words is the words joined with spaces
        (Chinese: without).

        Args:
            inputs: a string is a raw text. A list of strings is one sentence of words if none of them holds white
                space (for a tagger of Chinese characters: if each is a single character), otherwise a list of
                texts. A list that holds lists is a list of texts and sentences.
            words: True if a list of strings is a sentence of words, False if it is a list of texts.
            settings: k, temperature and knn_weight, in place of the tagger's own.

        Returns:
            The entities of the text, or a list of entities for each text.

        Raises:
            UserError: for any other input, and for words that are empty or hold white space.
        """
        one, texts = self._texts(inputs, words)
        predictions = self.stream(texts, len(texts), settings=settings)
        entities = [prediction.entities for prediction in predictions]
        return entities[0] if one else entities

    def stream(
        self,
        texts: Iterable[Input | Text],
        total: int | None = None,
        *,
        settings: VoteSettings | None = None,
        at_once: int = TEXTS_AT_ONCE,
    ) -> Iterator[Prediction]:
        """Tag many texts (strings) or sentences (lists of words), one after the other.

        A progress bar shows after some seconds.

        Args:
            texts: the texts and sentences; no more than `at_once` of them are held.
            total: their number, if known, for the progress bar.
            settings: k, temperature and knn_weight, in place of the tagger's own.
            at_once: number of texts that are tagged together.

        Yields:
            A prediction for each text, in order.

        Raises:
            UserError: as `predict`.
        """
        for part in self._parts(texts, total, at_once, "predict"):
            searcher = self._searcher
            split, tagging = self._tag(part, searcher, settings or self.settings)
            yield from predictions_of(part, split, tagging)

    def explain(
        self,
        inputs: Input | Sequence[Input],
        neighbours: int = 8,
        *,
        words: bool | None = None,
        settings: VoteSettings | None = None,
    ) -> list[ExplainedEntity] | list[list[ExplainedEntity]]:
        """Find entities as `predict` does, with the neighbours that decided.

        Each word of an entity has its nearest neighbours with their sentences, labels, similarities and shares of the
        vote, and the label that it would get without them. Entities that only the tagger alone finds are
        included (`found_by`), with the neighbours that voted against them.

        Args:
            inputs: as for `predict`.
            neighbours: number of neighbours to show of each word.
            words: as for `predict`.
            settings: as for `predict`.

        Raises:
            UserError: as `predict`, and without a datastore.
        """
        one, texts = self._texts(inputs, words)
        explained = self.explain_texts(texts, len(texts), neighbours=neighbours, settings=settings)
        entities = [text.entities for text in explained]
        return entities[0] if one else entities

    def explain_texts(
        self,
        texts: Iterable[Input | Text],
        total: int | None = None,
        *,
        neighbours: int = 8,
        settings: VoteSettings | None = None,
        also: Iterable[Iterable[int]] | None = None,
        around: int = 0,
    ) -> Iterator[ExplainedText]:
        """Explain many texts, one after the other.

        Args:
            texts: the texts and sentences.
            total: their number, if known, for the progress bar.
            neighbours: number of neighbours to show of each word.
            settings: k, temperature and knn_weight, in place of the tagger's own.
            also: for each text, further words to give the evidence for.
            around: number of entries of the datastore to name around each word, shown or not.

        Raises:
            UserError: as `explain`.
        """
        if self._searcher is None:
            raise UserError("no datastore: give one to from_pretrained, as neighbours come from it")
        if neighbours < 1:
            raise UserError(f"{neighbours} neighbours asked for, expected at least 1")
        further = None if also is None else iter(also)
        for part in self._parts(texts, total, TEXTS_AT_ONCE, "explain"):
            searcher, chosen = self._searcher, settings or self.settings
            assert chosen is not None
            wanted = [() if further is None else tuple(next(further)) for _ in part]
            split, tagging = self._tag(part, searcher, chosen, wanted, keep=True)
            alignment = LabelAlignment(self.tagger.labels, searcher.store.labels)
            explainer = Explainer(
                predictions_of(part, split, tagging),
                split,
                tagging,
                searcher,
                alignment,
                chosen,
                neighbours,
                around,
            )
            yield from explainer.explain(wanted)

    def add(self, words: Sequence[str], tags: Sequence[str]) -> int:
        """Add a labelled sentence to the datastore; the next prediction uses it.

        Args:
            words: the words of the sentence.
            tags: one tag for each word, in the datastore's scheme; types may be new.

        Returns:
            The id of the sentence.

        Raises:
            UserError: without a datastore, for tags that do not fit the words or the scheme, and if another process
                does not finish writing to the datastore.
        """
        if self.store is None:
            raise UserError(
                "no datastore: give one to from_pretrained, as sentences are added to it"
            )
        text = Text.of_words(words, self.tagger.encoding.joiner)
        with self._lock:
            (sentence_id,) = add_sentences(
                self.store.path,
                self.tagger,
                [Sentence(text.words, list(tags))],
                self.run,
            )
        self.refresh()
        return sentence_id

    def refresh(self) -> None:
        """Use what this or another process has changed in the datastore since it was opened."""
        if self.store is not None and self._searcher is not None:
            self.store = self.store.refresh()
            self._searcher = self._searcher.reopened(self.store)

    def _texts(
        self, inputs: Input | Sequence[Input], words: bool | None
    ) -> tuple[bool, Sequence[Input]]:
        """Whether the argument of `predict` is one text or sentence, and the list of texts and sentences."""
        one = is_one(inputs, words, self.tagger.encoding.units == "characters")
        return one, [cast(Input, inputs)] if one else inputs

    def _parts(
        self, texts: Iterable[Input | Text], total: int | None, at_once: int, name: str
    ) -> Iterator[list[Text]]:
        """The texts in groups of `at_once`, with a progress bar."""
        part: list[Text] = []
        rule, joiner = self.word_rule, self.tagger.encoding.joiner
        with tqdm(total=total, unit="text", desc=name, delay=BAR_AFTER) as progress:
            for element in texts:
                part.append(read_text(element, rule, joiner))
                if len(part) == at_once:
                    yield part
                    progress.update(len(part))
                    part = []
            if part:
                yield part
                progress.update(len(part))

    def _tag(
        self,
        texts: Sequence[Text],
        searcher: Searcher | None,
        settings: VoteSettings | None,
        also: Sequence[Sequence[int]] = (),
        keep: bool = False,
    ) -> tuple[Split, Tagging]:
        """Tag texts; `also`: for each of them, words whose neighbours are looked up whatever their tags."""
        sentences = [Sentence(text.words, [OUTSIDE] * len(text)) for text in texts]
        stored = searcher.store.labels if searcher else []
        labels = list(dict.fromkeys([*self.tagger.labels, *stored]))
        scheme = scheme_of_labels(labels).name
        split = Split(sentences, self.tagger.encoding.encode(sentences), labels, scheme)
        further = None
        if also:
            further = np.zeros(len(split.gold), bool)
            for number, words in enumerate(also):
                encoded = split.encoded[number]
                further[split.first_rows[number] + encoded.first_piece[list(words)]] = True
        with self._lock:
            tagging = tag(
                self.tagger,
                split,
                searcher,
                settings,
                self.run,
                scope=Scope.ENTITIES,
                also=further,
                keep=keep,
                device=self.device,
            )
        return split, tagging
