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
# RoBERTa's vocabulary ends with <mask>. Byte-level pieces need no <unk>, but RoBERTa's configuration has one.
ROBERTA_SPECIAL = ("<s>", "<pad>", "</s>", "<unk>")


def learn_word_pieces(words: Iterable[str], size: int, lowercase: bool) -> Vocabulary:
    """Learn a WordPiece vocabulary.

    Args:
        words: the words of a corpus, as often as they occur.
        size: the largest number of word pieces; every character gets pieces even if there are more.
        lowercase: whether the tokenizer lowercases text and removes accents.
    """
    words = list(words)
    characters = sorted(set("".join(_bert_words(words, lowercase))))
    bert = BertTokenizer(do_lower_case=lowercase).backend_tokenizer
    learner = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    learner.normalizer = bert.normalizer
    learner.pre_tokenizer = bert.pre_tokenizer
    trainer = trainers.WordPieceTrainer(
        vocab_size=size,
        # The trainer numbers ##-characters in the order of a randomly seeded hash map and breaks ties by number, so
        # that each process would learn another vocabulary. As special tokens they have fixed numbers.
        special_tokens=[*BERT_SPECIAL, *characters, *(f"##{each}" for each in characters)],
        show_progress=False,
    )
    learner.train_from_iterator(words, trainer)
    return _in_order(learner.get_vocab())


def learn_byte_pairs(words: Iterable[str], size: int) -> tuple[Vocabulary, Merges]:
    """Learn a byte-level BPE vocabulary.

    Args:
        words: the words of a corpus, as often as they occur.
        size: the largest number of word pieces; every byte gets a piece even if there are more.

    Returns:
        The vocabulary and the merges.
    """
    learner = Tokenizer(models.BPE())
    learner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    trainer = trainers.BpeTrainer(
        vocab_size=size - 1,
        special_tokens=list(ROBERTA_SPECIAL),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    learner.train_from_iterator(words, trainer)
    vocabulary = _in_order(learner.get_vocab())
    vocabulary["<mask>"] = len(vocabulary)
    merges = json.loads(learner.to_str())["model"]["merges"]
    return vocabulary, [(left, right) for left, right in merges]


def character_vocabulary(characters: Iterable[str], lowercase: bool) -> Vocabulary:
    """Make a vocabulary of single characters, like that of bert-base-chinese.

    Args:
        characters: texts with the characters.
        lowercase: whether the tokenizer lowercases text and removes accents.
    """
    pieces = sorted(set("".join(_bert_words(characters, lowercase))))
    # Neighbouring digits and Latin letters make one word, whose later characters are ##-pieces.
    joined = _bert_words((piece * 2 for piece in pieces), lowercase)
    later = [f"##{piece}" for piece in pieces if piece * 2 in joined]
    return {piece: index for index, piece in enumerate((*BERT_SPECIAL, *pieces, *later))}


def read_vocabulary(path: Path) -> Vocabulary:
    """Read a `vocab.txt`, which has one piece on each line; the first has the number 0.

    Raises:
        UserError: if the file is missing, has a piece twice, or lacks a special token.
    """
    try:
        pieces = path.read_text(encoding="utf-8").removesuffix("\n").split("\n")
    except OSError as error:
        raise UserError(f"{path}: cannot read a vocabulary: {error.strerror}") from None
    except UnicodeDecodeError:
        raise UserError(f"{path}: UTF-8 text expected, one piece on each line") from None
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


def _bert_words(texts: Iterable[str], lowercase: bool) -> set[str]:
    """The distinct words that BERT's tokenizer cuts into pieces."""
    tokenizer = BertTokenizer(do_lower_case=lowercase).backend_tokenizer
    return {
        word
        for text in dict.fromkeys(texts)
        for word, _ in tokenizer.pre_tokenizer.pre_tokenize_str(
            tokenizer.normalizer.normalize_str(text)
        )
    }


def _in_order(vocabulary: Vocabulary) -> Vocabulary:
    """Sort a vocabulary by number; the tokenizers library returns it in random order."""
    return dict(sorted(vocabulary.items(), key=lambda item: item[1]))
