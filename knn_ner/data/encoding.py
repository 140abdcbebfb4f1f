"""Words to word pieces with aligned labels, and long sentences to windows.

The alignment is the published one (see `Encoding`), or the first piece of a word alone. A sentence keeps all its
pieces. If it is too long for the encoder, it is cut into overlapping windows (`windows`), whose outputs together give
one row for each piece.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from transformers import PreTrainedTokenizerBase

from knn_ner.data.columns import Sentence
from knn_ner.data.tags import OUTSIDE, position_and_type, scheme_of_labels
from knn_ner.utils.errors import UserError

IGNORED = -100  # the target that torch's cross entropy leaves out
UNITS = ("words", "characters")


@dataclass
class EncodedSentence:
    """A sentence of W words as P word pieces, with a special token at each end.

    Attributes:
        input_ids: (P,) int32.
        labels: (P,) int16, indices into the label list; `IGNORED` for a piece without a label.
        word_of_piece: (P,) int32, the word that gives the piece its label, which is the last one that the piece
            covers; -1 for the two special tokens.
        first_piece, last_piece: (W,) int32, the first and the last piece that cover a word. With
            `piece_labels="first"` both are the first.
        features: further inputs of the encoder, a row for each piece (ChineseBERT: `pinyin_ids`, (P, 8)).
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

    The window owns the rows [own_start, own_stop) of the sentence: the pieces for which it has most context, and the
    special token at an end of the sentence. Every row of a sentence has one owner.
    """

    sentence: int
    start: int
    stop: int
    own_start: int
    own_stop: int

    def __len__(self) -> int:
        return self.stop - self.start + 2


def windows(sentence: int, pieces: int, max_length: int) -> list[Window]:
    """Cut a sentence of `pieces` rows, with its special tokens, into windows of at most `max_length`.

    Neighbouring windows overlap by a quarter. The border between their rows is in the middle of the overlap.
    """
    last, room = pieces - 1, max_length - 2
    if pieces <= max_length:
        return [Window(sentence, 1, last, 0, pieces)]
    starts = [*range(1, last - room, room - room // 4), last - room]
    borders = [(following + start + room) // 2 for start, following in itertools.pairwise(starts)]
    parts = zip(starts, [0, *borders], [*borders, pieces], strict=True)
    return [Window(sentence, start, start + room, *own) for start, *own in parts]


def detect_units(sentences: Sequence[Sentence]) -> str:
    """`characters` if nearly every token is one character (Chinese corpora), else `words`."""
    tokens = sum(len(sentence) for sentence in sentences)
    single = sum(len(word) == 1 for sentence in sentences for word in sentence.words)
    return "characters" if single > 0.9 * tokens else "words"


def complete_labels(labels: Sequence[str]) -> list[str]:
    """The labels that word pieces can carry: a word `B-X` or `E-X` of several pieces needs an inside label.

    Missing inside labels are appended, so that the indices of the others stay the same.
    """
    inside = scheme_of_labels(labels).inside
    parts = map(position_and_type, labels)
    needed = [f"{inside}-{kind}" for position, kind in parts if position in {"B", "E"}]
    return list(dict.fromkeys([*labels, *needed]))


class Encoding:
    """Words to pieces for one tokeniser, label list and alignment.

    A word without a piece of its own (U+FFFD, U+3000, ...) takes the unknown piece, so that every word has one.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        labels: Sequence[str],
        piece_labels: str = "published",
        units: str = "words",
    ):
        """Check the tokeniser and prepare the alignment.

        Args:
            tokenizer: the tokeniser.
            labels: the label list of the tagger.
            piece_labels: `published`, each piece carries a label: a piece that begins a word takes the word's label
                (a piece over several characters that of the last one); each later piece of a word with O or S repeats
                it, with B or M takes M, and with E takes E, the piece before it becoming M; the special tokens carry
                O. Or `first`: only the first piece of a word carries a label; all other pieces are ignored.
            units: `characters`, tokens are joined without spaces, as Chinese is written; or `words`, with spaces.

        Raises:
            UserError: if the tokeniser gives no offsets, or has no special token at each end or no unknown token.
        """
        kind = type(tokenizer).__name__
        if not tokenizer.is_fast:
            raise UserError(
                f"{kind} gives no character offsets, expected a tokeniser with a tokenizer.json (is_fast)"
            )
        special = tokenizer("", add_special_tokens=True)["input_ids"]
        if len(special) != 2:
            raise UserError(
                f"{kind} puts {len(special)} special tokens around a text, expected one at each end as "
                "with BERT, RoBERTa and ChineseBERT"
            )
        if tokenizer.unk_token_id is None:
            raise UserError(f"{kind} has no unknown token, expected one")
        self.tokenizer = tokenizer
        self.labels = list(labels)
        self.scheme = scheme_of_labels(labels)
        self.piece_labels = piece_labels
        self.units = units
        self.special = special
        self.joiner = "" if units == "characters" else " "
        self.label_ids = {label: index for index, label in enumerate(self.labels)}
        # [label of the word, is the first piece, is the last piece]
        self._label_of_piece = np.array([self._piece_labels(label) for label in self.labels])

    def _piece_labels(self, label: str) -> list[list[int]]:
        """The label of each kind of piece of a word with this label."""
        position, kind = position_and_type(label)
        own = self.label_ids[label]
        inside = self.label_ids.get(f"{self.scheme.inside}-{kind}", own)
        return [
            [inside if position in {"B", "E"} else own, inside if position == "B" else own],
            [inside if position == "E" else own, own],
        ]

    def over(self, labels: Sequence[str]) -> "Encoding":
        """The same encoding over another label list."""
        return Encoding(self.tokenizer, labels, self.piece_labels, self.units)

    def encode(self, sentences: Sequence[Sentence]) -> list[EncodedSentence]:
        """Encode sentences whose tags are all in the label list."""
        texts = [self.joiner.join(sentence.words) for sentence in sentences]
        if not texts:
            return []
        how = {"add_special_tokens": False, "truncation": False, "verbose": False}
        batch = self.tokenizer(texts, return_offsets_mapping=True, **how)
        parts = zip(sentences, texts, batch["input_ids"], batch["offset_mapping"], strict=True)
        return [self._encode(*part) for part in parts]

    def _encode(
        self, sentence: Sentence, text: str, ids: list[int], offsets: list[tuple[int, int]]
    ) -> EncodedSentence:
        lengths = np.array([len(word) for word in sentence.words], dtype=np.int64)
        # A space belongs to the word after it: byte-level BPE may put it into that word's piece.
        lengths[1:] += len(self.joiner)
        words = np.arange(len(lengths))
        word_of_character = np.repeat(words, lengths)
        spans = np.asarray(offsets, dtype=np.int64).reshape(-1, 2)
        make = getattr(self.tokenizer, "piece_features", None)
        features: dict[str, np.ndarray] = make(text, offsets) if make else {}
        start = np.minimum(spans[:, 0], len(text) - 1)
        first = word_of_character[start]
        last = np.maximum(word_of_character[np.maximum(spans[:, 1] - 1, start)], first)
        pieces = np.asarray(ids, dtype=np.int32)
        # Both are sorted, as pieces are in the order of the text.
        missing = np.flatnonzero(
            np.searchsorted(first, words, "right") == np.searchsorted(last, words)
        )
        if len(missing):
            starts = (np.cumsum(lengths) - lengths)[missing]
            places = np.searchsorted(spans[:, 0], starts, side="left")
            pieces = np.insert(pieces, places, self.tokenizer.unk_token_id)
            first, last = (np.insert(each, places, missing) for each in (first, last))
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
        words, places = np.arange(len(sentence)), np.arange(len(pieces))
        first_piece = np.searchsorted(last, words, side="left")
        last_piece = np.searchsorted(first, words, side="right") - 1
        tags = np.array([self.label_ids[tag] for tag in sentence.tags], dtype=np.int64)
        is_first = first_piece[last] == places
        if self.piece_labels == "first":
            special, labels = IGNORED, np.where(is_first, tags[last], IGNORED)
            last_piece = first_piece
        else:
            is_last = last_piece[last] == places
            special = self.label_ids[OUTSIDE]
            labels = self._label_of_piece[tags[last], is_first.astype(int), is_last.astype(int)]
        return EncodedSentence(
            input_ids=np.concatenate([self.special[:1], pieces, self.special[1:]]).astype(np.int32),
            labels=np.concatenate([[special], labels, [special]]).astype(np.int16),
            word_of_piece=np.concatenate([[-1], last, [-1]]).astype(np.int32),
            first_piece=(first_piece + 1).astype(np.int32),
            last_piece=(last_piece + 1).astype(np.int32),
            features={
                name: np.pad(rows, [(1, 1)] + [(0, 0)] * (rows.ndim - 1))
                for name, rows in features.items()
            },
        )
