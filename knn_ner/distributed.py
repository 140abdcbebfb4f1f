"""A command in several processes, on one machine or more: starting them, and what they tell each other.

Lightning starts the processes that `--devices` and `--num_nodes` ask for, or torchrun has started them;
each runs the whole command on its share of the work. Process 0 alone talks to the user and writes
results. An error in any process ends all of them.
"""

import argparse
import logging
import os
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from datetime import timedelta
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor
from tqdm import tqdm

from knn_ner.cli import positive_int, say
from knn_ner.errors import UserError
from knn_ner.model.representations import choose_device

# How long processes wait for one that still works. One that ended is noticed at once, as its
# connections close, so this only has to be longer than any shard or search takes.
PATIENCE = timedelta(days=1)
# In the environment of the processes that Lightning starts: the id of the process that did.
STARTED_BY = "KNN_NER_STARTED_BY"
# Numbers that fit into an exchange.
NUMBERS = 4


class AgreedError(UserError):
    """An error that every process of the group raises."""


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


def add_process_arguments(parser: argparse.ArgumentParser, more: str) -> None:
    """How many processes share the work; `more` is what else to say of it."""
    group = parser.add_argument_group(
        "processes",
        "More than one share the work, and the result is that of one. With --num_nodes, give the same "
        "command on each machine, with MASTER_ADDR and MASTER_PORT (of the first) and NODE_RANK (0, 1, "
        "...) in the environment; or start it by torchrun, without these flags. " + more,
    )
    group.add_argument(
        "--devices",
        type=positive_int,
        metavar="N",
        help="processes on this machine: GPUs to use, or on a CPU processes, which divide the cores "
        "unless OMP_NUM_THREADS is set (default: 1, or what torchrun started)",
    )
    group.add_argument(
        "--num_nodes",
        type=positive_int,
        metavar="M",
        help="machines (default: 1, or what torchrun started)",
    )


@contextmanager
def processes(
    parse: Callable[[list[str] | None], argparse.Namespace], argv: list[str] | None
) -> Iterator[tuple[argparse.Namespace, Group]]:
    """The settings of a command line and the processes that share it, for the time of the command.

    With more than one, all processes but the first are silent here, and end here: what fails in one of
    them is raised in the first.

    Args:
        parse: reads a command line that has the flags of `add_process_arguments`.
        argv: the command line; that of this process if None, which it must be for more than one.
    """
    # What torchrun started reads one command line many times, and would answer a bad one as often.
    with _silence(dist.is_torchelastic_launched() and os.environ.get("LOCAL_RANK") != "0"):
        settings = parse(argv)
        group = _start(settings)
    if group.size == 1:
        yield settings, group
        return
    code = None
    try:
        with _silence(group.rank > 0):
            yield settings, group
            group.exchange()
    except BaseException as error:
        code = _end(group, error)
        if group.rank == 0:
            raise
    finally:
        dist.destroy_process_group()
    if code is not None:
        sys.exit(code)


def _start(settings: argparse.Namespace) -> Group:
    """Start the other processes, if this is the first, and join them.

    Raises `UserError` when there are not as many as the settings ask for.
    """
    nodes, devices = settings.num_nodes or 1, settings.devices or 1
    if dist.is_torchelastic_launched():
        local, world = (int(os.environ[name]) for name in ("LOCAL_WORLD_SIZE", "WORLD_SIZE"))
        devices = settings.devices or local
        nodes = settings.num_nodes or world // local
        if devices * nodes != world:
            raise UserError(
                f"--devices {devices} --num_nodes {nodes}: torchrun has started {world} processes; "
                "leave these flags out"
            )
    if devices * nodes == 1:
        return Group()
    device = choose_device(settings.device)
    if device.type == "cuda" and devices > torch.cuda.device_count():
        raise UserError(
            f"--devices {devices}: {torch.cuda.device_count()} CUDA devices found; "
            "ask for as many at most, or use --device cpu"
        )
    # Imported here, as it takes seconds that a single process need not wait.
    from lightning_fabric import Fabric

    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
    if os.environ.get(STARTED_BY) != str(os.getppid()):
        os.environ[STARTED_BY] = str(os.getpid())
    try:
        fabric = Fabric(accelerator=device.type, devices=devices, num_nodes=nodes, strategy="ddp")
        fabric.launch()
    except (RuntimeError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(
            f"--devices {devices} --num_nodes {nodes}: no connection ({reason})"
        ) from None
    if fabric.global_rank == 0:
        say(f"{fabric.world_size} processes, {torch.get_num_threads()} threads each")
    return Group(fabric.global_rank, fabric.world_size, device)


def _end(group: Group, error: BaseException) -> int:
    """Tell the other processes of an error in this one; returns the exit code that it asks for."""
    expected = isinstance(error, UserError | MemoryError | KeyboardInterrupt | SystemExit)
    if isinstance(error, Exception) and not isinstance(error, AgreedError):
        text = str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
        with suppress(AgreedError):
            group.exchange(error=text)
    if group.rank and not expected:
        traceback.print_exception(error)
    # At any other code Lightning kills its processes, the first one too, which reports the error.
    if os.environ[STARTED_BY] == str(os.getppid()):
        return 0
    return 2 if expected else 1


@contextmanager
def _silence(quiet: bool) -> Iterator[None]:
    """Nothing is printed in this context, if `quiet`."""
    if not quiet:
        yield
        return
    with Path(os.devnull).open("w") as nothing, redirect_stdout(nothing), redirect_stderr(nothing):
        yield


@contextmanager
def _noticing_the_dead() -> Iterator[None]:
    """An error of the connection as one line."""
    try:
        yield
    except RuntimeError as error:
        raise AgreedError(
            f"another process of this run ended ({str(error).splitlines()[0]}); see what it printed"
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
