"""Compare keys: layers, transforms and similarities of one tagger.

    python scripts/studies/compare_keys.py --data_dir D --file_name F --model_path S/model --work_path W --out FILE

builds a datastore for each of --keys in W, tunes it on dev, and scores test. A kind of keys is written as
LAYER/TRANSFORM/SIMILARITY, such as `ffn_input/whiten/l2`; `last/none/cosine` is the paper's. Kinds whose
results are in FILE already are not measured again.
"""

import logging
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# So that the script runs from any folder, with or without the package installed.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from knn_ner.build_datastore import BuildSettings, build_datastore
from knn_ner.infer import InferSettings, infer
from knn_ner.search.similarity import SIMILARITIES
from knn_ner.settings import CorpusSettings, GridSettings, SeededRunSettings, group_of
from knn_ner.tune import TuneSettings, tune
from knn_ner.utils.arguments import flag
from knn_ner.utils.command import read_command, run_main
from knn_ner.utils.errors import UserError
from knn_ner.utils.files import read_json, write_json
from knn_ner.utils.tables import terminal_table

logger = logging.getLogger(f"knn_ner.{__name__}")

KEYS = (
    "last/none/cosine",
    "last/none/l2",
    "penultimate/none/cosine",
    "ffn_input/none/cosine",
    "last3/none/cosine",
    "last/whiten/cosine",
    "last/whiten/l2",
    "ffn_input/whiten/cosine",
    "ffn_input/whiten/l2",
    "penultimate/whiten/l2",
    "last3/whiten/l2",
)
COLUMNS = (
    "keys", "dev base", "kNN", "test base", "kNN", "gain", "searched", "k", "temperature", "knn_weight",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class CompareKeysSettings(CorpusSettings, GridSettings, SeededRunSettings):
    """The settings of `python scripts/studies/compare_keys.py`.

    Raises:
        UserError: for something other than a kind of keys.
    """

    model_path: str = flag(metavar="S/model")
    """the tagger: a folder or a hub name"""
    work_path: str = flag(metavar="W")
    """folder for the datastores"""
    out: str = flag(metavar="FILE")
    """JSON file for the measurements"""
    keys: tuple[str, ...] = flag(KEYS, metavar="KIND")
    """kinds of keys: LAYER/TRANSFORM/SIMILARITY"""

    def __post_init__(self) -> None:
        for kind in self.keys:
            parts_of(kind)


def parse_arguments(argv: list[str] | None = None) -> CompareKeysSettings:
    """Read the command line of `python scripts/studies/compare_keys.py`."""
    return read_command(
        CompareKeysSettings,
        argv,
        "Compare kinds of keys by the F1 of kNN, with settings tuned on dev.",
        "python scripts/studies/compare_keys.py",
    )


def parts_of(kind: str) -> list[str]:
    """Layer, transform and similarity of a kind of keys.

    Raises:
        UserError: for anything else.
    """
    parts = kind.split("/")
    if len(parts) != 3 or parts[2] not in SIMILARITIES:
        raise UserError(
            f"--keys {kind}: expected LAYER/TRANSFORM/SIMILARITY, as in ffn_input/whiten/l2"
        )
    return parts


def measure(kind: str, settings: CompareKeysSettings) -> dict[str, Any]:
    """Build a datastore with one kind of keys, tune it on dev and score test.

    Returns:
        What the JSON file holds of this kind.

    Raises:
        UserError: for bad input.
    """
    layer, transform, similarity = parts_of(kind)
    work = Path(settings.work_path)
    store = str(work / f"{layer}-{transform}".replace(":", "-"))
    folder = work / kind.replace("/", "-").replace(":", "-")
    where = {"datastore_path": store, "save_path": str(folder)}
    build_datastore(
        group_of(
            BuildSettings,
            settings,
            datastore_path=store,
            key_layer=layer,
            key_transform=transform,
        )
    )
    tuned = tune(group_of(TuneSettings, settings, similarity=similarity, **where))
    tested = infer(group_of(InferSettings, settings, tuning=str(folder / "tuning.json"), **where))
    return {
        "keys": kind,
        "dev": {"base": tuned["base_f1"], "knn": tuned["best"]["f1"]},
        "test": {"base": tested["base"]["f1"], "knn": tested["knn"]["f1"]},
        "gain": tested["knn"]["f1"] - tested["base"]["f1"],
        **{name: tested[name] for name in ("k", "temperature", "knn_weight", "searched_tokens")},
    }


def to_table(rows: Sequence[dict[str, Any]]) -> str:
    """The table for the terminal."""
    lines = [list(COLUMNS)]
    for row in rows:
        scores = [row[split][system] for split in ("dev", "test") for system in ("base", "knn")]
        lines.append(
            [
                row["keys"],
                *(f"{score:.2f}" for score in scores),
                f"{row['gain']:+.2f}",
                str(row["searched_tokens"]),
                str(row["k"]),
                f"{row['temperature']:g}",
                f"{row['knn_weight']:.2f}",
            ]
        )
    return terminal_table(lines)


def main(argv: list[str] | None = None) -> None:
    """Run the command line."""
    settings = parse_arguments(argv)
    out = Path(settings.out)
    measured = {row["keys"]: row for row in read_json(out)} if out.is_file() else {}
    for number, kind in enumerate(settings.keys, start=1):
        known = ", known" if kind in measured else ""
        logger.info(f"{kind}: {number} of {len(settings.keys)}{known}")
        if not known:
            measured[kind] = measure(kind, settings)
            write_json(out, list(measured.values()))
    print(to_table([measured[kind] for kind in settings.keys]))


if __name__ == "__main__":
    run_main(main)
