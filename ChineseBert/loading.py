"""Recognising a ChineseBERT by its files, and loading model and tokeniser from them.

Two layouts are read: the published one (`vocab.txt`, `config.json` with model_type "bert",
`pytorch_model.bin`, and `config/` with the pinyin tables), and a folder that `save_pretrained` wrote.
"""

import logging
import pickle
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import snapshot_download
from safetensors import SafetensorError
from transformers.utils import logging as transformers_logging

from ChineseBert.configuration import ChineseBertConfig
from ChineseBert.modeling import ChineseBertForTokenClassification
from ChineseBert.pinyin import PINYIN_MAP, PINYIN_TO_TENSOR, TABLE_FOLDER, read_letters
from ChineseBert.tokenization import ChineseBertTokenizer
from knn_ner.utils.errors import UserError
from knn_ner.utils.files import read_json

logger = logging.getLogger(__name__)

# The pretraining heads, and the pooler, which no tagger uses.
PRETRAINING_ONLY = re.compile(r"^cls\.|^bert\.pooler\.")


def is_chinesebert_folder(path: str | Path) -> bool:
    """Whether a folder holds a ChineseBERT, published or saved by this package.

    The published `config.json` says "bert", so its pinyin tables are what tells it apart.
    """
    folder = Path(path)
    if all(table.is_file() for table in _tables(folder)):
        return True
    config = folder / "config.json"
    return config.is_file() and _model_type(read_json(config)) == ChineseBertConfig.model_type


def resolve(path_or_name: str | Path) -> str:
    """The folder of a ChineseBERT that is given by its name on the Hugging Face hub.

    A hub name that contains "chinesebert" in any case is downloaded, or taken from the hub's cache, and its
    folder returned. A folder that exists, and every other name, is returned as it is.

    Raises `UserError` when the download fails.
    """
    name = str(path_or_name)
    if Path(name).exists() or "chinesebert" not in name.lower():
        return name
    try:
        # The glyph images are among the weights, so the arrays are not needed.
        return snapshot_download(name, ignore_patterns=["*.npy", "*.h5", "*.msgpack", "*.onnx"])
    except (OSError, ValueError) as error:
        raise UserError(
            f"{name}: no such folder, and no download from the Hugging Face hub "
            f"({_gist(error)}); give a folder or a hub name"
        ) from None


def load_tokenizer(path_or_name: str | Path) -> ChineseBertTokenizer:
    """Load the tokeniser of a published or saved folder, or of a hub name.

    Raises `UserError` when the vocabulary or a pinyin table is missing or broken.
    """
    folder = Path(resolve(path_or_name))
    if not any((folder / name).is_file() for name in ("vocab.txt", "tokenizer.json")):
        raise UserError(
            f"{folder}: neither vocab.txt nor tokenizer.json; give a ChineseBERT folder"
        )
    for table in _tables(folder):
        if not table.is_file():
            raise UserError(f"{table}: not found; take it from the published checkpoint")
    limits = {}
    if (folder / "config.json").is_file():
        limits["model_max_length"] = _read_config(folder).max_position_embeddings
    return ChineseBertTokenizer.from_pretrained(folder, **limits)


def load_model(
    path_or_name: str | Path, **config_overrides: Any
) -> ChineseBertForTokenClassification:
    """Load a tagger from a published or saved folder, or from a hub name, in float32.

    config_overrides: settings of `ChineseBertConfig` that replace the folder's, such as `id2label`,
    `label2id`, `hidden_dropout_prob`, `attention_probs_dropout_prob` or `classifier`.
    A classifier that the folder lacks is new, with random weights.

    Raises `UserError` when weights are missing, unreadable, of another shape, or more than plain tensors.
    """
    folder = Path(resolve(path_or_name))
    config = _read_config(folder, **config_overrides)
    try:
        with _quiet_transformers():
            model, found = ChineseBertForTokenClassification.from_pretrained(
                folder,
                config=config,
                dtype=torch.float32,
                weights_only=True,
                # Reported below, by name; transformers would refer to a table.
                ignore_mismatched_sizes=True,
                output_loading_info=True,
            )
    except pickle.UnpicklingError:
        raise UserError(
            f"{folder}: the weights are not a file of plain tensors, and unpickling anything else could run "
            "code; it is cut off, a Git LFS pointer or hostile: take it again from a source you trust"
        ) from None
    except (OSError, RuntimeError, TypeError, ValueError, EOFError, SafetensorError) as error:
        raise UserError(
            f"{folder}: the weights cannot be read ({_gist(error)}); "
            "expected pytorch_model.bin or model.safetensors, whole"
        ) from None
    _report(folder, found)
    return model


def _read_config(folder: Path, **overrides: Any) -> ChineseBertConfig:
    settings = read_json(folder / "config.json")
    if _model_type(settings) not in ("bert", ChineseBertConfig.model_type):
        raise UserError(
            f"{folder / 'config.json'}: model_type {_model_type(settings)!r}; "
            f"expected 'bert' or {ChineseBertConfig.model_type!r}: give a ChineseBERT folder"
        )
    letters = folder / TABLE_FOLDER / PINYIN_MAP
    if "pinyin_vocab_size" not in settings and letters.is_file():
        settings["pinyin_vocab_size"] = len(read_letters(letters))
    # Only what describes the sizes: the published type and class names are another model's.
    settings = {k: v for k, v in settings.items() if k not in ("model_type", "architectures")}
    if "id2label" in overrides:
        settings.pop("num_labels", None)
        label2id = {label: index for index, label in overrides["id2label"].items()}
        overrides = {"label2id": label2id, **overrides}
    return ChineseBertConfig(**{**settings, **overrides})


def _tables(folder: Path) -> list[Path]:
    return [folder / TABLE_FOLDER / name for name in (PINYIN_MAP, PINYIN_TO_TENSOR)]


def _model_type(settings: Any) -> str | None:
    return settings.get("model_type") if isinstance(settings, dict) else None


def _report(folder: Path, found: dict[str, Any]) -> None:
    """Say which weights were new or left over.

    Raises `UserError` when any of the encoder's own was missing or misshapen.
    """
    for name, in_file, expected in sorted(found["mismatched_keys"]):
        raise UserError(
            f"{folder}: {name} has shape {tuple(in_file)}; the configuration and labels need "
            f"{tuple(expected)}: use the ones that the weights were made with"
        )
    new = sorted(found["missing_keys"])
    missing = [name for name in new if not name.startswith("classifier.")]
    if missing:
        raise UserError(
            f"{folder}: {len(missing)} of the encoder's weights are missing ({_some(missing)}); "
            "expected a whole ChineseBERT checkpoint"
        )
    if new:
        logger.warning("%s: no classifier in the weights; %s are random", folder, _some(new))
    left_over = sorted(found["unexpected_keys"])
    unknown = [name for name in left_over if not PRETRAINING_ONLY.search(name)]
    if unknown:
        logger.warning("%s: %d unknown weights left out (%s)", folder, len(unknown), _some(unknown))
    if len(left_over) > len(unknown):
        logger.info("%s: %d pretraining weights left out", folder, len(left_over) - len(unknown))


def _some(names: list[str], shown: int = 4) -> str:
    return ", ".join(names[:shown]) + (", ..." if len(names) > shown else "")


def _gist(error: BaseException) -> str:
    """The first sentence of an error that another library raised."""
    return re.split(r"\.\s|\n", str(error).strip())[0] or type(error).__name__


@contextmanager
def _quiet_transformers() -> Iterator[None]:
    """Keep transformers' table of missing weights back: `_report` says the same in a line."""
    verbosity = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(verbosity)
