"""How much training data kNN saves: taggers of a part of the sentences, with datastores of the part and of all.

    python scripts/low_resource.py --data_dir D --file_name F --bert_path B --save_path S [flags of training]

trains on 5, 10, ... 100 percent of the training sentences, with several seeds, and scores three lines on test:
the tagger alone; kNN with the datastore of the sentences that the tagger was trained on; kNN with the datastore
of all labelled sentences, of which the tagger has seen but a part, without training it again. Settings are
tuned on dev.

A seed's parts are nested: the first sentences of one random order, another for each seed. Dev and test stay
whole, and a tagger knows all labels, whether its part has them or not. Small parts make few steps in the epochs
given: each training has as many epochs more as bring it to --min_steps, since few steps, rather than few
sentences, are what fails in fine-tuning on little data (Mosbach, Andriushchenko and Klakow 2021). Dev is scored
--max_epochs times, and chooses the epoch.

With --taggers another such run's taggers are taken, so that other keys are compared on the same ones.

Finished steps are not done again. `low_resource.csv`, `.json`, `.md` and the plot `low_resource` (.png, .svg)
are written after each seed, of the seeds so far.
"""

import argparse
import csv
import io
import itertools
import math
import sys
from pathlib import Path

import numpy as np

# So that the script runs from any folder, with or without the package installed.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from knn_ner.cli import Parser, positive_int, run_main, say
from knn_ner.data.corpus import Corpus, Sentence, read_corpus
from knn_ner.data.tags import read_labels
from knn_ner.errors import UserError
from knn_ner.evaluation.plots import draw_low_resource
from knn_ner.evaluation.plotting import save
from knn_ner.evaluation.records import SCORES
from knn_ner.evaluation.significance import f1_of, gain_interval, gains, p_value
from knn_ner.experimenting.page import table, with_spread
from knn_ner.experimenting.seeds import SeedRun, add_experiment_arguments, corpus_id
from knn_ner.experimenting.summary import spread, stack_counts
from knn_ner.experimenting.view import View
from knn_ner.files import write_json, write_text

SHARES = (5.0, 10.0, 20.0, 40.0, 60.0, 80.0, 100.0)
PART_STEPS = ("train", "build", "tune", "test")
FULL_STEPS = ("build", "tune", "test")
TAGGER, PART, ALL = (
    "tagger alone",
    "kNN, datastore of the same part",
    "kNN, datastore of all sentences",
)
COLUMNS = (
    "percent", "sentences", "tagger", "kNN, same part", "gain", "95% interval", "p",
    "kNN, all sentences", "gain", "95% interval", "p",
)  # fmt: skip


def percent(text: str) -> float:
    """An argparse type: a number above 0, at most 100."""
    value = float(text)
    if not 0 < value <= 100:
        raise argparse.ArgumentTypeError(
            f"{value:g} found, a percentage above 0 and at most 100 expected"
        )
    return value


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = Parser(
        "Train on parts of the sentences; score the tagger, and kNN with datastores of the part and of all.",
        prog="python scripts/low_resource.py",
    )
    parser.add_argument(
        "--seeds", type=int, nargs="+", default=[0, 1, 2], metavar="N", help="of order and training"
    )
    parser.add_argument(
        "--shares",
        type=percent,
        nargs="+",
        default=list(SHARES),
        metavar="PERCENT",
        help="of the training sentences",
    )
    parser.add_argument(
        "--min_steps",
        type=positive_int,
        default=300,
        help="of each training: a small part gets as many epochs more",
    )
    parser.add_argument(
        "--taggers",
        metavar="S0",
        help="folder of another such run whose taggers are taken in place of training: other keys, the same "
        "taggers",
    )
    add_experiment_arguments(parser)
    settings = parser.parse_args(argv)
    settings.shares = sorted(set(settings.shares))
    settings.seeds = list(dict.fromkeys(settings.seeds))
    return settings


def part_of(sentences: list[Sentence], share: float, seed: int) -> list[Sentence]:
    """A share, in percent, of the sentences in their own order; those of smaller shares are among them."""
    count = max(1, round(share / 100 * len(sentences)))
    chosen = np.random.default_rng(seed).permutation(len(sentences))[:count]
    return [sentences[place] for place in sorted(chosen)]


def write_corpus(
    corpus: Corpus, train: list[Sentence], settings: argparse.Namespace, to: Path
) -> None:
    """Write a corpus with another training split, and the same labels; what is there as it is stays."""
    for split, sentences in (corpus.splits | {"train": train}).items():
        text = "\n".join(
            "".join(f"{word} {tag}\n" for word, tag in zip(each.words, each.tags, strict=True))
            for each in sentences
        )
        path = to / f"{split}.{settings.file_name}"
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            write_text(path, text)
    labels = read_labels(Path(settings.data_dir) / "ner_labels.txt")
    write_text(to / "ner_labels.txt", "\n".join(labels) + "\n")


def epochs_of(sentences: int, settings: argparse.Namespace) -> tuple[int, float]:
    """The epochs that a part of so many sentences is trained for, and after how many dev is scored.

    Dev is scored about as often as in training on all: a small part's epochs are short, and many.
    """
    batch = settings.train_batch_size or settings.batch_size
    steps = math.ceil(math.ceil(sentences / batch) / settings.accumulate_grad_batches)
    times = math.ceil(math.ceil(settings.min_steps / steps) / settings.max_epochs)
    if times <= 1:
        return settings.max_epochs, settings.val_check_interval
    return times * settings.max_epochs, times


def with_settings(settings: argparse.Namespace, **other: object) -> argparse.Namespace:
    """A copy with some values changed."""
    return argparse.Namespace(**vars(settings) | other)


def folder_of(settings: argparse.Namespace, share: float, what: str) -> Path:
    """`S/part-005` (the part alone) or `S/all-005` (its taggers with all sentences stored)."""
    return Path(settings.save_path) / f"{what}-{share:03g}"


def runs_of(corpus: Corpus, settings: argparse.Namespace, seed: int) -> list[SeedRun]:
    """The runs of a seed; their corpora are written, and checked against what was trained before."""
    runs = []
    whole = corpus_id(settings.data_dir, settings.file_name)
    for share in settings.shares:
        name = f"seed {seed}, {share:g}%"
        train = part_of(corpus.splits["train"], share, seed)
        part, full = (folder_of(settings, share, what) for what in ("part", "all"))
        taggers = None
        if settings.taggers:
            taggers = str(
                folder_of(with_settings(settings, save_path=settings.taggers), share, "part")
            )
        data = part / f"corpus-{seed}"
        write_corpus(corpus, train, settings, data)
        epochs, interval = epochs_of(len(train), settings)
        given = with_settings(
            settings,
            data_dir=str(data),
            save_path=str(part),
            taggers=taggers,
            max_epochs=epochs,
            val_check_interval=interval,
        )
        of_part = corpus_id(str(data), settings.file_name)
        runs.append(SeedRun(given, seed, of_part, name, PART_STEPS))
        runs[-1].check()
        if share < 100:
            given = with_settings(settings, save_path=str(full), taggers=taggers or str(part))
            runs.append(SeedRun(given, seed, whole, f"{name}, all stored", FULL_STEPS))
    return runs


def measure(settings: argparse.Namespace, seeds: list[int], sentences: int) -> list[dict]:
    """For each share the three lines, over the seeds: F1, gains with interval and p-value."""
    rows = []
    for share in settings.shares:
        count = max(1, round(share / 100 * sentences))
        row: dict = {"percent": share, "sentences": count}
        for name, what in ((PART, "part"), (ALL, "all" if share < 100 else "part")):
            folder = folder_of(settings, share, what)
            counts = stack_counts([folder / f"seed-{seed}" for seed in seeds])
            base, knn = (counts[each][:, :, SCORES.index("f1")] for each in ("base", "knn"))
            row[TAGGER] = spread(f1_of(base.sum(axis=1)).tolist())
            row[name] = spread(f1_of(knn.sum(axis=1)).tolist()) | {
                "gain": spread(gains(base, knn).tolist()),
                "interval": list(gain_interval(base, knn)),
                "p": p_value(base, knn),
            }
        rows.append(row)
    return rows


def to_markdown(rows: list[dict], seeds: list[int]) -> str:
    """The table, and from which share on the lines reach the tagger that saw all sentences."""
    lines = [list(COLUMNS)]
    for row in rows:
        line = [f"{row['percent']:g}", str(row["sentences"]), with_spread(row[TAGGER])]
        for name in (PART, ALL):
            low, high = row[name]["interval"]
            line += [
                with_spread(row[name]),
                f"{row[name]['gain']['mean']:+.2f}",
                f"{low:+.2f} to {high:+.2f}",
                f"{row[name]['p']:.2g}",
            ]
        lines.append(line)
    told = f"Word-level test F1 over {len(seeds)} seeds (mean ± standard deviation)."
    if rows[-1]["percent"] == 100:
        goal = rows[-1][TAGGER]["mean"]
        reached = " and ".join(f"{name}, {reaches(rows, name, goal)}" for name in (PART, ALL))
        told += f" The tagger's {goal:.2f} with all sentences is reached by {reached}."
    return f"{table(lines)}\n{told}\n"


def reaches(rows: list[dict], name: str, goal: float) -> str:
    """From which share on a line is at least as high as a score, at this share and all above."""
    enough = list(itertools.takewhile(lambda row: row[name]["mean"] >= goal, reversed(rows)))
    return f"from {enough[-1]['percent']:g}% on" if enough else "at no share"


def to_csv(rows: list[dict]) -> str:
    """A line for each share and line of the plot."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(
        ["percent", "sentences", "line", "f1_mean", "f1_std", "gain", "low", "high", "p"]
    )
    for row in rows:
        for name in (TAGGER, PART, ALL):
            each = row[name]
            deviation = "" if each["std"] is None else f"{each['std']:.4f}"
            line = [f"{row['percent']:g}", row["sentences"], name, f"{each['mean']:.4f}", deviation]
            if name != TAGGER:
                numbers = (each["gain"]["mean"], *each["interval"])
                line += [*(f"{number:.4f}" for number in numbers), f"{each['p']:.4g}"]
            writer.writerow(line + [""] * (9 - len(line)))
    return text.getvalue()


def write_results(settings: argparse.Namespace, seeds: list[int], sentences: int) -> str:
    """Write tables and plot of the seeds so far; returns the Markdown."""
    rows = measure(settings, seeds, sentences)
    folder = Path(settings.save_path)
    markdown = to_markdown(rows, seeds)
    write_json(folder / "low_resource.json", {"seeds": seeds, "rows": rows})
    write_text(folder / "low_resource.csv", to_csv(rows))
    write_text(folder / "low_resource.md", markdown)
    lines = {
        name: [(row["percent"], row[name]["mean"], row[name]["std"] or 0.0) for row in rows]
        for name in (TAGGER, PART, ALL)
    }
    corpus = Path(settings.data_dir).resolve().name
    save(draw_low_resource(lines, corpus), folder / "low_resource")
    return markdown


def main(argv: list[str] | None = None) -> None:
    """The command line."""
    settings = parse_arguments(argv)
    labels = read_labels(Path(settings.data_dir) / "ner_labels.txt")
    corpus = read_corpus(settings.data_dir, settings.file_name, labels=labels)
    if Path(settings.save_path).is_file():
        raise UserError(f"{settings.save_path}: is a file; --save_path names a folder")
    runs = {seed: runs_of(corpus, settings, seed) for seed in settings.seeds}
    flat = [run for each in runs.values() for run in each]
    view = View({step: sum(step in run.steps for run in flat) for step in PART_STEPS})
    markdown, finished = "", []
    try:
        for seed, each in runs.items():
            for run in each:
                run.check()
                run.run(view)
            finished.append(seed)
            markdown = write_results(settings, finished, len(corpus.splits["train"]))
    except KeyboardInterrupt:
        view.close()
        say(f"{settings.save_path}: the same command goes on from here")
        raise
    finally:
        view.close()
    print(markdown, end="")
    say(f"written: low_resource.md, .csv, .json, .png and .svg in {settings.save_path}")


if __name__ == "__main__":
    run_main(main)
