"""Length-bucketed batches of windows."""

from collections.abc import Iterator, Sequence, Sized
from functools import partial
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from knn_ner.data.encoding import IGNORED, EncodedSentence, Window, windows

# Batches in a pool. Windows are sorted by length within a pool only, so that their order stays nearly random.
POOL_BATCHES = 50


class WindowDataset(Dataset):
    """The windows of encoded sentences, as (sentence, window, first row of the sentence in the corpus)."""

    def __init__(self, sentences: Sequence[EncodedSentence], max_length: int):
        """Cut the sentences into windows of at most `max_length` pieces."""
        self._sentences = sentences
        self._first_rows = first_rows(sentences)
        self.windows = [
            window
            for index, sentence in enumerate(sentences)
            for window in windows(index, len(sentence), max_length)
        ]

    def __len__(self) -> int:
        return len(self.windows)

    def __getitem__(self, index: int) -> tuple[EncodedSentence, Window, int]:
        window = self.windows[index]
        return self._sentences[window.sentence], window, self._first_rows[window.sentence]


def collate(items: Sequence[tuple[EncodedSentence, Window, int]], pad_id: int) -> dict[str, Any]:
    """Pad B windows to the width T of the longest.

    Returns:
        `inputs`: what the encoder takes: input_ids and attention_mask (B, T), and features (B, T, ...).
        `labels`: (B, T), `IGNORED` for pieces that the window does not own. `owned`: (B, T) bool, the pieces that it
        owns. `rows`: the row in the corpus of each of these.
    """
    shape = len(items), max(len(window) for _, window, _ in items)
    inputs = {"input_ids": np.full(shape, pad_id), "attention_mask": np.zeros(shape, np.int64)}
    for name, values in items[0][0].features.items():
        inputs[name] = np.zeros((*shape, *values.shape[1:]), np.int64)
    labels, owned, rows = np.full(shape, IGNORED), np.zeros(shape, bool), []
    for i, (sentence, window, first_row) in enumerate(items):
        last, pieces = len(window) - 1, slice(window.start, window.stop)
        inputs["input_ids"][i, [0, last]] = sentence.input_ids[[0, -1]]
        inputs["attention_mask"][i, : last + 1] = 1
        for name, values in {"input_ids": sentence.input_ids, **sentence.features}.items():
            inputs[name][i, 1:last] = values[pieces]
        # Row r of the sentence is at column r - start + 1 of the window.
        own = np.arange(window.own_start, window.own_stop)
        labels[i, own - window.start + 1] = sentence.labels[own]
        owned[i, own - window.start + 1] = True
        rows.append(first_row + own)
    return {
        "inputs": {name: torch.from_numpy(array) for name, array in inputs.items()},
        "labels": torch.from_numpy(labels),
        "owned": torch.from_numpy(owned),
        "rows": torch.from_numpy(np.concatenate(rows)),
    }


def first_rows(sentences: Sequence[EncodedSentence]) -> np.ndarray:
    """(S + 1,) int64: the first row of each sentence among the rows of the corpus, and the number of rows."""
    return np.cumsum([0, *map(len, sentences)], dtype=np.int64)


def shuffled_batches(
    lengths: Sequence[int], batch_size: int, seed: int, epoch: int, by_length: bool = True
) -> list[list[int]]:
    """Batches of windows, of similar length or at random, in an order that depends on seed and epoch alone."""
    generator = np.random.default_rng([seed, epoch])
    order = generator.permutation(len(lengths))
    if not by_length:
        return [
            order[first : first + batch_size].tolist() for first in range(0, len(order), batch_size)
        ]
    sizes = np.asarray(lengths)
    batches = []
    for start in range(0, len(order), POOL_BATCHES * batch_size):
        pool = order[start : start + POOL_BATCHES * batch_size]
        pool = pool[np.argsort(sizes[pool], kind="stable")].tolist()
        batches += [pool[first : first + batch_size] for first in range(0, len(pool), batch_size)]
    return [batches[index] for index in generator.permutation(len(batches))]


def make_loader(
    dataset: WindowDataset, batches: list[list[int]], pad_id: int, workers: int
) -> DataLoader:
    """A loader over given batches of windows."""
    return DataLoader(
        dataset,
        batch_sampler=batches,
        collate_fn=partial(collate, pad_id=pad_id),
        num_workers=workers,
        # A generator of its own: a loader must not change the random state that dropout draws from.
        generator=torch.Generator(),
        pin_memory=torch.cuda.is_available(),
    )


def inference_loader(
    sentences: Sequence[EncodedSentence],
    pad_id: int,
    max_length: int,
    batch_size: int,
    workers: int = 0,
    share: tuple[int, int] = (0, 1),
) -> DataLoader:
    """A loader that gives every row of the sentences exactly once, in batches by length.

    The longest windows come first, so that a batch that does not fit the memory fails at once.

    Args:
        sentences: the sentences.
        pad_id: the padding piece.
        max_length: word pieces in a window, at most.
        batch_size: windows in a batch.
        workers: data loading processes.
        share: (i, n) gives every n-th of the batches, from the i-th; the n loaders together give all.
    """
    dataset = WindowDataset(sentences, max_length)
    order = np.argsort([-len(window) for window in dataset.windows], kind="stable").tolist()
    batches = [order[start : start + batch_size] for start in range(0, len(order), batch_size)]
    return make_loader(dataset, batches[share[0] :: share[1]], pad_id, workers)


def sentence_chunks(sentences: Sequence[Sized], size: int) -> Iterator[Sequence]:
    """Runs of sentences of at most `size` pieces (or words) together, but of one sentence at least."""
    start = total = 0
    for index, sentence in enumerate(sentences):
        if index > start and total + len(sentence) > size:
            yield sentences[start:index]
            start, total = index, 0
        total += len(sentence)
    if start < len(sentences):
        yield sentences[start:]
