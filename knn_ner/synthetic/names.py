"""Invented names: their types, how frequent they are, and the splits that they occur in."""

from bisect import bisect
from collections.abc import Sequence
from itertools import accumulate
from random import Random

from knn_ner.synthetic.grammar import Grammar, Language, expand, pick
from knn_ner.utils.errors import UserError

Name = tuple[str, ...]

NAMES_PER_TYPE = 600
HELD_OUT = 0.15  # share of the names that only dev has, and share of those that only test has
HELD_OUT_MENTIONS = 0.3  # share of the mentions in dev or test that are held-out names
ZIPF_OFFSET = 5  # the name of rank r has the weight 1 / (r + offset), so that no name dominates
COMMON = "common"


def invent_words(language: Language, rng: Random) -> Grammar:
    """Invent the words of a corpus.

    Args:
        language: the language.
        rng: the source of random numbers.

    Returns:
        The language's grammar with the invented words.

    Raises:
        UserError: if a template cannot give enough distinct words.
    """
    rules = dict(language.rules)
    for rule, (count, template) in language.invented.items():
        words: dict[str, None] = {}  # a dict keeps the order of insertion, a set does not
        for _ in range(100 * count):
            words["".join(expand(template, rules, rng))] = None
            if len(words) == count:
                break
        else:
            raise UserError(f"rule {rule}: {template} gives {len(words)} words, {count} expected")
        rules[rule] = tuple(words)
    return rules


class Lexicon:
    """The names of a corpus. A name with all its types occurs in any split, or in dev alone, or in test alone.

    Args:
        language: the language.
        grammar: its grammar with the invented words.
        rng: the source of random numbers.
    """

    def __init__(self, language: Language, grammar: Grammar, rng: Random):
        types_of: dict[Name, dict[str, None]] = {}

        def invent(template: str, types: Sequence[str]) -> None:
            words = expand(template, grammar, rng)
            name = tuple(token for word in words for token in language.tokens(word))
            types_of.setdefault(name, {}).update(dict.fromkeys(types))

        for count, template, types in language.ambiguous:
            for _ in range(count):
                invent(template, types)
        for kind, templates in language.names.items():
            for _ in range(NAMES_PER_TYPE):
                invent(pick(rng, templates), (kind,))

        self.names: dict[tuple[str, str], list[Name]] = {}
        # In random order, because a name's place in its list determines its frequency.
        for name, kinds in sorted(types_of.items(), key=lambda _: rng.random()):
            draw = rng.random()
            pool = "dev" if draw < HELD_OUT else "test" if draw < 2 * HELD_OUT else COMMON
            for kind in kinds:
                self.names.setdefault((kind, pool), []).append(name)
        self.weights = {
            key: list(accumulate(1 / (rank + ZIPF_OFFSET) for rank in range(len(names))))
            for key, names in self.names.items()
        }

    def draw(self, kind: str, split: str, rng: Random) -> Name:
        """Draw a name for a sentence.

        Args:
            kind: the entity type.
            split: the split of the sentence.
            rng: the source of random numbers.
        """
        held_out = split != "train" and rng.random() < HELD_OUT_MENTIONS
        key = (kind, split if held_out else COMMON)
        weights = self.weights[key]
        return self.names[key][bisect(weights, rng.random() * weights[-1])]
