"""Layers of an encoder whose vectors can be keys.

`last` is the encoder's output, the input of the classifier (arXiv 2203.17103, section 3.1). All other layers
need an encoder with a module list `encoder.layer`, as in BERT, RoBERTa, ELECTRA and ChineseBERT.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedModel

from knn_ner.model.backbone import text_config
from knn_ner.utils.errors import UserError

LAST = "last"
FFN_INPUT = "ffn_input"
KNOWN = (
    "last, -N (the N-th layer from the end; penultimate is -2), ffn_input (of the last layer), or lastN "
    "(the last N layers, each normalised, side by side)"
)


def canonical_layer(name: str) -> str:
    """Return the canonical name of a layer: `-2` for `penultimate`, `last` for `-1`.

    Raises:
        UserError: for an unknown name.
    """
    name = {"penultimate": "-2", "-1": LAST, "last1": LAST}.get(name, name)
    if name not in (LAST, FFN_INPUT) and not re.fullmatch(r"(-|last)[1-9]\d*", name):
        raise UserError(f"--key_layer {name}: expected {KNOWN}")
    return name


def layer_width(model: PreTrainedModel, name: str) -> int:
    """Return the width of the vectors of a layer, given its canonical name.

    Raises:
        UserError: if the encoder does not have the layer.
    """
    return text_config(model.config).hidden_size * len(_tapped_modules(model, name))


@contextmanager
def tapping(model: PreTrainedModel, name: str) -> Iterator[Callable[[], Tensor]]:
    """Record the vectors of a layer, given its canonical name, during forward passes.

    Yields:
        A function that returns the vectors of the last batch, (batch, pieces, width) float32; call it once for
        each batch. For `lastN` it returns N vectors of length 1 side by side, so that each layer has the same
        share in a cosine.

    Raises:
        UserError: if the encoder does not have the layer.
    """
    modules = _tapped_modules(model, name)
    recorded: list[list[Tensor]] = [[] for _ in modules]

    def take() -> Tensor:
        # With `chunk_size_feed_forward`, a feed-forward block gets a part of the pieces at a time.
        vectors = [torch.cat(states, dim=1).float() for states in recorded]
        for states in recorded:
            states.clear()
        if len(vectors) == 1:
            return vectors[0]
        return torch.cat([functional.normalize(vector, dim=-1) for vector in vectors], dim=-1)

    with ExitStack() as hooks:
        for module, states in zip(modules, recorded, strict=True):
            if name == FFN_INPUT:
                handle = module.register_forward_pre_hook(_record_input(states))
            else:
                handle = module.register_forward_hook(_record_output(states))
            hooks.callback(handle.remove)
        yield take


def _record_input(states: list[Tensor]) -> Callable[..., None]:
    return lambda module, inputs: states.append(inputs[0])


def _record_output(states: list[Tensor]) -> Callable[..., None]:
    def hook(module: nn.Module, inputs: Any, output: Any) -> None:
        # The hidden states are the output, or the first of several outputs.
        states.append(output if isinstance(output, Tensor) else output[0])

    return hook


def _tapped_modules(model: PreTrainedModel, name: str) -> Sequence[nn.Module]:
    base: Any = model.base_model
    if name == LAST:
        return [base]
    layers = getattr(getattr(base, "encoder", None), "layer", None)
    if not isinstance(layers, nn.ModuleList):
        raise UserError(
            f"--key_layer {name}: {type(model).__name__} has no encoder.layer, as BERT's kin have; "
            "use last"
        )
    if name == FFN_INPUT:
        if not hasattr(layers[-1], "intermediate"):
            raise UserError(
                f"--key_layer {name}: the layers of {type(model).__name__} have no feed-forward block "
                "of their own, as BERT's have; use another"
            )
        return [layers[-1].get_submodule("intermediate")]
    count = int(name.removeprefix("last").removeprefix("-"))
    if count > len(layers):
        raise UserError(f"--key_layer {name}: the encoder has {len(layers)} layers; use fewer")
    return list(layers[-count:]) if name.startswith("last") else [layers[-count]]
