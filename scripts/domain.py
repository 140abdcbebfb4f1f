"""Measure a tagger on domains that it was not trained on: alone, with their datastores, trained anew.

    python scripts/domain.py --data data --source politics --targets science literature \\
        --bert_path B --save_path outputs/domain -- [flags of knn_ner.train]

`scripts/domain.sh` makes the environment and runs this; `docs/domain.md` has what it measured.
"""

import argparse
import csv
import hashlib
import io
import json
import shutil
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

# So that the script runs from any folder, with or without the package installed.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from get_labels import write_labels
from knn_ner import build_datastore, datastore, infer, train, tune
from knn_ner.cli import Parser, run_main, say
from knn_ner.data.corpus import SPLITS, read_corpus, split_path
from knn_ner.data.tags import OUTSIDE, position_and_type, read_labels, scheme_of_labels
from knn_ner.errors import UserError
from knn_ner.evaluation.metrics import percentages
from knn_ner.evaluation.spans import word_spans
from knn_ner.files import read_json, write_json, write_text
from knn_ner.labelled_files import add_file
from knn_ner.retrieval.datastore import Datastore
from knn_ner.retrieval.edit import remove_sentences

# Without training: the target's sentences beside the source's in the datastore, or in their place.
ADDED = ("added", "swapped")
RETRAIN = ("both", "alone")
CLASSES = ("all", "shared", "new")


@dataclass(frozen=True)
class Study:
    """What all runs of a study share."""

    data: Path
    file_name: str
    source: str
    bert_path: str
    save_path: Path
    flags: list[str]
    """Of `knn_ner.train`."""

    def corpus(self, folder: Path) -> list[str]:
        """The flags that name a corpus."""
        return ["--data_dir", str(folder), "--file_name", self.file_name]

    def training(self, corpus: Path, run: Path) -> argparse.Namespace:
        """The settings of a training, which goes on where it was interrupted."""
        paths = ["--bert_path", self.bert_path, "--save_path", str(run), "--resume"]
        return train.parse_arguments([*self.corpus(corpus), *paths, *self.flags])

    @property
    def common(self) -> list[str]:
        """Those of the flags that every command has."""
        settings = self.training(self.data, self.save_path)
        names = ("max_length", "batch_size", "seed", "device", "precision", "workers")
        return [part for n in names for part in (f"--{n}", str(getattr(settings, n)))]

    def types(self) -> set[str]:
        """The types that the source corpus has."""
        labels = read_labels(self.data / self.source / "ner_labels.txt")
        return {position_and_type(label)[1] for label in labels if label != OUTSIDE}

    def key(self, *corpora: str) -> str:
        """Names what a run depends on: the corpora's files, the encoder, the flags."""
        digest = hashlib.sha256(json.dumps([self.bert_path, self.flags]).encode())
        for name in (self.source, *corpora):
            for split in SPLITS:
                path = split_path(self.data / name, self.file_name, split)
                digest.update(hashlib.sha256(path.read_bytes()).digest())
        return digest.hexdigest()


def timed(record: Path, step: Callable[[], object]) -> dict[str, float]:
    """Do a step unless `record` says that it is done; seconds by the clock, and of the processor.

    Of a training that was interrupted they are those of its last part.
    """
    if not record.is_file():
        clock, processor = time.perf_counter(), time.process_time()
        step()
        clock, processor = time.perf_counter() - clock, time.process_time() - processor
        write_json(record, {"clock": round(clock, 2), "processor": round(processor, 2)})
    return read_json(record)


def begin(run: Path, key: str) -> None:
    """Empty a run's folder, unless what is there was made from the same corpora with the same flags."""
    record = run / "key.json"
    if not record.is_file() or read_json(record) != key:
        shutil.rmtree(run, ignore_errors=True)
        write_json(record, key)


def train_on(study: Study, corpus: Path, run: Path) -> dict[str, dict[str, float]]:
    """Train a tagger into `run` and build its datastore; returns the seconds of both."""
    training = study.training(corpus, run)
    seconds = {"train": timed(run / "train_seconds.json", lambda: train.train(training))}
    paths = ["--model_path", str(run / "model"), "--datastore_path", str(run / "datastore")]
    building = build_datastore.parse_arguments([*study.corpus(corpus), *paths, *study.common])
    build = timed(run / "store_seconds.json", lambda: build_datastore.build_datastore(building))
    return seconds | {"store": build}


def add_target(study: Study, target: str, run: Path, swap: bool) -> dict[str, dict[str, float]]:
    """Put a copy of the source's datastore into `run` and add the target's training split to it.

    swap: remove the source's sentences again, so that the target's alone are left.
    """
    source, path = study.save_path / study.source, run / "datastore"
    added = split_path(study.data / target, study.file_name, "train")
    add = ["add", "--datastore_path", str(path), "--file", str(added)]
    model = ["--model_path", str(source / "model")]

    def copy_and_add() -> None:
        shutil.rmtree(path, ignore_errors=True)
        shutil.copytree(source / "datastore", path)
        before = Datastore.open(path).stored_sentences.tolist()
        say(add_file(datastore.parse_arguments([*add, *model, *study.common])))
        if swap:
            remove_sentences(path, before)

    return {"store": timed(run / "store_seconds.json", copy_and_add)}


def join_corpora(study: Study, target: str, folder: Path) -> None:
    """Write the corpus that trains on source and target; dev and test split are the target's."""
    corpora = [read_corpus(study.data / name, study.file_name) for name in (study.source, target)]
    schemes = [corpus.scheme.name for corpus in corpora]
    if len(set(schemes)) > 1:
        raise UserError(
            f"{study.data}: {study.source} is in {schemes[0]}, but {target} in {schemes[1]}; convert "
            "one with `python scripts/prepare_data.py convert`"
        )
    for split in SPLITS:
        sentences = corpora[1].splits[split]
        if split == "train":
            sentences = corpora[0].splits[split] + sentences
        blocks = (
            "".join(f"{word} {tag}\n" for word, tag in zip(each.words, each.tags, strict=True))
            for each in sentences
        )
        write_text(folder / f"{split}.{study.file_name}", "\n".join(blocks))
    write_labels(folder, study.file_name)


def measure(study: Study, target: str, run: Path, model: Path) -> dict:
    """Tune the datastore of `run` on the target's dev split, and score its test split."""
    paths = ["--model_path", str(model), "--datastore_path", str(run / "datastore")]
    paths += ["--save_path", str(run), *study.common]
    corpus = study.corpus(study.data / target)
    tuning = tune.parse_arguments([*corpus, *paths])
    seconds = timed(run / "tune_seconds.json", lambda: tune.tune(tuning))
    best = read_json(run / "tuning.json")["best"]
    tested = infer.infer(
        infer.parse_arguments([*corpus, *paths, "--tuning", str(run / "tuning.json")])
    )
    scores = f1_by_class(run / "predictions.txt", study.types())
    for name in ("base", "knn"):
        if abs(scores[name]["all"] - tested[name]["f1"]) > 1e-9:
            raise AssertionError(
                f"{run}: {scores[name]} from the file, {tested[name]['f1']} scored"
            )
    return {
        "seconds": {"tune": seconds},
        "entries": tested["datastore_entries"],
        "best": best,
    } | scores


def f1_by_class(predictions: Path, shared: Iterable[str]) -> dict[str, dict[str, float | None]]:
    """F1 over all entities, those of the shared types, and the others; None where gold has none.

    predictions: as `knn_ner.infer` writes them.
    """
    counts = {name: {each: [0, 0, 0] for each in CLASSES} for name in ("base", "knn")}
    blocks = predictions.read_text(encoding="utf-8").removesuffix("\n").split("\n\n")
    rows = [[line.split("\t") for line in block.split("\n")] for block in blocks]
    columns = [list(zip(*sentence, strict=True))[1:] for sentence in rows]
    scheme = scheme_of_labels({tag for column in columns for tags in column for tag in tags}).name
    for gold, *predicted in columns:
        gold_spans = set(word_spans(gold, scheme))
        for name, tags in zip(("base", "knn"), predicted, strict=True):
            spans = set(word_spans(tags, scheme))
            for place, found in enumerate((gold_spans & spans, spans, gold_spans)):
                there = sum(type_ in shared for type_, _, _ in found)
                for each, number in zip(
                    CLASSES, (len(found), there, len(found) - there), strict=True
                ):
                    counts[name][each][place] += number
    return {
        name: {
            each: float(percentages(*numbers)[2]) if numbers[2] else None
            for each, numbers in classes.items()
        }
        for name, classes in counts.items()
    }


def run_target(study: Study, target: str, retrain: list[str]) -> list[dict]:
    """The runs of a target domain that are asked for or finished; returns their rows."""
    rows = []
    for how in (*ADDED, *RETRAIN):
        run = study.save_path / target / how
        key = study.key(target)
        record = run / "row.json"
        row = read_json(record) if record.is_file() else {}
        finished = row.get("key") == key
        if not finished and how not in (*ADDED, *retrain):
            continue
        if not finished:
            say(f"\n== {target}: {how}")
            begin(run, key)
            if how in ADDED:
                trained_on, model = [study.source], study.save_path / study.source / "model"
                stored = [target] if how == "swapped" else [study.source, target]
                seconds = add_target(study, target, run, swap=how == "swapped")
            else:
                corpus = study.data / target
                trained_on, model = [target], run / "model"
                if how == "both":
                    corpus, trained_on = run.with_name("both_corpus"), [study.source, target]
                    join_corpora(study, target, corpus)
                stored = trained_on
                seconds = train_on(study, corpus, run)
            row = {"key": key, "domain": target, "trained_on": trained_on, "stored": stored}
            measured = measure(study, target, run, model)
            measured["seconds"] = seconds | measured["seconds"]
            row |= measured
            write_json(record, row)
        rows.append(row)
    return rows


def lines_of(study: Study, rows: list[dict]) -> list[dict[str, str]]:
    """Two lines of the table for each row: the tagger alone, unless it has one already, and with kNN."""
    lines = []
    shown = set()
    for row in rows:
        seconds, best = row["seconds"], row["best"]
        tagger = (row["domain"], *row["trained_on"])
        for name in ("knn",) if tagger in shown else ("base", "knn"):
            with_store = name == "knn"
            steps = [seconds.get("train")]
            steps += [seconds["store"], seconds["tune"]] if with_store else [None, None]
            clock = [step["clock"] if step else 0.0 for step in steps]
            processor = sum(step["processor"] for step in steps if step)
            line = {
                "domain": row["domain"],
                "trained on": " + ".join(row["trained_on"]),
                "datastore": " + ".join(row["stored"]) if with_store else "none",
                "k": f"{best['k']}" if with_store else "",
                "temperature": f"{best['temperature']:g}" if with_store else "",
                "knn_weight": f"{best['knn_weight']:.4g}" if with_store else "",
            }
            names = ("train s", "store s", "tune s", "all s", "processor s")
            numbers = (*clock, sum(clock), processor)
            line |= {what: f"{n:.1f}" for what, n in zip(names, numbers, strict=True)}
            for each in CLASSES:
                f1 = row[name][each]
                line[f"F1 {each}"] = "" if f1 is None else f"{f1:.2f}"
            lines.append(line)
        shown.add(tagger)
    return lines


def run_study(study: Study, targets: list[str], retrain: list[str]) -> str:
    """Run what is not finished; writes `domain.csv` and `domain.md` and returns the latter."""
    for name in (study.source, *targets):
        if not (study.data / name / "ner_labels.txt").is_file():
            write_labels(study.data / name, study.file_name)
    say(f"\n== {study.source}")
    begin(study.save_path / study.source, study.key())
    train_on(study, study.data / study.source, study.save_path / study.source)
    rows = [row for target in targets for row in run_target(study, target, retrain)]
    lines = lines_of(study, rows)
    text = io.StringIO()
    writer = csv.DictWriter(text, list(lines[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    write_text(study.save_path / "domain.csv", text.getvalue())
    table = [list(lines[0]), ["---"] * len(lines[0]), *(line.values() for line in lines)]
    markdown = "".join(f"| {' | '.join(line)} |\n" for line in table)
    write_text(study.save_path / "domain.md", markdown)
    return markdown


def main(argv: list[str] | None = None) -> None:
    """The command line."""
    parser = Parser(
        "Measure a tagger on other domains: alone, with their datastores added, and trained anew. "
        "After -- come flags of knn_ner.train.",
        prog="python scripts/domain.py",
    )
    parser.add_argument(
        "--data", required=True, metavar="DIR", help="folder of the corpora's folders"
    )
    parser.add_argument(
        "--source", required=True, help="the corpus to train on: a folder in --data"
    )
    parser.add_argument("--targets", required=True, nargs="+", help="the other corpora")
    parser.add_argument(
        "--retrain",
        nargs="*",
        choices=RETRAIN,
        default=list(RETRAIN),
        help="what to train anew: source and target together, the target alone",
    )
    parser.add_argument("--file_name", default="word.bmes", metavar="F", help="ending of the files")
    parser.add_argument("--bert_path", required=True, metavar="B", help="the encoder")
    parser.add_argument("--save_path", required=True, metavar="DIR", help="folder for everything")
    parser.add_argument("flags", nargs="*", metavar="FLAG", help="of knn_ner.train, after --")
    settings = parser.parse_args(argv)
    study = Study(
        Path(settings.data),
        settings.file_name,
        settings.source,
        settings.bert_path,
        Path(settings.save_path),
        settings.flags,
    )
    if study.source in settings.targets:
        raise UserError(f"{study.source}: is the source, and a target too; name other corpora")
    print(run_study(study, settings.targets, settings.retrain), end="")


if __name__ == "__main__":
    run_main(main)
