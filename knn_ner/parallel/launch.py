"""Run a command in several processes, on one or more machines, and end them together.

Lightning starts the processes that `--devices` and `--num_nodes` ask for, unless torchrun has started them. Each
process runs the whole command on its share of the work. Only process 0 prints messages and writes results. An error
in one process ends all of them.
"""

import logging
import os
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from knn_ner.settings import ProcessSettings, RunSettings, group_of
from knn_ner.utils.errors import AgreedError, UserError
from knn_ner.utils.text import counted

if TYPE_CHECKING:
    from knn_ner.parallel.process_group import ProcessGroup

P = TypeVar("P", bound=ProcessSettings)

logger = logging.getLogger(__name__)

# Environment variable of the processes that Lightning starts: the id of their parent process.
PARENT_VARIABLE = "KNN_NER_STARTED_BY"
# Environment variables that processes on several machines need to connect.
ADDRESS_VARIABLES = ("MASTER_ADDR", "MASTER_PORT", "NODE_RANK")


@contextmanager
def processes(
    parse: Callable[[list[str] | None], P], argv: list[str] | None
) -> Iterator[tuple[P, "ProcessGroup"]]:
    """Parse a command line, start the processes that it asks for, and end them together after the command.

    Args:
        parse: parses a command line into settings.
        argv: the command line; None stands for `sys.argv`, which several processes need.

    Yields:
        The settings, and the group of processes.

    Raises:
        UserError: if the processes cannot be started.
    """
    # Of the processes that torchrun started on a machine, only one reports a bad command line.
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
def ending_together(group: "ProcessGroup") -> Iterator[None]:
    """Run the work of one process of a group; process 0 raises the error of any process.

    The other processes print nothing except the traceback of an unexpected error, and exit after an error.
    """
    try:
        with _silence(group.rank > 0):
            yield
            group.barrier()
    except BaseException as error:
        expected = isinstance(error, UserError | MemoryError | KeyboardInterrupt | SystemExit)
        if isinstance(error, Exception) and not isinstance(error, AgreedError):
            kind = "" if isinstance(error, UserError) else f"{type(error).__name__}: "
            with suppress(AgreedError):
                group.all_gather(error=f"{kind}{error}")
        if group.rank == 0:
            raise
        if not expected:
            traceback.print_exception(error)
        # After an exit code other than 0, Lightning kills all processes before process 0 has reported the error.
        started = os.environ.get(PARENT_VARIABLE) == str(os.getppid())
        sys.exit(0 if started else 2 if expected else 1)


def _start(settings: ProcessSettings) -> "ProcessGroup":
    """Start the other processes if this is process 0, and join the group.

    Raises:
        UserError: if the number of processes or devices does not match the settings.
    """
    # torch is imported only now, so a bad command line is reported at once.
    from knn_ner.parallel.process_group import ProcessGroup

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
        return ProcessGroup()
    import torch

    from knn_ner.utils.device import choose_device

    device = choose_device(group_of(RunSettings, settings).device)
    if device.type == "cuda" and devices > torch.cuda.device_count():
        raise UserError(
            f"--devices {devices}: {torch.cuda.device_count()} CUDA devices found; "
            "ask for as many at most, or use --device cpu"
        )
    # Imported here because it takes seconds that a single process does not need.
    from lightning_fabric import Fabric
    from lightning_fabric.plugins.environments import LightningEnvironment

    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
    if os.environ.get(PARENT_VARIABLE) != str(os.getppid()):
        os.environ[PARENT_VARIABLE] = str(os.getpid())
    try:
        fabric = Fabric(accelerator=device.type, devices=devices, num_nodes=nodes, strategy="ddp")
        missing = [name for name in ADDRESS_VARIABLES if name not in os.environ]
        environment = getattr(fabric.strategy, "cluster_environment", None)
        if nodes > 1 and missing and isinstance(environment, LightningEnvironment):
            raise UserError(
                f"--num_nodes {nodes}: {' and '.join(missing)} not found in the environment; set "
                f"{', '.join(ADDRESS_VARIABLES)} on each machine, or start the command by torchrun"
            )
        fabric.launch()
    except (RuntimeError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(
            f"--devices {devices} --num_nodes {nodes}: no connection ({reason})"
        ) from None
    if fabric.global_rank == 0:
        threads = counted(torch.get_num_threads(), "thread")
        logger.info(f"{fabric.world_size} processes with {threads} each")
    return ProcessGroup(fabric.global_rank, fabric.world_size, device)


def _started_by_torchrun() -> bool:
    return "TORCHELASTIC_RUN_ID" in os.environ


@contextmanager
def _silence(quiet: bool) -> Iterator[None]:
    """Discard everything that is printed, if `quiet`."""
    if not quiet:
        yield
        return
    with Path(os.devnull).open("w") as null, redirect_stdout(null), redirect_stderr(null):
        yield
