"""Small encoders with random weights and a vocabulary of the corpus, for the quickstart and the tests.

    python -m knn_ner.synthetic.encoder --kind bert --data_dir D --file_name word.bmes --out E

The folder is a Hugging Face one, as a published BERT or RoBERTa is: the Auto classes load it. That of a
ChineseBERT (`chinesebert.py`) is laid out as published.
"""

import argparse
from collections.abc import Iterable
from dataclasses import fields
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
from transformers.utils.logging import disable_progress_bar

from knn_ner.data.corpus import read_file, split_path
from knn_ner.synthetic.chinesebert import write_chinesebert_encoder
from knn_ner.synthetic.size import EncoderStatistics, Size
from knn_ner.synthetic.vocabulary import (
    Vocabulary,
    character_vocabulary,
    learn_byte_pairs,
    learn_word_pieces,
    read_vocabulary,
)
from knn_ner.utils.arguments import Parser, positive_int
from knn_ner.utils.command import run_main
from knn_ner.utils.errors import UserError

KINDS = ("bert", "roberta", "characters", "chinesebert")
VOCABULARY_SIZE = 1200
SIZE_HELP = {
    "hidden_size": "dimensions of a hidden state",
    "layers": "transformer layers",
    "heads": "attention heads of a layer",
    "max_position_embeddings": "longest input in word pieces, special tokens included",
}


def write_bert_encoder(
    out: str | Path,
    words: Iterable[str],
    *,
    vocabulary_size: int = VOCABULARY_SIZE,
    lowercase: bool = True,
    seed: int = 0,
    **size: int,
) -> EncoderStatistics:
    """Write a BERT with random weights and a WordPiece vocabulary learned from the words.

    words: of a corpus, as often as they stand in it.
    size: `hidden_size`, `layers`, `heads`, `max_position_embeddings`; see `Size`.

    The same arguments give the same bytes. Raises `UserError` when heads do not divide the hidden size.
    """
    return _write_bert(
        out, learn_word_pieces(words, vocabulary_size, lowercase), lowercase, seed, size
    )


def write_character_encoder(
    out: str | Path,
    vocabulary: Path | Iterable[str],
    *,
    lowercase: bool = True,
    seed: int = 0,
    **size: int,
) -> EncoderStatistics:
    """Write a BERT with random weights whose pieces are characters, as bert-base-chinese has.

    vocabulary: the path of a `vocab.txt`, or the characters to make one from.
    size: `hidden_size`, `layers`, `heads`, `max_position_embeddings`; see `Size`.

    Raises `UserError` when heads do not divide the hidden size or the file is no vocabulary.
    """
    if isinstance(vocabulary, Path):
        pieces = read_vocabulary(vocabulary)
    else:
        pieces = character_vocabulary(vocabulary, lowercase)
    return _write_bert(out, pieces, lowercase, seed, size)


def write_roberta_encoder(
    out: str | Path,
    words: Iterable[str],
    *,
    vocabulary_size: int = VOCABULARY_SIZE,
    seed: int = 0,
    **size: int,
) -> EncoderStatistics:
    """Write a RoBERTa with random weights and a byte-level BPE vocabulary learned from the words.

    As in roberta-base, the first word of a text has no space before it (`add_prefix_space` is off).

    words: of a corpus, as often as they stand in it.
    size: `hidden_size`, `layers`, `heads`, `max_position_embeddings`; see `Size`.

    The same arguments give the same bytes. Raises `UserError` when heads do not divide the hidden size.
    """
    chosen = Size(**size)
    vocabulary, merges = learn_byte_pairs(words, vocabulary_size)
    tokenizer = RobertaTokenizer(
        vocab=vocabulary, merges=merges, model_max_length=chosen.max_position_embeddings
    )
    config = RobertaConfig(
        vocab_size=len(vocabulary),
        # RoBERTa counts positions from the padding index + 1, that is from 2.
        max_position_embeddings=chosen.max_position_embeddings + 2,
        type_vocab_size=1,
        pad_token_id=vocabulary["<pad>"],
        bos_token_id=vocabulary["<s>"],
        eos_token_id=vocabulary["</s>"],
        **chosen.settings(),
    )
    return _save(out, RobertaModel, config, tokenizer, seed)


def _write_bert(
    out: str | Path, vocabulary: Vocabulary, lowercase: bool, seed: int, size: dict[str, int]
) -> EncoderStatistics:
    chosen = Size(**size)
    tokenizer = BertTokenizer(
        vocab=vocabulary,
        do_lower_case=lowercase,
        model_max_length=chosen.max_position_embeddings,
    )
    config = BertConfig(
        vocab_size=len(vocabulary),
        max_position_embeddings=chosen.max_position_embeddings,
        pad_token_id=vocabulary["[PAD]"],
        **chosen.settings(),
    )
    return _save(out, BertModel, config, tokenizer, seed)


def _save(
    out: str | Path,
    model_class: type[PreTrainedModel],
    config: BertConfig | RobertaConfig,
    tokenizer: PreTrainedTokenizerBase,
    seed: int,
) -> EncoderStatistics:
    """Save a model with random weights and its tokeniser in one folder."""
    folder = Path(out)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{folder}: cannot write an encoder there: {error.strerror}") from None
    # Only the CPU's generator is seeded, and put back: the caller's random numbers go on undisturbed.
    with torch.random.fork_rng(devices=[]), torch.device("cpu"):
        torch.random.default_generator.manual_seed(seed)
        model = model_class(config, add_pooling_layer=False)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return EncoderStatistics(len(tokenizer), model.num_parameters())


def main(argv: list[str] | None = None) -> int:
    """Write an encoder for the training split of a corpus."""
    args = parse(argv)
    disable_progress_bar()  # transformers would draw one for the writing of a single small file
    path = split_path(args.data_dir, args.file_name, "train")
    words = [word for sentence in read_file(path) for word in sentence.words]
    size = {field.name: getattr(args, field.name) for field in fields(Size)}
    if args.kind == "bert":
        written = write_bert_encoder(
            args.out, words, vocabulary_size=args.vocabulary_size, lowercase=args.lowercase,
            seed=args.seed, **size,
        )  # fmt: skip
    elif args.kind == "roberta":
        written = write_roberta_encoder(
            args.out, words, vocabulary_size=args.vocabulary_size, seed=args.seed, **size
        )
    elif args.kind == "chinesebert":
        written = write_chinesebert_encoder(args.out, words, seed=args.seed, **size)
    else:
        vocabulary = Path(args.vocab) if args.vocab else words
        written = write_character_encoder(
            args.out, vocabulary, lowercase=args.lowercase, seed=args.seed, **size
        )
    print(f"{args.out}: {written.pieces} word pieces, {written.weights} weights")
    return 0


def parse(argv: list[str] | None) -> argparse.Namespace:
    """The command line's settings."""
    parser = Parser(
        "Write a small encoder with random weights.", prog="python -m knn_ner.synthetic.encoder"
    )
    parser.add_argument(
        "--kind", choices=KINDS, default="bert", help="characters and chinesebert are for Chinese"
    )
    parser.add_argument("--data_dir", required=True, metavar="D", help="folder of the corpus")
    parser.add_argument("--file_name", required=True, metavar="F", help="ending of its files")
    parser.add_argument("--out", required=True, metavar="E", help="folder of the encoder")
    parser.add_argument("--seed", type=int, default=0, help="of the weights")
    parser.add_argument(
        "--vocabulary_size", type=positive_int, default=VOCABULARY_SIZE, help="bert, roberta"
    )
    parser.add_argument(
        "--vocab",
        metavar="FILE",
        help="characters: a vocab.txt; the corpus's own characters if not given",
    )
    parser.add_argument(
        "--lowercase",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="bert, characters: text in lower case and without accents",
    )
    for field in fields(Size):
        help_text = SIZE_HELP[field.name]
        parser.add_argument(
            f"--{field.name}", type=positive_int, default=field.default, help=help_text
        )
    args = parser.parse_args(argv)
    if args.vocab and args.kind != "characters":
        parser.error(f"--vocab with --kind {args.kind} found; it is for --kind characters")
    return args


if __name__ == "__main__":
    run_main(main)
