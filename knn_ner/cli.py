"""What the entry points share: an argument parser, and errors as one line with exit code 2."""

import argparse
import sys
import warnings
from collections.abc import Callable
from typing import NoReturn

from knn_ner.errors import UserError


class _Formatter(argparse.ArgumentDefaultsHelpFormatter):
    """Shows every default that is a value."""

    def _get_help_string(self, action: argparse.Action) -> str:
        if action.default is None or action.default is False:
            return action.help or ""
        return super()._get_help_string(action) or ""


class Parser(argparse.ArgumentParser):
    """An argument parser that shows every default and answers a bad command line in one line."""

    def __init__(self, description: str, prog: str | None = None):
        super().__init__(
            prog=prog,
            description=description,
            formatter_class=_Formatter,
            allow_abbrev=False,
        )

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"error: {message}; see {self.prog} --help\n")


def add_data_arguments(parser: argparse.ArgumentParser) -> None:
    """Where the corpus lies."""
    group = parser.add_argument_group("data")
    group.add_argument(
        "--data_dir",
        required=True,
        metavar="D",
        help="folder with {train,dev,test}.FILE_NAME and ner_labels.txt",
    )
    group.add_argument(
        "--file_name",
        required=True,
        metavar="F",
        help="ending of the corpus files: `word.bmes` for train.word.bmes",
    )


def add_run_arguments(
    parser: argparse.ArgumentParser, batch_size: int = 32, seed: bool = True
) -> None:
    """The flags that every command has; `seed` says whether --seed is among them."""
    group = parser.add_argument_group("run")
    group.add_argument(
        "--max_length",
        type=window_length,
        default=512,
        help="longest input of the encoder in word pieces, special tokens included; a longer "
        "sentence goes through overlapping windows",
    )
    group.add_argument(
        "--batch_size", type=positive_int, default=batch_size, help="windows at once"
    )
    if seed:
        group.add_argument(
            "--seed", type=int, default=0, help="of everything that is drawn at random"
        )
    group.add_argument(
        "--device",
        choices=("auto", "cpu", "cuda"),
        default="auto",
        help="auto: CUDA if there is any",
    )
    group.add_argument(
        "--precision",
        default="32",
        choices=("32", "16", "bf16"),
        help="of the encoder's products: 16 and bf16 are mixed precision; 16 needs a GPU "
        "(a CPU runs bf16 in its place)",
    )
    group.add_argument("--workers", type=non_negative_int, default=0, help="data loading processes")


def positive_int(text: str) -> int:
    """An argparse type: an integer of at least 1."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{value} found, a number of at least 1 expected")
    return value


def window_length(text: str) -> int:
    """An argparse type: word pieces in a window, two special tokens included."""
    value = int(text)
    if value < 8:
        raise argparse.ArgumentTypeError(f"{value} found, at least 8 word pieces expected")
    return value


def non_negative_int(text: str) -> int:
    """An argparse type: an integer of at least 0."""
    value = int(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"{value} found, a number of at least 0 expected")
    return value


def positive_float(text: str) -> float:
    """An argparse type: a number above 0."""
    value = float(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{value} found, a number above 0 expected")
    return value


def proportion(text: str) -> float:
    """An argparse type: a number from 0 to 1."""
    value = float(text)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{value} found, a number from 0 to 1 expected")
    return value


def positive_proportion(text: str) -> float:
    """An argparse type: a number above 0, at most 1."""
    value = proportion(text)
    if not value:
        raise argparse.ArgumentTypeError("0 found, a number above 0 and at most 1 expected")
    return value


def say(message: str) -> None:
    """Tell the user something while a command works: on stderr, as stdout is for results."""
    print(message, file=sys.stderr, flush=True)


def run_main(main: Callable[[list[str] | None], int | None]) -> NoReturn:
    """Run an entry point: a `UserError` becomes one line on stderr and exit code 2."""
    # Other libraries' advice to their own callers, which a user of a command can do nothing about.
    warnings.filterwarnings("ignore", module="pytorch_lightning")
    warnings.filterwarnings("ignore", module="lightning_fabric")
    try:
        code = main(None)
    except UserError as error:
        say(f"error: {error}")
        code = 2
    except KeyboardInterrupt:
        say("interrupted")
        code = 130
    except MemoryError as error:
        say(f"error: {error or 'memory'} ran out; lower --batch_size or --max_length")
        code = 2
    except BrokenPipeError:
        sys.stderr.close()
        code = 141
    sys.exit(code or 0)
