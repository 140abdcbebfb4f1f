"""The small language that the synthetic corpora are written in.

A grammar maps a rule's name to its templates, each as likely as the next (one that stands twice is twice
as likely). A template is words divided by spaces:

    word        itself
    $rule       an expansion of that rule
    $a+$b+c     the same without the spaces: one word, which is how names are invented
    @PER        the place of a name of type PER
    @PER/ORG    the place of a name of either type, one as likely as the other
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import TypeVar

T = TypeVar("T")
Grammar = Mapping[str, Sequence[str]]


@dataclass(frozen=True)
class Language:
    """All that makes a synthetic language; `english.py` and `chinese.py` hold one each.

    rules: its grammar; `sentence` is where a sentence starts.
    invented: rules whose templates are invented once for each corpus: how many distinct words, from what.
    names: for each entity type, how its names are made.
    ambiguous: how many names, from what template, are names of all of the types.
    tokens: a word of a template as tokens of the corpus.
    capitalised: whether the first token of a sentence gets a capital letter.
    file_name: the ending of the corpus files.
    """

    rules: Grammar
    invented: Mapping[str, tuple[int, str]]
    names: Grammar
    ambiguous: Sequence[tuple[int, str, tuple[str, ...]]]
    tokens: Callable[[str], Sequence[str]]
    capitalised: bool
    file_name: str


def pick(rng: Random, items: Sequence[T]) -> T:
    """One of the items, each as likely as the next.

    Only `Random.random` is promised to give the same numbers in every version of Python: everything here
    is drawn with it.
    """
    return items[int(rng.random() * len(items))]


def expand(template: str, grammar: Grammar, rng: Random) -> list[str]:
    """Expand a template's rules at random: a list of words, and of name places such as `@PER/ORG`."""
    words: list[str] = []
    for item in template.split():
        if "$" not in item:
            words.append(item)
        elif "+" not in item:
            words += expand(pick(rng, grammar[item[1:]]), grammar, rng)
        else:
            parts = (expand(part, grammar, rng) for part in item.split("+"))
            words.append("".join(word for part in parts for word in part))
    return words
