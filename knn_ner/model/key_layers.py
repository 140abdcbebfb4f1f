"""Which vector of an encoder's pass becomes a key: the layers that have names, and how to get at them.

`last` is the encoder's output, the input of the classifier (arXiv 2203.17103, section 3.1). The others need
an encoder whose layers are in `encoder.layer`, as BERT, RoBERTa, ELECTRA and ChineseBERT have them.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedModel

from knn_ner.utils.errors import UserError

LAST = "last"
FFN_INPUT = "ffn_input"
KNOWN = (
    "last, -N (the N-th layer from the end; penultimate is -2), ffn_input (of the last layer), or lastN "
    "(the last N layers, each normalised, side by side)"
)


def canonical_layer(name: str) -> str:
    """The one name of a layer: `-2` for `penultimate`, `last` for `-1`.

    Raises `UserError` for a name that is none.
    """
    name = {"penultimate": "-2", "-1": LAST, "last1": LAST}.get(name, name)
    if name not in (LAST, FFN_INPUT) and not re.fullmatch(r"(-|last)[1-9]\d*", name):
        raise UserError(f"--key_layer {name}: expected {KNOWN}")
    return name


def layer_width(model: PreTrainedModel, name: str) -> int:
    """The width of the vectors of a layer, by its canonical name.

    Raises `UserError` when the encoder does not have it.
    """
    return model.config.hidden_size * len(_tapped_modules(model, name))


@contextmanager
def tapping(model: PreTrainedModel, name: str) -> Iterator[Callable[[], Tensor]]:
    """Listen to a layer, by its canonical name, without keeping the other layers' states.

    Gives a function that returns its vectors of the last batch, (batch, pieces, width) float32, once.
    `lastN` is N vectors of length 1 side by side, so that each layer has the same part in a cosine.

    Raises `UserError` when the encoder does not have it.
    """
    modules = _tapped_modules(model, name)
    heard: list[list[Tensor]] = [[] for _ in modules]

    def hook(states: list[Tensor]) -> Callable[..., None]:
        return lambda module, inputs, output: states.append(_first(output))

    def taken() -> Tensor:
        # A feed-forward block in chunks (`chunk_size_feed_forward`) sees some pieces at a time.
        vectors = [torch.cat(states, dim=1).float() for states in heard]
        for states in heard:
            states.clear()
        if len(vectors) == 1:
            return vectors[0]
        return torch.cat([functional.normalize(vector, dim=-1) for vector in vectors], dim=-1)

    with ExitStack() as hooks:
        for module, states in zip(modules, heard, strict=True):
            if name == FFN_INPUT:
                handle = module.register_forward_pre_hook(
                    lambda module, inputs: heard[0].append(inputs[0])
                )
            else:
                handle = module.register_forward_hook(hook(states))
            hooks.callback(handle.remove)
        yield taken


def _tapped_modules(model: PreTrainedModel, name: str) -> Sequence[nn.Module]:
    if name == LAST:
        return [model.base_model]
    layers = getattr(getattr(model.base_model, "encoder", None), "layer", None)
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
        return [layers[-1].intermediate]
    count = int(name.removeprefix("last").removeprefix("-"))
    if count > len(layers):
        raise UserError(f"--key_layer {name}: the encoder has {len(layers)} layers; use fewer")
    return layers[-count:] if name.startswith("last") else [layers[-count]]


def _first(output: Any) -> Tensor:
    """What a module gives: hidden states, alone, or first among others."""
    return output if isinstance(output, Tensor) else output[0]
