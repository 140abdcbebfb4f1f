"""Write a seeded synthetic corpus for the quickstart and the tests: English words or Chinese characters.

    python -m knn_ner.synthetic.corpus --out outputs/corpus --seed 0

Sentences come from templates (`english.toml`, `chinese.toml`), names from syllables. The corpus is hard in these
ways: most names are rare, some names occur only in dev or test, some names have two types, some contexts fit several
types, titles consist of common words, and names of one type stand side by side. No label is wrong.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Literal

from knn_ner.data.columns import Sentence, write_columns
from knn_ner.synthetic.grammar import Grammar, Language, expand, pick, read_language
from knn_ner.synthetic.names import Lexicon, Name, invent_words
from knn_ner.utils.arguments import flag, positive_int
from knn_ner.utils.command import read_command, run_main
from knn_ner.utils.errors import UserError

LANGUAGES: Mapping[str, Language] = {
    "en": read_language("english"),
    "zh": read_language("chinese"),
}
SIZES: Mapping[str, int] = {"train": 3000, "dev": 500, "test": 500}
MOST_ATTEMPTS = 1000  # to make a sentence that is new in the corpus


@dataclass(frozen=True, kw_only=True)
class SyntheticCorpusSettings:
    """The settings of `python -m knn_ner.synthetic.corpus`."""

    out: str = flag(metavar="D")
    """folder of the corpus"""
    seed: int = flag(0)
    """random seed of names and sentences"""
    language: Literal["en", "zh"] = flag("en")
    """en: English words; zh: Chinese characters"""
    train: int = flag(SIZES["train"], parse=positive_int, metavar="N")
    """sentences of the training split"""
    dev: int = flag(SIZES["dev"], parse=positive_int, metavar="N")
    """sentences of the dev split"""
    test: int = flag(SIZES["test"], parse=positive_int, metavar="N")
    """sentences of the test split"""
    file_name: str | None = flag(None, metavar="F")
    """ending of the corpus files (if not given: word.bmes for en, char.bmes for zh)"""


@dataclass(frozen=True)
class Segment:
    """Neighbouring tokens of a sentence.

    Attributes:
        tokens: the tokens.
        kind: the entity type if the tokens are a name; None otherwise.
    """

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

    Attributes:
        sentences: number of sentences.
        tokens: number of tokens.
        entities: number of entities.
        unseen: entities whose name is no entity of the training split.
        ambiguous: entities whose name has several types in the training split.
    """

    sentences: int
    tokens: int
    entities: int
    unseen: int
    ambiguous: int


@dataclass(frozen=True)
class CorpusStatistics:
    """A description of a corpus.

    Attributes:
        file_name: the ending of the corpus files.
        types: the entity types.
        splits: the counts of each split.
    """

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
    """Write `out/{train,dev,test}.FILE_NAME` in BMES: token, space, tag; an empty line ends a sentence.

    The same arguments give the same bytes on every platform. All sentences are distinct.

    Args:
        out: the folder to write to.
        seed: random seed of names and sentences.
        language: `en` (words) or `zh` (characters).
        sizes: number of sentences of the splits train, dev and test.
        file_name: ending of the files; None for `word.bmes` (English) or `char.bmes` (Chinese).

    Raises:
        UserError: if the language is unknown, the folder cannot be written, or the templates do not give enough
            distinct sentences.
    """
    if language not in LANGUAGES:
        raise UserError(f"language {language!r} found, expected one of {', '.join(LANGUAGES)}")
    chosen = LANGUAGES[language]
    file_name = file_name or chosen.file_name
    splits = _generate(chosen, seed, sizes)
    for split, sentences in splits.items():
        path = Path(out, f"{split}.{file_name}")
        write_columns(path, map(_as_columns, sentences), blank_at_end=True)
    return _count_corpus(file_name, tuple(chosen.names), splits)


def _generate(
    language: Language, seed: int, sizes: Mapping[str, int]
) -> dict[str, list[SyntheticSentence]]:
    # Python seeds a generator with the SHA-512 of a string, which is the same on every platform.
    rng = Random(f"lexicon {seed}")
    grammar = invent_words(language, rng)
    lexicon = Lexicon(language, grammar, rng)
    seen: set[Name] = set()
    splits: dict[str, list[SyntheticSentence]] = {}
    for split, size in sizes.items():
        rng = Random(f"{split} {seed}")
        splits[split] = [
            _new_sentence(language, grammar, lexicon, split, rng, seen) for _ in range(size)
        ]
    return splits


def _new_sentence(
    language: Language,
    grammar: Grammar,
    lexicon: Lexicon,
    split: str,
    rng: Random,
    seen: set[Name],
) -> SyntheticSentence:
    """Make a sentence whose tokens are not in `seen`, and add them."""
    for _ in range(MOST_ATTEMPTS):
        sentence = _make_sentence(language, grammar, lexicon, split, rng)
        tokens = tuple(token for segment in sentence for token in segment.tokens)
        if tokens not in seen:
            seen.add(tokens)
            return sentence
    raise UserError(
        f"{len(seen)} different sentences found, more expected; ask for fewer sentences"
    )


def _make_sentence(
    language: Language, grammar: Grammar, lexicon: Lexicon, split: str, rng: Random
) -> SyntheticSentence:
    segments: list[Segment] = []
    for word in expand("$sentence", grammar, rng):
        if word.startswith("@"):
            kind = pick(rng, word[1:].split("/"))
            segments.append(Segment(lexicon.draw(kind, split, rng), kind))
        else:
            segments.append(Segment(language.tokens(word)))
    if language.capitalised:
        first, *others = segments[0].tokens
        segments[0] = Segment((first[0].upper() + first[1:], *others), segments[0].kind)
    return segments


def _as_columns(sentence: SyntheticSentence) -> Sentence:
    return Sentence(
        [token for segment in sentence for token in segment.tokens],
        [tag for segment in sentence for tag in segment.tags()],
    )


def _count_corpus(
    file_name: str, types: tuple[str, ...], splits: Mapping[str, Sequence[SyntheticSentence]]
) -> CorpusStatistics:
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


def main(argv: list[str] | None = None) -> None:
    """Run the command line."""
    settings = read_command(
        SyntheticCorpusSettings,
        argv,
        "Write a seeded synthetic corpus.",
        "python -m knn_ner.synthetic.corpus",
    )
    sizes = {split: getattr(settings, split) for split in SIZES}
    statistics = write_corpus(
        settings.out, settings.seed, settings.language, sizes, settings.file_name
    )
    for split, count in statistics.splits.items():
        print(
            f"{Path(settings.out) / f'{split}.{statistics.file_name}'}: {count.sentences} sentences, "
            f"{count.tokens} tokens, {count.entities} entities "
            f"({count.unseen} of names not in train, {count.ambiguous} of ambiguous names)"
        )


if __name__ == "__main__":
    run_main(main)
