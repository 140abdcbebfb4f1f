"""Rewriting whole datastores: `compact` one, `merge` several, or `transform_keys` of one."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from knn_ner.datastore.edit import Edit
from knn_ner.datastore.key_transform import KeyTransform
from knn_ner.datastore.locking import WAIT_SECONDS
from knn_ner.datastore.manifest import MANIFEST_FILE, Manifest, ShardRecord
from knn_ner.datastore.reader import Datastore
from knn_ner.datastore.shard_copy import copy_entries, group_shards
from knn_ner.datastore.writer import DatastoreWriter
from knn_ner.utils.errors import UserError


def compact(path: str | Path, wait: float = WAIT_SECONDS) -> tuple[Manifest, Manifest]:
    """Drop removed entries from the files, and join small shards, in one commit if there is anything to do.

    Entries, their order and sentence ids stay.

    Arguments and errors are those of `Edit`.

    Returns:
        The manifests before and after.
    """
    path = Path(path)
    with Edit(path, wait) as edit:
        before = edit.manifest
        groups = group_shards(before.shards)
        rewritten = [len(group) > 1 or group[0].removed is not None for group in groups]
        if not any(rewritten):
            return before, before
        edit.shards = []
        with _entry_progress(before.entries, "compact") as progress:
            for number, group in enumerate(groups):
                source = Datastore(path, replace(before, shards=group))
                if not rewritten[number]:
                    progress.update(source.entries)
                    edit.shards += group
                    continue
                with edit.new_shard(number, source.entries) as shard:
                    copy_entries(source, shard, progress=progress)
                edit.shards.append(shard.record)
        dropped = [record.removed for record in before.shards if record.removed]
        after = edit.commit(
            "compact",
            sum(removal.sentences for removal in dropped),
            sum(removal.entries for removal in dropped),
        )
        edit.clean()
    return before, after


def merge(paths: Sequence[str | Path], out: str | Path) -> Manifest:
    """Write the content of several datastores of one tagger into a new datastore, in the order given.

    Labels of later datastores are appended to the label list of the first. Sentences of the first keep their ids; the
    ids of the others are raised by the ids that come before. A merge that died is resumed by the same call.

    Returns:
        The manifest of the new datastore.

    Raises:
        UserError: if the keys differ in origin or type, a datastore is given twice, or `out` holds a datastore.
    """
    out = Path(out)
    if (out / MANIFEST_FILE).exists():
        raise UserError(f"{out}: holds a datastore; give a new folder for the merged one")
    sources = [Datastore.open(path) for path in paths]
    first = sources[0]
    for number, source in enumerate(sources):
        check_mergeable(source, first)
        if source.dtype != first.dtype:
            raise UserError(
                f"{source.path}: holds keys in {source.dtype}, but {first.path} in {first.dtype}; "
                "build both with the same --key_dtype"
            )
        if source.path.resolve() in [other.path.resolve() for other in sources[:number]]:
            raise UserError(f"{source.path}: given twice; name each store once")
    labels = list(dict.fromkeys(label for source in sources for label in source.labels))
    offsets = np.cumsum([0, *(source.manifest.next_sentence for source in sources)]).tolist()
    shards: list[tuple[Datastore, list[ShardRecord], dict[str, Any]]] = []
    for source, offset in zip(sources, offsets, strict=False):
        ids = np.array([labels.index(label) for label in source.labels])
        changes = {"label_ids": ids, "first_sentence": offset}
        shards += [(source, group, changes) for group in group_shards(source.manifest.shards)]
    content = json.dumps(["merge", *(source.content_id for source in sources)])
    with DatastoreWriter(
        out,
        dim=first.dim,
        dtype=first.manifest.dtype,
        labels=labels,
        provenance=first.provenance,
        fingerprint=hashlib.sha256(content.encode()).hexdigest(),
        shards=len(shards),
        transform=first.transform,
    ) as writer:
        _copy_shards(writer, shards, "merge")
        return writer.commit("merge", offsets[-1])


def check_mergeable(source: Datastore, first: Datastore) -> None:
    """Check that the keys of two datastores have the same origin; raises UserError if not."""
    if source.provenance.get("transform") != first.provenance.get("transform"):
        names = [store.transform.name if store.transform else "none" for store in (source, first)]
        raise UserError(
            f"{source.path}: keys went through {names[0]}, but those of {first.path} through "
            f"{names[1]}, each fitted on its own keys; build one store of all sentences, or add "
            "the ones to the other"
        )
    source.check_provenance(first.provenance)


def transform_keys(
    source: Datastore, out: str | Path, transform: KeyTransform | None, dtype: str, fingerprint: str
) -> Manifest:
    """Write a datastore with the entries, sentences and shards of `source`, but with transformed keys.

    The datastore that `out` holds stays readable until the end. A run that died is resumed by the same call.

    Args:
        source: the datastore.
        out: the folder of the new datastore.
        transform: the transform; the keys are only converted to `dtype` if None.
        dtype: type of the new keys.
        fingerprint: fingerprint of the new datastore.

    Returns:
        The manifest of the new datastore.
    """
    changes = {"transform": transform}
    shards = [(source, [record], changes) for record in source.manifest.shards]
    with DatastoreWriter(
        out,
        dim=transform.width if transform else source.dim,
        dtype=dtype,
        labels=source.labels,
        provenance=source.provenance,
        fingerprint=fingerprint,
        shards=len(shards),
        transform=transform,
    ) as writer:
        _copy_shards(writer, shards, transform.name if transform else dtype)
        return writer.commit("build", source.manifest.next_sentence)


def _copy_shards(
    writer: DatastoreWriter,
    shards: Sequence[tuple[Datastore, list[ShardRecord], dict[str, Any]]],
    what: str,
) -> None:
    """Write each shard of a build: a copy of some shards of a datastore, with changes for `copy_entries`."""
    total = sum(record.live_entries for _, records, _ in shards for record in records)
    with _entry_progress(total, what) as progress:
        for number, (source, records, changes) in enumerate(shards):
            part = Datastore(source.path, replace(source.manifest, shards=records))
            if writer.finished(number):
                progress.update(part.entries)
                continue
            with writer.shard(number, part.entries) as shard:
                copy_entries(part, shard, **changes, progress=progress)


def _entry_progress(total: int, what: str) -> tqdm:
    return tqdm(total=total, unit="entry", unit_scale=True, desc=what, delay=1)
