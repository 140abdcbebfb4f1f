"""The Lightning module: a token-classification model, its loss, its optimiser, its dev score."""

from collections.abc import Callable

import numpy as np
import pytorch_lightning as pl
import torch
from torch.nn import LayerNorm
from torch.optim import AdamW
from transformers import PreTrainedModel, get_linear_schedule_with_warmup

from knn_ner.data.word_decoding import WordDecoder


class Tagger(pl.LightningModule):
    """A linear layer over each hidden state of an encoder, trained with cross entropy over word pieces.

    model: takes input_ids (B, T), attention_mask (B, T) and the encoder's features; gives logits (B, T, L).
    dev: the decoder of the dev sentences, whose rows the validation batches hold.
    score: from the predicted tags of the dev sentences' words to percent F1.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        dev: WordDecoder,
        score: Callable[[list[list[str]]], float],
        *,
        lr: float,
        weight_decay: float,
        warmup_proportion: float,
        seed: int,
    ):
        super().__init__()
        self.model = model
        self.lr, self.weight_decay, self.warmup_proportion = lr, weight_decay, warmup_proportion
        self.seed = seed
        self.decoder, self.score = dev, score
        self.predicted = np.zeros(dev.pieces.sum(), dtype=np.int64)

    def on_fit_start(self) -> None:
        # A Hugging Face model loads in evaluation mode, and Lightning keeps the mode it finds:
        # without this, dropout would be off throughout training.
        self.model.train()

    def on_train_epoch_start(self) -> None:
        # Dropout depends on seed and epoch alone, so that a resumed run equals an uninterrupted one.
        torch.manual_seed(self.seed * 1_000_003 + self.current_epoch)

    def training_step(self, batch: dict, batch_index: int) -> torch.Tensor:
        loss = self.model(**batch["inputs"], labels=batch["labels"]).loss
        self.log("train_loss", loss, prog_bar=True)
        return loss

    def validation_step(self, batch: dict, batch_index: int) -> None:
        logits = self.model(**batch["inputs"]).logits
        self.predicted[batch["rows"].cpu().numpy()] = (
            logits.argmax(-1)[batch["owned"]].cpu().numpy()
        )

    def on_validation_epoch_end(self) -> None:
        self.log("dev_f1", self.score(self.decoder.sentences(self.predicted)), prog_bar=True)

    def configure_optimizers(self) -> dict:
        """AdamW without decay on biases and layer norms; linear warm-up, then linear decay to zero."""
        norms = {
            parameter
            for module in self.model.modules()
            if isinstance(module, LayerNorm)
            for parameter in module.parameters()
        }
        plain, decayed = [], []
        for name, parameter in self.model.named_parameters():
            if parameter.requires_grad:
                kept = parameter in norms or name.endswith("bias")
                (plain if kept else decayed).append(parameter)
        optimizer = AdamW(
            [
                {"params": decayed, "weight_decay": self.weight_decay},
                {"params": plain, "weight_decay": 0.0},
            ],
            lr=self.lr,
            # One pass over the parameters for each step. Lightning refuses it with float16.
            fused=self.trainer.precision != "16-mixed",
        )
        steps = int(self.trainer.estimated_stepping_batches)
        schedule = get_linear_schedule_with_warmup(
            optimizer, round(steps * self.warmup_proportion), steps
        )
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": schedule, "interval": "step"},
        }
