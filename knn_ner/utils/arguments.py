"""Command-line flags made from settings classes: frozen dataclasses with keyword-only fields.

The docstring under a field is the help text of its flag. The field's default is the flag's default. The field's type
decides how the flag is parsed; `flag` adds options that a type cannot express. The settings class of a command
inherits the groups of settings that it needs (`knn_ner.settings`), so a function that takes `RunSettings` accepts the
settings of every command that inherits them.
"""

import argparse
import ast
import dataclasses
import difflib
import inspect
import re
import sys
import types
import typing
from collections.abc import Callable, Sequence
from functools import cache
from math import inf
from pathlib import Path
from typing import Any, NoReturn, TypeVar

S = TypeVar("S")
N = TypeVar("N", int, float)


# Flags of the published code that have no place here, and what to give instead.
PUBLISHED_FLAGS = {
    "gpus": "give --device cuda, and --devices N for several GPUs",
    "distributed_backend": "give --devices N, which starts as many processes",
    "accelerator": "give --device cuda or --device cpu",
    "optimizer": "leave it out: both published optimisers are AdamW, which is used",
    "lr_scheduler": "leave it out: the learning rate rises linearly, then decays linearly",
    "final_div_factor": "leave it out: it belongs to the one-cycle schedule, which is not used",
    "adam_epsilon": "leave it out: AdamW has epsilon 1e-8, the published default",
    "language": "give --units characters for zh, --units words for en",
    "en_roberta": "leave it out: the tokeniser tells how word pieces are aligned",
    "path_to_model_hparams_file": "leave it out: --model_path names the folder of the tagger",
    "checkpoint_path": "give --model_path; knn_ner.import_checkpoint makes it of a checkpoint",
    "pretrained_checkpoint": "give --model_path; knn_ner.import_checkpoint makes it of a checkpoint",
    "classifier_sign": "leave it out, or give --classifier",
    "classifier_act_func": "leave it out, or give --classifier",
    "model_type": "leave it out: --bert_path tells it",
    "bert_config_dir": "give --bert_path",
    "output_dir": "give --save_path",
    "default_root_dir": "give --save_path",
    "loss_type": "leave it out: the loss is cross entropy",
    "debug": "leave it out",
    "do_lowercase": "leave it out, or give --lowercase",
    "chinese": "give --units characters",
    "train_batch_size": "give --batch_size",
    "eval_batch_size": "give --batch_size",
}
# What other tools call a flag.
SYNONYMS = {
    "epochs": "max_epochs",
    "num_train_epochs": "max_epochs",
    "learning_rate": "lr",
    "lambda": "knn_weight",
    "model": "model_path",
    "model_name_or_path": "bert_path",
    "encoder": "bert_path",
    "datastore": "datastore_path",
    "output": "save_path",
    "per_device_train_batch_size": "train_batch_size",
    "max_seq_length": "max_length",
    "max_len": "max_length",
    "dropout": "hidden_dropout_prob",
    "neighbors": "k",
    "T": "temperature",
}


class _Formatter(argparse.ArgumentDefaultsHelpFormatter):
    """Shows the default of every flag that has one, except for switches."""

    def _get_help_string(self, action: argparse.Action) -> str:
        if action.default is None or action.default is False:
            return action.help or ""
        if isinstance(action.default, tuple):
            return f"{action.help} (default: {' '.join(map(str, action.default)) or 'none'})"
        return super()._get_help_string(action) or ""


class Parser(argparse.ArgumentParser):
    """An argument parser that shows defaults and reports a bad command line in one line."""

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
        """Parse a command line; `--data-dir` is accepted for `--data_dir`."""
        words = sys.argv[1:] if args is None else args
        return super().parse_known_args([self._with_underscores(w) for w in words], namespace)

    def _with_underscores(self, word: str) -> str:
        name, equals, value = word.partition("=")
        other = "--" + name[2:].replace("-", "_")
        known = self._option_string_actions
        return f"{other}{equals}{value}" if name not in known and other in known else word

    def error(self, message: str) -> NoReturn:
        """Print one line to stderr and exit with code 2."""
        unknown = re.match(r"unrecognized arguments: --([\w-]+)", message)
        if unknown:
            message = f"--{unknown[1]}: {self._advice(unknown[1].replace('-', '_'))}"
        self.exit(2, f"error: {message}; see {self.prog} --help\n")

    def _advice(self, name: str) -> str:
        """What to give in place of a flag that is not known."""
        if name in PUBLISHED_FLAGS:
            return f"a flag of the published code; {PUBLISHED_FLAGS[name]}"
        known = [option[2:] for option in self._option_string_actions if option.startswith("--")]
        meant = SYNONYMS.get(name)
        if meant not in known:
            meant = next(iter(difflib.get_close_matches(name, known, n=1)), None)
        return f"no such flag; did you mean --{meant}?" if meant else "no such flag"


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
    """Define a field of a settings class, with options of its flag that the field's type cannot express.

    Args:
        default: the default; without one the flag is required.
        parse: parses the value, in place of the field's type.
        choices: the accepted values, if the type is not a Literal.
        metavar: name of the value in the help text.
        also: further names of the flag, such as `--topk`.
        nargs: as in argparse; the default for a tuple is `+`.
        positional: whether the argument is positional.
    """
    how = {"parse": parse, "choices": choices, "metavar": metavar, "also": also, "nargs": nargs}
    return dataclasses.field(default=default, metadata=how | {"positional": positional})


def add_settings(parser: argparse.ArgumentParser, settings: type, **defaults: Any) -> None:
    """Add the flags of a settings class to a parser.

    Args:
        parser: the parser.
        settings: the class; each base class with a `title` becomes a group in the help text.
        defaults: by field name, defaults that replace those of the class.
    """
    hints = typing.get_type_hints(settings)
    texts: dict[str, str] = {}
    owners: dict[str, type] = {}
    for base in reversed(settings.__mro__):
        texts |= _docstrings_of_module(base.__module__).get(base.__qualname__, {})
        for name in vars(base).get("__annotations__", {}):
            owners.setdefault(name, base)
    groups: dict[str | None, Any] = {}
    # The command's own flags first, then the groups in the order in which the class names them.
    order = settings.__mro__.index
    for field in sorted(dataclasses.fields(settings), key=lambda each: order(owners[each.name])):
        owner = vars(owners[field.name])
        title = owner.get("title")
        if title not in groups:
            groups[title] = parser
            if title:
                groups[title] = parser.add_argument_group(title, owner.get("about"))
        _add_flag(groups[title], field, hints[field.name], texts.get(field.name), defaults)


def take_settings(settings: type[S], namespace: argparse.Namespace) -> S:
    """Make settings from the values that argparse has parsed."""
    values = {}
    for field in dataclasses.fields(settings):  # type: ignore[arg-type]
        value = getattr(namespace, field.name)
        values[field.name] = tuple(value) if isinstance(value, list) else value
    return settings(**values)


def read_settings(settings: type[S], argv: Sequence[str] | None, description: str, prog: str) -> S:
    """Parse a command line with the flags of a settings class; arguments as for `read_command`."""
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
        # A flag that is on by default, or has no default, needs a --no-NAME.
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
    """Return the type of one value, and whether the field holds a tuple: `tuple[int, ...] | None` -> int, True."""
    if isinstance(hint, types.UnionType) or typing.get_origin(hint) is typing.Union:
        (hint,) = [part for part in typing.get_args(hint) if part is not types.NoneType]
    if typing.get_origin(hint) is tuple:
        return typing.get_args(hint)[0], True
    return hint, False


@cache
def _docstrings_of_module(name: str) -> dict[str, dict[str, str]]:
    """Return the docstrings under the fields of each class of a module: class -> field -> text."""
    module = sys.modules.get(name)
    if module is None or not getattr(module, "__file__", None):
        return {}
    found: dict[str, dict[str, str]] = {}
    for node in ast.parse(inspect.getsource(module)).body:
        if isinstance(node, ast.ClassDef):
            texts = found[node.name] = {}
            for item, following in zip(node.body, node.body[1:], strict=False):
                match item, following:
                    case (
                        ast.AnnAssign(target=ast.Name(id=field)),
                        ast.Expr(value=ast.Constant(value=str(text))),
                    ):
                        texts[field] = inspect.cleandoc(text).replace("\n", " ")
    return found


def number_type(kind: type[N], accepts: Callable[[N], bool], expected: str) -> Callable[[str], N]:
    """Make an argparse type for numbers in a range.

    Args:
        kind: `int` or `float`.
        accepts: whether a number is in the range.
        expected: the range in words, for the error message.
    """

    def parse_number(text: str) -> N:
        value = kind(text)
        if not accepts(value):
            raise argparse.ArgumentTypeError(f"{value} found, {expected} expected")
        return value

    parse_number.__name__ = kind.__name__
    return parse_number


def output_folder(text: str) -> str:
    """Parse a folder to write to, which may be missing."""
    if Path(text).exists() and not Path(text).is_dir():
        raise argparse.ArgumentTypeError(f"{text} is a file, a folder expected")
    return text


def output_file(text: str) -> str:
    """Parse a file to write, which may be missing."""
    if Path(text).is_dir():
        raise argparse.ArgumentTypeError(f"{text} is a folder, a file expected")
    return text


positive_int = number_type(int, lambda n: n >= 1, "a number of at least 1")
non_negative_int = number_type(int, lambda n: n >= 0, "a number of at least 0")
window_length = number_type(int, lambda n: n >= 8, "at least 8 word pieces")
random_seed = number_type(int, lambda n: 0 <= n < 1 << 32, f"a number from 0 to {(1 << 32) - 1}")
positive_float = number_type(float, lambda x: 0 < x < inf, "a number above 0")
proportion = number_type(float, lambda x: 0 <= x <= 1, "a number from 0 to 1")
positive_proportion = number_type(float, lambda x: 0 < x <= 1, "a number above 0 and at most 1")
scoring_interval = number_type(
    float,
    lambda x: 0 < x <= 1 or (x.is_integer() and x > 1),
    "a number above 0 and at most 1 or a whole number of epochs",
)
