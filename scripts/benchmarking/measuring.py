"""Seconds and memory of a piece of work."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

STATUS = Path("/proc/self/status")
LOOK_EVERY = 0.005


@dataclass
class Measured:
    """seconds; megabytes: the most memory that it held beyond what was held before, mapped files aside."""

    seconds: float = 0.0
    megabytes: float | None = None


@contextmanager
def measured() -> Iterator[Measured]:
    """Measure what happens in the context. Memory is seen where there is /proc (Linux), else None."""
    result = Measured()
    before = _own_megabytes()
    most, done = before, threading.Event()

    def look() -> None:
        nonlocal most
        while not done.wait(LOOK_EVERY):
            most = max(most, _own_megabytes())

    watcher = threading.Thread(target=look, daemon=True)
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
            result.megabytes = max(most, _own_megabytes()) - before


def _own_megabytes() -> float | None:
    """Memory of this process that no file backs."""
    if not STATUS.exists():
        return None
    for line in STATUS.read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) / 1024
    return None
