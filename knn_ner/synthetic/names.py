"""Invented names: their types, how often each is used, and in which splits."""

from bisect import bisect
from collections.abc import Sequence
from itertools import accumulate
from random import Random

from knn_ner.synthetic.grammar import Grammar, Language, expand, pick
from knn_ner.utils.errors import UserError

Name = tuple[str, ...]

NAMES_PER_TYPE = 600
HELD_OUT = 0.15  # of all names, for dev and as many for test; the others may stand in any split
HELD_OUT_MENTIONS = 0.3  # of a dev or test split's mentions, how many are of its held-out names
ZIPF_OFFSET = 5  # weight of the name of rank r: 1 / (r + offset), so that no single name dominates
COMMON = "common"


def invent_words(language: Language, rng: Random) -> Grammar:
    """The language's grammar with its invented words in it.

    Raises `UserError` when a template cannot give that many distinct words.
    """
    rules = dict(language.rules)
    for rule, (count, template) in language.invented.items():
        words: dict[str, None] = {}  # a dict and not a set: its order is that of insertion
        for _ in range(100 * count):
            words["".join(expand(template, rules, rng))] = None
            if len(words) == count:
                break
        else:
            raise UserError(f"rule {rule}: {template} gives {len(words)} words, {count} expected")
        rules[rule] = tuple(words)
    return rules


class Lexicon:
    """Names of each type. A name belongs to all splits, or to dev or test alone, with all of its types."""

    def __init__(self, language: Language, grammar: Grammar, rng: Random):
        types_of: dict[Name, dict[str, None]] = {}

        def make(template: str, types: Sequence[str]) -> None:
            name = tuple(
                token for word in expand(template, grammar, rng) for token in language.tokens(word)
            )
            types_of.setdefault(name, {}).update(dict.fromkeys(types))

        for count, template, types in language.ambiguous:
            for _ in range(count):
                make(template, types)
        for kind, templates in language.names.items():
            for _ in range(NAMES_PER_TYPE):
                make(pick(rng, templates), (kind,))

        self.names: dict[tuple[str, str], list[Name]] = {}
        # Shuffled, as the rank in the list is what makes a name frequent.
        for name, types in sorted(types_of.items(), key=lambda _: rng.random()):
            pool = pick_pool(rng)
            for kind in types:
                self.names.setdefault((kind, pool), []).append(name)
        self.weights = {
            key: list(accumulate(1 / (rank + ZIPF_OFFSET) for rank in range(len(names))))
            for key, names in self.names.items()
        }

    def draw(self, kind: str, split: str, rng: Random) -> Name:
        """A name of this type for a sentence of this split."""
        held_out = split != "train" and rng.random() < HELD_OUT_MENTIONS
        key = (kind, split if held_out else COMMON)
        weights = self.weights[key]
        return self.names[key][bisect(weights, rng.random() * weights[-1])]


def pick_pool(rng: Random) -> str:
    """`dev` or `test` for a name that is held out for it, `common` for any other."""
    draw = rng.random()
    return "dev" if draw < HELD_OUT else "test" if draw < 2 * HELD_OUT else COMMON
