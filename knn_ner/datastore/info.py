"""Description and verification of a datastore, for `knn_ner.datastore info` and `verify`."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from knn_ner.datastore.manifest import Manifest
from knn_ner.datastore.reader import Datastore
from knn_ner.utils.errors import UserError
from knn_ner.utils.text import counted


def verify(path: str | Path) -> str:
    """Compare the manifest of a datastore and all files that it names with their checksums.

    Returns:
        A line for the user.

    Raises:
        UserError: for the first file that is missing or damaged.
    """
    while True:
        store = Datastore.open(path)
        size, files = store.manifest.bytes, len(store.manifest.files())
        try:
            with tqdm(total=size, unit="B", unit_scale=True, desc="verify") as progress:
                store.verify(progress)
        except (UserError, FileNotFoundError):
            if Manifest.read(Path(path)) == store.manifest:
                raise
            # Another process has committed meanwhile and removed files that the old manifest names.
            continue
        return f"{path}: all {files} files ({size / 1e6:.1f} MB) are as written"


def describe(path: str | Path, indexes: Sequence[Any]) -> dict[str, Any]:
    """Return the content of `info --json`.

    Args:
        path: the folder of the datastore.
        indexes: the records of its indexes (`search.faiss_index.IndexRecord`).
    """
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
        "history": [vars(commit) for commit in manifest.history],
        "indexes": [
            {name: value for name, value in vars(record).items() if name != "shards"}
            | {"up_to_date": record.content_id == manifest.content_id}
            for record in indexes
        ],
    }


def to_text(description: dict[str, Any]) -> str:
    """Return the result of `describe` as text for the terminal."""
    entries, labels = description["entries"], description["labels"]
    width = max(map(len, labels), default=0) + 2
    lines = [
        f"{description['path']}: {counted(entries, 'entry')} of "
        f"{counted(description['sentences'], 'sentence')}, {description['dim']} x "
        f"{description['dtype']}, {description['bytes'] / 1e6:.1f} MB in "
        f"{counted(description['shards'], 'shard')}"
    ]
    if description["removed_entries"]:
        removed = counted(description["removed_entries"], "removed entry")
        lines.append(f"{removed} still on disk, until compact")
    lines += ["", "made with"]
    lines += [f"  {name:<14}{value}" for name, value in description["made_with"].items()]
    lines += ["", "labels"]
    lines += [
        f"  {label:<{width}}{count:>9}{100 * count / max(1, entries):>8.2f}%"
        for label, count in labels.items()
    ]
    lines += ["", "history"]
    lines += [
        f"  {commit['number']:>4}  {commit['time']}  {commit['action']:<8}"
        f"{commit['sentences']:>8} sentences{commit['entries']:>10} entries"
        for commit in description["history"]
    ]
    if description["indexes"]:
        lines += ["", "indexes"]
    for index in description["indexes"]:
        outdated = "; the datastore was changed since: run knn_ner.build_index"
        lines.append(
            f"  {index['index']}, {index['similarity']}: {counted(index['entries'], 'entry')}, "
            f"{index['bytes'] / 1e6:.1f} MB, {index['seconds']:.1f} s on {index['time']}"
            + ("" if index["up_to_date"] else outdated)
        )
    return "\n".join(lines)
