"""Log messages of `knn_ner` on stderr, one line each.

Library code only logs. A command calls `show_messages`. A program that imports the package configures logging itself;
without configuration it sees warnings only.
"""

import logging
import sys

from tqdm import tqdm

ROOT_LOGGER = logging.getLogger("knn_ner")


class _TerminalHandler(logging.Handler):
    """Writes to the current stderr, above any progress bar."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            tqdm.write(self.format(record), file=sys.stderr)
            sys.stderr.flush()
        except Exception:
            self.handleError(record)


class MessageFormatter(logging.Formatter):
    """Puts `warning: ` or `error: ` before messages of these levels."""

    def format(self, record: logging.LogRecord) -> str:
        message = super().format(record)
        if record.levelno >= logging.WARNING:
            return f"{record.levelname.lower()}: {message}"
        return message


def show_messages() -> None:
    """Show the log messages of `knn_ner` on stderr from now on. A second call has no effect."""
    ROOT_LOGGER.setLevel(logging.INFO)
    if not any(isinstance(handler, _TerminalHandler) for handler in ROOT_LOGGER.handlers):
        handler = _TerminalHandler()
        handler.setFormatter(MessageFormatter())
        ROOT_LOGGER.addHandler(handler)
        ROOT_LOGGER.propagate = False
