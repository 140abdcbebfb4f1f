"""`KnnTagger`: a trained tagger with its datastore, for texts.

from knn_ner import KnnTagger
tagger = KnnTagger.from_pretrained("S/model", datastore="P")
for entity in tagger.predict("Ada Lovelace wrote to Charles Babbage."):
    print(entity.type, entity.text, entity.start, entity.end, entity.score)
"""

import threading
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
from tqdm import tqdm

from knn_ner.data.corpus import Sentence
from knn_ner.data.tags import OUTSIDE, scheme_of_labels
from knn_ner.datastore.reader import Datastore
from knn_ner.search.index_choice import reopen, searcher_for
from knn_ner.search.interpolation import LabelAlignment
from knn_ner.search.searcher import Searcher
from knn_ner.search.tuned_settings import choose_vote
from knn_ner.settings import (
    EXACT,
    IndexSettings,
    RunSettings,
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
    """Finds entities with a tagger mixed with its nearest neighbours, or with the tagger alone.

    Make one with `from_pretrained`. It may be used from several threads.

    Attributes:
        settings: k, temperature and knn_weight, None without a datastore; may be set.
        store: the datastore as it was when it was opened or last refreshed; None without.
        word_rule: how raw text is split into words; see `knn_ner.data.word_splitting`.
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
        similarity: str | None = None,
        index: str = EXACT,
        nprobe: int | None = None,
        ef_search: int | None = None,
        device: str = "auto",
        max_length: int = 512,
        batch_size: int = 32,
        precision: str = "32",
        workers: int = 0,
    ) -> "KnnTagger":
        """Load a tagger, by folder or hub name, and the datastore that it made.

        datastore: its folder; without one, the tagger alone answers.
        k, temperature, knn_weight, similarity: what is not given is what was tuned on dev for the
            datastore (`python -m knn_ner.tune` keeps it there), which is said.
        index, nprobe, ef_search, device, batch_size, precision, workers: as the flags of the commands.
            What is added to the datastore counts at once with every index; it is searched exactly.
        max_length: word pieces that the encoder reads at once; longer texts go through windows.

        Raises `UserError` when something cannot be loaded, the datastore is another tagger's, or a
        setting is neither given nor tuned, or out of range.
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
        """The labels that words can get: the tagger's, then those that only the datastore has."""
        stored = self.store.labels if self.store else []
        return list(dict.fromkeys([*self.tagger.labels, *stored]))

    def predict(
        self,
        inputs: Input | Sequence[Input],
        *,
        words: bool | None = None,
        settings: VoteSettings | None = None,
    ) -> list[Entity] | list[list[Entity]]:
        """The entities of a text or of a sentence of words, or a list of them for each of many.

        inputs: a string is a raw text. A list of strings is one sentence of words if none of them holds
            white space (for a tagger of Chinese characters: if each is a single character), and
            otherwise many texts; say `words=True` or `words=False` where it could be either. A list
            that holds lists is many, texts and sentences of words as they come.
        settings: in place of the tagger's own.

        Offsets count the characters of the text as given; of words, those of the text that they make,
        joined by spaces (Chinese: by nothing).

        Raises `UserError` for anything else, and for words that are empty or hold white space.
        """
        one = is_one(inputs, words, self.tagger.encoding.units == "characters")
        predictions = self.stream([inputs] if one else inputs, len(inputs), settings=settings)
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
        """What is found in each of many texts (strings) or sentences (lists of words), as it comes.

        No more than `at_once` of them are held. A progress bar shows when it takes longer.
        total: their number, if known, for the bar.

        Raises `UserError` as `predict` does.
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
        """`predict` with the neighbours that decided, and with what the tagger alone would have found.

        For each word of an entity: its nearest neighbours with their sentences, labels, similarities and
        shares of the vote, and what it would be without them. Entities that the tagger alone finds are
        among them (`found_by`), with the neighbours that voted against.

        Raises `UserError` as `predict` does, and without a datastore.
        """
        one = is_one(inputs, words, self.tagger.encoding.units == "characters")
        texts = self.explain_texts(
            [inputs] if one else inputs, len(inputs), neighbours=neighbours, settings=settings
        )
        entities = [text.entities for text in texts]
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
        """`explain`, text by text, with the evidence for each word of an entity.

        also: for each text, further words to give the evidence for.
        around: how many entries of the datastore to name around each word, shown or not.

        Raises `UserError` as `explain` does.
        """
        if self._searcher is None:
            raise UserError("no datastore: give one to from_pretrained, as neighbours come from it")
        if neighbours < 1:
            raise UserError(f"{neighbours} neighbours asked for, expected at least 1")
        further = None if also is None else iter(also)
        for part in self._parts(texts, total, TEXTS_AT_ONCE, "explain"):
            searcher, chosen = self._searcher, settings or self.settings
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
        """Add a labelled sentence to the datastore; it counts from the next prediction on.

        tags: one for each word, in the scheme of the datastore; types may be new.

        Returns the id of the sentence. Raises `UserError` without a datastore, for tags that do not fit
        the words or the scheme, and while another process is writing to the datastore.
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
        """Take in what this or another process has changed in the datastore since it was opened."""
        if self.store is not None:
            self.store = self.store.refresh()
            self._searcher = reopen(self._searcher, self.store)

    def _parts(
        self, texts: Iterable[Input | Text], total: int | None, at_once: int, name: str
    ) -> Iterator[list[Text]]:
        """Texts in runs of `at_once`, with a progress bar."""
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
        """Tag texts; `also`: for each of them, words to search for whatever their tags."""
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
