"""Collective communication between the processes that share a command, by torch.distributed."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor
from tqdm import tqdm

from knn_ner.utils.errors import AgreedError

# How long a process waits for another one that still works: longer than any shard or search takes. A process that
# ended is noticed at once, because its connections close.
COLLECTIVE_TIMEOUT = timedelta(days=1)
# The most numbers of one `all_gather`.
MAX_NUMBERS = 8


class ProcessGroup:
    """The processes that share a command; by default a single process.

    All processes call `all_gather` or `barrier` before they exchange arrays. A process that failed calls `all_gather`
    with its error, so no other process waits for it.

    Args:
        rank: number of this process, from 0.
        size: number of processes; above 1, torch's default process group has to exist.
        device: device of the tensors in `all_gather_rows` and `all_to_all`.
    """

    def __init__(self, rank: int = 0, size: int = 1, device: str | torch.device = "cpu"):
        self.rank, self.size = rank, size
        if size > 1:
            self._cpu = self._device = dist.new_group(backend="gloo", timeout=COLLECTIVE_TIMEOUT)
            if torch.device(device).type == "cuda":
                self._device = dist.new_group(backend="nccl", timeout=COLLECTIVE_TIMEOUT)

    def barrier(self) -> None:
        """Wait for every process; raises as `all_gather`."""
        self.all_gather()

    def all_gather(self, *numbers: int, error: str = "") -> list[list[int]]:
        """Send up to `MAX_NUMBERS` integers to every process.

        Args:
            numbers: the integers.
            error: message of a process that failed, which the call raises in every process.

        Returns:
            The numbers of each process, by rank.

        Raises:
            AgreedError: if a process failed or ended.
        """
        if self.size == 1:
            return [list(numbers)]
        # The first number tells whether the process failed: one collective call is enough if none did.
        sent = torch.zeros(1 + MAX_NUMBERS, dtype=torch.int64)
        sent[: 1 + len(numbers)] = torch.tensor([bool(error), *numbers])
        received = [torch.empty_like(sent) for _ in range(self.size)]
        with _closed_connection_as_error():
            dist.all_gather(received, sent, group=self._cpu)
            if any(row[0] for row in received):
                errors = [error] * self.size
                dist.all_gather_object(errors, error, group=self._cpu)
                rank, message = next((r, text) for r, text in enumerate(errors) if text)
                raise AgreedError(f"process {rank}: {message}")
        return [row[1 : 1 + len(numbers)].tolist() for row in received]

    def check_same(self, what: str, digest: str) -> None:
        """Check that a hexadecimal digest of something is the same in all processes.

        Raises:
            AgreedError: if a process has another digest than process 0.
        """
        digests = [other for (other,) in self.all_gather(int(digest[:15], 16))]
        for rank, other in enumerate(digests):
            if other != digests[0]:
                raise AgreedError(
                    f"process {rank} has another {what} than process 0; "
                    "give every machine the same files and flags"
                )

    def broadcast(self, numbers: Sequence[int]) -> list[int]:
        """Return the integers of process 0 in every process; the argument of other processes is ignored."""
        self.barrier()
        sent = [list(numbers)]
        if self.size > 1:
            with _closed_connection_as_error():
                dist.broadcast_object_list(sent, src=0, group=self._cpu)
        return sent[0]

    def all_reduce_max(self, array: np.ndarray) -> np.ndarray:
        """Return the element-wise maximum of the arrays of all processes, which have one shape and type."""
        self.barrier()
        if self.size == 1:
            return array
        values = torch.from_numpy(array.copy())
        with _closed_connection_as_error():
            dist.all_reduce(values, dist.ReduceOp.MAX, group=self._cpu)
        return values.numpy()

    def all_gather_rows(self, rows: Tensor, counts: Sequence[int]) -> Tensor:
        """Concatenate the rows of all processes by rank; call `all_gather` or `barrier` first.

        Args:
            rows: (counts[rank], ...), on the group's device.
            counts: number of rows of each process.

        Returns:
            (sum(counts), ...).
        """
        parts = []
        with _closed_connection_as_error():
            for rank, count in enumerate(counts):
                part = rows.contiguous()
                if rank != self.rank:
                    part = rows.new_empty(count, *rows.shape[1:])
                if count:
                    dist.broadcast(part, src=rank, group=self._device)
                parts.append(part)
        return torch.cat(parts)

    def all_to_all(
        self, values: Tensor, send: Sequence[int], receive: Sequence[int]
    ) -> list[Tensor]:
        """Send a part of `values` to each process, and receive a part from each; call `barrier` first.

        Args:
            values: (sum(send),), on the group's device: the parts by rank.
            send: number of values for each process.
            receive: number of values from each process.

        Returns:
            (receive[rank],) for each rank.
        """
        received = values.new_empty(sum(receive))
        with _closed_connection_as_error():
            dist.all_to_all_single(received, values, list(receive), list(send), group=self._device)
        return list(received.split(list(receive)))


class SharedProgress:
    """The progress bar of work that all processes share; assumes that they are equally fast."""

    def __init__(self, bar: tqdm, group: ProcessGroup):
        self.bar, self.group = bar, group

    def update(self, count: int) -> None:
        """Advance the bar by `count` items of each process."""
        self.bar.update(min(count * self.group.size, (self.bar.total or 0) - self.bar.n))


@contextmanager
def _closed_connection_as_error() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        # "[file.cc:537] Connection closed by peer [127.0.0.1]:59084. This is typically caused by ..."
        reason = str(error).splitlines()[0].split("] ", 1)[-1].split(". ")[0]
        raise AgreedError(
            f"another process of this run ended ({reason}); see what it printed, or its machine's log"
        ) from None
