"""The notation of the synthetic languages in `english.toml` and `chinese.toml`.

A grammar maps a rule's name to its templates, which are equally likely (a template that is listed twice is twice
as likely). A template consists of items between spaces:

    word        the word itself
    $rule       an expansion of the rule
    $a+$b+c     the same without spaces: a single word, as names are invented
    @PER        a place for a name of type PER
    @PER/ORG    a place for a name of either type, both equally likely
"""

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from random import Random
from typing import TypeVar

T = TypeVar("T")
Grammar = Mapping[str, Sequence[str]]


@dataclass(frozen=True, kw_only=True)
class Language:
    """A synthetic language.

    Attributes:
        rules: its grammar; a sentence starts with the rule `sentence`.
        invented: rules whose words are invented for each corpus: the number of distinct words and their template.
        names: the templates of the names of each entity type.
        ambiguous: names of several types: their number, template and types.
        characters: whether each character is a token, instead of each word.
        capitalised: whether the first token of a sentence gets a capital letter.
        file_name: the ending of the corpus files.
    """

    rules: Grammar
    invented: Mapping[str, tuple[int, str]]
    names: Grammar
    ambiguous: Sequence[tuple[int, str, Sequence[str]]]
    characters: bool
    capitalised: bool
    file_name: str

    def tokens(self, word: str) -> tuple[str, ...]:
        """The tokens of a word of a template."""
        return tuple(word) if self.characters else (word,)


def read_language(name: str) -> Language:
    """Read the language of a file `NAME.toml` beside this one."""
    text = resources.files(__package__).joinpath(f"{name}.toml").read_text(encoding="utf-8")
    content = tomllib.loads(text)
    content["rules"] = {
        rule: templates.split() if isinstance(templates, str) else templates
        for rule, templates in content["rules"].items()
    }
    return Language(**content)


def pick(rng: Random, items: Sequence[T]) -> T:
    """Draw one of the items, all equally likely.

    It calls `Random.random` alone, which gives the same numbers in every version of Python; other methods of `Random`
    may not.
    """
    return items[int(rng.random() * len(items))]


def expand(template: str, grammar: Grammar, rng: Random) -> list[str]:
    """Expand a template at random.

    Args:
        template: the template.
        grammar: the rules.
        rng: the source of random numbers.

    Returns:
        Words, and places for names such as `@PER/ORG`.
    """
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
