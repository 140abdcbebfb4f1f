"""One view over all steps of an experiment; what each step says goes to a log."""

import io
import re
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stderr
from pathlib import Path
from typing import TextIO

from tqdm import tqdm

# What a step says of these kinds is shown beside the log.
WARNING = "warning:"
EPOCH = "epoch "
# What bars move the cursor with.
CONTROL = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")


class View:
    """How far an experiment is: a bar on a terminal, else a line for each step.

    steps: how many there are of each name.
    """

    def __init__(self, steps: Mapping[str, int]):
        self._left = dict(steps)
        self._seconds: dict[str, list[float]] = defaultdict(list)
        self._out = sys.stderr
        self._finished_before = 0
        self._bar = tqdm(
            total=sum(steps.values()),
            unit="step",
            file=self._out,
            dynamic_ncols=True,
            disable=not self._out.isatty(),
            bar_format="{desc} {percentage:3.0f}%|{bar:20}| {n_fmt}/{total_fmt} {elapsed}{postfix}",
        )

    def close(self) -> None:
        """Leave the terminal as it was."""
        self._tell_finished()
        self._bar.close()

    def skip(self, name: str, seconds: float | None = None) -> None:
        """A step that was finished by an earlier run, which took so long."""
        self._finished_before += 1
        self._advance(name, seconds)

    @contextmanager
    def step(self, run: str, name: str, log: Path) -> Iterator[None]:
        """A step of a run: what is written to stderr within goes to the file `log`."""
        self._tell_finished()
        self._bar.set_description_str(f"{run}: {name}")
        self._bar.set_postfix_str(self._time_left())
        start = time.perf_counter()
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("a", encoding="utf-8") as file:
            file.write(f"== {name}\n")
            with redirect_stderr(_Log(file, lambda line: self._told(run, line))):
                yield
        seconds = time.perf_counter() - start
        self._advance(name, seconds)
        if self._bar.disable:
            self._say(f"{run}: {name}, {seconds:.1f} s{self._time_left()}")

    def _tell_finished(self) -> None:
        if self._finished_before:
            self._say(f"finished already: {self._finished_before} of {self._bar.total} steps")
            self._finished_before = 0

    def _told(self, run: str, line: str) -> None:
        if line.startswith(WARNING) or (self._bar.disable and line.startswith(EPOCH)):
            self._say(f"{run}: {line}")
        else:
            self._bar.set_postfix_str(line[:60] + self._time_left())

    def _advance(self, name: str, seconds: float | None) -> None:
        self._left[name] -= 1
        if seconds is not None:
            self._seconds[name].append(seconds)
        self._bar.update()

    def _time_left(self) -> str:
        """How long the steps left will take, if each kind of them was timed already."""
        waiting = [name for name, count in self._left.items() if count]
        if not waiting or not all(self._seconds[name] for name in waiting):
            return ""
        seconds = sum(self._left[name] * statistics.fmean(self._seconds[name]) for name in waiting)
        return f"; about {seconds / 60:.0f} min left" if seconds > 90 else "; about a minute left"

    def _say(self, message: str) -> None:
        self._bar.clear()
        print(message, file=self._out, flush=True)
        self._bar.refresh()


class _Log(io.TextIOBase):
    """Writes whole lines to a file and tells of each; of a line that is written over, the last state."""

    def __init__(self, file: TextIO, tell: Callable[[str], None]):
        self._file, self._tell, self._line = file, tell, ""

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        for part in CONTROL.sub("", text).replace("\r\n", "\n").splitlines(keepends=True):
            if self._line.endswith("\r"):
                self._line = part if part.strip() else self._line
            else:
                self._line += part
            if self._line.rstrip() and self._line[-1] in "\r\n":
                self._tell(self._line.strip())
            if part.endswith("\n"):
                if self._line.strip():
                    self._file.write(self._line.rstrip() + "\n")
                self._line = ""
        return len(text)

    def flush(self) -> None:
        self._file.flush()
