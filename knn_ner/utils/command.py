"""Entry points of commands: messages on stderr, and errors as one line with exit code 2."""

import logging
import sys
import warnings
from collections.abc import Callable, Sequence
from typing import NoReturn, TypeVar

from knn_ner.utils.arguments import read_settings
from knn_ner.utils.errors import UserError
from knn_ner.utils.messages import show_messages

S = TypeVar("S")

logger = logging.getLogger(__name__)


def read_command(settings: type[S], argv: Sequence[str] | None, description: str, prog: str) -> S:
    """Read the command line of an entry point, and show log messages from now on.

    Args:
        settings: the settings class.
        argv: the words of the command line; `sys.argv` if None.
        description: text for `--help`.
        prog: name of the command for `--help`, such as `python -m knn_ner.infer`.
    """
    show_messages()
    return read_settings(settings, argv, description, prog)


def run_main(main: Callable[[list[str] | None], int | None]) -> NoReturn:
    """Run an entry point and exit.

    A `UserError` becomes one line on stderr and exit code 2. Ctrl-C becomes exit code 130.

    Args:
        main: called with None, which stands for `sys.argv`; may return an exit code.
    """
    show_messages()
    # Their warnings are advice for programmers, not for the user of a command.
    warnings.filterwarnings("ignore", module="pytorch_lightning")
    warnings.filterwarnings("ignore", module="lightning_fabric")
    try:
        code = main(None)
    except UserError as error:
        logger.error("%s", error)
        code = 2
    except KeyboardInterrupt:
        logger.info("interrupted")
        code = 130
    except MemoryError as error:
        logger.error("%s ran out; lower --batch_size or --max_length", error or "memory")
        code = 2
    except BrokenPipeError:
        sys.stderr.close()
        code = 141
    sys.exit(code or 0)
