"""Seconds and memory of a block of code."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

STATUS = Path("/proc/self/status")
# Seconds between two readings of the memory.
INTERVAL = 0.005


@dataclass
class Measured:
    """What a block of code took.

    Attributes:
        seconds: wall-clock time.
        megabytes: the highest memory use above that at the start, without mapped files; None where there is
            no /proc.
    """

    seconds: float = 0.0
    megabytes: float | None = None


@contextmanager
def measured() -> Iterator[Measured]:
    """Measure the block of the `with` statement; the numbers are there after it."""
    result = Measured()
    watched = STATUS.exists()
    before = highest = _megabytes() if watched else 0.0
    done = threading.Event()

    def watch() -> None:
        nonlocal highest
        while not done.wait(INTERVAL):
            highest = max(highest, _megabytes())

    watcher = threading.Thread(target=watch, daemon=True)
    if watched:
        watcher.start()
    start = time.perf_counter()
    try:
        yield result
    finally:
        result.seconds = time.perf_counter() - start
        done.set()
        if watched:
            watcher.join()
            result.megabytes = max(highest, _megabytes()) - before


def _megabytes() -> float:
    """Memory of this process without mapped files, in MiB."""
    lines = STATUS.read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("RssAnon:"))
