"""Load, save and identify taggers and their tokenisers, by hub name or folder.

Encoders are those of Hugging Face, and ChineseBERT, which is recognised by the files of its folder.
"""

import hashlib
import json
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoModelForTokenClassification,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

import ChineseBert
from ChineseBert.loading import first_sentence, quiet_transformers
from knn_ner.utils.errors import UserError

# Key in a tagger's config.json: how training joined words and labelled word pieces.
CONFIG_KEY = "knn_ner"


def load_tokenizer(source: str | Path) -> PreTrainedTokenizerBase:
    """Load the tokeniser of a folder or hub name.

    Raises:
        UserError: if there is none.
    """
    source = ChineseBert.resolve(source)
    if ChineseBert.is_chinesebert_folder(source):
        return ChineseBert.load_tokenizer(source)
    with _one_line_errors(source, "tokeniser"):
        return AutoTokenizer.from_pretrained(source)


def load_encoder(
    source: str | Path, labels: Sequence[str], classifier: str = "linear", **config: Any
) -> PreTrainedModel:
    """Load an encoder, in float32, with a randomly initialised classifier over each word piece.

    Args:
        source: folder or hub name.
        labels: label list of the classifier.
        classifier: `linear`, or `mlp` (dense, tanh, dense), for ChineseBERT only.
        config: settings to change, such as `hidden_dropout_prob`.

    Raises:
        UserError: if the encoder cannot be loaded or does not support the classifier.
    """
    source = ChineseBert.resolve(source)
    config |= {
        "id2label": dict(enumerate(labels)),
        "label2id": {label: index for index, label in enumerate(labels)},
    }
    if ChineseBert.is_chinesebert_folder(source):
        return ChineseBert.load_model(source, classifier=classifier, **config)
    if classifier != "linear":
        raise UserError(
            f"--classifier {classifier}: {source} is not a ChineseBERT, which alone has it; use linear"
        )
    with _one_line_errors(source, "encoder"):
        return AutoModelForTokenClassification.from_pretrained(
            source, ignore_mismatched_sizes=True, dtype=torch.float32, **config
        )


def load_tagger(source: str | Path) -> PreTrainedModel:
    """Load a trained token-classification model, in evaluation mode and float32.

    Raises:
        UserError: if the model cannot be loaded or lacks trained weights.
    """
    with _one_line_errors(source, "tagger"):
        model, info = AutoModelForTokenClassification.from_pretrained(
            source, output_loading_info=True, dtype=torch.float32
        )
    missing = sorted(info["missing_keys"])
    if missing:
        raise UserError(
            f"{source}: weights of {', '.join(missing[:3])} not found, expected a trained tagger such as "
            "the folder `model` that knn_ner.train writes"
        )
    return model.eval()


def save_tagger(folder: Path, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    """Write a Hugging Face folder atomically: it replaces an older one when it is complete."""
    temporary = folder.with_name(f".{folder.name}.new")
    shutil.rmtree(temporary, ignore_errors=True)
    model.save_pretrained(temporary)
    tokenizer.save_pretrained(temporary)
    shutil.rmtree(folder, ignore_errors=True)
    temporary.rename(folder)


def tagger_labels(model: PreTrainedModel) -> list[str]:
    """Return the label list of a tagger."""
    return [label for _, label in sorted((model.config.id2label or {}).items())]


def longest_input(model: PreTrainedModel) -> int:
    """Return the number of word pieces, special tokens included, that the encoder has positions for."""
    positions = getattr(model.config, "max_position_embeddings", None)
    if positions is None:
        return 1 << 30
    # RoBERTa's positions start after the padding index.
    offset = model.config.pad_token_id + 1 if "roberta" in model.config.model_type else 0
    return positions - offset


def weights_hash(model: PreTrainedModel) -> str:
    """Return a SHA-256 over names, types, shapes and values of all weights."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def tokenizer_hash(tokenizer: PreTrainedTokenizerBase) -> str:
    """Return a SHA-256 over everything that maps a text to the encoder's input."""
    tables = [tokenizer.backend_tokenizer.to_str()]
    if isinstance(tokenizer, ChineseBert.ChineseBertTokenizer):
        tables += [tokenizer.pinyin.char_to_id, tokenizer.pinyin.reading_to_ids]
    return hashlib.sha256(json.dumps(tables, sort_keys=True).encode()).hexdigest()


@contextmanager
def _one_line_errors(source: str | Path, what: str) -> Iterator[None]:
    """Replace the long error messages of transformers by one line."""
    folder = Path(source)
    if folder.is_dir() and not (folder / "config.json").is_file():
        raise UserError(
            f"{source}: config.json not found, expected the folder of a Hugging Face {what}"
        )
    try:
        with quiet_transformers():
            yield
    except (OSError, ValueError, KeyError, RuntimeError, ImportError) as error:
        raise UserError(
            f"{source}: no {what} could be loaded, expected a folder or a Hugging Face hub name "
            f"({first_sentence(error)})"
        ) from None
