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
    before = highest = _megabytes()
    done = threading.Event()

    def watch() -> None:
        nonlocal highest
        while not done.wait(INTERVAL):
            highest = max(highest, _megabytes())

    watcher = threading.Thread(target=watch, daemon=True)
    if before is not None:
        watcher.start()
    start = time.perf_counter()
    try:
        yield result
    finally:
        result.seconds = time.perf_counter() - start
        done.set()
        if before is not None:
            watcher.join()
            result.megabytes = max(highest, _megabytes()) - before


def _megabytes() -> float | None:
    """Memory of this process that is no mapped file, in MiB."""
    if STATUS.exists():
        for line in STATUS.read_text().splitlines():
            if line.startswith("RssAnon:"):
                return int(line.split()[1]) / 1024
    return None
