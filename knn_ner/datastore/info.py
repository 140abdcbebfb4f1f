"""What a datastore holds, and whether it is whole: what `knn_ner.datastore` tells."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tqdm import tqdm

from knn_ner.datastore.manifest import Manifest
from knn_ner.datastore.reader import Datastore
from knn_ner.utils.errors import UserError
from knn_ner.utils.text import counted


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


def describe(path: str | Path, indexes: Sequence[Any]) -> dict[str, Any]:
    """What `info` tells of a datastore and of its indexes (`search.index_records.IndexRecord`)."""
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
        "made_with": manifest.provenance,
        "content_id": manifest.content_id,
        "labels": manifest.label_counts,
        "history": [asdict(commit) for commit in manifest.history],
        "indexes": _indexes(indexes, manifest),
    }


def _indexes(records: Sequence[Any], manifest: Manifest) -> list[dict[str, Any]]:
    """The records of indexes, each with whether it is up to date, without its shards."""
    told = []
    for record in records:
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
