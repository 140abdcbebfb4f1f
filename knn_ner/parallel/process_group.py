"""What the processes that share a command tell each other."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor
from tqdm import tqdm

from knn_ner.utils.errors import AgreedError

# How long processes wait for one that still works. One that ended is noticed at once, as its
# connections close, so this only has to be longer than any shard or search takes.
PATIENCE = timedelta(days=1)
# Numbers that fit into an exchange.
NUMBERS = 8


class Group:
    """The processes that share a command: this one is `rank` of `size`, by default one alone.

    Before processes send each other anything, they all call `exchange`. One that fails calls it too,
    in place of what it would have done next, so that no other waits for it in vain.
    """

    def __init__(self, rank: int = 0, size: int = 1, device: str | torch.device = "cpu"):
        """With size > 1, torch's process group must be there; `device` is where tensors will be."""
        self.rank, self.size = rank, size
        if size > 1:
            self._control = self._data = dist.new_group(backend="gloo", timeout=PATIENCE)
            if torch.device(device).type == "cuda":
                self._data = dist.new_group(backend="nccl", timeout=PATIENCE)

    def exchange(self, *numbers: int, error: str = "") -> list[list[int]]:
        """Wait for every process, and tell each other some numbers.

        Returns: what each process told, by rank. Raises AgreedError if one of them told of an error,
        or ended.
        """
        if self.size == 1:
            return [list(numbers)]
        text = torch.tensor(list(error.encode()), dtype=torch.uint8)
        told = torch.zeros(1 + NUMBERS, dtype=torch.int64)
        told[: 1 + len(numbers)] = torch.tensor([len(text), *numbers])
        heard = [torch.empty_like(told) for _ in range(self.size)]
        with _noticing_the_dead():
            dist.all_gather(heard, told, group=self._control)
            texts = _from_all(text, [int(row[0]) for row in heard], self.rank, self._control)
        for rank, text in enumerate(texts):
            if len(text):
                raise AgreedError(f"process {rank}: {bytes(text.tolist()).decode()}")
        return [row[1 : 1 + len(numbers)].tolist() for row in heard]

    def check_same(self, what: str, digest: str) -> None:
        """Raise AgreedError unless all processes have the same digest (hexadecimal) of something."""
        digests = [other for (other,) in self.exchange(int(digest[:15], 16))]
        for rank, other in enumerate(digests):
            if other != digests[0]:
                raise AgreedError(
                    f"process {rank} has another {what} than process 0; "
                    "give every machine the same files and flags"
                )

    def from_first(self, numbers: Sequence[int]) -> list[int]:
        """What process 0 calls this with, in every process."""
        (count,), *_ = self.exchange(len(numbers))
        if self.size == 1:
            return list(numbers)
        told = torch.zeros(count, dtype=torch.int64)
        if self.rank == 0:
            told[:] = torch.tensor(list(numbers))
        with _noticing_the_dead():
            dist.broadcast(told, src=0, group=self._control)
        return told.tolist()

    def largest(self, array: np.ndarray) -> np.ndarray:
        """The largest of each element among all processes; the same shape and type everywhere."""
        self.exchange()
        if self.size == 1:
            return array
        values = torch.from_numpy(array.copy())
        with _noticing_the_dead():
            dist.all_reduce(values, dist.ReduceOp.MAX, group=self._control)
        return values.numpy()

    def gather(self, rows: Tensor, counts: Sequence[int]) -> Tensor:
        """The rows of all processes, in order of rank. After an `exchange`.

        Args:
            rows: (counts[rank], ...), on the group's device.
            counts: how many rows each process has.
        """
        with _noticing_the_dead():
            return torch.cat(_from_all(rows, counts, self.rank, self._data))

    def swap(self, values: Tensor, send: Sequence[int], receive: Sequence[int]) -> list[Tensor]:
        """Send each process its share of some values, and get one from each. After an `exchange`.

        Args:
            values: (sum(send),), on the group's device: the shares, in order of rank.
            send: how many values each process is to get.
            receive: how many values each process has for this one.

        Returns: (receive[rank],) for each rank.
        """
        received = values.new_empty(sum(receive))
        with _noticing_the_dead():
            dist.all_to_all_single(received, values, list(receive), list(send), group=self._data)
        return list(received.split(list(receive)))


class SharedProgress:
    """The bar of work that all processes share, moved on by one that takes the others to be as far."""

    def __init__(self, bar: tqdm, group: Group):
        self.bar, self.group = bar, group

    def update(self, count: int) -> None:
        self.bar.update(min(count * self.group.size, self.bar.total - self.bar.n))


@contextmanager
def _noticing_the_dead() -> Iterator[None]:
    """An error of the connection as one line."""
    try:
        yield
    except RuntimeError as error:
        # "[file.cc:537] Connection closed by peer [127.0.0.1]:59084. This is typically caused by ..."
        reason = str(error).splitlines()[0].split("] ", 1)[-1].split(". ")[0]
        raise AgreedError(
            f"another process of this run ended ({reason}); see what it printed, or its machine's log"
        ) from None


def _from_all(
    rows: Tensor, counts: Sequence[int], rank: int, group: dist.ProcessGroup
) -> list[Tensor]:
    """What each process has, (its count, ...), where all have another number of rows."""
    parts = []
    for source, count in enumerate(counts):
        own = source == rank
        part = rows.contiguous() if own else rows.new_empty(count, *rows.shape[1:])
        if count:
            dist.broadcast(part, src=source, group=group)
        parts.append(part)
    return parts
