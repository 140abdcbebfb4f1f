"""Recognise a ChineseBERT by its files, and load its model and tokeniser.

Two layouts are read: the published one (`vocab.txt`, `config.json` with model_type "bert",
`pytorch_model.bin`, and `config/` with the pinyin tables), and a folder written by `save_pretrained`.
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
from knn_ner.utils.text import some

logger = logging.getLogger(__name__)

# The pretraining heads and the pooler, which no tagger uses.
PRETRAINING_ONLY = re.compile(r"^cls\.|^bert\.pooler\.")


def is_chinesebert_folder(path: str | Path) -> bool:
    """Whether a folder holds a published or saved ChineseBERT.

    The published `config.json` says "bert"; the pinyin tables distinguish it from a BERT.
    """
    folder = Path(path)
    config = folder / "config.json"
    return all(table.is_file() for table in _tables(folder)) or (
        config.is_file() and _model_type(read_json(config)) == ChineseBertConfig.model_type
    )


def resolve(path_or_name: str | Path) -> str:
    """Return a folder for a hub name of a ChineseBERT; every other name or folder as it is.

    A hub name that contains "chinesebert" in any case is downloaded, or taken from the hub's cache.

    Raises:
        UserError: if the download fails.
    """
    name = str(path_or_name)
    if Path(name).exists() or "chinesebert" not in name.lower():
        return name
    try:
        # The weights hold the glyph images, so the arrays are not needed.
        return snapshot_download(name, ignore_patterns=["*.npy", "*.h5", "*.msgpack", "*.onnx"])
    except (OSError, ValueError) as error:
        raise UserError(
            f"{name}: no such folder, and no download from the Hugging Face hub "
            f"({first_sentence(error)}); give a folder or a hub name"
        ) from None


def load_tokenizer(path_or_name: str | Path) -> ChineseBertTokenizer:
    """Load the tokeniser of a folder or hub name.

    Raises:
        UserError: if the vocabulary or a pinyin table is missing or broken.
    """
    folder = Path(resolve(path_or_name))
    if not any((folder / name).is_file() for name in ("vocab.txt", "tokenizer.json")):
        raise UserError(
            f"{folder}: neither vocab.txt nor tokenizer.json; give a ChineseBERT folder"
        )
    for table in _tables(folder):
        if not table.is_file():
            raise UserError(f"{table}: not found; take it from the published checkpoint")
    limits: dict[str, Any] = {}
    if (folder / "config.json").is_file():
        limits["model_max_length"] = _read_config(folder).max_position_embeddings
    return ChineseBertTokenizer.from_pretrained(folder, **limits)


def load_model(
    path_or_name: str | Path, **config_overrides: Any
) -> ChineseBertForTokenClassification:
    """Load a tagger in float32 from a folder or hub name.

    A folder without a classifier gets one with random weights.

    Args:
        path_or_name: the folder or hub name.
        config_overrides: settings of `ChineseBertConfig` that replace those of the folder, such as `id2label`,
            `hidden_dropout_prob` or `classifier`.

    Raises:
        UserError: if weights are missing, unreadable, of another shape, or anything but plain tensors.
    """
    folder = Path(resolve(path_or_name))
    config = _read_config(folder, **config_overrides)
    loaded: Any
    try:
        with quiet_transformers():
            loaded = ChineseBertForTokenClassification.from_pretrained(
                folder,
                config=config,
                dtype=torch.float32,
                weights_only=True,
                ignore_mismatched_sizes=True,  # `_report` gives their names; transformers does not
                output_loading_info=True,
            )
    except pickle.UnpicklingError:
        raise UserError(
            f"{folder}: the weights are not a file of plain tensors, and unpickling anything else could run "
            "code; it is cut off, a Git LFS pointer or hostile: take it again from a source you trust"
        ) from None
    except (OSError, RuntimeError, TypeError, ValueError, EOFError, SafetensorError) as error:
        raise UserError(
            f"{folder}: the weights cannot be read ({first_sentence(error)}); "
            "expected pytorch_model.bin or model.safetensors, whole"
        ) from None
    model, found = loaded
    _report(folder, found)
    return model


def first_sentence(error: BaseException) -> str:
    """Return the first sentence of an error of another library."""
    return re.split(r"\.\s|\n", str(error).strip())[0] or type(error).__name__


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Suppress the messages and progress bars of transformers."""
    verbosity = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(verbosity)


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
    # The published config.json has the type and class names of another model.
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
    """Log which weights are new or unused; raise UserError for a missing or misshapen encoder weight."""
    for name, in_file, expected in sorted(found["mismatched_keys"]):
        raise UserError(
            f"{folder}: {name} has shape {tuple(in_file)}; the configuration and labels need "
            f"{tuple(expected)}: use the ones that the weights were made with"
        )
    new = sorted(found["missing_keys"])
    missing = [name for name in new if not name.startswith("classifier.")]
    if missing:
        raise UserError(
            f"{folder}: {len(missing)} of the encoder's weights are missing ({some(missing, 4)}); "
            "expected a whole ChineseBERT checkpoint"
        )
    if new:
        logger.warning("%s: no classifier in the weights; %s are random", folder, some(new, 4))
    unused = sorted(found["unexpected_keys"])
    unknown = [name for name in unused if not PRETRAINING_ONLY.search(name)]
    if unknown:
        logger.warning(
            "%s: %d unknown weights left out (%s)", folder, len(unknown), some(unknown, 4)
        )
    if len(unused) > len(unknown):
        logger.info("%s: %d pretraining weights left out", folder, len(unused) - len(unknown))
