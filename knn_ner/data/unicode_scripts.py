"""Where a run of characters changes from one script to another: `Merkel在Berlin` is three words.

Scripts are those of the Unicode script property (UAX 24). Characters that several scripts share (digits, marks,
punctuation, the Japanese prolonged sound mark) stay with the character before them. Greek letters in Latin text are
symbols (`μm`, `TNFα`) and make no border.
"""

from functools import cache

import regex

SCRIPTS = (
    "Han Hiragana Katakana Hangul Bopomofo Yi Latin Greek Cyrillic Armenian Georgian Hebrew Arabic Syriac Thaana "
    "Devanagari Bengali Gurmukhi Gujarati Oriya Tamil Telugu Kannada Malayalam Sinhala Thai Lao Tibetan Myanmar Khmer "
    "Ethiopic Cherokee Canadian_Aboriginal Mongolian Tifinagh Nko Vai Balinese Javanese Sundanese Tai_Tham Tai_Le "
    "New_Tai_Lue Cham Lepcha Limbu Meetei_Mayek Ol_Chiki Saurashtra Buginese Tagalog Coptic Gothic Glagolitic Runic "
    "Ogham Adlam"
).split()
_PATTERN = regex.compile("|".join(rf"(?P<{name}>\p{{Script={name}}})" for name in SCRIPTS))
# Scripts that are mixed within a word.
TOGETHER = {"Greek": "Latin"}


@cache
def script_of(character: str) -> str | None:
    """The script of a character; None for one that several scripts share."""
    found = _PATTERN.match(character)
    name = found.lastgroup if found else None
    return TOGETHER.get(name, name) if name else None


def split_at_scripts(text: str, start: int, end: int) -> list[tuple[int, int]]:
    """Cut the word `text[start:end]` where its script changes.

    Returns:
        (start, end) of each part, in code points; together they are the word.
    """
    if text[start:end].isascii():
        return [(start, end)]
    borders, current = [start], None
    for place in range(start, end):
        script = script_of(text[place])
        if script and current and script != current:
            borders.append(place)
        current = script or current
    return list(zip(borders, [*borders[1:], end], strict=True))
