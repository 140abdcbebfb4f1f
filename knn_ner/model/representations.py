"""Hidden states and logits of a corpus: one pass of a tagger, in inference mode, over bucketed batches."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from tqdm import tqdm
from transformers import PreTrainedModel

from knn_ner.data.encoding import EncodedSentence
from knn_ner.data.loading import inference_loader
from knn_ner.errors import UserError
from knn_ner.model.layers import tapping
from knn_ner.retrieval.transforms import PUBLISHED, KeyRecipe, KeyTransform

AUTOCAST = {"16": torch.float16, "bf16": torch.bfloat16}


@dataclass
class Representations:
    """What the tagger makes of some rows (word pieces) of a corpus.

    rows: (n,) places of the pieces among all pieces of the sentences, special tokens included.
    hidden: (n, width) hidden states of the recipe's layer, float32. logits: (n, labels), float32.
    transform: of the recipe.
    """

    rows: torch.Tensor
    hidden: torch.Tensor
    logits: torch.Tensor
    transform: KeyTransform | None = None

    def keys(self, chosen: torch.Tensor | None = None) -> torch.Tensor:
        """Keys, and so queries, of all rows or of the m chosen by (n,) bool: (m, dim) float32."""
        hidden = self.hidden if chosen is None else self.hidden[chosen]
        return hidden if self.transform is None else self.transform(hidden)


def choose_device(name: str) -> torch.device:
    """`auto` is CUDA where there is any.

    Raises `UserError` when CUDA is asked for and there is none.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and not torch.cuda.is_available():
        raise UserError("--device cuda: no CUDA device found; use --device cpu or auto")
    return torch.device(name)


def represent(
    model: PreTrainedModel,
    sentences: Sequence[EncodedSentence],
    *,
    pad_id: int,
    max_length: int,
    batch_size: int,
    device: torch.device,
    precision: str = "32",
    workers: int = 0,
    recipe: KeyRecipe = PUBLISHED,
    share: tuple[int, int] = (0, 1),
    progress: tqdm | None = None,
) -> Iterator[Representations]:
    """Run a tagger over sentences; every row of theirs comes exactly once, in batches of any order.

    precision: `32`, or mixed precision in `16` or `bf16` (a CPU, which has no float16, takes bfloat16).
    recipe: what keys and queries are made of; of a datastore, its own.
    share: (i, n): of n processes this is number i, and takes every n-th batch; batches are the same for
        any n.
    progress: a bar that is moved on by the number of pieces.

    Raises `UserError` when the encoder does not have the recipe's layer.
    """
    model.eval().to(device)
    dtype = torch.bfloat16 if device.type == "cpu" else AUTOCAST.get(precision)
    autocast = torch.autocast(device.type, dtype=dtype, enabled=precision != "32")
    loader = inference_loader(sentences, pad_id, max_length, batch_size, workers, share)
    with tapping(model, recipe.layer) as hidden, torch.inference_mode(), autocast:
        for batch in loader:
            inputs = {
                name: tensor.to(device, non_blocking=True)
                for name, tensor in batch["inputs"].items()
            }
            logits = model(**inputs).logits
            owned = batch["owned"].to(device)
            yield Representations(
                batch["rows"], hidden()[owned], logits[owned].float(), recipe.transform
            )
            if progress is not None:
                progress.update(len(batch["rows"]))


def predict(model: PreTrainedModel, sentences: Sequence[EncodedSentence], **how: Any) -> np.ndarray:
    """The tagger's own label id for every row, (rows,) int64; `how` as for `represent`."""
    predicted = np.zeros(sum(len(sentence) for sentence in sentences), dtype=np.int64)
    for batch in represent(model, sentences, **how):
        predicted[batch.rows.numpy()] = batch.logits.argmax(-1).cpu().numpy()
    return predicted
