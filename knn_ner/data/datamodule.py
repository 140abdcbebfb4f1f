"""The training and validation batches of a corpus, as Lightning takes them."""

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
    """Batches of the train and dev splits.

    The training order is a function of (seed, epoch), so that a resumed training has the order of an uninterrupted
    one. The trainer has to ask for a new loader in every epoch (`reload_dataloaders_every_n_epochs=1`).
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
        by_length: bool = True,
    ):
        """Cut the sentences into windows; arguments as for `inference_loader`."""
        super().__init__()
        self._train = WindowDataset(train, max_length)
        self._by_length = by_length
        self._batch_size, self._seed, self._how = train_batch_size, seed, (pad_id, workers)
        self._dev = inference_loader(dev, pad_id, max_length, eval_batch_size, workers)

    def train_dataloader(self) -> DataLoader:
        """The batches of the current epoch."""
        lengths = [len(window) for window in self._train.windows]
        epoch = self.trainer.current_epoch if self.trainer is not None else 0
        batches = shuffled_batches(lengths, self._batch_size, self._seed, epoch, self._by_length)
        return make_loader(self._train, batches, *self._how)

    def val_dataloader(self) -> DataLoader:
        """All batches of dev."""
        return self._dev
