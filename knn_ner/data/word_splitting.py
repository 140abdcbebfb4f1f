"""Raw text to words, by the rule that the training corpus was split by, with offsets into the text as given.

There are four rules. `characters`: every character but white space is a word, as in Chinese corpora. The other three
are for text with spaces, and split at white space first:

- `penn`, as in CoNLL-2003, WNUT-17 and most English corpora: punctuation is a word of its own (`Berlin .`), and clitics
  are split off (`it 's`, `do n't`). One word are numbers (`3,000.50`, `5/11`), abbreviations and initials (`U.S.`,
  `Dr.`, `J.` before a capital), words with inner hyphens, apostrophes and dots (`mid-week`, `O'Brien`, `amazon.com`),
  `AT&T`, URLs, e-mail addresses, @names, #tags, `&amp;`, a lone `:)`, and runs of dots, of dashes, of exclamation and
  question marks.
- `penn-hyphens`, as in OntoNotes 5: the same, but hyphens are words too (`mid - week`).
- `punctuation`, as in BC5CDR: every mark is a word (`0 . 5`, `don ' t`), as in BERT's own pre-tokenisation.

Combining marks, variation selectors and joiners stay with the character before them, and an emoji of several code
points is one word. Under `characters` each code point is a word, as in the corpora.
"""

import re
import unicodedata
from collections.abc import Iterable, Sequence

from knn_ner.data.unicode_scripts import split_at_scripts

# Python's `re` knows no Unicode categories. So it sees a text in which each character that is not ASCII is replaced by
# a representative of its class.
_LETTER, _DIGIT, _MARK, _JOINER, _FLAG, _SYMBOL = "a0\u0300\u200d\U0001f1e6\u00a4"


class _Classes(dict[int, str]):
    """Code point -> representative of its class; filled as characters are met."""

    def __missing__(self, code: int) -> str:
        self[code] = kind = self.kind(chr(code))
        return kind

    @staticmethod
    def kind(character: str) -> str:
        if character.isspace():
            return " "
        if character < "\x7f" or character == _JOINER:
            return character
        if "\U0001f1e6" <= character <= "\U0001f1ff":
            return _FLAG
        if character in "\u2018\u2019\u2010\u2011":
            return "'" if character in "\u2018\u2019" else "-"
        category = unicodedata.category(character)
        # Sk: the skin tones of emoji. Cf: zero-width and direction marks.
        if category[0] == "M" or category in {"Sk", "Cf"}:
            return _MARK
        if category == "Nd":
            return _DIGIT
        return _LETTER if category[0] in "LN" else _SYMBOL


_CLASSES = _Classes()

_W = f"[A-Za-z0-9_{_MARK}{_JOINER}]"
_CLITIC = "'(?:[sSmMdD]|[rR][eE]|[vV][eE]|[lL]{2})"
_TITLES = "Mr Mrs Ms Dr Prof St Jr Sr Rev Hon Gen Col Capt Lt Sgt Sen Rep Gov Inc Corp Co Ltd Bros vs etc Ph.D"
_EMOJI = f"{_FLAG}{{2}}|{_SYMBOL}{_MARK}*(?:{_JOINER}{_SYMBOL}{_MARK}*)*"
_REST = f"{_EMOJI}|[^ ][{_MARK}{_JOINER}]*"


def _penn(inner: str) -> re.Pattern[str]:
    """The words of `penn`; inner: the marks that may stand between two letters of a word."""
    titles = "|".join(re.escape(title) for title in _TITLES.split())
    words = (
        rf"(?:https?://|www\.)[^ ]{{0,2000}}[^] .,;:!?'\"(){{}}<>{_SYMBOL}[]",
        r"[A-Za-z0-9][A-Za-z0-9_.+-]{0,63}@[A-Za-z0-9-]{1,63}(?:\.[A-Za-z0-9-]{1,63})+",
        rf"[@#]{_W}+",
        rf"(?:{titles})\.(?!{_W})",
        rf"(?:[A-Za-z]\.){{2,}}(?!{_W})",
        r"[A-HJ-Z]\.(?= +[A-Z])",
        rf"[nN]'[tT](?!{_W})",
        rf"{_W}+?(?=[nN]'[tT](?!{_W}))",
        rf"{_W}+(?:(?:{inner}){_W}+)*",
        rf"{_CLITIC}(?!{_W})",
        r"(?<![^ ])[:;=]-?[()DPpoO](?![^ ])",
        r"&[a-z]{2,6};",
        r"\.{2,}|-{2,}|[!?]{2,}",
        _REST,
    )
    return re.compile("|".join(words))


_INNER = rf"(?<=[0-9])[.,:/](?=[0-9])|\.(?=[a-z])|(?<=[A-Z])&(?=[A-Z])|(?!{_CLITIC}(?!{_W}))'"
_PATTERNS = {
    "penn": _penn(rf"{_INNER}|-"),
    "penn-hyphens": _penn(_INNER),
    "punctuation": re.compile(rf"[A-Za-z0-9{_MARK}{_JOINER}]+|{_REST}"),
    "characters": re.compile(r"[^ ]"),
}
WORD_RULES = tuple(_PATTERNS)


def split_words(text: str, rule: str) -> list[tuple[int, int]]:
    """The words of a text as (start, end), in order; every character but white space is in one of them.

    Args:
        text: the text.
        rule: one of `WORD_RULES`.

    Returns:
        Offsets in code points, as Python's strings count.
    """
    return [
        part
        for match in _PATTERNS[rule].finditer(text.translate(_CLASSES))
        for part in split_at_scripts(text, *match.span())
    ]


def detect_word_rule(sentences: Iterable[Sequence[str]], units: str) -> str:
    """The rule that the words of a corpus were split by.

    Args:
        sentences: the words of each sentence.
        units: `characters` or `words`, as `encoding.detect_units` finds.
    """
    if units == "characters":
        return "characters"
    mixed = hyphenated = hyphens = total = 0
    for word in (word for words in sentences for word in words):
        total += 1
        if not word.isalnum():
            with_letters = any(map(str.isalnum, word))
            mixed += with_letters
            hyphenated += with_letters and "-" in word[1:-1]
            hyphens += word == "-"
    if mixed < 0.001 * total:
        return "punctuation"
    return "penn-hyphens" if hyphens > 10 * max(hyphenated, 1) else "penn"
