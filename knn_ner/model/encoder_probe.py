"""Probe of an encoder before work begins: whether its results can be used, and its longest input.

No list of model types is kept here. The encoder runs on three short inputs, and its behaviour decides.
"""

import inspect
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ChineseBert.loading import first_sentence, quiet_transformers
from knn_ner.data.encoding import EncodedSentence
from knn_ner.model.backbone import text_config
from knn_ner.model.encode import hidden_states
from knn_ner.utils.errors import UserError

UNLIMITED = 1 << 30
# Inputs beside word pieces: page layout (LayoutLM, MarkupLM), shape and pronunciation (RoCBert).
OTHER_INPUTS = ("bbox", "xpath_tags_seq", "input_shape_ids")
# Word pieces of the probe's inputs, special tokens included.
LONG, SHORT = 8, 5
# Relative difference of hidden states that rounding can explain.
ROUNDING = 5e-5


def probe_encoder(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> int:
    """Check that an encoder can be used, and return its longest input.

    The longest input is the number of rows of the position embeddings less the first row in use, or
    `max_position_embeddings` of an encoder without such a table.

    Args:
        model: token-classification model, in evaluation mode.
        tokenizer: its tokeniser.

    Returns:
        The longest input in word pieces, special tokens included.

    Raises:
        UserError: if the encoder needs more than text, fails, lacks rows for the vocabulary, ignores context, or
            gives hidden states that depend on padding.
    """
    name = type(model).__name__
    other = [n for n in OTHER_INPUTS if n in inspect.signature(model.forward).parameters]
    if other:
        raise UserError(
            f"{name} reads {other[0]} beside word pieces, which sentences do not have; use an encoder of text"
        )
    _check_vocabulary(model, tokenizer)
    sentences = [_probe_sentence(tokenizer, size) for size in (LONG, LONG, SHORT)]
    sentences[1].input_ids[1] = sentences[1].input_ids[2]
    positions = _PositionRows(LONG)
    try:
        with quiet_transformers():
            padded = _hidden(model, tokenizer, sentences, batch_size=3)
            with positions:
                alone = _hidden(model, tokenizer, sentences, batch_size=1)
    except Exception as error:  # whatever the code of some encoder raises
        raise UserError(
            f"{name} cannot encode sentences from input_ids and attention_mask alone "
            f"({first_sentence(error)}); use another encoder"
        ) from None
    difference = float((padded - alone).norm() / alone.norm())
    if difference > ROUNDING:
        raise UserError(
            f"{name}: padding changes the hidden states of a sentence (relative change {difference:.0e}), so "
            "results would depend on --batch_size; use an encoder that masks padding"
        )
    # Matrices of zeros ignore context by their weights; others do when a kernel for this device is missing (MRA).
    zeros = any(weight.dim() > 1 and not weight.any() for weight in model.parameters())
    layers = getattr(text_config(model.config), "num_hidden_layers", 1)
    if layers and not zeros and torch.equal(alone[LONG - 2], alone[2 * LONG - 2]):
        raise UserError(
            f"{name}: the hidden state of a word does not depend on the words before it on this machine; use "
            "another encoder"
        )
    limit = getattr(text_config(model.config), "max_position_embeddings", None) or UNLIMITED
    return positions.usable or (limit if limit > 0 else UNLIMITED)  # XLNet's configuration says -1


def _check_vocabulary(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    """Raise UserError if the tokeniser has ids beyond the embedding table."""
    base: Any = model.base_model
    try:
        rows = base.get_input_embeddings().num_embeddings
    except (AttributeError, NotImplementedError):
        return  # CANINE hashes characters
    largest = max(tokenizer.get_vocab().values())
    if largest >= rows:
        raise UserError(
            f"{model.config.name_or_path}: word piece ids up to {largest} in the tokeniser, but {rows} rows in "
            "the embedding table; give the tokeniser that the model was trained with"
        )


def _hidden(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    sentences: Sequence[EncodedSentence],
    batch_size: int,
) -> Tensor:
    """Hidden states of all word pieces, in order: (pieces, width)."""
    batches = hidden_states(
        model,
        sentences,
        pad_id=tokenizer.pad_token_id,
        max_length=LONG,
        batch_size=batch_size,
        device=next(model.parameters()).device,
    )
    return torch.cat([batch.hidden[batch.rows.argsort()] for batch in batches])


class _PositionRows(TorchFunctionMode):
    """Records how many rows of the position embeddings are usable during forward passes.

    A lookup of consecutive rows, one for each word piece of the long input, is one of position embeddings. RoBERTa
    and many others use them from the row after the padding index on.
    """

    def __init__(self, length: int):
        self.length = length
        self.usable: int | None = None

    def __torch_function__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        if function is torch.nn.functional.embedding:
            rows, table = args[0], args[1]
            if rows.dim() and rows.shape[-1] >= self.length:
                rows = rows[..., : self.length].reshape(-1, self.length)
                first = int(rows[0, 0])
                if bool((rows == first + torch.arange(self.length, device=rows.device)).all()):
                    usable = len(table) - first
                    self.usable = min(usable, self.usable or usable)
        return function(*args, **(kwargs or {}))


def _probe_sentence(tokenizer: PreTrainedTokenizerBase, size: int) -> EncodedSentence:
    """A sentence of ordinary word pieces in descending order, which no positions are."""
    special = set(tokenizer.all_special_ids)
    ordinary = [index for index in sorted(tokenizer.get_vocab().values()) if index not in special]
    first, last = tokenizer("")["input_ids"]
    pieces = np.array([first, *np.resize(ordinary[::-1], size - 2), last], dtype=np.int32)
    features = {}
    if hasattr(tokenizer, "piece_features"):
        features = tokenizer.piece_features("", [])
    zeros = np.zeros(size, dtype=np.int32)
    return EncodedSentence(
        pieces, zeros.astype(np.int16), zeros, zeros, zeros,
        {name: np.zeros((size, *rows.shape[1:]), rows.dtype) for name, rows in features.items()},
    )  # fmt: skip
