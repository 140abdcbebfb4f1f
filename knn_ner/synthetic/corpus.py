"""A seeded synthetic corpus for the quickstart and the tests: English words or Chinese characters.

    python -m knn_ner.synthetic.corpus --out outputs/corpus --seed 0

Sentences come from templates (`english.py`, `chinese.py`), names from syllables. What makes it hard: names
of a long tail, names that only dev or test has, names of two types, contexts that fit several types,
titles made of common words, and neighbouring names of one type. No label is wrong.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

from knn_ner.data.columns import Sentence, write_columns
from knn_ner.synthetic.chinese import CHINESE
from knn_ner.synthetic.english import ENGLISH
from knn_ner.synthetic.grammar import Grammar, Language, expand, pick
from knn_ner.synthetic.names import Lexicon, Name, invent_words
from knn_ner.utils.arguments import Parser, positive_int
from knn_ner.utils.command import run_main
from knn_ner.utils.errors import UserError

LANGUAGES: Mapping[str, Language] = {"en": ENGLISH, "zh": CHINESE}
SIZES: Mapping[str, int] = {"train": 3000, "dev": 500, "test": 500}
MOST_ATTEMPTS = 1000  # at a sentence that has not stood in the corpus before


@dataclass(frozen=True)
class Segment:
    """Neighbouring tokens: a name of an entity type, or words outside of any (kind is None)."""

    tokens: Name
    kind: str | None = None

    def tags(self) -> list[str]:
        """The BMES tags of the tokens."""
        if self.kind is None:
            return ["O"] * len(self.tokens)
        if len(self.tokens) == 1:
            return [f"S-{self.kind}"]
        inner = ["M"] * (len(self.tokens) - 2)
        return [f"{position}-{self.kind}" for position in ("B", *inner, "E")]


SyntheticSentence = Sequence[Segment]


@dataclass(frozen=True)
class SplitStatistics:
    """Counts of one split.

    unseen: entities whose name is no entity of the training split.
    ambiguous: entities whose name is one of several types in the training split.
    """

    sentences: int
    tokens: int
    entities: int
    unseen: int
    ambiguous: int


@dataclass(frozen=True)
class CorpusStatistics:
    """What was written: the files' ending, the entity types, and counts for each split."""

    file_name: str
    types: tuple[str, ...]
    splits: Mapping[str, SplitStatistics]


def write_corpus(
    out: str | Path,
    seed: int = 0,
    language: str = "en",
    sizes: Mapping[str, int] = SIZES,
    file_name: str | None = None,
) -> CorpusStatistics:
    """Write `out/{train,dev,test}.FILE_NAME` in BMES: token, space, tag; a blank line ends a sentence.

    The same arguments give the same bytes, whatever the platform. No sentence stands twice.

    language: `en` (words) or `zh` (characters).
    sizes: sentences of each of the splits train, dev and test.
    file_name: `word.bmes` for English and `char.bmes` for Chinese unless given.

    Raises `UserError` for an unknown language, for a folder that cannot be written, and when the
    templates do not give as many different sentences.
    """
    if language not in LANGUAGES:
        raise UserError(f"language {language!r} found, expected one of {', '.join(LANGUAGES)}")
    chosen = LANGUAGES[language]
    file_name = file_name or chosen.file_name
    splits = generate(chosen, seed, sizes)
    for split, sentences in splits.items():
        path = Path(out, f"{split}.{file_name}")
        write_columns(path, map(as_columns, sentences), blank_at_end=True)
    return count_corpus(file_name, tuple(chosen.names), splits)


def generate(
    language: Language, seed: int, sizes: Mapping[str, int]
) -> dict[str, list[SyntheticSentence]]:
    """The sentences of each split, no two with the same tokens."""
    rng = Random(f"lexicon {seed}")  # a string's seed is its SHA-512, on every platform
    grammar = invent_words(language, rng)
    lexicon = Lexicon(language, grammar, rng)
    seen: set[Name] = set()
    splits: dict[str, list[SyntheticSentence]] = {}
    for split, size in sizes.items():
        rng = Random(f"{split} {seed}")
        splits[split] = [
            new_sentence(language, grammar, lexicon, split, rng, seen) for _ in range(size)
        ]
    return splits


def new_sentence(
    language: Language,
    grammar: Grammar,
    lexicon: Lexicon,
    split: str,
    rng: Random,
    seen: set[Name],
) -> SyntheticSentence:
    """A sentence whose tokens are not in `seen`; they are added to it.

    Raises `UserError` when no attempt gives one.
    """
    for _ in range(MOST_ATTEMPTS):
        sentence = make_sentence(language, grammar, lexicon, split, rng)
        tokens = tuple(token for segment in sentence for token in segment.tokens)
        if tokens not in seen:
            seen.add(tokens)
            return sentence
    raise UserError(
        f"{len(seen)} different sentences found, more expected; ask for fewer sentences"
    )


def make_sentence(
    language: Language, grammar: Grammar, lexicon: Lexicon, split: str, rng: Random
) -> SyntheticSentence:
    """Expand the grammar's `sentence` and fill its places with names."""
    segments: list[Segment] = []
    for word in expand("$sentence", grammar, rng):
        if word.startswith("@"):
            kind = pick(rng, word[1:].split("/"))
            segments.append(Segment(lexicon.draw(kind, split, rng), kind))
        else:
            segments.append(Segment(tuple(language.tokens(word))))
    if language.capitalised:
        first, *others = segments[0].tokens
        segments[0] = Segment((first[0].upper() + first[1:], *others), segments[0].kind)
    return segments


def as_columns(sentence: SyntheticSentence) -> Sentence:
    """The tokens of a sentence with their tags."""
    return Sentence(
        [token for segment in sentence for token in segment.tokens],
        [tag for segment in sentence for tag in segment.tags()],
    )


def count_corpus(
    file_name: str, types: tuple[str, ...], splits: Mapping[str, Sequence[SyntheticSentence]]
) -> CorpusStatistics:
    """Count sentences, tokens and entities against the names of the training split."""
    known: dict[Name, set[str | None]] = {}
    for sentence in splits.get("train", ()):
        for segment in sentence:
            if segment.kind is not None:
                known.setdefault(segment.tokens, set()).add(segment.kind)
    counts = {}
    for split, sentences in splits.items():
        segments = [segment for sentence in sentences for segment in sentence]
        entities = [segment.tokens for segment in segments if segment.kind is not None]
        counts[split] = SplitStatistics(
            sentences=len(sentences),
            tokens=sum(len(segment.tokens) for segment in segments),
            entities=len(entities),
            unseen=sum(name not in known for name in entities),
            ambiguous=sum(len(known.get(name, ())) > 1 for name in entities),
        )
    return CorpusStatistics(file_name, types, counts)


def main(argv: list[str] | None = None) -> int:
    """Write a corpus and print its counts."""
    parser = Parser("Write a seeded synthetic corpus.", prog="python -m knn_ner.synthetic.corpus")
    parser.add_argument("--out", required=True, metavar="D", help="folder of the corpus")
    parser.add_argument("--seed", type=int, default=0, help="of names and sentences")
    parser.add_argument(
        "--language", choices=tuple(LANGUAGES), default="en", help="words, or Chinese characters"
    )
    for split, size in SIZES.items():
        parser.add_argument(
            f"--{split}", type=positive_int, default=size, metavar="N", help="sentences"
        )
    parser.add_argument(
        "--file_name",
        default=None,
        metavar="F",
        help="ending of the files; word.bmes for en and char.bmes for zh if not given",
    )
    args = parser.parse_args(argv)
    sizes = {split: getattr(args, split) for split in SIZES}
    statistics = write_corpus(args.out, args.seed, args.language, sizes, args.file_name)
    for split, count in statistics.splits.items():
        print(
            f"{Path(args.out) / f'{split}.{statistics.file_name}'}: {count.sentences} sentences, "
            f"{count.tokens} tokens, {count.entities} entities "
            f"({count.unseen} of names not in train, {count.ambiguous} of ambiguous names)"
        )
    return 0


if __name__ == "__main__":
    run_main(main)
