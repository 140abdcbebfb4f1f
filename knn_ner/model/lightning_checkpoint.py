"""Checkpoints of taggers that other PyTorch Lightning code wrote, read without running any code in them.

The published code of kNN-NER and of ChineseBERT (Lightning 0.9) stores the network under `model.`, and its
command line as hyper-parameters. Only tensors, numbers and texts are read.
"""

import argparse
import pickle
import re
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ChineseBert.loading import first_sentence
from knn_ner.utils.errors import UserError

PREFIX = "model."
# Classifier weights: names in other code, and names here.
CLASSIFIERS = (
    ("classifier.dense_layer.", "classifier.0."),  # ChineseBERT's mlp: dense, tanh, dense
    ("classifier.dense_to_labels_layer.", "classifier.2."),
    # The BERT tagger of mrc-for-flat-nested-ner: one layer, or two (dense, activation, dropout, dense).
    ("classifier.classifier.", "classifier."),
    ("classifier.classifier1.", "classifier.0."),
    ("classifier.classifier2.", "classifier.3."),
)
# The last layer of each classifier.
LAST_LAYERS = {"mlp": "classifier.2", "bert_mlp": "classifier.3", "linear": "classifier"}
# Buffers of 0, 1, 2, ...; recent releases of transformers do not save them.
POSITION_IDS = re.compile(r"(^|\.)position_ids$")


class Ignored:
    """Stands for an object of a checkpoint that is not needed: it accepts everything and holds nothing."""

    def __init__(self, *arguments: Any):
        pass

    def __setstate__(self, state: Any) -> None:
        pass


# Classes in old checkpoints that are not plain data, all read as Ignored. None of these names is imported.
IGNORED_CLASSES = (
    # Keys of the callbacks' states.
    "pytorch_lightning.callbacks.model_checkpoint.ModelCheckpoint",
    "pytorch_lightning.callbacks.early_stopping.EarlyStopping",
    # Lightning 0.9 has a function, Trainer._gpus_arg_default, among the defaults of its command line.
    "pytorch_lightning.trainer.trainer.Trainer",
    "builtins.getattr",
    *(f"pathlib.{name}" for name in ("PosixPath", "WindowsPath")),
    *(f"pathlib._local.{name}" for name in ("PosixPath", "WindowsPath")),
    "numpy.dtype",
    "numpy.core.multiarray.scalar",
    "numpy._core.multiarray.scalar",
)
SAFE_GLOBALS: list[Any] = [
    argparse.Namespace,
    (OrderedDict, "pytorch_lightning.utilities.parsing.AttributeDict"),
    (OrderedDict, "lightning_fabric.utilities.data.AttributeDict"),
    *((Ignored, name) for name in IGNORED_CLASSES),
]


@dataclass
class LightningCheckpoint:
    """Weights of a tagger under the names that they have here, and the command line of its training.

    Attributes:
        weights: the weights by name.
        settings: the hyper-parameters.
        unused: names of other tensors in the file, such as those of a metric.
        head: names of the classifier's weights in the file.
    """

    weights: dict[str, torch.Tensor]
    settings: dict[str, Any]
    unused: list[str]
    head: list[str]

    @property
    def classifier(self) -> str | None:
        """The classifier, a key of LAST_LAYERS; None for an unknown one."""
        for name, layer in LAST_LAYERS.items():
            if f"{layer}.weight" in self.weights:
                return name
        return None

    @property
    def last_layer(self) -> list[str]:
        """Names of the weights that have a row for each label; empty for an unknown classifier."""
        layer = LAST_LAYERS.get(self.classifier or "")
        return [f"{layer}.weight", f"{layer}.bias"] if layer else []

    @property
    def num_labels(self) -> int | None:
        """Number of labels of the classifier; None for an unknown classifier."""
        return len(self.weights[self.last_layer[0]]) if self.last_layer else None

    @property
    def is_chinese(self) -> bool | None:
        """Whether the training was on Chinese, by `language` or the flag `chinese`; None if neither is there."""
        if "language" in self.settings:
            return {"zh": True, "en": False}.get(self.settings["language"])
        return self.flag("chinese")

    def flag(self, name: str) -> bool | None:
        """A hyper-parameter that is a flag, however it was written; None if it is not there."""
        value = self.settings.get(name)
        return None if value is None else str(value).lower() in ("true", "1", "yes")


def read_lightning_checkpoint(path: str | Path) -> LightningCheckpoint:
    """Read `state_dict`, and `hyper_parameters` as a Namespace or a dict, of a Lightning checkpoint.

    Raises:
        UserError: if the file is missing, damaged, holds more than data, or has no weights under `model.`.
    """
    content = _load(Path(path))
    state = content.get("state_dict") if isinstance(content, dict) else None
    if not isinstance(state, dict):
        raise UserError(f"{path}: no state_dict found, expected a checkpoint of PyTorch Lightning")
    weights, unused = {}, []
    for name, tensor in state.items():
        if not name.startswith(PREFIX):
            unused.append(name)
        elif not POSITION_IDS.search(name):
            weights[_own_name(name.removeprefix(PREFIX))] = tensor
    if not weights:
        raise UserError(
            f"{path}: {len(state)} weights and none named {PREFIX}* found, expected a tagger's checkpoint"
        )
    settings = content.get("hyper_parameters") or {}
    if isinstance(settings, argparse.Namespace):
        settings = vars(settings)
    head = [name.removeprefix(PREFIX) for name in state if name.startswith(f"{PREFIX}classifier")]
    return LightningCheckpoint(weights, dict(settings), unused, head)


def _own_name(name: str) -> str:
    for theirs, ours in CLASSIFIERS:
        if name.startswith(theirs):
            return ours + name.removeprefix(theirs)
    return name


def _load(path: Path) -> Any:
    try:
        with torch.serialization.safe_globals(SAFE_GLOBALS):
            return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise UserError(f"{path}: not found, expected a checkpoint of PyTorch Lightning") from None
    except pickle.UnpicklingError as error:
        found = re.search(r"GLOBAL (\S+)", str(error))
        what = f"{found[1]}, which could run code," if found else "something else"
        raise UserError(
            f"{path}: {what} found, expected tensors and plain data alone; nothing of the file was "
            "used: take it from a source you trust, or save its weights alone"
        ) from None
    except (OSError, RuntimeError, EOFError, ValueError, TypeError, KeyError) as error:
        raise UserError(
            f"{path}: cannot be read ({first_sentence(error)}), expected a complete checkpoint of PyTorch "
            "Lightning"
        ) from None
