"""LightningModule of a tagger: loss, optimiser, dev score."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from pytorch_lightning.utilities.types import OptimizerLRScheduler
from torch.nn import LayerNorm
from torch.optim import AdamW
from transformers import PreTrainedModel, get_linear_schedule_with_warmup


class Tagger(pl.LightningModule):
    """A token-classification model, trained with cross entropy over word pieces.

    Args:
        model: maps input_ids (B, T), attention_mask (B, T) and the tokeniser's features to logits (B, T, L).
        rows: number of word pieces of the dev sentences; validation batches hold their rows.
        score: maps the predicted label ids (rows,) of the dev sentences to scores in percent, by name.
        lr: highest learning rate.
        weight_decay: weight decay of AdamW.
        warmup_proportion: share of steps in which the learning rate rises.
        seed: random seed of dropout.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        rows: int,
        score: Callable[[np.ndarray], Mapping[str, float]],
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
        self.score = score
        self.predicted = np.zeros(rows, dtype=np.int64)

    def on_fit_start(self) -> None:
        # Hugging Face models load in evaluation mode, and Lightning keeps that mode:
        # without this line dropout would be off throughout training.
        self.model.train()

    def on_train_epoch_start(self) -> None:
        # Dropout depends on seed and epoch alone, so that a resumed run equals an uninterrupted one.
        torch.manual_seed(self.seed * 1_000_003 + self.current_epoch)

    def training_step(self, batch: dict[str, Any], batch_index: int) -> torch.Tensor:
        loss = self.model(**batch["inputs"], labels=batch["labels"]).loss
        self.log("train_loss", loss, prog_bar=True)
        return loss

    def validation_step(self, batch: dict[str, Any], batch_index: int) -> None:
        logits = self.model(**batch["inputs"]).logits
        self.predicted[batch["rows"].cpu().numpy()] = (
            logits.argmax(-1)[batch["owned"]].cpu().numpy()
        )

    def on_validation_epoch_end(self) -> None:
        for name, value in self.score(self.predicted).items():
            self.log(name, value, prog_bar=name == "dev_f1")

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Make AdamW without decay of biases and layer norms; linear warm-up, then linear decay to zero."""
        norms = {
            parameter
            for module in self.model.modules()
            if isinstance(module, LayerNorm)
            for parameter in module.parameters()
        }
        plain: list[torch.nn.Parameter] = []
        decayed: list[torch.nn.Parameter] = []
        for name, parameter in self.model.named_parameters():
            if parameter.requires_grad:
                (plain if parameter in norms or name.endswith("bias") else decayed).append(
                    parameter
                )
        optimizer = AdamW(
            [
                {"params": decayed, "weight_decay": self.weight_decay},
                {"params": plain, "weight_decay": 0.0},
            ],
            lr=self.lr,
            # One pass over the parameters in each step. Lightning does not support it with float16.
            fused=self.trainer.precision != "16-mixed",
        )
        steps = int(self.trainer.estimated_stepping_batches)
        warmup = round(steps * self.warmup_proportion)
        schedule = get_linear_schedule_with_warmup(optimizer, warmup, steps)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": schedule, "interval": "step"},
        }
