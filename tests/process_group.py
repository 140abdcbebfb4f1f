"""Functions run in several processes that form a group, for tests of what such processes do."""

import multiprocessing
import sys
import tempfile
import traceback
from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist

from knn_ner.parallel.launch import ending_together
from knn_ner.parallel.process_group import ProcessGroup

# Forked, as the workers of a data loader are: another interpreter would load torch for seconds.
FORK = multiprocessing.get_context("fork")
# Seconds after which a process hangs.
HANGS = 120


def in_processes(count: int, function: Callable[..., Any], *arguments: object) -> list[Any]:
    """What `function(group, *arguments)` returns in each process; of one that fails, its error.

    Raises AssertionError if one hangs.
    """
    with tempfile.TemporaryDirectory() as meeting:
        pipes = [FORK.Pipe(duplex=False) for _ in range(count)]
        processes = [
            FORK.Process(
                target=_run, args=(rank, count, f"{meeting}/store", pipes, function, arguments)
            )
            for rank in range(count)
        ]
        for process, (_, sender) in zip(processes, pipes, strict=True):
            process.start()
            sender.close()
        try:
            results = []
            for receiver, _ in pipes:
                assert receiver.poll(HANGS), "a process hangs"
                try:
                    results.append(receiver.recv())
                except EOFError:
                    results.append(None)
        finally:
            for process in processes:
                process.join(HANGS)
                process.kill()
    return results


def _run(
    rank: int, count: int, store: str, pipes: list, function: Callable, arguments: tuple
) -> None:
    torch.set_num_threads(1)
    sender = pipes[rank][1]
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=count)
    group = ProcessGroup(rank, count)
    try:
        with ending_together(group):
            sender.send(function(group, *arguments))
    except SystemExit as end:
        sender.send(end)
    except Exception as error:
        traceback.print_exc(file=sys.stdout)
        sender.send(error)
    sender.close()
