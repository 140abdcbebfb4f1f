"""The progress of an experiment: a view over all its steps, and a log file with the messages of each step."""

import logging
import os
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stderr
from functools import partial
from pathlib import Path

from tqdm import tqdm

from knn_ner.utils.messages import ROOT_LOGGER, MessageFormatter

PYTHON_WARNINGS = logging.getLogger("py.warnings")


class View:
    """Shows how many steps of an experiment are finished: a bar on a terminal, otherwise a line for each step.

    Args:
        steps: the number of steps by name.
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
        """Close the bar."""
        self._show_finished()
        self._bar.close()

    def skip(self, name: str, seconds: float | None = None) -> None:
        """Count a step that an earlier run finished, and the seconds that it took if they are known."""
        self._finished_before += 1
        self._advance(name, seconds)

    @contextmanager
    def step(self, run: str, name: str, log: Path) -> Iterator[None]:
        """Show a step while it runs, and append its messages to a log file.

        The terminal shows the step's warnings and, if there is no bar, its epoch lines. The step's own progress bars
        are hidden.

        Args:
            run: the name of the run that the step belongs to.
            name: the step.
            log: the log file.
        """
        self._show_finished()
        self._bar.set_description_str(f"{run}: {name}")
        self._bar.set_postfix_str(self._time_left())
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("a", encoding="utf-8") as file:
            file.write(f"== {name}\n")
        handler = _StepLog(log, partial(self._show_message, run))
        for logger in (ROOT_LOGGER, PYTHON_WARNINGS):
            logger.addHandler(handler)
        logging.captureWarnings(True)
        start = time.perf_counter()
        try:
            # Progress bars and the terminal's message handler write to stderr.
            with Path(os.devnull).open("w") as nowhere, redirect_stderr(nowhere):
                yield
        finally:
            logging.captureWarnings(False)
            for logger in (ROOT_LOGGER, PYTHON_WARNINGS):
                logger.removeHandler(handler)
            handler.close()
        seconds = time.perf_counter() - start
        self._advance(name, seconds)
        if self._bar.disable:
            self._show(f"{run}: {name}, {seconds:.1f} s{self._time_left()}")

    def _show_finished(self) -> None:
        if self._finished_before:
            self._show(f"finished already: {self._finished_before} of {self._bar.total} steps")
            self._finished_before = 0

    def _show_message(self, run: str, level: int, message: str) -> None:
        if level >= logging.WARNING or (self._bar.disable and message.startswith("epoch ")):
            self._show(f"{run}: {message}")
        else:
            self._bar.set_postfix_str(message[:60] + self._time_left())

    def _advance(self, name: str, seconds: float | None) -> None:
        self._left[name] -= 1
        if seconds is not None:
            self._seconds[name].append(seconds)
        self._bar.update()

    def _time_left(self) -> str:
        """The estimated time of the remaining steps; empty unless a step of each remaining name was timed."""
        waiting = [name for name, count in self._left.items() if count]
        if not waiting or not all(self._seconds[name] for name in waiting):
            return ""
        seconds = sum(self._left[name] * statistics.fmean(self._seconds[name]) for name in waiting)
        return f"; about {seconds / 60:.0f} min left" if seconds > 90 else "; about a minute left"

    def _show(self, message: str) -> None:
        tqdm.write(message, file=self._out)
        self._out.flush()


class _StepLog(logging.FileHandler):
    """Writes messages and Python warnings to a file, and passes level and text of the messages on."""

    def __init__(self, path: Path, show: Callable[[int, str], None]):
        super().__init__(path, encoding="utf-8")
        self.setFormatter(MessageFormatter())
        self._show = show

    def emit(self, record: logging.LogRecord) -> None:
        super().emit(record)
        if record.name != PYTHON_WARNINGS.name:
            self._show(record.levelno, self.format(record))
