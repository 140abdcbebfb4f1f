"""A command in several processes, on one machine or more: starting them, and ending them together.

Lightning starts the processes that `--devices` and `--num_nodes` ask for, or torchrun has started them;
each runs the whole command on its share of the work. Process 0 alone talks to the user and writes
results. An error in any process ends all of them.
"""

import logging
import os
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from knn_ner.settings import ProcessSettings
from knn_ner.utils.errors import AgreedError, UserError

if TYPE_CHECKING:
    from knn_ner.parallel.process_group import Group

P = TypeVar("P", bound=ProcessSettings)

logger = logging.getLogger(__name__)

# In the environment of the processes that Lightning starts: the id of the process that did.
STARTED_BY = "KNN_NER_STARTED_BY"
# Variables by which processes on several machines find each other.
MEETING = ("MASTER_ADDR", "MASTER_PORT", "NODE_RANK")


@contextmanager
def processes(
    parse: Callable[[list[str] | None], P], argv: list[str] | None
) -> Iterator[tuple[P, "Group"]]:
    """The settings of a command line and the processes that share it, for the time of the command.

    With more than one, it is as in `ending_together`.

    Args:
        parse: reads a command line.
        argv: the command line; that of this process if None, which it must be for more than one.
    """
    # What torchrun started reads one command line many times, and would answer a bad one as often.
    with _silence(_started_by_torchrun() and os.environ.get("LOCAL_RANK") != "0"):
        settings = parse(argv)
        group = _start(settings)
    if group.size == 1:
        yield settings, group
        return
    try:
        with ending_together(group):
            yield settings, group
    finally:
        import torch.distributed as dist

        dist.destroy_process_group()


@contextmanager
def ending_together(group: "Group") -> Iterator[None]:
    """The work of one process of a group: an error in any of them is raised in the first.

    The others are silent here, but for errors that no user can help, and exit after an error.
    """
    try:
        with _silence(group.rank > 0):
            yield
            group.exchange()
    except BaseException as error:
        expected = isinstance(error, UserError | MemoryError | KeyboardInterrupt | SystemExit)
        if isinstance(error, Exception) and not isinstance(error, AgreedError):
            text = (
                str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
            )
            with suppress(AgreedError):
                group.exchange(error=text)
        if group.rank == 0:
            raise
        if not expected:
            traceback.print_exception(error)
        # At another code than 0 Lightning kills its processes, the first one too, before it has told of
        # the error.
        started = os.environ.get(STARTED_BY) == str(os.getppid())
        sys.exit(0 if started else 2 if expected else 1)


def _start(settings: ProcessSettings) -> "Group":
    """Start the other processes, if this is the first, and join them.

    Raises `UserError` when there are not as many as the settings ask for.
    """
    # torch takes seconds, which a mistyped command line need not wait.
    from knn_ner.parallel.process_group import Group

    nodes, devices = settings.num_nodes or 1, settings.devices or 1
    if _started_by_torchrun():
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
    import torch

    from knn_ner.utils.device import choose_device

    device = choose_device(settings.device)
    if device.type == "cuda" and devices > torch.cuda.device_count():
        raise UserError(
            f"--devices {devices}: {torch.cuda.device_count()} CUDA devices found; "
            "ask for as many at most, or use --device cpu"
        )
    # Imported here, as it takes seconds that a single process need not wait.
    from lightning_fabric import Fabric
    from lightning_fabric.plugins.environments import LightningEnvironment

    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
    if os.environ.get(STARTED_BY) != str(os.getppid()):
        os.environ[STARTED_BY] = str(os.getpid())
    try:
        fabric = Fabric(accelerator=device.type, devices=devices, num_nodes=nodes, strategy="ddp")
        if isinstance(fabric.strategy.cluster_environment, LightningEnvironment):
            _check_meeting(nodes)
        fabric.launch()
    except (RuntimeError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(
            f"--devices {devices} --num_nodes {nodes}: no connection ({reason})"
        ) from None
    if fabric.global_rank == 0:
        threads = torch.get_num_threads()
        logger.info(
            f"{fabric.world_size} processes with {threads} thread{'s' * (threads > 1)} each"
        )
    return Group(fabric.global_rank, fabric.world_size, device)


def _started_by_torchrun() -> bool:
    return "TORCHELASTIC_RUN_ID" in os.environ


def _check_meeting(nodes: int) -> None:
    """Raise `UserError` where several machines would wait for each other in different places."""
    missing = [name for name in MEETING if name not in os.environ]
    if nodes > 1 and missing:
        raise UserError(
            f"--num_nodes {nodes}: {' and '.join(missing)} not found in the environment; set "
            f"{', '.join(MEETING)} on each machine, or start the command by torchrun"
        )


@contextmanager
def _silence(quiet: bool) -> Iterator[None]:
    """Nothing is printed in this context, if `quiet`."""
    if not quiet:
        yield
        return
    with Path(os.devnull).open("w") as nothing, redirect_stdout(nothing), redirect_stderr(nothing):
        yield
