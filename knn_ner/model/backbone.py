"""Load, save and identify taggers and their tokenisers, by hub name or folder.

Encoders are those of Hugging Face, and ChineseBERT, which is recognised by the files of its folder.
"""

import hashlib
import json
import logging
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import (
    AutoConfig,
    AutoModelForTokenClassification,
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

import ChineseBert
from ChineseBert.loading import first_sentence, quiet_transformers
from knn_ner.model import bert_mlp  # noqa: F401  its model type is registered
from knn_ner.model.hub_labels import label_changes, project_labels
from knn_ner.model.letter_case import set_lowercase, warn_of_default
from knn_ner.model.model_files import check_tokenizer_files, check_weight_files
from knn_ner.utils.errors import UserError
from knn_ner.utils.files import atomic_path
from knn_ner.utils.text import some

# Key in a tagger's config.json: how training joined words and labelled word pieces.
CONFIG_KEY = "knn_ner"
# Names of the dropout of embeddings, layers and feed-forward blocks in the configurations of transformers.
HIDDEN_DROPOUT = re.compile(
    r"((hidden|resid|residual|emb|embd|embed|embedding|mlp|ffn)_)?(dropout|pdrop)(_prob|_rate)?"
)

logger = logging.getLogger(__name__)


def load_tokenizer(source: str | Path, lowercase: bool | None = None) -> PreTrainedTokenizerBase:
    """Load the tokeniser of a folder or hub name.

    Args:
        source: folder or hub name.
        lowercase: whether text is put in lower case; None keeps the tokeniser's own way.

    Raises:
        UserError: if there is none, it is damaged, or its special tokens cannot be used.
    """
    source = ChineseBert.resolve(source)
    check_tokenizer_files(Path(source))
    if ChineseBert.is_chinesebert_folder(source):
        tokenizer: PreTrainedTokenizerBase = ChineseBert.load_tokenizer(source)
    else:
        with _one_line_errors(source, "tokeniser"):
            tokenizer = AutoTokenizer.from_pretrained(source)
        if len(set(tokenizer.get_vocab()) - set(tokenizer.all_special_tokens)) < 2:
            raise UserError(
                f"{source}: no vocabulary found, expected {', '.join(tokenizer.vocab_files_names.values())}; "
                "copy the encoder's own there"
            )
        _check_special_tokens(source, tokenizer)
    if lowercase is None:
        warn_of_default(source, tokenizer)
    else:
        set_lowercase(source, tokenizer, lowercase)
    return tokenizer


def load_config(source: str | Path) -> PreTrainedConfig:
    """Load the configuration of a folder or hub name.

    Raises:
        UserError: if there is none.
    """
    with _one_line_errors(source, "configuration"):
        return AutoConfig.from_pretrained(source)


def load_encoder(
    source: str | Path,
    labels: Sequence[str],
    classifier: str = "linear",
    hidden_dropout_prob: float | None = None,
) -> PreTrainedModel:
    """Load an encoder, in float32, with a randomly initialised classifier over each word piece.

    Args:
        source: folder or hub name.
        labels: label list of the classifier.
        classifier: `linear`, or `mlp` (dense, tanh, dense), for ChineseBERT only.
        hidden_dropout_prob: dropout of the encoder; None keeps that of its configuration.

    Raises:
        UserError: if the encoder is damaged or does not support the classifier.
    """
    source = ChineseBert.resolve(source)
    settings: dict[str, Any] = {
        "id2label": dict(enumerate(labels)),
        "label2id": {label: index for index, label in enumerate(labels)},
    }
    if ChineseBert.is_chinesebert_folder(source):
        check_weight_files(Path(source))
        if hidden_dropout_prob is not None:
            settings["hidden_dropout_prob"] = hidden_dropout_prob
        model: PreTrainedModel = ChineseBert.load_model(source, classifier=classifier, **settings)
        check_finite(source, model)
        return model
    if classifier != "linear":
        raise UserError(
            f"--classifier {classifier}: {source} is not a ChineseBERT, which alone has it; use linear"
        )
    with _one_line_errors(source, "encoder"):
        config = AutoConfig.from_pretrained(source, **settings)
        if hidden_dropout_prob is not None and not _set_dropout(config, hidden_dropout_prob):
            logger.info(
                f"--hidden_dropout_prob {hidden_dropout_prob:g}: {type(config).__name__} has no hidden dropout; "
                "training goes on without"
            )
        model, found = AutoModelForTokenClassification.from_pretrained(
            source,
            config=config,
            dtype=torch.float32,
            ignore_mismatched_sizes=True,
            output_loading_info=True,
        )
    encoder = model.base_model_prefix + "."
    missing = sorted({*found["missing_keys"], *(name for name, *_ in found["mismatched_keys"])})
    missing = [name for name in missing if name.startswith(encoder)]
    if missing:
        raise UserError(
            f"{source}: {len(missing)} of the encoder's weights are missing or of another shape "
            f"({some(missing, 3)}); expected the weights of a whole {type(model).__name__}"
        )
    check_finite(source, model)
    return model


def load_tagger(source: str | Path) -> PreTrainedModel:
    """Load a trained token-classification model, in evaluation mode and float32.

    Labels of other code become tags (`project_labels`); the classifier loses the rows of those that have none.

    Raises:
        UserError: if the model cannot be loaded, lacks trained weights, or has labels without a clear meaning.
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
    check_finite(source, model)
    _translate_labels(source, model)
    return model.eval()


def save_tagger(folder: Path, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    """Write a Hugging Face folder atomically: it replaces an older one when it is complete."""
    with atomic_path(folder) as temporary:
        model.save_pretrained(temporary)
        tokenizer.save_pretrained(temporary)


def tagger_labels(model: PreTrainedModel) -> list[str]:
    """Return the label list of a tagger."""
    return [label for _, label in sorted((model.config.id2label or {}).items())]


def check_finite(source: str | Path, model: PreTrainedModel) -> None:
    """Raise UserError if a weight is NaN or infinite."""
    for name, weight in model.named_parameters():
        # A sum is NaN or infinite if one of its terms is; it needs no memory.
        if not weight.detach().sum().isfinite():
            raise UserError(
                f"{source}: NaN or infinite values in {name}; the training of this model went wrong: take another "
                "checkpoint"
            )


def only_head(model: PreTrainedModel) -> nn.Module | None:
    """Return the module that maps the encoder's output to logits; None if it is more than one (ModernBERT)."""
    heads = [
        module
        for name, module in model.named_children()
        if name != model.base_model_prefix and next(module.parameters(), None) is not None
    ]
    return heads[0] if len(heads) == 1 else None


def text_config(config: PreTrainedConfig) -> PreTrainedConfig:
    """Return the part of a configuration that describes the text encoder: itself, or a nested one."""
    for name in ("text_config", "decoder" if config.is_encoder_decoder else "encoder"):
        nested = getattr(config, name, None)
        if isinstance(nested, PreTrainedConfig):
            return text_config(nested)
    return config


def weights_hash(model: PreTrainedModel) -> str:
    """Return a SHA-256 over names, types, shapes and values of all weights."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        values = tensor.detach().cpu().contiguous().reshape(-1)
        digest.update(values.view(torch.uint8).numpy().data)
    return digest.hexdigest()


def tokenizer_hash(tokenizer: PreTrainedTokenizerBase) -> str:
    """Return a SHA-256 over everything that maps a text to the encoder's input."""
    tables = [tokenizer.backend_tokenizer.to_str()]
    if isinstance(tokenizer, ChineseBert.ChineseBertTokenizer):
        tables += [tokenizer.pinyin.char_to_id, tokenizer.pinyin.reading_to_ids]
    return hashlib.sha256(json.dumps(tables, sort_keys=True).encode()).hexdigest()


def _check_special_tokens(source: str, tokenizer: PreTrainedTokenizerBase) -> None:
    """Raise UserError for special tokens that windows and batches cannot reproduce."""
    name = type(tokenizer).__name__
    encoded = tokenizer("a 1 中", return_special_tokens_mask=True, return_token_type_ids=True)
    special = encoded["special_tokens_mask"]
    before = special.index(0) if 0 in special else (len(special) + 1) // 2
    after = sum(special) - before
    if (before, after) != (1, 1):
        raise UserError(
            f"{source}: {name} puts {before} special tokens before a text and {after} after it, expected one at "
            "each end as with BERT, RoBERTa and ChineseBERT; use another encoder"
        )
    if any(encoded["token_type_ids"]):
        raise UserError(
            f"{source}: {name} gives token types {sorted(set(encoded['token_type_ids']))}, expected 0 for all "
            "word pieces; use another encoder"
        )
    if tokenizer.pad_token_id is None:
        raise UserError(f"{source}: {name} has no padding token, expected one; use another encoder")


def _translate_labels(source: str | Path, model: PreTrainedModel) -> None:
    """Give a model the tags of its labels, in place."""
    labels = tagger_labels(model)
    try:
        tags = project_labels(labels)
    except UserError as error:
        raise UserError(f"{source}: {error}") from None
    changes = label_changes(labels, tags)
    if not changes:
        return
    logger.info(f"{source}: label {changes}")
    if None in tags:
        _keep_rows(model, [index for index, tag in enumerate(tags) if tag is not None])
    kept = [tag for tag in tags if tag is not None]
    model.config.id2label = dict(enumerate(kept))
    model.config.label2id = {tag: index for index, tag in enumerate(kept)}


def _keep_rows(model: PreTrainedModel, rows: list[int]) -> None:
    """Remove all other rows of the classifier's last layer, so that their labels have no probability."""
    encoder = model.base_model_prefix + "."
    heads = [
        module
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and not name.startswith(encoder)
    ]
    last = heads[-1]
    for parameter in (last.weight, last.bias):
        if parameter is not None:
            parameter.data = parameter.data[rows]
    last.out_features = len(rows)
    tagger: Any = model
    tagger.num_labels = len(rows)


def _set_dropout(config: PreTrainedConfig, probability: float) -> bool:
    """Set the hidden dropout in a configuration and those nested in it; returns whether there is one."""
    names = [name for name in config.to_dict() if HIDDEN_DROPOUT.fullmatch(name)]
    for name in names:
        setattr(config, name, probability)
    nested = [getattr(config, name) for name in config.sub_configs]
    changed = [_set_dropout(part, probability) for part in nested if part is not None]
    return bool(names) or any(changed)


@contextmanager
def _one_line_errors(source: str | Path, what: str) -> Iterator[None]:
    """Replace the long error messages of transformers by one line."""
    folder = Path(source)
    if folder.is_dir() and not (folder / "config.json").is_file():
        raise UserError(
            f"{source}: config.json not found, expected the folder of a Hugging Face {what}"
        )
    if folder.is_dir() and what in ("encoder", "tagger"):
        check_weight_files(folder)
    try:
        with quiet_transformers():
            yield
    except MemoryError:
        raise
    except Exception as error:  # transformers and tokenizers raise all kinds for a bad file
        raise UserError(
            f"{source}: no {what} could be loaded, expected a folder or a Hugging Face hub name "
            f"({first_sentence(error)})"
        ) from None
