"""What smaller datastores cost: bytes, seconds and F1 of one tagger's store in many forms.

    python scripts/smaller_stores.py --data_dir D --file_name F --model_path S/model --work_path W --out FILE

encodes train, dev and test once, makes each store of --stores in W, tunes it on dev, and scores test. A form is
made of parts: `float32` (else keys are float16), a transform such as `svd:96`, and `prune:0.25`, the share of
entries that is kept, or `prune:0.25:32`, with how many neighbours have to agree.
"""

import argparse
import hashlib
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from knn_ner import sweeping
from knn_ner.build_datastore import build_datastore
from knn_ner.build_datastore import parse_arguments as build_arguments
from knn_ner.cli import Parser, add_data_arguments, add_run_arguments, positive_int, run_main, say
from knn_ner.data.corpus import read_corpus
from knn_ner.errors import UserError
from knn_ner.files import write_json
from knn_ner.model.representations import choose_device, represent
from knn_ner.pipeline import LoadedTagger, Split, load, make_split, show_corpus
from knn_ner.retrieval.cells import UNANIMOUS
from knn_ner.retrieval.compaction import transform_keys
from knn_ner.retrieval.datastore import Datastore
from knn_ner.retrieval.exact import ExactSearch
from knn_ner.retrieval.interpolation import LabelAlignment, interpolate, needs_search
from knn_ner.retrieval.manifest import MANIFEST_FILE
from knn_ner.retrieval.pruning import prune
from knn_ner.retrieval.transforms import KeyRecipe, fit_transform

# What of a store search and vote read.
SEARCHED_FILES = ("keys.npy", "labels.npy", "norms.npy", "weights.npy")
REFERENCE = "float16"
STORES = (
    *("float32", REFERENCE, "svd:192", "svd:96", "svd:48", "prune:1", "prune:0.5", "prune:0.25"),
    *("prune:0.12", "prune:0.12:8", "prune:0.06", "svd:192+prune:0.25", "svd:96+prune:0.5"),
    "svd:96+prune:0.12",
)


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = Parser("Measure bytes, seconds and F1 of smaller datastores of one tagger.")
    add_data_arguments(parser)
    parser.add_argument("--model_path", required=True, metavar="S/model", help="the tagger")
    parser.add_argument("--work_path", required=True, metavar="W", help="folder for the stores")
    parser.add_argument("--out", required=True, metavar="FILE", help="JSON of the measurements")
    parser.add_argument(
        "--stores", nargs="+", default=list(STORES), metavar="FORM", help="see above"
    )
    parser.add_argument("--key_layer", default="last", help="as for build_datastore")
    parser.add_argument(
        "--max_knn_weight",
        type=float,
        default=0.49,
        help="largest weight to try, below 0.5: only the tokens that such a vote can change are searched",
    )
    parser.add_argument(
        "--grid_k", type=positive_int, nargs="+", default=[16, 32, 64, 128, 256], help="to try"
    )
    parser.add_argument(
        "--grid_temperature",
        type=float,
        nargs="+",
        default=[0.01, 0.02, 0.03, 0.05, 0.07, 0.1, 0.15, 0.2, 0.3, 0.5, 1.0],
        help="to try",
    )
    add_run_arguments(parser)
    settings = parser.parse_args(argv)
    if not 0 < settings.max_knn_weight < 0.5:
        parser.error(f"--max_knn_weight {settings.max_knn_weight}: expected between 0 and 0.5")
    return settings


@dataclass
class Uncertain:
    """A split, and what of it a vote can change.

    base_labels: (R,) the tagger's label ids. rows: (M,) what is searched. base: (M, L), hidden: (M, dim) of
    these, the hidden states as the encoder gives them.
    """

    split: Split
    base_labels: np.ndarray
    rows: np.ndarray
    base: torch.Tensor
    hidden: torch.Tensor


def encode(tagger: LoadedTagger, split: Split, settings: argparse.Namespace) -> Uncertain:
    """Encode a split, and keep what `--max_knn_weight` can change."""
    base_labels = np.zeros(len(split.gold), np.int64)
    parts = []
    for batch in represent(
        tagger.model,
        split.encoded,
        pad_id=tagger.tokenizer.pad_token_id,
        max_length=tagger.max_length,
        batch_size=settings.batch_size,
        device=choose_device(settings.device),
        precision=settings.precision,
        workers=settings.workers,
        recipe=KeyRecipe(settings.key_layer),
    ):
        rows = batch.rows.numpy()
        base = batch.logits.softmax(-1).cpu()
        base_labels[rows] = base.argmax(-1).numpy()
        chosen = needs_search(base, settings.max_knn_weight) & torch.from_numpy(split.scored[rows])
        parts.append((rows[chosen.numpy()], base[chosen], batch.keys().cpu()[chosen]))
    rows = np.concatenate([part[0] for part in parts])
    order = np.argsort(rows)
    base, hidden = (torch.cat([part[i] for part in parts])[order] for i in (1, 2))
    return Uncertain(split, base_labels, rows[order], base, hidden)


def make_store(raw: Datastore, form: str, work: Path) -> Datastore:
    """The store of a form, made in `work` unless it is there.

    Raises `UserError` for a form that is none.
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
    name = hashlib.sha256(f"{raw.content_id} {whole}".encode()).hexdigest()
    if not (path / MANIFEST_FILE).exists() or Datastore.open(path).fingerprint != name:
        transform = fit_transform(raw, names[0]) if names else None
        transform_keys(raw, path, transform, dtype, name)
    if not shares:
        return Datastore.open(path)
    pruned = work / form.replace(":", "-")
    if not (pruned / MANIFEST_FILE).exists():
        try:
            share, _, agreeing = shares[0].partition(":")
            how = float(share), int(agreeing or UNANIMOUS)
        except ValueError:
            raise UserError(f"--stores {form}: expected prune:SHARE, as in prune:0.25") from None
        prune(path, pruned, how[0], unanimous=how[1])
    return Datastore.open(pruned)


def curves_of(store: Datastore, part: Uncertain, settings: argparse.Namespace) -> dict:
    """F1 over every weight, for each (k, temperature), of a split with a store."""
    searcher = ExactSearch(store, device=choose_device(settings.device))
    alignment = LabelAlignment(store.labels, store.labels)
    found = sweeping.neighbours(
        searcher,
        alignment,
        part.rows,
        part.base.to(searcher.device),
        keys_of(store, part),
        settings.grid_k,
        False,
        0,
        settings,
    )
    rows, base, similarities, labels, _, counts = found
    counts = None if store.weights is None else counts
    retrieved = sweeping.Retrieved(part.base_labels, rows, base, similarities, labels, {}, counts)
    sweep = sweeping.weight_sweep(part.split, part.base_labels)
    return sweeping.curves(retrieved, sweep, settings.grid_k, settings.grid_temperature)


def keys_of(store: Datastore, part: Uncertain) -> torch.Tensor:
    """The queries of a split, made as the store's keys are."""
    transform = store.recipe.transform
    return part.hidden if transform is None else transform(part.hidden)


def tags_with(
    store: Datastore, part: Uncertain, best: dict, device: str
) -> tuple[np.ndarray, float]:
    """The label of each searched row at a setting, and the seconds that searching takes."""
    searcher = ExactSearch(store, device=choose_device(device))
    start = time.perf_counter()
    votes = searcher.votes(keys_of(store, part), best["k"], best["temperature"]).cpu()
    seconds = time.perf_counter() - start
    return interpolate(part.base, votes, best["knn_weight"]).argmax(-1).numpy(), seconds


def measure(settings: argparse.Namespace) -> dict:
    """Make and measure every store; returns what the file holds.

    Raises `UserError` for bad input.
    """
    work = Path(settings.work_path)
    flags = ["--data_dir", settings.data_dir, "--file_name", settings.file_name]
    flags += ["--model_path", settings.model_path, "--datastore_path", str(work / "raw")]
    flags += ["--key_dtype", "float32", "--key_layer", settings.key_layer]
    flags += ["--max_length", str(settings.max_length), "--device", settings.device]
    build_datastore(build_arguments([*flags, "--precision", settings.precision]))
    raw = Datastore.open(work / "raw")
    corpus = read_corpus(settings.data_dir, settings.file_name, splits=("dev", "test"))
    show_corpus(corpus)
    tagger = load(settings.model_path, settings.max_length, corpus)
    parts = {}
    for name in ("dev", "test"):
        parts[name] = encode(tagger, make_split(corpus, name, tagger.encoding), settings)
        rows = parts[name]
        say(f"{name}: {len(rows.rows)} of {int(rows.split.scored.sum())} word pieces are searched")

    weights = np.linspace(0, settings.max_knn_weight, 1 + round(100 * settings.max_knn_weight))
    rows, reference = [], None
    # What the others are held against comes first.
    for form in dict.fromkeys([REFERENCE, *settings.stores]):
        store = make_store(raw, form, work)
        found = {name: curves_of(store, part, settings) for name, part in parts.items()}
        best: dict = {}
        for (k, temperature), curve in sorted(found["dev"].items()):
            weight, f1 = curve.best_of(weights)
            if not best or f1 > best["dev"]:
                best = {"k": k, "temperature": temperature, "knn_weight": weight, "dev": f1}
        tested = found["test"][best["k"], best["temperature"]]
        at = np.array([0.0, best["knn_weight"]])
        reference = reference or best
        tags, seconds = tags_with(store, parts["test"], reference, settings.device)
        if not rows:
            reference_tags = tags
        row = {
            "store": form,
            "entries": store.entries,
            "dim": store.dim,
            "bytes": sum(
                shard.files[name]["bytes"]
                for shard in store.manifest.shards
                for name in SEARCHED_FILES
                if name in shard.files
            ),
            "milliseconds_per_query": 1000 * seconds / len(tags),
            "base": {
                "dev": float(curve.f1_at(at[:1])[0]),
                "test": float(tested.f1_at(at[:1])[0]),
            },
            "knn": {"dev": best.pop("dev"), "test": float(tested.f1_at(at[1:])[0])},
            **best,
            "test_untuned": float(
                found["test"][reference["k"], reference["temperature"]].f1_at(
                    np.array([reference["knn_weight"]])
                )[0]
            ),
            "tags_differ": int((tags != reference_tags).sum()),
        }
        rows.append(row)
        say(show([row])[-1])
    return {
        "data_dir": str(settings.data_dir),
        "entries": raw.entries,
        "max_knn_weight": settings.max_knn_weight,
        "searched": {name: len(part.rows) for name, part in parts.items()},
        "reference": REFERENCE,
        "stores": rows,
    }


def show(rows: list[dict]) -> list[str]:
    """The lines of the table: the first has the names of the columns."""
    largest = max(row["bytes"] for row in rows)
    lines = [
        f"{'store':<20}{'entries':>9}{'dim':>5}{'MB':>8}{'smaller':>9}{'ms/query':>10}"
        f"{'dev base':>10}{'kNN':>7}{'test base':>11}{'kNN':>7}{'untuned':>9}{'differ':>8}"
        "  k, temperature, knn_weight"
    ]
    lines += [
        f"{row['store']:<20}{row['entries']:>9}{row['dim']:>5}{row['bytes'] / 1e6:>8.1f}"
        f"{largest / row['bytes']:>8.1f}x{row['milliseconds_per_query']:>10.3f}"
        f"{row['base']['dev']:>10.2f}{row['knn']['dev']:>7.2f}"
        f"{row['base']['test']:>11.2f}{row['knn']['test']:>7.2f}"
        f"{row['test_untuned']:>9.2f}{row['tags_differ']:>8}"
        f"  {row['k']}, {row['temperature']:g}, {row['knn_weight']:.2f}"
        for row in rows
    ]
    return lines


def main(argv: list[str] | None = None) -> None:
    """The command line."""
    settings = parse_arguments(argv)
    measured = measure(settings)
    write_json(settings.out, measured)
    print("\n".join(show(measured["stores"])))
    print(
        f"untuned: with the settings tuned for {REFERENCE}; differ: tags of the "
        f"{measured['searched']['test']} searched pieces that are other ones with these settings"
    )


if __name__ == "__main__":
    run_main(main)
