"""Editing a datastore: one commit each, nothing lost, nothing half done; and its command line."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)
from store_factory import LABELS, open_writer, random_entries, write_shard, write_store

from knn_ner.datastore import shard_copy as copying
from knn_ner.datastore.compaction import compact, merge
from knn_ner.datastore.edit import Edit, NewLabels
from knn_ner.datastore.locking import FolderLock
from knn_ner.datastore.manifest import HISTORY_LENGTH, Commit, Manifest, append_commit
from knn_ner.datastore.reader import Datastore
from knn_ner.utils.errors import UserError

KEYS, LABEL_IDS = random_entries(250)


@pytest.fixture
def path(tmp_path) -> Path:
    return tmp_path / "store"


@pytest.fixture
def store(path) -> Datastore:
    """250 entries, 50 sentences, shards of 100, 100 and 50 entries."""
    return write_store(path, KEYS, LABEL_IDS)


def error_of(action) -> str:
    with pytest.raises(UserError) as raised:
        action()
    return str(raised.value)


def add(path: Path, keys: np.ndarray, label_ids: np.ndarray, labels=(), words=None) -> int:
    """Add one sentence by one edit, an entry for each word; returns its id."""
    with Edit(path) as edit:
        edit.add_labels(labels)
        sentence_id = edit.next_sentence
        words = words or [f"word{i}" for i in range(len(keys))]
        with edit.shard(0, len(keys)) as shard:
            shard.write(0, keys, label_ids, [sentence_id] * len(keys), np.arange(len(keys)))
            shard.add_sentence(sentence_id, words, [edit.labels[label] for label in label_ids])
        edit.next_sentence += 1
        edit.commit("add", 1, len(keys))
    return sentence_id


def remove(path: Path, ids) -> None:
    with Edit(path) as edit:
        edit.commit("remove", *edit.remove(ids))


def relabel(path: Path, sentence_id: int, label_ids: np.ndarray, positions: np.ndarray) -> None:
    with Edit(path) as edit:
        tags = [edit.labels[label] for label in label_ids]
        entries = edit.relabel({sentence_id: NewLabels(tags, label_ids, positions)})
        edit.commit("relabel", 1, entries)


def shards_of(path: Path) -> set[str]:
    return {folder.name for folder in path.glob("shard-*")}


def expected_shards(path: Path) -> set[str]:
    return {record.folder for record in Manifest.read(path).shards}


# What an edit does


def test_an_added_sentence_comes_last_and_gets_the_next_id(store, path):
    keys, labels = random_entries(7, seed=1)
    assert add(path, keys, labels) == 50
    assert add(path, -keys, labels) == 51
    grown = Datastore.open(path)
    grown.verify()
    assert (grown.entries, grown.manifest.sentences) == (264, 52)
    np.testing.assert_array_equal(grown.rows(0, 264), np.concatenate([KEYS, keys, -keys]))
    assert grown.label_ids[250:].tolist() == [*labels, *labels]
    assert grown.sentence_ids[250:].tolist() == [50] * 7 + [51] * 7
    assert grown.sentence(51)["words"] == [f"word{i}" for i in range(7)]
    # What was there is not written again.
    assert shards_of(store.path) > {record.folder for record in store.manifest.shards}


def test_new_labels_are_appended(store, path):
    keys, _ = random_entries(2)
    add(path, keys, np.array([6, 5]), labels=["B-DRUG", "O", "S-DRUG"])
    grown = Datastore.open(path)
    assert grown.labels == [*LABELS, "B-DRUG", "S-DRUG"]
    np.testing.assert_array_equal(grown.label_ids[:250], LABEL_IDS)
    counts = grown.manifest.label_counts
    assert counts == store.manifest.label_counts | {"B-DRUG": 1, "S-DRUG": 1}


def test_removed_sentences_are_gone_for_readers(store, path):
    remove(path, [49, 0, 20, 21])
    left = Datastore.open(path)
    left.verify()
    kept = ~np.isin(np.arange(250) // 5, [0, 20, 21, 49])
    assert left.entries == 230 and left.manifest.sentences == 46
    np.testing.assert_array_equal(left.rows(0, 230), KEYS[kept])
    np.testing.assert_array_equal(left.label_ids, LABEL_IDS[kept])
    np.testing.assert_array_equal(left.sentence_ids, (np.arange(250) // 5)[kept])
    np.testing.assert_array_equal(left.norms, store.norms[kept])
    order = np.random.default_rng(0).permutation(230)
    np.testing.assert_array_equal(left.gather(order), KEYS[kept][order])
    np.testing.assert_array_equal(
        np.concatenate([block for _, block in left.blocks(60)]), KEYS[kept]
    )
    counts = dict(zip(LABELS, np.bincount(LABEL_IDS[kept], minlength=5).tolist(), strict=True))
    assert left.manifest.label_counts == counts
    with pytest.raises(KeyError, match="no sentence 20 in "):
        left.sentence(20)
    assert left.sentence(22)["words"][0] == "词22"
    # Again, of a shard that has lost some already; and ids are not given twice.
    remove(path, [22])
    assert Datastore.open(path).entries == 225
    assert add(path, KEYS[:1], LABEL_IDS[:1]) == 50
    assert error_of(lambda: remove(path, [30, 22])) == (
        f"{path}: no sentence 22; ids were given from 0 to 50, less what was removed since"
    )
    assert 30 in Datastore.open(path).stored_sentences


def test_a_store_can_be_emptied_and_filled_again(store, path):
    remove(path, range(50))
    empty = Datastore.open(path)
    assert (empty.entries, empty.manifest.shards, list(empty.blocks(10))) == (0, [], [])
    assert add(path, KEYS[:5], LABEL_IDS[:5]) == 50
    assert Datastore.open(path).entries == 5
    assert shards_of(path) >= expected_shards(path)


def test_relabelling_changes_labels_and_tags_alone(store, path):
    labels = np.array([0, 1, 2, 3, 4])
    relabel(path, 21, labels, np.arange(5) - 1)
    changed = Datastore.open(path)
    changed.verify()
    assert changed.entries == 250 and changed.manifest.sentences == 50
    own = np.flatnonzero(changed.sentence_ids == 21)
    assert changed.label_ids[own].tolist() == labels.tolist()
    np.testing.assert_array_equal(changed.gather(own), KEYS[105:110])
    assert changed.sentence(21)["words"] == store.sentence(21)["words"]
    assert changed.sentence(21)["tags"] == LABELS
    rest = changed.sentence_ids != 21
    np.testing.assert_array_equal(changed.label_ids[rest], np.delete(LABEL_IDS, slice(105, 110)))
    assert error_of(lambda: relabel(path, 21, labels, np.arange(5))) == (
        f"{path}: sentence 21 is stored in 5 word pieces, which are not the 5 that it has now; "
        "remove it and add it again"
    )


def test_many_small_shards_become_one(store, path):
    keys, labels = random_entries(60, seed=2)
    for start in range(0, 60, 2):
        add(path, keys[start : start + 2], labels[start : start + 2])
    grown = Datastore.open(path)
    grown.verify()
    assert len(grown.manifest.shards) < copying.JOINED_SHARDS
    np.testing.assert_array_equal(grown.rows(0, 310), np.concatenate([KEYS, keys]))
    assert grown.sentence_ids[250:].tolist() == np.repeat(np.arange(50, 80), 2).tolist()
    assert grown.sentence(63)["id"] == 63


def test_large_shards_are_not_folded(path, monkeypatch):
    monkeypatch.setattr(copying, "JOINED_BYTES", 8 * 4 * 100)
    store = write_store(path, KEYS, LABEL_IDS)
    for _ in range(2 * copying.JOINED_SHARDS):
        add(path, KEYS[:10], LABEL_IDS[:10])
    folders = expected_shards(path)
    assert {record.folder for record in store.manifest.shards} <= folders
    assert Datastore.open(path).entries == 250 + 20 * copying.JOINED_SHARDS


def test_compacting_drops_what_was_removed_and_joins_shards(store, path):
    remove(path, [3, 30])
    add(path, KEYS[:5], LABEL_IDS[:5])
    before = Datastore.open(path)
    was, now = compact(path)
    after = Datastore.open(path)
    after.verify()
    assert (len(was.shards), len(now.shards)) == (4, 1)
    assert now.bytes < was.bytes and now.shards[0].removed is None
    np.testing.assert_array_equal(after.rows(0, 245), before.rows(0, 245))
    for name in ("label_ids", "sentence_ids", "positions", "norms"):
        np.testing.assert_array_equal(getattr(after, name), getattr(before, name))
    assert list(after.sentences()) == list(before.sentences())
    assert shards_of(path) == expected_shards(path)
    assert not list(path.glob("removed-*"))
    commit = now.history[-1]
    assert (commit.action, commit.sentences, commit.entries) == ("compact", 2, 10)
    # Nothing to do: no commit.
    assert compact(path) == (now, now)
    assert add(path, KEYS[:1], LABEL_IDS[:1]) == 51


def test_compacting_leaves_large_shards_alone(path, monkeypatch):
    monkeypatch.setattr(copying, "SHARD_ENTRIES", 150)
    write_store(path, KEYS, LABEL_IDS)
    first, *_ = Manifest.read(path).shards
    remove(path, [25])
    add(path, KEYS[:40], LABEL_IDS[:40])
    _, now = compact(path)
    assert [record.entries for record in now.shards] == [100, 145, 40]
    assert now.shards[0] == first


def test_merging_two_stores(store, path, tmp_path):
    keys, label_ids = random_entries(60, seed=3)
    other = tmp_path / "other"
    labels = ["O", "S-LOC", "B-GENE", "M-GENE", "E-GENE"]
    write_store(other, keys, label_ids, labels=labels)
    remove(path, [49, 10])
    remove(other, [0])
    manifest = merge([path, other], tmp_path / "merged")
    merged = Datastore.open(tmp_path / "merged")
    merged.verify()
    assert merged.manifest == manifest
    assert merged.labels == [*LABELS, "B-GENE", "M-GENE", "E-GENE"]
    assert merged.entries == 240 + 55
    kept = ~np.isin(np.arange(250) // 5, [10, 49])
    np.testing.assert_array_equal(merged.rows(0, 295), np.concatenate([KEYS[kept], keys[5:]]))
    names = [merged.labels[label] for label in merged.label_ids]
    assert names == [LABELS[i] for i in LABEL_IDS[kept]] + [labels[i] for i in label_ids[5:]]
    # The other's ids come after all that the first ever gave.
    assert merged.stored_sentences.tolist() == [
        *(i for i in range(49) if i != 10),
        *range(51, 62),
    ]
    assert merged.sentence(51) == Datastore.open(other).sentence(1) | {"id": 51}
    assert [(commit.action, commit.sentences) for commit in manifest.history] == [("merge", 59)]
    assert add(tmp_path / "merged", KEYS[:1], LABEL_IDS[:1]) == 62


def test_stores_that_cannot_be_merged(store, path, tmp_path):
    other, half = tmp_path / "other", tmp_path / "half"
    write_store(other, KEYS, LABEL_IDS, provenance={"model": "m2", "layer": "last"})
    write_store(half, KEYS, LABEL_IDS, dtype="float16")
    assert error_of(lambda: merge([path, other], tmp_path / "new")) == (
        f"{other}: made with model 'm2', but to be read with model 'm1'; use what it was made with, "
        "or build the datastore again"
    )
    assert error_of(lambda: merge([path, half], tmp_path / "new")) == (
        f"{half}: holds keys in float16, but {path} in float32; build both with the same --key_dtype"
    )
    assert error_of(lambda: merge([path, path], tmp_path / "new")) == (
        f"{path}: given twice; name each store once"
    )
    assert error_of(lambda: merge([path, half], other)) == (
        f"{other}: holds a datastore; give a new folder for the merged one"
    )
    assert not (tmp_path / "new").exists()


def test_each_commit_is_told_and_makes_another_content(store, path):
    contents = [store.content_id]
    for change in (
        lambda: add(path, KEYS[:3], LABEL_IDS[:3]),
        lambda: remove(path, [4]),
        lambda: relabel(path, 5, np.zeros(5, int), np.arange(5) - 1),
        lambda: compact(path),
    ):
        change()
        contents.append(Manifest.read(path).content_id)
    assert len(set(contents)) == 5
    manifest = Manifest.read(path)
    assert [(c.number, c.action, c.sentences, c.entries) for c in manifest.history] == [
        (1, "build", 50, 250),
        (2, "add", 1, 3),
        (3, "remove", 1, 5),
        (4, "relabel", 1, 5),
        (5, "compact", 2, 10),
    ]
    assert [commit.action for commit in manifest.edits] == ["add", "remove", "relabel"]


def test_a_long_history_keeps_the_first_and_the_latest():
    history: list[Commit] = []
    for number in range(HISTORY_LENGTH + 50):
        history = append_commit(history, "add" if number else "build", 1, 1)
    assert len(history) == HISTORY_LENGTH
    assert [history[0].number, history[1].number, history[-1].number] == [
        1,
        52,
        HISTORY_LENGTH + 50,
    ]


def test_a_store_from_before_edits_can_be_edited(store, path):
    """Its manifest lacks the fields that editing needs."""
    file = path / "manifest.json"
    content = json.loads(file.read_text())
    for field in ("history", "next_sentence", "sha256"):
        del content[field]
    file.write_text(json.dumps(content))
    old = Manifest.read(path)
    assert (old.next_sentence, old.history) == (50, [])
    assert add(path, KEYS[:1], LABEL_IDS[:1]) == 50
    assert [commit.action for commit in Manifest.read(path).history] == ["add"]


# Readers


def test_readers_go_on_with_what_they_opened(path):
    keys, labels = random_entries(1000, dim=300)
    write_store(path, keys, labels, cut=500)
    reader = Datastore.open(path)
    remove(path, [0, 150])
    relabel(path, 7, np.zeros(5, int), np.arange(5) - 1)
    compact(path)
    np.testing.assert_array_equal(reader.gather(np.arange(1000)), keys)
    np.testing.assert_array_equal(reader.label_ids, labels)
    assert reader.sentence(150)["words"][0] == "词150"


def test_refreshing_reads_only_what_is_new(store, path, monkeypatch):
    assert store.refresh() is store
    opened = []
    load = np.load
    monkeypatch.setattr(
        np, "load", lambda file, **how: (opened.append(Path(file)), load(file, **how))[1]
    )
    add(path, -KEYS[:4], LABEL_IDS[:4])
    opened.clear()
    fresh = store.refresh()
    new = Manifest.read(path).shards[-1].folder
    assert {file.parent.name for file in opened} == {new}
    assert (store.entries, fresh.entries) == (250, 254)
    np.testing.assert_array_equal(fresh.rows(240, 254), np.concatenate([KEYS[240:], -KEYS[:4]]))
    assert fresh.sentence(50)["id"] == 50
    remove(path, [1])
    fresher = fresh.refresh()
    assert (fresh.entries, fresher.entries) == (254, 249)
    np.testing.assert_array_equal(fresher.rows(0, 10), KEYS[[*range(5), *range(10, 15)]])


def test_refreshing_does_not_change_the_model(store, path):
    write_store(path, KEYS, LABEL_IDS, provenance={"model": "m2", "layer": "last"})
    assert error_of(store.refresh).startswith(f"{path}: made with model 'm2', but to be read with")


# Edits that die, and edits at once

ROOT = Path(__file__).parents[2]
ENVIRONMENT = os.environ | {
    "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}{os.pathsep}{ROOT / 'tests' / 'datastore'}"
}


def start(script: str, *arguments: object) -> subprocess.Popen:
    command = [sys.executable, "-c", script, *map(str, arguments)]
    return subprocess.Popen(command, env=ENVIRONMENT, stdout=subprocess.PIPE, text=True)


DIE = """
import os, signal, sys
import numpy as np
from knn_ner.datastore import edit
from knn_ner.datastore.manifest import Manifest
die = lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL)
if sys.argv[2] == "before":
    Manifest.write = die
else:
    edit.remove_unnamed = die
changed = edit.Edit(sys.argv[1])
labels = np.zeros(5, int)
changed.relabel({7: edit.NewLabels(["O"] * 5, labels, np.arange(5) - 1)})
changed.commit("relabel", 1, 5)
changed.__exit__()
"""


@pytest.mark.parametrize("moment", ["before", "after"])
def test_an_edit_that_is_killed(store, path, moment):
    """Before the manifest is replaced all is as it was; after that all is done, but for the clean-up."""
    died = start(DIE, path, moment)
    assert died.wait() == -signal.SIGKILL
    found = Datastore.open(path)
    found.verify()
    done = moment == "after"
    assert len(found.manifest.edits) == done
    assert (found.label_ids[found.sentence_ids == 7] == 0).all() == done
    if not done:
        assert found.manifest == store.manifest
        assert len(list(path.glob("removed-*"))) == 1
    assert len(shards_of(path)) == 4
    for _ in range(4):
        add(path, KEYS[:1], LABEL_IDS[:1])
    assert shards_of(path) == expected_shards(path)
    assert len(list(path.glob("removed-*"))) == done
    assert Datastore.open(path).entries == 254


def test_an_edit_that_fails_leaves_nothing(store, path):
    before = sorted(path.rglob("*"))
    with pytest.raises(KeyboardInterrupt), Edit(path) as edit:
        edit.remove([1, 30])
        with edit.shard(0, 5) as shard:
            shard.write(0, KEYS[:5], LABEL_IDS[:5], [50] * 5, range(5))
            shard.add_sentence(50, ["a"], ["O"])
        raise KeyboardInterrupt
    # Small edits clean up behind them in small parts.
    for _ in range(3):
        Edit(path).__exit__()
    assert sorted(path.rglob("*")) == before
    assert Datastore.open(path).manifest == store.manifest


def test_an_edit_spares_an_unfinished_build(store, path):
    with open_writer(path, KEYS, 100, fingerprint="build 2") as writer:
        write_shard(writer, 0, KEYS, LABEL_IDS, 100)
    for _ in range(3):
        add(path, KEYS[:1], LABEL_IDS[:1])
    with open_writer(path, KEYS, 100, fingerprint="build 2") as writer:
        assert writer.resumed == 1
    # Its journal outlives a commit by a crash alone; then it is no unfinished build.
    journal = (path / "building.json").read_text()
    with open_writer(path, KEYS, 100, fingerprint="build 2") as writer:
        for number in range(1, 3):
            write_shard(writer, number, KEYS, LABEL_IDS, 100)
        writer.commit()
    (path / "building.json").write_text(journal)
    compact(path)
    assert shards_of(path) == expected_shards(path) and not (path / "building.json").exists()


ADD = """
import sys
from pathlib import Path
from store_factory import random_entries
from test_edit import add
keys, labels = random_entries(20, seed=int(sys.argv[2]))
print(*(add(Path(sys.argv[1]), keys[i : i + 2], labels[i : i + 2]) for i in range(0, 20, 2)))
"""


def test_two_processes_that_add_at_once_lose_nothing(store, path):
    processes = [start(ADD, path, seed) for seed in (11, 12)]
    ids = [[int(i) for i in process.communicate()[0].split()] for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    assert sorted(ids[0] + ids[1]) == list(range(50, 70))
    grown = Datastore.open(path)
    grown.verify()
    assert grown.entries == 290 and len(grown.manifest.history) == 21
    for seed, own in zip((11, 12), ids, strict=True):
        keys, labels = random_entries(20, seed=seed)
        for number, sentence_id in enumerate(own):
            rows = np.flatnonzero(grown.sentence_ids == sentence_id)
            np.testing.assert_array_equal(grown.gather(rows), keys[2 * number :][:2])
            assert grown.label_ids[rows].tolist() == labels[2 * number :][:2].tolist()


def test_a_second_writer_waits_no_longer_than_it_should(store, path):
    with FolderLock(path):
        assert error_of(lambda: Edit(path, wait=0.05)) == (
            f"{path}: another process has been writing for 0.05 s to this datastore; "
            "wait until it has finished"
        )
    Edit(path, wait=0).__exit__()


def test_an_edit_needs_a_datastore(path):
    assert error_of(lambda: Edit(path)) == (
        f"{path}/manifest.json: not found, so {path} holds no finished datastore; "
        "build it, or finish building it, with python -m knn_ner.build_datastore"
    )
    assert not path.exists()


def test_a_removal_that_is_damaged(store, path):
    remove(path, [1, 2])
    (file,) = path.glob("removed-*")
    content = bytearray(file.read_bytes())
    content[-4] = 3
    file.write_bytes(content)
    assert error_of(lambda: Datastore.open(path)) == (
        f"{file}: its content differs from the checksum in the manifest; build the datastore again"
    )
    file.unlink()
    assert error_of(lambda: Datastore.open(path)) == (
        f"{file}: not found, but the manifest names it; build the datastore again"
    )


# Any edits, in any order


class Edits(RuleBasedStateMachine):
    """An edited store holds what a dictionary holds to which the same was done."""

    @initialize(seed=st.integers(0, 99))
    def build(self, seed):
        self.path = Path(TemporaryFolder.new())
        keys, labels = random_entries(40, dim=4, seed=seed)
        self.reader = write_store(self.path, keys, labels, cut=20)
        self.sentences = {
            i: (keys[5 * i :][:5].tolist(), labels[5 * i :][:5].tolist(), [-1, 0, 1, 2, 3])
            for i in range(8)
        }
        self.next_id = 8
        self.generator = np.random.default_rng(seed)

    @rule(entries=st.integers(1, 6))
    def add(self, entries):
        keys, labels = random_entries(entries, 4, int(self.generator.integers(1 << 30)))
        assert add(self.path, keys, labels) == self.next_id
        self.sentences[self.next_id] = (keys.tolist(), labels.tolist(), list(range(entries)))
        self.next_id += 1

    @precondition(lambda self: self.sentences)
    @rule(data=st.data())
    def remove(self, data):
        ids = data.draw(st.sets(st.sampled_from(sorted(self.sentences)), min_size=1, max_size=4))
        remove(self.path, ids)
        for sentence_id in ids:
            del self.sentences[sentence_id]

    @precondition(lambda self: self.sentences)
    @rule(data=st.data())
    def relabel(self, data):
        sentence_id = data.draw(st.sampled_from(sorted(self.sentences)))
        keys, labels, positions = self.sentences[sentence_id]
        labels = self.generator.integers(0, len(LABELS), len(labels))
        relabel(self.path, sentence_id, labels, np.array(positions))
        self.sentences[sentence_id] = (keys, labels.tolist(), positions)

    @rule()
    def compact(self):
        compact(self.path)

    @invariant()
    def holds_the_same(self):
        self.reader = self.reader.refresh()
        for store in (self.reader, Datastore.open(self.path)):
            assert store.stored_sentences.tolist() == sorted(self.sentences)
            assert store.manifest.entries == store.entries
            keys = store.rows(0, store.entries) if store.entries else np.zeros((0, 4))
            found = {
                i: (
                    keys[store.sentence_ids == i].tolist(),
                    store.label_ids[store.sentence_ids == i].tolist(),
                    store.positions[store.sentence_ids == i].tolist(),
                )
                for i in self.sentences
            }
            assert found == self.sentences
        counts = np.bincount(store.label_ids, minlength=len(LABELS)).tolist()
        assert list(store.manifest.label_counts.values()) == counts

    def teardown(self):
        Datastore.open(self.path).verify()


class TemporaryFolder:
    """Folders for the state machine, which no fixture can reach."""

    base: Path
    count = 0

    @classmethod
    def new(cls) -> Path:
        cls.count += 1
        return cls.base / str(cls.count)


def test_any_edits_in_any_order(tmp_path, monkeypatch):
    monkeypatch.setattr(copying, "JOINED_SHARDS", 4)
    monkeypatch.setattr(copying, "SHARD_ENTRIES", 30)
    TemporaryFolder.base = tmp_path
    Edits.TestCase.settings = settings(max_examples=12, stateful_step_count=12, deadline=None)
    Edits.TestCase("runTest").runTest()
