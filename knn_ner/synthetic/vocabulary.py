"""Vocabularies of word pieces, learned from a corpus or read from a file."""

import json
from collections.abc import Iterable
from pathlib import Path

from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import BertTokenizer

from knn_ner.utils.errors import UserError

Vocabulary = dict[str, int]
Merges = list[tuple[str, str]]

BERT_SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
# <mask> comes last in RoBERTa's vocabulary. Byte-level pieces need no <unk>, but its configuration has one.
ROBERTA_SPECIAL = ("<s>", "<pad>", "</s>", "<unk>")


def bert_split(texts: Iterable[str], lowercase: bool) -> set[str]:
    """The distinct words that BERT's tokeniser sees in the texts before it cuts them into pieces."""
    tokenizer = BertTokenizer(do_lower_case=lowercase).backend_tokenizer
    return {
        word
        for text in dict.fromkeys(texts)
        for word, _ in tokenizer.pre_tokenizer.pre_tokenize_str(
            tokenizer.normalizer.normalize_str(text)
        )
    }


def learn_word_pieces(words: Iterable[str], size: int, lowercase: bool) -> Vocabulary:
    """A WordPiece vocabulary of at most `size` pieces, or as many as it takes to write each character."""
    words = list(words)
    characters = sorted(set("".join(bert_split(words, lowercase))))
    bert = BertTokenizer(do_lower_case=lowercase).backend_tokenizer
    learner = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    learner.normalizer = bert.normalizer
    learner.pre_tokenizer = bert.pre_tokenizer
    trainer = trainers.WordPieceTrainer(
        vocab_size=size,
        # Left to itself the trainer numbers the ##-characters in the order of a randomly seeded hash
        # map and breaks ties by number: another vocabulary in each process. Given here, they have one.
        special_tokens=[*BERT_SPECIAL, *characters, *(f"##{letter}" for letter in characters)],
        show_progress=False,
    )
    learner.train_from_iterator(words, trainer)
    return in_order(learner.get_vocab())


def learn_byte_pairs(words: Iterable[str], size: int) -> tuple[Vocabulary, Merges]:
    """A byte-level BPE vocabulary of at most `size` pieces (never fewer than the bytes), and its merges."""
    learner = Tokenizer(models.BPE())
    learner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    trainer = trainers.BpeTrainer(
        vocab_size=size - 1,
        special_tokens=list(ROBERTA_SPECIAL),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    learner.train_from_iterator(words, trainer)
    vocabulary = in_order(learner.get_vocab())
    vocabulary["<mask>"] = len(vocabulary)
    merges = json.loads(learner.to_str())["model"]["merges"]
    return vocabulary, [(left, right) for left, right in merges]


def character_vocabulary(characters: Iterable[str], lowercase: bool) -> Vocabulary:
    """A vocabulary of single characters, as bert-base-chinese has for Chinese ones."""
    pieces = sorted(set("".join(bert_split(characters, lowercase))))
    # Digits and Latin letters side by side make one word, whose later characters are ##-pieces.
    joined = bert_split((piece * 2 for piece in pieces), lowercase)
    later = [f"##{piece}" for piece in pieces if piece * 2 in joined]
    return {piece: index for index, piece in enumerate((*BERT_SPECIAL, *pieces, *later))}


def read_vocabulary(path: Path) -> Vocabulary:
    """Read a `vocab.txt`: a piece a line, its number from 0 on.

    Raises `UserError` for a missing file, a piece that stands twice, and missing special tokens.
    """
    try:
        pieces = path.read_text(encoding="utf-8").removesuffix("\n").split("\n")
    except OSError as error:
        raise UserError(f"{path}: cannot read a vocabulary: {error.strerror}") from None
    except UnicodeDecodeError:
        raise UserError(f"{path}: UTF-8 text expected, a piece a line") from None
    vocabulary: Vocabulary = {}
    for number, piece in enumerate(pieces, start=1):
        if piece in vocabulary:
            raise UserError(
                f"{path}:{number}: piece {piece!r} found a second time, expected each once"
            )
        vocabulary[piece] = number - 1
    missing = [piece for piece in BERT_SPECIAL if piece not in vocabulary]
    if missing:
        raise UserError(f"{path}: no {', '.join(missing)} found, expected the vocabulary of a BERT")
    return vocabulary


def in_order(vocabulary: Vocabulary) -> Vocabulary:
    """The same vocabulary by ascending number, as the tokenizers library gives it in random order."""
    return dict(sorted(vocabulary.items(), key=lambda item: item[1]))
