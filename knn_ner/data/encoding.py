"""Words to word pieces, with the labels aligned, and piece labels back to words.

The alignment is the published one (see `EncodedSentence`), or the first piece of a word alone.
A sentence keeps all its pieces; what is too long for the encoder is cut into overlapping windows
(`windows`), whose outputs are stitched into one row per piece.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from transformers import PreTrainedTokenizerBase

from knn_ner.data.corpus import Sentence
from knn_ner.data.tags import OUTSIDE, position_and_type, scheme_of_labels
from knn_ner.utils.errors import UserError

IGNORED = -100  # the target that torch's cross entropy leaves out
PIECE_LABELS = ("published", "first")
UNITS = ("words", "characters")


@dataclass
class EncodedSentence:
    """A sentence of W words as P word pieces, the two special tokens at the ends included.

    input_ids: (P,) int32.
    labels: (P,) int16, indices into the label list; `IGNORED` where a piece carries none.
    word_of_piece: (P,) int32, the word that the piece's label comes from, the last one that the piece
        covers; -1 for the two special tokens.
    first_piece, last_piece: (W,) int32, the first and the last piece that cover a word. With
        `piece_labels="first"` both are the first.
    features: further inputs of the encoder, one row per piece (ChineseBERT: `pinyin_ids`, (P, 8)).
    """

    input_ids: np.ndarray
    labels: np.ndarray
    word_of_piece: np.ndarray
    first_piece: np.ndarray
    last_piece: np.ndarray
    features: dict[str, np.ndarray] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.input_ids)


@dataclass(frozen=True)
class Window:
    """A part of a sentence that fits the encoder: pieces [start, stop) between two special tokens.

    The window owns the rows [own_start, own_stop) of the sentence: those it has most context for, and
    the special token at an end of the sentence. Every row of a sentence has one owner.
    """

    sentence: int
    start: int
    stop: int
    own_start: int
    own_stop: int

    def __len__(self) -> int:
        return self.stop - self.start + 2


def windows(sentence: int, pieces: int, max_length: int) -> list[Window]:
    """Cut a sentence of `pieces` rows (special tokens included) into windows of at most `max_length`.

    Neighbouring windows overlap by a quarter; the border between their rows lies amid the overlap.
    """
    last, room = pieces - 1, max_length - 2
    if pieces <= max_length:
        return [Window(sentence, 1, last, 0, pieces)]
    overlap = room // 4
    starts = [*list(range(1, last - room, room - overlap)), last - room]
    borders = [(following + start + room) // 2 for start, following in itertools.pairwise(starts)]
    return [
        Window(sentence, start, start + room, own_start, own_stop)
        for start, own_start, own_stop in zip(
            starts, [0, *borders], [*borders, pieces], strict=True
        )
    ]


def detect_units(sentences: Sequence[Sentence]) -> str:
    """`characters` when nearly every token is one character (Chinese corpora), else `words`."""
    tokens = single = 0
    for sentence in sentences:
        tokens += len(sentence.words)
        single += sum(len(word) == 1 for word in sentence.words)
    return "characters" if single > 0.9 * tokens else "words"


def complete_labels(labels: Sequence[str]) -> list[str]:
    """The labels that word pieces can carry: a word `B-X` or `E-X` of several pieces needs an inside label.

    Labels that a corpus lacks are appended, so that the indices of the others stay what they were.
    """
    scheme = scheme_of_labels(labels)
    inside = [
        f"{scheme.inside}-{position_and_type(label)[1]}"
        for label in labels
        if position_and_type(label)[0] in {"B", "E"}
    ]
    return list(dict.fromkeys([*labels, *inside]))


class Encoding:
    """Words to pieces for one tokeniser, label list and alignment.

    labels: the label list of the tagger, `O` first.
    piece_labels: `published`, where each piece carries a label: a piece that begins a word takes the
        word's label (a piece over several characters that of the last one); each later piece of a
        word with O or S repeats it, with B or M takes M, and with E takes E, the piece before it
        becoming M. The special tokens carry O. Or `first`: only the first piece of a word carries a
        label; all else, special tokens included, is ignored.
    units: `characters`: tokens are joined without spaces, as Chinese is written; `words`: with spaces.

    A word that gives no piece (U+FFFD, U+3000, ...) takes the unknown piece, so that every word has one.

    Raises `UserError` when the tokeniser cannot tell offsets or has no special tokens at both ends.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        labels: Sequence[str],
        piece_labels: str = "published",
        units: str = "words",
    ):
        if not tokenizer.is_fast:
            raise UserError(
                f"{type(tokenizer).__name__} gives no character offsets, expected a tokeniser with "
                "a tokenizer.json (is_fast)"
            )
        special = tokenizer("", add_special_tokens=True)["input_ids"]
        if len(special) != 2:
            raise UserError(
                f"{type(tokenizer).__name__} puts {len(special)} special tokens around a text, "
                "expected one at each end as with BERT, RoBERTa and ChineseBERT"
            )
        if tokenizer.unk_token_id is None:
            raise UserError(f"{type(tokenizer).__name__} has no unknown token, expected one")
        self.tokenizer = tokenizer
        self.labels = list(labels)
        self.scheme = scheme_of_labels(labels)
        self.piece_labels = piece_labels
        self.units = units
        self.special = special
        self.joiner = "" if units == "characters" else " "
        self.label_ids = {label: index for index, label in enumerate(self.labels)}
        self.later_label = self._later_labels()

    def _later_labels(self) -> list[tuple[int, int]]:
        """For each label of a word the labels of (a piece before the last, the last piece)."""
        later = []
        for index, label in enumerate(self.labels):
            position, kind = position_and_type(label)
            inside = self.label_ids.get(f"{self.scheme.inside}-{kind}", index)
            later.append(
                (inside, inside)
                if position == "B"
                else (inside, index)
                if position == "E"
                else (index, index)
            )
        return later

    def over(self, labels: Sequence[str]) -> "Encoding":
        """The same encoding over another label list."""
        return Encoding(self.tokenizer, labels, self.piece_labels, self.units)

    def encode(self, sentences: Sequence[Sentence]) -> list[EncodedSentence]:
        """Encode sentences whose tags are all in the label list."""
        texts = [self.joiner.join(sentence.words) for sentence in sentences]
        if not texts:
            return []
        batch = self.tokenizer(
            texts,
            add_special_tokens=False,
            return_offsets_mapping=True,
            truncation=False,
            verbose=False,
        )
        return [
            self._encode(sentence, text, ids, offsets)
            for sentence, text, ids, offsets in zip(
                sentences, texts, batch["input_ids"], batch["offset_mapping"], strict=True
            )
        ]

    def _encode(
        self, sentence: Sentence, text: str, ids: list[int], offsets: list[tuple[int, int]]
    ) -> EncodedSentence:
        count = len(sentence.words)
        lengths = np.fromiter((len(word) for word in sentence.words), dtype=np.int64, count=count)
        # A space belongs to the word after it: byte-level BPE may count it into that word's piece.
        lengths[1:] += len(self.joiner)
        ends = np.cumsum(lengths)
        word_of_character = np.repeat(np.arange(count), lengths)
        spans = np.asarray(offsets, dtype=np.int64).reshape(-1, 2)
        features = {}
        if hasattr(self.tokenizer, "piece_features"):
            features = self.tokenizer.piece_features(text, offsets)
        first = word_of_character[np.minimum(spans[:, 0], len(text) - 1)]
        last = word_of_character[
            np.maximum(spans[:, 1] - 1, np.minimum(spans[:, 0], len(text) - 1))
        ]
        last = np.maximum(last, first)
        pieces = np.asarray(ids, dtype=np.int32)
        covered = np.zeros(count + 1, dtype=np.int64)
        np.add.at(covered, first, 1)
        np.add.at(covered, last + 1, -1)
        missing = np.flatnonzero(np.cumsum(covered[:-1]) == 0)
        if len(missing):
            places = np.searchsorted(spans[:, 0], (ends - lengths)[missing], side="left")
            pieces = np.insert(pieces, places, self.tokenizer.unk_token_id)
            first = np.insert(first, places, missing)
            last = np.insert(last, places, missing)
            features = {name: np.insert(rows, places, 0, axis=0) for name, rows in features.items()}
        return self._align(sentence, pieces, first, last, features)

    def _align(
        self,
        sentence: Sentence,
        pieces: np.ndarray,
        first: np.ndarray,
        last: np.ndarray,
        features: dict[str, np.ndarray],
    ) -> EncodedSentence:
        """Label pieces that cover the words first..last, both (P - 2,), and add the special tokens."""
        words = np.arange(len(sentence.words))
        # Both are sorted, as pieces come in the order of the text.
        first_piece = np.searchsorted(last, words, side="left")
        last_piece = np.searchsorted(first, words, side="right") - 1
        tags = np.fromiter(
            (self.label_ids[tag] for tag in sentence.tags), dtype=np.int16, count=len(words)
        )
        labels = tags[last]
        places = np.arange(len(pieces))
        is_first = first_piece[last] == places
        if self.piece_labels == "first":
            labels[~is_first] = IGNORED
            last_piece = first_piece
        else:
            later = np.asarray(self.later_label, dtype=np.int16)
            is_last = last_piece[last] == places
            labels = np.where(is_first, labels, later[labels, is_last.astype(int)])
            # The first of several pieces of a word that closes an entity is not its end.
            opens = is_first & ~is_last & np.isin(labels, self._closing)
            labels = np.where(opens, later[labels, 0], labels)
        outside = self.label_ids[OUTSIDE] if self.piece_labels == "published" else IGNORED
        return EncodedSentence(
            input_ids=np.concatenate([self.special[:1], pieces, self.special[1:]]).astype(np.int32),
            labels=np.concatenate([[outside], labels, [outside]]).astype(np.int16),
            word_of_piece=np.concatenate([[-1], last, [-1]]).astype(np.int32),
            first_piece=(first_piece + 1).astype(np.int32),
            last_piece=(last_piece + 1).astype(np.int32),
            features={
                name: np.pad(rows, [(1, 1)] + [(0, 0)] * (rows.ndim - 1))
                for name, rows in features.items()
            },
        )

    @property
    def _closing(self) -> list[int]:
        return [i for i, label in enumerate(self.labels) if position_and_type(label)[0] == "E"]
