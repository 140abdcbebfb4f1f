"""Length-bucketed batches of windows."""

from collections.abc import Iterator, Sequence, Sized

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from knn_ner.data.encoding import IGNORED, EncodedSentence, Window, windows

# Batches are sorted by length within pools of this many, which leaves the order random enough to train.
POOL = 50


def cut(sentences: Sequence[EncodedSentence], max_length: int) -> list[Window]:
    """The windows of all sentences, in order."""
    return [
        window
        for index, sentence in enumerate(sentences)
        for window in windows(index, len(sentence), max_length)
    ]


class WindowDataset(Dataset):
    """The windows of encoded sentences, as (sentence, window) pairs."""

    def __init__(self, sentences: Sequence[EncodedSentence], max_length: int):
        self.sentences = sentences
        self.windows = cut(sentences, max_length)

    def __len__(self) -> int:
        return len(self.windows)

    def __getitem__(self, index: int) -> tuple[EncodedSentence, Window]:
        window = self.windows[index]
        return self.sentences[window.sentence], window


class Collate:
    """(sentence, window) pairs to padded tensors.

    `inputs` is what the encoder takes: input_ids and attention_mask (B, T), and features (B, T, ...).
    `labels` (B, T) carries the rows that the window owns, `IGNORED` elsewhere.
    `owned` (B, T) marks those rows, and `rows` (number of them,) are their places among all the rows of
    the corpus, given the first row of each sentence.
    """

    def __init__(self, pad_id: int, row_of_sentence: np.ndarray):
        self.pad_id = pad_id
        self.row_of_sentence = row_of_sentence

    def __call__(self, pairs: Sequence[tuple[EncodedSentence, Window]]) -> dict:
        batch, width = len(pairs), max(len(window) for _, window in pairs)
        input_ids = np.full((batch, width), self.pad_id, dtype=np.int64)
        mask = np.zeros((batch, width), dtype=np.int64)
        labels = np.full((batch, width), IGNORED, dtype=np.int64)
        owned = np.zeros((batch, width), dtype=bool)
        features = {
            name: np.zeros((batch, width, *rows.shape[1:]), dtype=np.int64)
            for name, rows in pairs[0][0].features.items()
        }
        rows = []
        for i, (sentence, window) in enumerate(pairs):
            length, pieces = len(window), slice(window.start, window.stop)
            input_ids[i, 0], input_ids[i, length - 1] = sentence.input_ids[[0, -1]]
            input_ids[i, 1 : length - 1] = sentence.input_ids[pieces]
            mask[i, :length] = 1
            for name, values in sentence.features.items():
                features[name][i, 1 : length - 1] = values[pieces]
            # Row r of the sentence stands at column r - start + 1 of the window.
            columns = slice(window.own_start - window.start + 1, window.own_stop - window.start + 1)
            labels[i, columns] = sentence.labels[window.own_start : window.own_stop]
            owned[i, columns] = True
            rows.append(
                self.row_of_sentence[window.sentence] + np.arange(window.own_start, window.own_stop)
            )
        arrays = {"input_ids": input_ids, "attention_mask": mask, **features}
        return {
            "inputs": {name: torch.from_numpy(array) for name, array in arrays.items()},
            "labels": torch.from_numpy(labels),
            "owned": torch.from_numpy(owned),
            "rows": torch.from_numpy(np.concatenate(rows)),
        }


def first_rows(sentences: Sequence[EncodedSentence]) -> np.ndarray:
    """(S + 1,): where each sentence's rows begin among those of the corpus; the last is their number."""
    return np.concatenate([[0], np.cumsum([len(sentence) for sentence in sentences])]).astype(
        np.int64
    )


def batches_by_length(lengths: Sequence[int], batch_size: int) -> list[list[int]]:
    """Batches of indices, longest first, so that a batch that does not fit the memory fails at once."""
    order = np.argsort(-np.asarray(lengths), kind="stable").tolist()
    return [order[start : start + batch_size] for start in range(0, len(order), batch_size)]


def shuffled_batches(
    lengths: Sequence[int], batch_size: int, seed: int, epoch: int
) -> list[list[int]]:
    """Batches of windows of similar length in an order that depends on seed and epoch alone."""
    generator = np.random.default_rng([seed, epoch])
    order = generator.permutation(len(lengths))
    lengths = np.asarray(lengths)
    batches = []
    for start in range(0, len(order), POOL * batch_size):
        pool = order[start : start + POOL * batch_size]
        pool = pool[np.argsort(lengths[pool], kind="stable")].tolist()
        batches += [pool[first : first + batch_size] for first in range(0, len(pool), batch_size)]
    return [batches[index] for index in generator.permutation(len(batches))]


def make_loader(
    dataset: WindowDataset,
    batches: list[list[int]],
    sentences: Sequence[EncodedSentence],
    pad_id: int,
    workers: int,
) -> DataLoader:
    """A loader over given batches of windows."""
    return DataLoader(
        dataset,
        batch_sampler=batches,
        collate_fn=Collate(pad_id, first_rows(sentences)),
        num_workers=workers,
        # A generator of its own: a loader must not move the random state that dropout draws from.
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
    """Every row of the sentences exactly once, batched by length, longest first.

    share: (i, n) gives every n-th of these batches, from the i-th; the n loaders together give all.
    """
    dataset = WindowDataset(sentences, max_length)
    batches = batches_by_length([len(window) for window in dataset.windows], batch_size)
    first, step = share
    return make_loader(dataset, batches[first::step], sentences, pad_id, workers)


def sentence_chunks(sentences: Sequence[Sized], size: int) -> Iterator[Sequence]:
    """Runs of sentences of at most `size` pieces (or words) together, one sentence at least."""
    start = total = 0
    for index, sentence in enumerate(sentences):
        if index > start and total + len(sentence) > size:
            yield sentences[start:index]
            start, total = index, 0
        total += len(sentence)
    if start < len(sentences):
        yield sentences[start:]
