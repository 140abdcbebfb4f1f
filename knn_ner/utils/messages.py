"""What a command tells its user while it works: log messages of `knn_ner`, a line each on stderr.

The library only logs. A command calls `show_messages`; a program that uses the library as a package sets up
logging as it likes, or sees warnings alone.
"""

import logging
import sys

from tqdm import tqdm

ROOT_LOGGER = logging.getLogger("knn_ner")


class _TerminalHandler(logging.Handler):
    """Writes to what is stderr at the time, above any progress bar."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            tqdm.write(self.format(record), file=sys.stderr)
            sys.stderr.flush()
        except Exception:
            self.handleError(record)


class MessageFormatter(logging.Formatter):
    """The message, after `warning: ` or `error: ` if it is one."""

    def format(self, record: logging.LogRecord) -> str:
        message = super().format(record)
        if record.levelno >= logging.WARNING:
            return f"{record.levelname.lower()}: {message}"
        return message


def show_messages() -> None:
    """Show the messages of `knn_ner` on stderr from now on; calling it again changes nothing."""
    ROOT_LOGGER.setLevel(logging.INFO)
    if not any(isinstance(handler, _TerminalHandler) for handler in ROOT_LOGGER.handlers):
        handler = _TerminalHandler()
        handler.setFormatter(MessageFormatter())
        ROOT_LOGGER.addHandler(handler)
        ROOT_LOGGER.propagate = False
