"""Command-line flags made from frozen dataclasses, so that one definition serves flags, Python and result files.

A settings class is a frozen dataclass with keyword-only fields. The docstring under a field is the help text
of its flag, its default is the flag's default, its type tells how the flag is read, and `flag` adds what a
type cannot tell. A command's settings class inherits the groups that it needs (`knn_ner.settings`): a function
that takes `RunSettings` takes the settings of every command that has them.
"""

import argparse
import ast
import dataclasses
import inspect
import sys
import types
import typing
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, NoReturn, TypeVar

S = TypeVar("S")


class _Formatter(argparse.ArgumentDefaultsHelpFormatter):
    """Shows every default that is a value."""

    def _get_help_string(self, action: argparse.Action) -> str:
        if action.default is None or action.default is False:
            return action.help or ""
        if isinstance(action.default, tuple):
            return f"{action.help} (default: {' '.join(map(str, action.default)) or 'none'})"
        return super()._get_help_string(action) or ""


class Parser(argparse.ArgumentParser):
    """An argument parser that shows every default and answers a bad command line in one line."""

    def __init__(self, description: str | None = None, prog: str | None = None, **options: Any):
        super().__init__(
            prog=prog,
            description=description,
            formatter_class=_Formatter,
            allow_abbrev=False,
            **options,
        )

    def parse_known_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None
    ) -> tuple[argparse.Namespace, list[str]]:
        """Parse; `--data-dir` is read as `--data_dir`."""
        words = sys.argv[1:] if args is None else args
        return super().parse_known_args([self._with_underscores(w) for w in words], namespace)

    def _with_underscores(self, word: str) -> str:
        name, equals, value = word.partition("=")
        other = "--" + name[2:].replace("-", "_")
        known = self._option_string_actions
        return f"{other}{equals}{value}" if name not in known and other in known else word

    def error(self, message: str) -> NoReturn:
        """Print one line to stderr and exit with code 2."""
        self.exit(2, f"error: {message}; see {self.prog} --help\n")


def flag(
    default: Any = dataclasses.MISSING,
    *,
    parse: Callable[[str], Any] | None = None,
    choices: Sequence[Any] | None = None,
    metavar: str | None = None,
    also: Sequence[str] = (),
    nargs: str | None = None,
    positional: bool = False,
) -> Any:
    """A field of a settings class, with what its type does not tell of its flag.

    Args:
        default: the default; without one the flag is required.
        parse: reads the value from text, in place of the field's type.
        choices: the values that are accepted, where the type is no Literal.
        metavar: what stands for the value in the help text.
        also: further names of the flag, such as `--topk`.
        nargs: as for argparse; a tuple has `+`.
        positional: whether it is an argument without a flag.
    """
    how = {"parse": parse, "choices": choices, "metavar": metavar, "also": also, "nargs": nargs}
    return dataclasses.field(default=default, metadata=how | {"positional": positional})


def add_settings(parser: argparse.ArgumentParser, settings: type, **defaults: Any) -> None:
    """Add the flags of a settings class to a parser, those of each group that it inherits together.

    Args:
        parser: the parser.
        settings: a frozen dataclass; a base class with a `title` makes a group of the help text.
        defaults: other defaults than the fields', by field name.
    """
    hints = typing.get_type_hints(settings)
    texts: dict[str, str] = {}
    owners: dict[str, type] = {}
    for base in reversed(settings.__mro__):
        texts |= _docstrings_of_fields(base)
        for name in vars(base).get("__annotations__", {}):
            owners.setdefault(name, base)
    groups: dict[type, Any] = {}
    for field in dataclasses.fields(settings):
        if field.metadata.get("hidden"):
            continue
        owner = owners[field.name]
        if owner not in groups:
            title = vars(owner).get("title")
            groups[owner] = (
                parser.add_argument_group(title, vars(owner).get("about")) if title else parser
            )
        _add_flag(groups[owner], field, hints[field.name], texts.get(field.name), defaults)


def take_settings(settings: type[S], namespace: argparse.Namespace) -> S:
    """The settings in what argparse has read."""
    values = {}
    for field in dataclasses.fields(settings):  # type: ignore[arg-type]
        if field.metadata.get("hidden"):
            continue
        value = getattr(namespace, field.name)
        values[field.name] = tuple(value) if isinstance(value, list) else value
    return settings(**values)


def read_settings(settings: type[S], argv: Sequence[str] | None, description: str, prog: str) -> S:
    """Read a command line that consists of the flags of a settings class.

    Args:
        settings: the class.
        argv: the words of the command line; those of this process if None.
        description: what the command does, for its help text.
        prog: how the command is called.
    """
    parser = Parser(description, prog)
    add_settings(parser, settings)
    return take_settings(settings, parser.parse_args(argv))


def _add_flag(
    group: Any, field: dataclasses.Field, hint: Any, text: str | None, defaults: dict[str, Any]
) -> None:
    how = field.metadata
    default = defaults.get(field.name, field.default)
    options: dict[str, Any] = {"help": (text or "").replace("%", "%%")}
    if default is not dataclasses.MISSING:
        options["default"] = default
    elif not how.get("positional"):
        options["required"] = True
    hint, is_tuple = _plain_type(hint)
    if hint is bool:
        options["action"] = "store_true" if default is False else argparse.BooleanOptionalAction
    else:
        if typing.get_origin(hint) is typing.Literal:
            options["choices"] = typing.get_args(hint)
        elif hint is not str:
            options["type"] = hint
        if how.get("parse"):
            options["type"] = how["parse"]
        for name in ("choices", "metavar", "nargs"):
            if how.get(name):
                options[name] = how[name]
        if is_tuple:
            options.setdefault("nargs", "+")
    names = [field.name] if how.get("positional") else [f"--{field.name}", *how.get("also", ())]
    group.add_argument(*names, **options)


def _plain_type(hint: Any) -> tuple[Any, bool]:
    """The type of a single value, and whether there are many: `tuple[int, ...] | None` -> int, True."""
    if isinstance(hint, types.UnionType) or typing.get_origin(hint) is typing.Union:
        (hint,) = [part for part in typing.get_args(hint) if part is not types.NoneType]
    if typing.get_origin(hint) is tuple:
        return typing.get_args(hint)[0], True
    return hint, False


def _docstrings_of_fields(settings: type) -> dict[str, str]:
    return _docstrings_of_module(settings.__module__).get(settings.__qualname__, {})


@cache
def _docstrings_of_module(name: str) -> dict[str, dict[str, str]]:
    """The docstrings under the fields of each class of a module: class to field to text."""
    module = sys.modules.get(name)
    if module is None or not getattr(module, "__file__", None):
        return {}
    found: dict[str, dict[str, str]] = {}
    for node in ast.parse(inspect.getsource(module)).body:
        if isinstance(node, ast.ClassDef):
            texts = found[node.name] = {}
            for item, following in zip(node.body, node.body[1:], strict=False):
                if (
                    isinstance(item, ast.AnnAssign)
                    and isinstance(item.target, ast.Name)
                    and isinstance(following, ast.Expr)
                    and isinstance(following.value, ast.Constant)
                    and isinstance(following.value.value, str)
                ):
                    texts[item.target.id] = inspect.cleandoc(following.value.value).replace(
                        "\n", " "
                    )
    return found


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


def scoring_interval(text: str) -> float:
    """An argparse type: a part of an epoch, above 0, or a whole number of epochs."""
    value = positive_float(text)
    if value > 1 and value != int(value):
        raise argparse.ArgumentTypeError(
            f"{text} found, a number above 0 and at most 1 or a whole number of epochs expected"
        )
    return value
