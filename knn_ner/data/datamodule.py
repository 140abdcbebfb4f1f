"""The LightningDataModule over a corpus: what training reads."""

from collections.abc import Sequence

import pytorch_lightning as pl
from torch.utils.data import DataLoader

from knn_ner.data.batching import (
    WindowDataset,
    inference_loader,
    make_loader,
    shuffled_batches,
)
from knn_ner.data.encoding import EncodedSentence


class TaggingDataModule(pl.LightningDataModule):
    """Training and validation batches of a corpus.

    The training order is a function of (seed, epoch), so that a resumed run sees what an uninterrupted
    one would have seen; the trainer asks anew for the loader in every epoch
    (`reload_dataloaders_every_n_epochs=1`).
    """

    def __init__(
        self,
        train: Sequence[EncodedSentence],
        dev: Sequence[EncodedSentence],
        *,
        pad_id: int,
        max_length: int,
        train_batch_size: int,
        eval_batch_size: int,
        seed: int = 0,
        workers: int = 0,
    ):
        super().__init__()
        self.train, self.dev = train, dev
        self.pad_id, self.max_length = pad_id, max_length
        self.train_batch_size, self.eval_batch_size = train_batch_size, eval_batch_size
        self.seed, self.workers = seed, workers

    def train_dataloader(self) -> DataLoader:
        dataset = WindowDataset(self.train, self.max_length)
        lengths = [len(window) for window in dataset.windows]
        epoch = self.trainer.current_epoch if self.trainer is not None else 0
        batches = shuffled_batches(lengths, self.train_batch_size, self.seed, epoch)
        return make_loader(dataset, batches, self.train, self.pad_id, self.workers)

    def val_dataloader(self) -> DataLoader:
        return inference_loader(
            self.dev, self.pad_id, self.max_length, self.eval_batch_size, self.workers
        )
