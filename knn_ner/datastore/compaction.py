"""Whole stores written anew: `compact` one, `merge` several, `transform_keys` of one."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from tqdm import tqdm

from knn_ner.datastore.edit import Edit
from knn_ner.datastore.key_transform import KeyTransform
from knn_ner.datastore.locking import WAIT
from knn_ner.datastore.manifest import MANIFEST_FILE, Manifest
from knn_ner.datastore.reader import Datastore
from knn_ner.datastore.shard_copy import copy_entries, groups
from knn_ner.datastore.writer import DatastoreWriter
from knn_ner.utils.errors import UserError


def compact(path: str | Path, wait: float = WAIT) -> tuple[Manifest, Manifest]:
    """Drop what was removed from the files, and write small shards as few large ones.

    The entries, their order and the sentences' ids stay. One commit; none if there is nothing to do.

    Returns: the manifests before and after. Raises UserError as `Edit` does.
    """
    path = Path(path)
    with Edit(path, wait) as edit:
        before = edit.manifest
        planned = groups(before.shards)
        if all(len(group) == 1 and group[0].removed is None for group in planned):
            return before, before
        kept = []
        with tqdm(total=before.entries, unit="entry", unit_scale=True, desc="compact") as progress:
            for number, group in enumerate(planned):
                source = Datastore(path, replace(before, shards=group))
                if len(group) == 1 and group[0].removed is None:
                    progress.update(source.entries)
                    kept += group
                    continue
                with edit.new_shard(number, source.entries) as shard:
                    copy_entries(source, shard, progress=progress)
                kept.append(shard.record)
        dropped = [record.removed for record in before.shards if record.removed]
        edit.shards = kept
        after = edit.commit(
            "compact",
            sum(removal.sentences for removal in dropped),
            sum(removal.entries for removal in dropped),
        )
        edit.clean()
    return before, after


def merge(paths: Sequence[str | Path], out: str | Path) -> Manifest:
    """Write the content of several stores of one model into a new store, in the order given.

    The label list is that of the first, then what the others have beside it. Sentences of the first
    keep their ids; those of each other are raised by the ids that come before. A merge that died is
    taken up by the same merge, if its sources are as they were.

    Returns: the manifest of the new store. Raises UserError if the stores were not made with the
    same model, layer and so on, hold keys of different types, or `out` holds a store.
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
    raised = np.cumsum([0, *(source.manifest.next_sentence for source in sources)]).tolist()
    planned = [
        (source, first_sentence, group)
        for source, first_sentence in zip(sources, raised, strict=False)
        for group in groups(source.manifest.shards)
    ]
    content = json.dumps(["merge", *(source.content_id for source in sources)])
    with (
        DatastoreWriter(
            out,
            dim=first.dim,
            dtype=first.manifest.dtype,
            labels=labels,
            provenance=first.provenance,
            fingerprint=hashlib.sha256(content.encode()).hexdigest(),
            shards=len(planned),
            transform=first.transform,
        ) as writer,
        tqdm(
            total=sum(source.entries for source in sources),
            unit="entry",
            unit_scale=True,
            desc="merge",
        ) as progress,
    ):
        for number, (source, first_sentence, group) in enumerate(planned):
            part = Datastore(source.path, replace(source.manifest, shards=group))
            if writer.finished(number):
                progress.update(part.entries)
                continue
            with writer.shard(number, part.entries) as shard:
                copy_entries(
                    part,
                    shard,
                    label_ids=np.array([labels.index(label) for label in source.labels]),
                    first_sentence=first_sentence,
                    progress=progress,
                )
        return writer.commit("merge", raised[-1])


def check_mergeable(source: Datastore, first: Datastore) -> None:
    """Raise UserError unless the keys of two stores were made in the same way, and fit each other."""
    transforms = [store.transform.name if store.transform else "none" for store in (source, first)]
    if source.provenance.get("transform") != first.provenance.get("transform"):
        raise UserError(
            f"{source.path}: keys went through {transforms[0]}, but those of {first.path} through "
            f"{transforms[1]}, each fitted on its own keys; build one store of all sentences, or add "
            "the ones to the other"
        )
    source.check_provenance(first.provenance)


def transform_keys(
    source: Datastore, out: str | Path, transform: KeyTransform | None, dtype: str, fingerprint: str
) -> Manifest:
    """Write a store with other keys: those of `source`, through a transform if there is one.

    Entries, sentences and shards are those of `source`. What `out` holds stays good until the end; a run
    that died is taken up by the same call.

    Args:
        dtype, fingerprint: of the new store.

    Returns: its manifest. Raises UserError as `DatastoreWriter` does.
    """
    shards = source.manifest.shards
    with (
        DatastoreWriter(
            out,
            dim=transform.width if transform else source.dim,
            dtype=dtype,
            labels=source.labels,
            provenance=source.provenance,
            fingerprint=fingerprint,
            shards=len(shards),
            transform=transform,
        ) as writer,
        tqdm(
            total=source.entries,
            unit="entry",
            unit_scale=True,
            desc=transform.name if transform else dtype,
            delay=1,
        ) as progress,
    ):
        for number, record in enumerate(shards):
            part = Datastore(source.path, replace(source.manifest, shards=[record]))
            if writer.finished(number):
                progress.update(part.entries)
                continue
            with writer.shard(number, part.entries) as shard:
                copy_entries(part, shard, transform=transform, progress=progress)
        return writer.commit("build", source.manifest.next_sentence)
