"""Measure smaller datastores: bytes, seconds and F1 of one tagger's datastore in many forms.

    python scripts/studies/smaller_stores.py --data_dir D --file_name F --model_path S/model --work_path W --out FILE

encodes train, dev and test once, makes a datastore of each form of --stores in W, tunes it on dev, and scores
test. A form consists of parts, joined by `+`: `float32` (otherwise keys are float16); a transform, such as
`svd:96`; `prune:SHARE`, such as `prune:0.25`, with the share of entries to keep, or `prune:SHARE:M`, such as
`prune:0.25:32`, with the number of neighbours that have to agree.
"""

import hashlib
import logging
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

# So that the script runs from any folder, with or without the package installed.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from knn_ner.build_datastore import BuildSettings, build_datastore
from knn_ner.data.corpus import read_corpus
from knn_ner.datastore.compaction import transform_keys
from knn_ner.datastore.fit_transform import fit_transform
from knn_ner.datastore.key_transform import KeyRecipe
from knn_ner.datastore.manifest import MANIFEST_FILE
from knn_ner.datastore.reader import Datastore
from knn_ner.evaluation.weight_sweep import WeightCurve
from knn_ner.model.key_layers import canonical_layer
from knn_ner.search.exact import ExactSearch
from knn_ner.search.interpolation import interpolate, needs_search
from knn_ner.search.key_clusters import UNANIMOUS
from knn_ner.search.pruning import prune
from knn_ner.settings import CorpusSettings, SeededRunSettings, VoteSettings, group_of
from knn_ner.tagging.grid import Retrieved, curves, weight_sweep
from knn_ner.tagging.split import Split, make_split
from knn_ner.tagging.trained_tagger import TrainedTagger, load
from knn_ner.utils.arguments import flag, positive_float, positive_int
from knn_ner.utils.command import read_command, run_main
from knn_ner.utils.device import choose_device
from knn_ner.utils.errors import UserError
from knn_ner.utils.files import write_json
from knn_ner.utils.tables import terminal_table

logger = logging.getLogger(f"knn_ner.{__name__}")

# The files of a datastore that search and vote read.
SEARCHED_FILES = ("keys.npy", "labels.npy", "norms.npy", "weights.npy")
REFERENCE = "float16"
STORES = (
    "float32",
    REFERENCE,
    "svd:192",
    "svd:96",
    "svd:48",
    "prune:1",
    "prune:0.5",
    "prune:0.25",
    "prune:0.12",
    "prune:0.12:8",
    "prune:0.06",
    "svd:192+prune:0.25",
    "svd:96+prune:0.5",
    "svd:96+prune:0.12",
)
COLUMNS = (
    "store", "entries", "dim", "MB", "smaller", "ms/query", "dev base", "kNN", "test base", "kNN",
    "untuned", "differ", "k", "temperature", "knn_weight",
)  # fmt: skip

# F1 over knn_weight, by k and temperature.
Curves = Mapping[tuple[int, float], WeightCurve]


@dataclass(frozen=True, kw_only=True)
class SmallerStoresSettings(CorpusSettings, SeededRunSettings):
    """The settings of `python scripts/studies/smaller_stores.py`.

    Raises:
        UserError: if `max_knn_weight` is out of range.
    """

    model_path: str = flag(metavar="S/model")
    """the tagger: a folder or a hub name"""
    work_path: str = flag(metavar="W")
    """folder for the datastores"""
    out: str = flag(metavar="FILE")
    """JSON file for the measurements"""
    stores: tuple[str, ...] = flag(STORES, metavar="FORM")
    """forms of the datastore, such as svd:96+prune:0.5"""
    key_layer: str = flag("last", metavar="LAYER")
    """the hidden state that becomes a key, as for knn_ner.build_datastore"""
    max_knn_weight: float = flag(0.49)
    """largest knn_weight to try, below 0.5: only the tokens that such a vote can change are searched"""
    grid_k: tuple[int, ...] = flag((16, 32, 64, 128, 256), parse=positive_int)
    """numbers of neighbours to try"""
    grid_temperature: tuple[float, ...] = flag(
        (0.01, 0.02, 0.03, 0.05, 0.07, 0.1, 0.15, 0.2, 0.3, 0.5, 1.0), parse=positive_float
    )
    """temperatures to try"""

    def __post_init__(self) -> None:
        if not 0 < self.max_knn_weight < 0.5:
            raise UserError(
                f"--max_knn_weight {self.max_knn_weight}: expected a number between 0 and 0.5"
            )


def parse_arguments(argv: list[str] | None = None) -> SmallerStoresSettings:
    """Read the command line of `python scripts/studies/smaller_stores.py`."""
    return read_command(
        SmallerStoresSettings,
        argv,
        "Measure bytes, seconds and F1 of smaller datastores of one tagger.",
        "python scripts/studies/smaller_stores.py",
    )


@dataclass
class EncodedSplit:
    """A split with R word pieces, of which a vote can change Q.

    Attributes:
        split: the split.
        base_labels: (R,) int64, the tagger's label ids.
        rows: (Q,) int64, the word pieces that a vote can change, ascending.
        base: (Q, L) float32, the tagger's distribution for these.
        hidden: (Q, width) float32, their hidden states, without a transform.
    """

    split: Split
    base_labels: np.ndarray
    rows: np.ndarray
    base: torch.Tensor
    hidden: torch.Tensor

    def queries(self, store: Datastore) -> torch.Tensor:
        """The hidden states, made as the datastore's keys are: (Q, dim) float32."""
        transform = store.recipe.transform
        return self.hidden if transform is None else transform(self.hidden)


def encode(tagger: TrainedTagger, split: Split, settings: SmallerStoresSettings) -> EncodedSplit:
    """Encode a split, and keep the word pieces that a vote with `--max_knn_weight` can change."""
    base_labels = np.zeros(len(split.gold), np.int64)
    parts = []
    recipe = KeyRecipe(canonical_layer(settings.key_layer))
    for batch in tagger.hidden_states(split.encoded, settings, recipe):
        rows = batch.rows.numpy()
        base = batch.logits.softmax(-1).cpu()
        base_labels[rows] = base.argmax(-1).numpy()
        chosen = needs_search(base, settings.max_knn_weight) & torch.from_numpy(split.scored[rows])
        parts.append((rows[chosen.numpy()], base[chosen], batch.keys().cpu()[chosen]))
    rows = np.concatenate([part[0] for part in parts])
    order = np.argsort(rows)
    base, hidden = (torch.cat([part[i] for part in parts])[order] for i in (1, 2))
    return EncodedSplit(split, base_labels, rows[order], base, hidden)


def make_store(raw: Datastore, form: str, work: Path) -> Datastore:
    """Make the datastore of a form, unless it is there.

    Args:
        raw: the datastore with float32 keys and no transform.
        form: the form.
        work: folder for the datastores.

    Raises:
        UserError: for something other than a form.
    """
    parts = form.split("+")
    dtype = "float32" if "float32" in parts else "float16"
    shares = [part.removeprefix("prune:") for part in parts if part.startswith("prune:")]
    names = [
        part
        for part in parts
        if part not in ("float32", "float16") and not part.startswith("prune:")
    ]
    if len(shares) > 1 or len(names) > 1:
        raise UserError(f"--stores {form}: expected one transform and one prune:SHARE at most")
    whole = "+".join([*names, dtype])
    path = work / whole.replace(":", "-")
    fingerprint = hashlib.sha256(f"{raw.content_id} {whole}".encode()).hexdigest()
    if not (path / MANIFEST_FILE).exists() or Datastore.open(path).fingerprint != fingerprint:
        transform = fit_transform(raw, names[0]) if names else None
        transform_keys(raw, path, transform, dtype, fingerprint)
    if not shares:
        return Datastore.open(path)
    pruned = work / form.replace(":", "-")
    if not (pruned / MANIFEST_FILE).exists():
        share, _, unanimous = shares[0].partition(":")
        try:
            keep, agreeing = float(share), int(unanimous or UNANIMOUS)
        except ValueError:
            raise UserError(f"--stores {form}: expected prune:SHARE, as in prune:0.25") from None
        prune(path, pruned, keep, unanimous=agreeing)
    return Datastore.open(pruned)


def curves_of(store: Datastore, part: EncodedSplit, settings: SmallerStoresSettings) -> Curves:
    """The F1 of a split over all knn_weights, for each k and temperature of the grid."""
    searcher = ExactSearch(store, device=choose_device(settings.device))
    found = searcher.search(part.queries(store), max(settings.grid_k))
    retrieved = Retrieved(
        part.base_labels,
        part.rows,
        part.base,
        found.similarities,
        searcher.neighbour_labels(found.indices),
        {},
        searcher.neighbour_weights(found.indices),
    )
    sweep = weight_sweep(part.split, part.base_labels)
    return curves(retrieved, sweep, settings.grid_k, settings.grid_temperature)


def best_vote(found: Curves, max_knn_weight: float) -> VoteSettings:
    """The setting with the highest F1; of equal scores the first: low k, then low temperature."""
    weights = np.linspace(0, max_knn_weight, 1 + round(100 * max_knn_weight))
    best, highest = None, -1.0
    for (k, temperature), curve in sorted(found.items()):
        weight, f1 = curve.best_of(weights.tolist())
        if f1 > highest:
            best, highest = VoteSettings(k, temperature, weight), f1
    assert best is not None
    return best


def f1_at(found: Curves, vote: VoteSettings, knn_weight: float) -> float:
    """The F1 at the k and temperature of a vote, and a knn_weight."""
    return float(found[vote.k, vote.temperature].f1_at(np.array([knn_weight]))[0])


def tags_with(
    store: Datastore, part: EncodedSplit, vote: VoteSettings, device: str
) -> tuple[np.ndarray, float]:
    """The label ids of the searched word pieces, (Q,) int64, and the seconds of the search."""
    searcher = ExactSearch(store, device=choose_device(device))
    start = time.perf_counter()
    votes = searcher.votes(part.queries(store), vote.k, vote.temperature).cpu()
    seconds = time.perf_counter() - start
    return interpolate(part.base, votes, vote.knn_weight).argmax(-1).numpy(), seconds


def measure(settings: SmallerStoresSettings) -> dict[str, Any]:
    """Make and measure all datastores.

    Returns:
        What the JSON file holds.

    Raises:
        UserError: for bad input.
    """
    work = Path(settings.work_path)
    path = str(work / "raw")
    build_datastore(group_of(BuildSettings, settings, datastore_path=path, key_dtype="float32"))
    raw = Datastore.open(path)
    corpus = read_corpus(
        settings.data_dir, settings.file_name, splits=("dev", "test"), comments=settings.comments
    )
    corpus.report()
    tagger = load(settings.model_path, settings.max_length, corpus)
    parts = {
        name: encode(tagger, make_split(corpus, name, tagger.encoding), settings)
        for name in ("dev", "test")
    }
    for name, part in parts.items():
        pieces = int(part.split.scored.sum())
        logger.info(f"{name}: {len(part.rows)} of {pieces} word pieces are searched")
    rows: list[dict[str, Any]] = []
    # All others are compared with the first.
    for form in dict.fromkeys([REFERENCE, *settings.stores]):
        store = make_store(raw, form, work)
        found = {name: curves_of(store, part, settings) for name, part in parts.items()}
        best = best_vote(found["dev"], settings.max_knn_weight)
        if not rows:
            reference = best
        tags, seconds = tags_with(store, parts["test"], reference, settings.device)
        if not rows:
            reference_tags = tags
        row = {
            "store": form,
            "entries": store.entries,
            "dim": store.dim,
            "bytes": sum(
                int(shard.files[name]["bytes"])
                for shard in store.manifest.shards
                for name in SEARCHED_FILES
                if name in shard.files
            ),
            "milliseconds_per_query": 1000 * seconds / len(tags),
            "base": {name: f1_at(each, best, 0.0) for name, each in found.items()},
            "knn": {name: f1_at(each, best, best.knn_weight) for name, each in found.items()},
            **asdict(best),
            "test_untuned": f1_at(found["test"], reference, reference.knn_weight),
            "tags_differ": int((tags != reference_tags).sum()),
        }
        rows.append(row)
        logger.info(f"{form}: {store.entries} entries, test F1 {row['knn']['test']:.2f}")
    return {
        "data_dir": settings.data_dir,
        "entries": raw.entries,
        "max_knn_weight": settings.max_knn_weight,
        "searched": {name: len(part.rows) for name, part in parts.items()},
        "reference": REFERENCE,
        "stores": rows,
    }


def to_table(rows: Sequence[dict[str, Any]]) -> str:
    """The table for the terminal."""
    largest = max(row["bytes"] for row in rows)
    lines = [list(COLUMNS)]
    for row in rows:
        scores = [row[system][split] for split in ("dev", "test") for system in ("base", "knn")]
        lines.append(
            [
                row["store"],
                str(row["entries"]),
                str(row["dim"]),
                f"{row['bytes'] / 1e6:.1f}",
                f"{largest / row['bytes']:.1f}x",
                f"{row['milliseconds_per_query']:.3f}",
                *(f"{score:.2f}" for score in scores),
                f"{row['test_untuned']:.2f}",
                str(row["tags_differ"]),
                str(row["k"]),
                f"{row['temperature']:g}",
                f"{row['knn_weight']:.2f}",
            ]
        )
    return terminal_table(lines)


def main(argv: list[str] | None = None) -> None:
    """Run the command line."""
    settings = parse_arguments(argv)
    measured = measure(settings)
    write_json(settings.out, measured)
    print(to_table(measured["stores"]))
    print(
        f"untuned: with the settings tuned for {REFERENCE}; differ: number of the "
        f"{measured['searched']['test']} searched word pieces whose tags differ from those of {REFERENCE} "
        "with these settings"
    )


if __name__ == "__main__":
    run_main(main)
