"""Hidden states and logits of sentences: one pass of a tagger over batches of similar length."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from tqdm import tqdm
from transformers import PreTrainedModel

from knn_ner.data.batching import inference_loader
from knn_ner.data.encoding import EncodedSentence
from knn_ner.datastore.key_transform import PUBLISHED, KeyRecipe, KeyTransform
from knn_ner.model.key_layers import tapping
from knn_ner.parallel.process_group import SharedProgress

AUTOCAST = {"16": torch.float16, "bf16": torch.bfloat16}


@dataclass
class HiddenStates:
    """Output of the tagger for n rows (word pieces) of a corpus.

    Attributes:
        rows: (n,) indices among all word pieces of the sentences, special tokens included.
        hidden: (n, width) float32, hidden states of the recipe's layer.
        logits: (n, labels) float32.
        transform: the recipe's transform.
    """

    rows: torch.Tensor
    hidden: torch.Tensor
    logits: torch.Tensor
    transform: KeyTransform | None = None

    def keys(self, chosen: torch.Tensor | None = None) -> torch.Tensor:
        """Return keys (equally, queries) of all rows, or of the m rows that `chosen`, (n,) bool, marks.

        Returns:
            (n or m, dim) float32.
        """
        hidden = self.hidden if chosen is None else self.hidden[chosen]
        return hidden if self.transform is None else self.transform(hidden)


def hidden_states(
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
    progress: tqdm | SharedProgress | None = None,
) -> Iterator[HiddenStates]:
    """Run a tagger over sentences, with each of their rows exactly once, in batches of any order.

    Args:
        model: network of the tagger.
        sentences: sentences in word pieces.
        pad_id: id of the padding piece.
        max_length: word pieces in a window, special tokens included.
        batch_size: windows in a batch.
        device: device of the computation.
        precision: `32`, or mixed precision in `16` or `bf16` (a CPU has no float16 and uses bfloat16).
        workers: data loading processes.
        recipe: layer and transform of keys and queries; a datastore has its own.
        share: (i, n): this is process i of n and takes every n-th batch; batches do not depend on n.
        progress: bar that advances by the number of word pieces.

    Raises:
        UserError: if the encoder does not have the recipe's layer.
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
            yield HiddenStates(
                batch["rows"], hidden()[owned], logits[owned].float(), recipe.transform
            )
            if progress is not None:
                progress.update(len(batch["rows"]))
