"""The input of `KnnTagger`: raw texts or sentences of words, one or several."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from knn_ner.data.word_splitting import split_words
from knn_ner.utils.errors import UserError

# Characters that no word of a corpus holds; other white space, such as U+3000, can be a word.
SEPARATORS = frozenset(" \t\r\n")


@dataclass
class Text:
    """A text and its words.

    Attributes:
        text: the text as given.
        spans: (start, end) of each word in `text`, in code points.
    """

    text: str
    spans: list[tuple[int, int]]

    @classmethod
    def of_words(cls, words: Sequence[str], joiner: str) -> "Text":
        """A sentence of words; its text is the words with `joiner` between them.

        Raises:
            UserError: for a word that is no string, is empty, or holds a column separator.
        """
        spans, start = [], 0
        for number, word in enumerate(words):
            if not isinstance(word, str) or not word or not SEPARATORS.isdisjoint(word):
                raise UserError(
                    f"word {number} of {list(words)[:8]!r}: {word!r} found, expected text without "
                    "spaces, tabs and line ends"
                )
            spans.append((start, start + len(word)))
            start += len(word) + len(joiner)
        return cls(_checked(joiner.join(words)), spans)

    @classmethod
    def of_text(cls, text: str, rule: str) -> "Text":
        """A raw text, split by a rule of `data.text`."""
        return cls(_checked(text), split_words(text, rule))

    @cached_property
    def words(self) -> list[str]:
        return [self.text[start:end] for start, end in self.spans]

    def __len__(self) -> int:
        return len(self.spans)


def is_one(inputs: Any, words: bool | None, characters: bool) -> bool:
    """Whether an argument of `predict` is a single text or a single sentence of words.

    A string is a text. A list that holds lists is a list of texts and sentences.

    Args:
        inputs: the argument.
        words: True if a list of strings is a sentence of words, False if it is a list of texts. If None, it is a
            sentence if no string holds white space (`characters`: if each string is a single character).
        characters: whether the tagger's tokens are characters.

    Raises:
        UserError: for anything else.
    """
    if isinstance(inputs, str):
        if words:
            raise UserError(
                f"words=True, but a string found ({inputs[:40]!r}), expected a list of words"
            )
        return True
    if not isinstance(inputs, Sequence):
        raise UserError(
            f"{type(inputs).__name__} found, expected a text, a list of words, or a list of either"
        )
    # Empty strings alone are empty texts, as no word is empty.
    if not all(isinstance(element, str) for element in inputs) or not any(inputs):
        return False
    if words is not None:
        return words
    if characters:
        return all(len(element) == 1 for element in inputs)
    return not any(character.isspace() for element in inputs for character in element)


def read_text(element: Any, rule: str, joiner: str) -> Text:
    """Make a `Text` of a raw text, split by a word rule, or of a sentence of words.

    Raises:
        UserError: if it is neither.
    """
    if isinstance(element, Text):
        return element
    if isinstance(element, str):
        return Text.of_text(element, rule)
    if isinstance(element, Sequence):
        return Text.of_words(element, joiner)
    raise UserError(f"{type(element).__name__} found, expected a text or a list of words")


def _checked(text: str) -> str:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise UserError(
            f"character {error.start} of a text is half of a surrogate pair, expected whole "
            "characters; decode the text anew"
        ) from None
    return text
