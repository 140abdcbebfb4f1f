"""What the keys of a datastore are, compared: layers, transforms and similarities of one tagger.

    python scripts/compare_keys.py --data_dir D --file_name F --model_path S/model --work_path W --out FILE

builds a datastore for each of --keys in W, tunes it on dev, and scores test. A kind of keys is written as
LAYER/TRANSFORM/SIMILARITY, such as `ffn_input/whiten/l2`; `last/none/cosine` is the paper's. What FILE has
already is not measured again.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from knn_ner import build_datastore, infer, tune
from knn_ner.cli import Parser, add_data_arguments, add_run_arguments, run_main, say
from knn_ner.errors import UserError
from knn_ner.files import read_json, write_json
from knn_ner.retrieval.similarity import SIMILARITIES

PAPER = "last/none/cosine"
KEYS = (
    *(
        PAPER,
        "last/none/l2",
        "penultimate/none/cosine",
        "ffn_input/none/cosine",
        "last3/none/cosine",
    ),
    *("last/whiten/cosine", "last/whiten/l2", "ffn_input/whiten/cosine", "ffn_input/whiten/l2"),
    *("penultimate/whiten/l2", "last3/whiten/l2"),
)


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = Parser("Compare what the keys of a datastore are, by F1 after tuning on dev.")
    add_data_arguments(parser)
    parser.add_argument("--model_path", required=True, metavar="S/model", help="the tagger")
    parser.add_argument("--work_path", required=True, metavar="W", help="folder for the datastores")
    parser.add_argument("--out", required=True, metavar="FILE", help="JSON of the measurements")
    parser.add_argument("--keys", nargs="+", default=list(KEYS), metavar="KIND", help="see above")
    tune.add_grid_arguments(parser)
    add_run_arguments(parser)
    return parser.parse_args(argv)


def measure(kind: str, settings: argparse.Namespace) -> dict:
    """Build, tune on dev and score test with one kind of keys.

    Raises `UserError` for a kind that is none, and as the commands do.
    """
    layer, transform, similarity = parts_of(kind)
    work = Path(settings.work_path)
    store = work / f"{layer}-{transform}".replace(":", "-")
    out = work / kind.replace("/", "-").replace(":", "-")
    common = [
        *("--data_dir", settings.data_dir, "--file_name", settings.file_name),
        *("--model_path", settings.model_path, "--datastore_path", store),
        *("--max_length", settings.max_length, "--batch_size", settings.batch_size),
        *("--device", settings.device, "--precision", settings.precision),
        *("--workers", settings.workers),
    ]
    how = ["--key_layer", layer, "--key_transform", transform]
    build_datastore.build_datastore(build_datastore.parse_arguments(texts(*common, *how)))
    grid = ["--grid_k", *settings.grid_k, "--grid_temperature", *settings.grid_temperature]
    grid += ["--similarity", similarity, "--save_path", out, *["--unseen"] * settings.unseen]
    tuned = tune.tune(tune.parse_arguments(texts(*common, *grid)))
    given = ["--tuning", out / "tuning.json", "--save_path", out]
    results = infer.infer(infer.parse_arguments(texts(*common, *given)))
    return {
        "keys": kind,
        "dev": {"base": tuned["base_f1"], "knn": tuned["best"]["f1"]},
        "test": {"base": results["base"]["f1"], "knn": results["knn"]["f1"]},
        "gain": results["knn"]["f1"] - results["base"]["f1"],
        **{name: results[name] for name in ("k", "temperature", "knn_weight", "searched_tokens")},
    }


def parts_of(kind: str) -> list[str]:
    """Layer, transform and similarity. Raises `UserError` for anything else."""
    parts = kind.split("/")
    if len(parts) != 3 or parts[2] not in SIMILARITIES:
        raise UserError(
            f"--keys {kind}: expected LAYER/TRANSFORM/SIMILARITY, as in ffn_input/whiten/l2"
        )
    return parts


def texts(*arguments: object) -> list[str]:
    """A command line."""
    return [str(argument) for argument in arguments]


def show(rows: list[dict]) -> list[str]:
    """The lines of the table."""
    lines = [
        f"{'keys':<26}{'dev base':>10}{'kNN':>8}{'test base':>11}{'kNN':>8}{'gain':>8}{'searched':>10}"
        "  k, temperature, knn_weight"
    ]
    lines += [
        f"{row['keys']:<26}{row['dev']['base']:>10.2f}{row['dev']['knn']:>8.2f}"
        f"{row['test']['base']:>11.2f}{row['test']['knn']:>8.2f}{row['gain']:>+8.2f}"
        f"{row['searched_tokens']:>10}"
        f"  {row['k']}, {row['temperature']:g}, {row['knn_weight']:.2f}"
        for row in rows
    ]
    return lines


def main(argv: list[str] | None = None) -> None:
    """The command line."""
    settings = parse_arguments(argv)
    for kind in settings.keys:
        parts_of(kind)
    out = Path(settings.out)
    measured = {row["keys"]: row for row in read_json(out)} if out.is_file() else {}
    for number, kind in enumerate(settings.keys, start=1):
        say(f"{kind}: {number} of {len(settings.keys)}" + (", known" if kind in measured else ""))
        if kind not in measured:
            measured[kind] = measure(kind, settings)
            write_json(out, list(measured.values()))
    print("\n".join(show([measured[kind] for kind in settings.keys])))


if __name__ == "__main__":
    run_main(main)
