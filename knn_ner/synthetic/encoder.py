"""Write a small encoder with random weights and a vocabulary of a corpus, for the quickstart and the tests.

    python -m knn_ner.synthetic.encoder --kind bert --data_dir D --file_name word.bmes --out E

The folder of a BERT or RoBERTa is a Hugging Face one, which the Auto classes load; that of a ChineseBERT has the
layout of the published checkpoints.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from knn_ner.settings import ColumnSettings, group_of
from knn_ner.synthetic.size import Size
from knn_ner.utils.arguments import flag, positive_int
from knn_ner.utils.command import read_command, run_main
from knn_ner.utils.errors import UserError


@dataclass(frozen=True, kw_only=True)
class EncoderSettings(ColumnSettings, Size):
    """The settings of `python -m knn_ner.synthetic.encoder`.

    Raises:
        UserError: if the size is impossible, or --vocab does not fit --kind.
    """

    kind: Literal["bert", "roberta", "characters", "chinesebert"] = flag("bert")
    """bert, roberta: for words; characters (a BERT), chinesebert: for Chinese"""
    data_dir: str = flag(metavar="D")
    """folder of the corpus"""
    file_name: str = flag(metavar="F")
    """ending of the corpus files"""
    out: str = flag(metavar="E")
    """folder of the encoder"""
    seed: int = flag(0)
    """random seed of the weights"""
    vocabulary_size: int = flag(1200, parse=positive_int)
    """largest number of word pieces of a bert or roberta"""
    vocab: str | None = flag(None, metavar="FILE")
    """vocab.txt of a characters encoder (if not given: made from the characters of the corpus)"""
    lowercase: bool = flag(True)
    """whether the tokenizer of a bert or characters encoder lowercases text and removes accents"""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.vocab and self.kind != "characters":
            raise UserError(
                f"--vocab with --kind {self.kind} found; it is for --kind characters alone"
            )


def main(argv: list[str] | None = None) -> None:
    """Run the command line."""
    settings = read_command(
        EncoderSettings,
        argv,
        "Write a small encoder with random weights.",
        "python -m knn_ner.synthetic.encoder",
    )
    # Imported here because torch and transformers take seconds, and `--help` does not need them.
    from transformers.utils.logging import disable_progress_bar

    from knn_ner.data.corpus import read_file, split_path
    from knn_ner.synthetic import bert
    from knn_ner.synthetic.chinesebert import write_chinesebert_encoder

    disable_progress_bar()  # of writing a single small file
    path = split_path(settings.data_dir, settings.file_name, "train")
    words = [word for sentence in read_file(path, settings.comments) for word in sentence.words]
    out, seed, size = settings.out, settings.seed, group_of(Size, settings)
    pieces, lowercase = settings.vocabulary_size, settings.lowercase
    if settings.kind == "bert":
        written = bert.write_bert_encoder(
            out, words, size, vocabulary_size=pieces, lowercase=lowercase, seed=seed
        )
    elif settings.kind == "roberta":
        written = bert.write_roberta_encoder(out, words, size, vocabulary_size=pieces, seed=seed)
    elif settings.kind == "chinesebert":
        written = write_chinesebert_encoder(out, words, size, seed=seed)
    else:
        vocabulary = Path(settings.vocab) if settings.vocab else words
        written = bert.write_character_encoder(
            out, vocabulary, size, lowercase=lowercase, seed=seed
        )
    print(f"{out}: {written.pieces} word pieces, {written.weights} weights")


if __name__ == "__main__":
    run_main(main)
