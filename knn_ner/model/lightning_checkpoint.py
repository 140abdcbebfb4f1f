"""Checkpoints of taggers as PyTorch Lightning wrote them in other code, read without running any of it.

The published code of kNN-NER and of ChineseBERT (Lightning 0.9) keeps the network under `model.` and its
command line beside it. Nothing but tensors, numbers and texts is taken from such a file.
"""

import argparse
import pickle
import re
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from knn_ner.utils.errors import UserError

PREFIX = "model."
# The classifiers of other code by the names that they have here.
CLASSIFIERS = (
    ("classifier.dense_layer.", "classifier.0."),  # ChineseBERT's mlp: dense, tanh, dense
    ("classifier.dense_to_labels_layer.", "classifier.2."),
    ("classifier.classifier.", "classifier."),  # the BERT tagger of mrc-for-flat-nested-ner
)
# Buffers that hold 0, 1, 2, ..., and that later releases of transformers no longer save.
POSITION_IDS = re.compile(r"(^|\.)position_ids$")


class Ignored:
    """Stands for an object that a checkpoint mentions and that nobody needs: is made, and does nothing."""

    def __init__(self, *arguments: Any):
        pass

    def __setstate__(self, state: Any) -> None:
        pass


# What old checkpoints hold besides plain data, and what it is read as: none of these names is imported.
SAFE_GLOBALS = [
    argparse.Namespace,
    *(
        (OrderedDict, f"{module}.AttributeDict")
        for module in ("pytorch_lightning.utilities.parsing", "lightning_fabric.utilities.data")
    ),
    *(
        (Ignored, name)
        for name in (
            # Callbacks' states have their classes as keys.
            "pytorch_lightning.callbacks.model_checkpoint.ModelCheckpoint",
            "pytorch_lightning.callbacks.early_stopping.EarlyStopping",
            # Lightning 0.9 has a function, Trainer._gpus_arg_default, among its command line's defaults.
            "pytorch_lightning.trainer.trainer.Trainer",
            "builtins.getattr",
            "pathlib.PosixPath",
            "pathlib.WindowsPath",
            "pathlib._local.PosixPath",
            "pathlib._local.WindowsPath",
            "numpy.dtype",
            "numpy.core.multiarray.scalar",
            "numpy._core.multiarray.scalar",
        )
    ),
]


@dataclass
class LightningCheckpoint:
    """The network's weights by the names that they have here, and the command line that trained it.

    unused: names of other tensors of the file, such as those of a metric.
    """

    weights: dict[str, torch.Tensor]
    settings: dict[str, Any]
    unused: list[str]

    @property
    def classifier(self) -> str:
        """`linear` or `mlp`, as `load_encoder` has it."""
        return "mlp" if "classifier.2.weight" in self.weights else "linear"

    @property
    def last_layer(self) -> list[str]:
        """The names of the layer with a row for each label; none of an unknown classifier."""
        layer = "classifier.2" if self.classifier == "mlp" else "classifier"
        names = [f"{layer}.weight", f"{layer}.bias"]
        return names if all(name in self.weights for name in names) else []

    @property
    def num_labels(self) -> int | None:
        """How many labels the classifier tells apart; None of an unknown classifier."""
        return len(self.weights[self.last_layer[0]]) if self.last_layer else None


def read_lightning_checkpoint(path: str | Path) -> LightningCheckpoint:
    """Read a checkpoint of Lightning: `state_dict`, and `hyper_parameters` as a Namespace or a dict.

    Raises `UserError` when it is missing, damaged, holds more than data, or has no weights under `model.`.
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
    return LightningCheckpoint(weights, dict(settings), unused)


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
        reason = str(error).strip().split("\n")[0].split(". ")[0]
        raise UserError(
            f"{path}: cannot be read ({reason}), expected a checkpoint of PyTorch Lightning, whole"
        ) from None
