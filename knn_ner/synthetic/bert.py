"""Small BERT and RoBERTa encoders with random weights, as Hugging Face folders that the Auto classes load."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from transformers import (
    BertConfig,
    BertModel,
    BertTokenizer,
    PreTrainedModel,
    RobertaConfig,
    RobertaModel,
    RobertaTokenizer,
)
from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from knn_ner.synthetic.size import DEFAULT_SIZE, EncoderStatistics, Size
from knn_ner.synthetic.vocabulary import (
    Vocabulary,
    character_vocabulary,
    learn_byte_pairs,
    learn_word_pieces,
    read_vocabulary,
)
from knn_ner.utils.errors import UserError


def write_bert_encoder(
    out: str | Path,
    words: Iterable[str],
    size: Size = DEFAULT_SIZE,
    *,
    vocabulary_size: int = 1200,
    lowercase: bool = True,
    seed: int = 0,
) -> EncoderStatistics:
    """Write a BERT with random weights and a WordPiece vocabulary learned from words.

    The same arguments give the same bytes.

    Args:
        out: the folder to write.
        words: the words of a corpus, as often as they occur.
        size: the size of the encoder.
        vocabulary_size: the largest number of word pieces.
        lowercase: whether the tokenizer lowercases text and removes accents.
        seed: random seed of the weights.

    Raises:
        UserError: if the folder cannot be written.
    """
    vocabulary = learn_word_pieces(words, vocabulary_size, lowercase)
    return _write_bert(out, vocabulary, size, lowercase, seed)


def write_character_encoder(
    out: str | Path,
    vocabulary: Path | Iterable[str],
    size: Size = DEFAULT_SIZE,
    *,
    lowercase: bool = True,
    seed: int = 0,
) -> EncoderStatistics:
    """Write a BERT with random weights whose word pieces are characters, like those of bert-base-chinese.

    Args:
        out: the folder to write.
        vocabulary: the path of a `vocab.txt`, or the characters to make one from.
        size: the size of the encoder.
        lowercase: whether the tokenizer lowercases text and removes accents.
        seed: random seed of the weights.

    Raises:
        UserError: if the file is no vocabulary or the folder cannot be written.
    """
    if isinstance(vocabulary, Path):
        pieces = read_vocabulary(vocabulary)
    else:
        pieces = character_vocabulary(vocabulary, lowercase)
    return _write_bert(out, pieces, size, lowercase, seed)


def write_roberta_encoder(
    out: str | Path,
    words: Iterable[str],
    size: Size = DEFAULT_SIZE,
    *,
    vocabulary_size: int = 1200,
    seed: int = 0,
) -> EncoderStatistics:
    """Write a RoBERTa with random weights and a byte-level BPE vocabulary learned from words.

    As in roberta-base, the first word of a text has no space before it (`add_prefix_space` is off). The same
    arguments give the same bytes.

    Args:
        out: the folder to write.
        words: the words of a corpus, as often as they occur.
        size: the size of the encoder.
        vocabulary_size: the largest number of word pieces.
        seed: random seed of the weights.

    Raises:
        UserError: if the folder cannot be written.
    """
    vocabulary, merges = learn_byte_pairs(words, vocabulary_size)
    tokenizer = RobertaTokenizer(
        vocab=vocabulary,
        merges=merges,  # type: ignore[arg-type]  # it takes pairs too
        model_max_length=size.max_position_embeddings,
    )
    config = RobertaConfig(
        vocab_size=len(vocabulary),
        # RoBERTa's first position has the number of the padding piece plus 1, which is 2.
        max_position_embeddings=size.max_position_embeddings + 2,
        type_vocab_size=1,
        pad_token_id=vocabulary["<pad>"],
        bos_token_id=vocabulary["<s>"],
        eos_token_id=vocabulary["</s>"],
        **size.config(),
    )
    return _save(out, RobertaModel, config, tokenizer, seed)


def make_folder(path: str | Path) -> Path:
    """Make the folder of an encoder.

    Raises:
        UserError: if it cannot be made.
    """
    try:
        Path(path).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{path}: cannot write an encoder there: {error.strerror}") from None
    return Path(path)


@contextmanager
def weight_seed(seed: int) -> Iterator[None]:
    """Draw random weights on the CPU with a seed; the caller's random numbers do not change."""
    with torch.random.fork_rng(devices=[]), torch.device("cpu"):
        torch.random.default_generator.manual_seed(seed)
        yield


def _write_bert(
    out: str | Path, vocabulary: Vocabulary, size: Size, lowercase: bool, seed: int
) -> EncoderStatistics:
    tokenizer = BertTokenizer(
        vocab=vocabulary, do_lower_case=lowercase, model_max_length=size.max_position_embeddings
    )
    config = BertConfig(
        vocab_size=len(vocabulary),
        max_position_embeddings=size.max_position_embeddings,
        pad_token_id=vocabulary["[PAD]"],
        **size.config(),
    )
    return _save(out, BertModel, config, tokenizer, seed)


def _save(
    out: str | Path,
    model_class: type[PreTrainedModel],
    config: BertConfig | RobertaConfig,
    tokenizer: PreTrainedTokenizerBase,
    seed: int,
) -> EncoderStatistics:
    folder = make_folder(out)
    with weight_seed(seed):
        model = model_class(config, add_pooling_layer=False)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return EncoderStatistics(len(tokenizer), model.num_parameters())
