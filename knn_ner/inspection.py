"""What a datastore holds, and whether it is whole: what `knn_ner.datastore` tells."""

from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path

from tqdm import tqdm

from knn_ner.errors import UserError
from knn_ner.retrieval.datastore import Datastore
from knn_ner.retrieval.indexes import list_records
from knn_ner.retrieval.manifest import Manifest


def counted(count: int, noun: str) -> str:
    """`1 entry`, `2 entries`."""
    plural = f"{noun[:-1]}ies" if noun.endswith("y") else f"{noun}s"
    return f"{count} {noun if count == 1 else plural}"


def show_ids(ids: Iterable[int]) -> str:
    """Ids as `--ids` takes them: `3 17 20-30`."""
    runs: list[list[int]] = []
    for sentence_id in ids:
        if runs and sentence_id == runs[-1][1] + 1:
            runs[-1][1] = sentence_id
        else:
            runs.append([sentence_id, sentence_id])
    return " ".join(f"{a}-{b}" if a < b else str(a) for a, b in runs)


def verify(path: str | Path) -> str:
    """Read all files of a datastore against their checksums; returns what to print.

    Raises `UserError` with the first file that is not as it was written.
    """
    while True:
        store = Datastore.open(path)
        try:
            with tqdm(
                total=store.manifest.bytes, unit="B", unit_scale=True, desc="verify"
            ) as progress:
                store.verify(progress)
        except (UserError, FileNotFoundError):
            if Manifest.read(Path(path)) == store.manifest:
                raise
            # Another process committed meanwhile, and removed what the store no longer needs.
            continue
        files = len(store.manifest.files())
        return f"{path}: all {files} files ({store.manifest.bytes / 1e6:.1f} MB) are as written"


def describe(path: str | Path) -> dict:
    """What `info` tells of a datastore."""
    manifest = Manifest.read(Path(path))
    return {
        "path": str(path),
        "entries": manifest.entries,
        "sentences": manifest.sentences,
        "dim": manifest.dim,
        "dtype": manifest.dtype,
        "bytes": manifest.bytes,
        "shards": len(manifest.shards),
        "removed_entries": sum(record.entries for record in manifest.shards) - manifest.entries,
        "next_sentence": manifest.next_sentence,
        "made_with": manifest.made_with,
        "content_id": manifest.content_id,
        "labels": manifest.label_counts,
        "history": [asdict(commit) for commit in manifest.history],
        "indexes": indexes_of(Path(path), manifest),
    }


def indexes_of(path: Path, manifest: Manifest) -> list[dict]:
    """The indexes in a datastore's folder; of their shards, only whether these are the store's."""
    told = []
    for record in list_records(path):
        about = asdict(record) | {"up_to_date": record.content_id == manifest.content_id}
        del about["shards"]
        told.append(about)
    return told


def show(told: dict) -> str:
    """What `describe` tells, as the terminal shows it."""
    lines = [
        f"{told['path']}: {counted(told['entries'], 'entry')} of "
        f"{counted(told['sentences'], 'sentence')}, {told['dim']} x {told['dtype']}, "
        f"{told['bytes'] / 1e6:.1f} MB in {counted(told['shards'], 'shard')}"
    ]
    if told["removed_entries"]:
        removed = counted(told["removed_entries"], "removed entry")
        lines.append(f"{removed} still on disk, until compact")
    lines += ["", "made with"]
    lines += [f"  {name:<14}{value}" for name, value in told["made_with"].items()]
    lines += ["", "labels"]
    width = max(map(len, told["labels"]), default=0) + 2
    lines += [
        f"  {label:<{width}}{count:>9}{100 * count / max(1, told['entries']):>8.2f}%"
        for label, count in told["labels"].items()
    ]
    lines += ["", "history"]
    lines += [
        f"  {commit['number']:>4}  {commit['time']}  {commit['action']:<8}"
        f"{commit['sentences']:>8} sentences{commit['entries']:>10} entries"
        for commit in told["history"]
    ]
    if told["indexes"]:
        lines += ["", "indexes"]
    lines += [
        f"  {index['index']}, {index['similarity']}: {counted(index['entries'], 'entry')}, "
        f"{index['bytes'] / 1e6:.1f} MB, {index['seconds']:.1f} s on {index['time']}"
        + (
            ""
            if index["up_to_date"]
            else "; the datastore was changed since: run knn_ner.build_index"
        )
        for index in told["indexes"]
    ]
    return "\n".join(lines)
