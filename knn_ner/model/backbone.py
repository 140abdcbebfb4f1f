"""Encoders by hub name or folder: the tagger's network and its tokeniser.

A new kind of encoder is added here and nowhere else. Beside Hugging Face's own, ChineseBERT is known,
recognised from the files of its folder.
"""

import hashlib
import json
import shutil
from collections.abc import Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import (
    AutoModelForTokenClassification,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

import ChineseBert
from knn_ner.utils.errors import UserError

# The key of the tagger's config.json that records how its word pieces were made and labelled.
CONFIG_KEY = "knn_ner"


def load_tokenizer(source: str | Path) -> PreTrainedTokenizerBase:
    """The tokeniser of a hub name or folder.

    Raises `UserError` when there is none.
    """
    source = ChineseBert.resolve(source)
    if ChineseBert.is_chinesebert_folder(source):
        return ChineseBert.load_tokenizer(source)
    with _one_line_errors(source, "tokeniser"):
        return AutoTokenizer.from_pretrained(str(source))


def load_encoder(
    source: str | Path, labels: Sequence[str], classifier: str = "linear", **config: Any
) -> PreTrainedModel:
    """An encoder with a new, randomly initialised classifier over each token for these labels.

    classifier: `linear`, or `mlp` (dense, tanh, dense), which ChineseBERT alone has.
    config: settings to change, such as `hidden_dropout_prob`.

    Raises `UserError` when the encoder cannot be loaded or has no such classifier.
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
            f"--classifier {classifier}: {source} is no ChineseBERT, which alone has it; use linear"
        )
    with _one_line_errors(source, "encoder"):
        return AutoModelForTokenClassification.from_pretrained(
            str(source), ignore_mismatched_sizes=True, dtype=torch.float32, **config
        )


def load_tagger(source: str | Path) -> PreTrainedModel:
    """A trained token-classification model, in evaluation mode and float32.

    Raises `UserError` when it cannot be loaded or has no trained classifier.
    """
    with _one_line_errors(source, "tagger"):
        model, info = AutoModelForTokenClassification.from_pretrained(
            str(source), output_loading_info=True, dtype=torch.float32
        )
    missing = sorted(info["missing_keys"])
    if missing:
        raise UserError(
            f"{source}: weights of {', '.join(missing[:3])} not found, expected a trained tagger such as "
            "the folder `model` that knn_ner.train writes"
        )
    return model.eval()


def save_tagger(folder: Path, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    """Write a Hugging Face folder, whole or not at all."""
    temporary = folder.with_name(f".{folder.name}.new")
    shutil.rmtree(temporary, ignore_errors=True)
    model.save_pretrained(temporary)
    tokenizer.save_pretrained(temporary)
    shutil.rmtree(folder, ignore_errors=True)
    temporary.rename(folder)


def tagger_labels(model: PreTrainedModel) -> list[str]:
    """The label list of a tagger, by index."""
    return [model.config.id2label[index] for index in range(model.config.num_labels)]


def longest_input(model: PreTrainedModel) -> int:
    """How many word pieces, special tokens included, the encoder has positions for."""
    positions = getattr(model.config, "max_position_embeddings", None)
    if positions is None:
        return 1 << 30
    # RoBERTa counts its positions from the padding index on.
    offset = model.config.pad_token_id + 1 if "roberta" in model.config.model_type else 0
    return positions - offset


@contextmanager
def _one_line_errors(source: str | Path, what: str):
    """Turn the library's page-long messages into one line."""
    level = transformers.utils.logging.get_verbosity()
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    try:
        if Path(source).is_dir() and not (Path(source) / "config.json").is_file():
            raise UserError(
                f"{source}: config.json not found, expected the folder of a Hugging Face {what}"
            )
        yield
    except (OSError, ValueError, KeyError, RuntimeError, ImportError) as error:
        reason = str(error).strip().split("\n")[0]
        raise UserError(
            f"{source}: no {what} could be loaded, expected a folder or a Hugging Face hub name ({reason})"
        ) from None
    finally:
        transformers.utils.logging.set_verbosity(level)


def weights_hash(model: PreTrainedModel) -> str:
    """SHA-256 over the names, types, shapes and values of all weights: equal for equal taggers only."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def tokenizer_hash(tokenizer: PreTrainedTokenizerBase) -> str:
    """SHA-256 over everything that decides how a text becomes the encoder's input."""
    tables = [tokenizer.backend_tokenizer.to_str()]
    if isinstance(tokenizer, ChineseBert.ChineseBertTokenizer):
        tables += [tokenizer.pinyin.char_to_id, tokenizer.pinyin.reading_to_ids]
    return hashlib.sha256(json.dumps(tables, sort_keys=True).encode()).hexdigest()
