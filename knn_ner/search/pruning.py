"""A smaller store that votes like the whole: entries that stand for others, with weights.

Most tokens lie among many of their own label, above all `O`: where all are of one label, a few of them with
the votes of all say nearly what all of them say. What has neighbours of another label stays (condensed
nearest neighbours, Hart 1968, keep just these; here the others stay too, by representatives, so that votes
keep their sizes).
"""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from knn_ner.datastore.manifest import MANIFEST_FILE, Manifest
from knn_ner.datastore.reader import Datastore
from knn_ner.datastore.shard_copy import COPIED_KEYS, SHARD_ENTRIES
from knn_ner.datastore.writer import DatastoreWriter
from knn_ner.search.key_clusters import UNANIMOUS, Cells, chunks
from knn_ner.search.similarity import check_similarity
from knn_ner.utils.errors import UserError


@dataclass(frozen=True)
class Plan:
    """What of a store is kept.

    kept: (m,) int64 entries, ascending. weights: (m,) float32, how many entries each stands for.
    duplicates: entries that went for one of the same key and label.
    certain: entries all of whose neighbours share their label, but for duplicates.
    similarity: of what went to what stands for it, on average: cosine, or minus the squared distance.
    """

    kept: np.ndarray
    weights: np.ndarray
    duplicates: int
    certain: int
    similarity: float


def prune(
    path: str | Path,
    out: str | Path,
    keep: float,
    *,
    unanimous: int = UNANIMOUS,
    similarity: str = "cosine",
    seed: int = 0,
) -> tuple[Manifest, Manifest, Plan]:
    """Write a store with about `keep` times the entries of the one in `path`; that one stays as it is.

    Entries with equal keys and labels become one; that alone changes no vote. Then entries of which
    the `unanimous` nearest share the label are clustered, the most frequent labels first, and of each
    cluster the entry nearest to its mean stays, with the weights of all. A run that died is taken up by
    the same call.

    Args:
        keep: above 0; at 1 only duplicates go.
        similarity: what the store is to be searched with.
        seed: of k-means.

    Returns: the manifests before and after, and what was planned. Raises UserError if `out` holds a
    store, or more entries have neighbours of another label than are to be kept.
    """
    out = Path(out)
    check_similarity(similarity)
    if (out / MANIFEST_FILE).exists():
        raise UserError(f"{out}: holds a datastore; give a new folder for the pruned one")
    if not 0 < keep <= 1:
        raise UserError(f"--keep {keep}: expected a number above 0, at most 1")
    store = Datastore.open(path)
    if not store.entries:
        raise UserError(f"{store.path}: no entries to prune")
    plan = make_plan(store, keep, unanimous, similarity, seed)
    settings = ["prune", store.content_id, keep, unanimous, similarity, seed]
    name = hashlib.sha256(json.dumps(settings).encode()).hexdigest()
    return store.manifest, write_kept(store, plan, out, name), plan


def make_plan(store: Datastore, keep: float, unanimous: int, similarity: str, seed: int) -> Plan:
    """Choose what `prune` keeps. Arguments and errors as there."""
    weights = np.ones(store.entries) if store.weights is None else store.weights.astype(np.float64)
    first = first_of_equals(store)
    duplicates = int((first != np.arange(store.entries)).sum())
    stands_for = first.copy()
    behind, certain = 0.0, 0
    if keep < 1:
        cells = Cells(store, np.unique(first), similarity, seed)
        agreeing = cells.unanimous(unanimous)
        certain = int(agreeing.sum())
        room = round(keep * store.entries) - int((~agreeing).sum())
        if certain and room < 1:
            least = ((~agreeing).sum() + 1) / store.entries
            raise UserError(
                f"--keep {keep}: {least:.2%} of the entries of {store.path} have a neighbour of "
                "another label among so many, and stay; keep more, or look at fewer with --unanimous"
            )
        represented, behind = cells.represent(agreeing, room, weights, stands_for)
        stands_for = represented[stands_for]
    kept, of = np.unique(stands_for, return_inverse=True)
    total = np.bincount(of, weights)
    return Plan(kept, total.astype(np.float32), duplicates, certain, behind)


def first_of_equals(store: Datastore) -> np.ndarray:
    """(n,): for each entry, the first with the same key and label, or itself.

    Of entries with equal keys, which tie in every search and then come by index, only those count that
    follow each other: with another label between them, k could end there.
    """
    digests = np.empty(store.entries, "V16")
    for start, keys in store.blocks(COPIED_KEYS):
        rows = np.ascontiguousarray(keys)
        digests[start : start + len(rows)] = [
            hashlib.blake2b(row, digest_size=16).digest() for row in rows
        ]
    _, group = np.unique(digests, return_inverse=True)
    # By key, and then by index: a run of one key and one label is an entry's equals.
    order = np.argsort(group, kind="stable")
    key, label = group[order], store.label_ids[order]
    begins = np.ones(store.entries, bool)
    begins[1:] = (key[1:] != key[:-1]) | (label[1:] != label[:-1])
    first = np.empty(store.entries, np.int64)
    first[order] = order[np.flatnonzero(begins)[np.cumsum(begins) - 1]]
    return first


def write_kept(store: Datastore, plan: Plan, out: Path, fingerprint: str) -> Manifest:
    """Write what a plan keeps of a store to a new one, with its sentences. Raises as DatastoreWriter."""
    parts = list(_parts(store, plan.kept))
    with (
        DatastoreWriter(
            out,
            dim=store.dim,
            dtype=store.manifest.dtype,
            labels=store.labels,
            provenance={
                name: value for name, value in store.provenance.items() if name != "transform"
            },
            fingerprint=fingerprint,
            shards=len(parts),
            transform=store.transform,
        ) as writer,
        tqdm(total=len(plan.kept), unit="entry", unit_scale=True, desc="write") as progress,
    ):
        for number, part in enumerate(parts):
            if not writer.finished(number):
                with writer.shard(number, part.stop - part.start) as shard:
                    for rows in chunks(np.arange(part.start, part.stop), COPIED_KEYS):
                        entries = plan.kept[rows]
                        shard.write(
                            rows[0] - part.start,
                            store.gather(entries),
                            store.label_ids[entries],
                            store.sentence_ids[entries],
                            store.positions[entries],
                            plan.weights[rows],
                        )
                    for sentence_id in np.unique(store.sentence_ids[plan.kept[part]]).tolist():
                        sentence = store.sentence(sentence_id)
                        shard.add_sentence(sentence_id, sentence["words"], sentence["tags"])
            progress.update(part.stop - part.start)
        return writer.commit("prune", store.manifest.next_sentence)


def _parts(store: Datastore, kept: np.ndarray) -> Iterator[slice]:
    """What of the kept entries becomes a shard: those of neighbouring shards, as sentences lie in one."""
    start = stop = 0
    for number in range(len(store.manifest.shards)):
        end = int(np.searchsorted(kept, store.of_shard(number)[0].stop))
        if stop > start and end - start > SHARD_ENTRIES:
            yield slice(start, stop)
            start = stop
        stop = end
    if stop > start:
        yield slice(start, stop)
