"""The datastore on disk: what is written is read, whole or not at all, whatever dies in between."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from store_factory import LABELS, open_writer, random_entries, write_shard, write_store

from knn_ner.datastore.manifest import SHARD_FILES, Manifest
from knn_ner.datastore.reader import Datastore
from knn_ner.datastore.writer import is_built
from knn_ner.utils.errors import UserError

KEYS, LABEL_IDS = random_entries(250)


@pytest.fixture
def path(tmp_path) -> Path:
    return tmp_path / "store"


@pytest.fixture
def store(path) -> Datastore:
    """250 entries, 50 sentences, shards of 100, 100 and 50 entries."""
    return write_store(path, KEYS, LABEL_IDS)


def shard_folders(path: Path) -> list[Path]:
    return sorted(path.glob("shard-*"))


def error_of(action) -> str:
    with pytest.raises(UserError) as raised:
        action()
    return str(raised.value)


def test_what_is_written_is_read(store):
    store.verify()
    assert (store.entries, store.dim, store.dtype) == (250, 8, np.float32)
    assert [len(keys) for keys in store.keys] == [100, 100, 50]
    np.testing.assert_array_equal(np.concatenate(store.keys), KEYS)
    np.testing.assert_array_equal(store.label_ids, LABEL_IDS)
    np.testing.assert_array_equal(store.sentence_ids, np.arange(250) // 5)
    np.testing.assert_array_equal(store.positions, np.arange(250) % 5 - 1)
    np.testing.assert_allclose(store.norms, np.linalg.norm(KEYS, axis=1), rtol=1e-6)
    assert store.labels == LABELS
    assert store.sentence(37) == {
        "id": 37,
        "words": ["词37", "a\tb", "\U0001f600", "w"],
        "tags": ["O", "O", "B-PER", "E-PER"],
    }
    with pytest.raises(KeyError, match="no sentence 50 in "):
        store.sentence(50)


def test_files_are_plain_npy(store):
    folder = shard_folders(store.path)[0]
    keys = np.load(folder / "keys.npy", mmap_mode="r")
    assert isinstance(keys, np.memmap)
    assert (keys.shape, keys.dtype) == ((100, 8), np.float32)
    assert np.load(folder / "labels.npy", mmap_mode="r").tolist() == LABEL_IDS[:100].tolist()
    manifest = json.loads((store.path / "manifest.json").read_text())
    assert manifest["counts"]["entries"] == 250
    assert manifest["counts"]["sentences"] == 50
    counts = dict(zip(LABELS, np.bincount(LABEL_IDS).tolist(), strict=True))
    assert manifest["counts"]["labels"] == counts


def test_large_shards_are_mapped_not_read(path):
    keys, labels = random_entries(1000, dim=300)
    store = write_store(path, keys, labels, cut=1000)
    assert isinstance(store.keys[0], np.memmap)
    np.testing.assert_array_equal(store.rows(990, 1000), keys[990:])


def test_float16_keys_and_their_norms(path):
    store = write_store(path, KEYS, LABEL_IDS, dtype="float16")
    np.testing.assert_array_equal(np.concatenate(store.keys), KEYS.astype(np.float16))
    norms = np.linalg.norm(KEYS.astype(np.float16).astype(np.float64), axis=1)
    np.testing.assert_array_equal(store.norms, norms.astype(np.float32))


@pytest.mark.parametrize("size", [1, 60, 100, 130, 1000])
def test_blocks_cross_shards(store, size):
    blocks = list(store.blocks(size))
    assert [start for start, _ in blocks] == list(range(0, 250, size))
    np.testing.assert_array_equal(np.concatenate([block for _, block in blocks]), KEYS)
    assert {len(block) for _, block in blocks[:-1]} <= {size}


def test_gather_takes_entries_in_the_given_order(store):
    indices = np.array([249, 0, 100, 99, 100, 200])
    np.testing.assert_array_equal(store.gather(indices), KEYS[indices])
    assert store.gather(np.zeros(0, np.int64)).shape == (0, 8)
    with pytest.raises(IndexError, match="entries -1 to 0 of 250"):
        store.gather(np.array([0, -1]))


def test_order_of_writing_does_not_matter(store, tmp_path):
    generator = np.random.default_rng(5)
    with open_writer(tmp_path / "shuffled", KEYS, 100) as writer:
        for number in (2, 0, 1):
            order = generator.permutation(min(100, 250 - number * 100))
            write_shard(writer, number, KEYS, LABEL_IDS, 100, order)
        writer.commit()
    for one, other in zip(shard_folders(store.path), shard_folders(writer.path), strict=True):
        for name in SHARD_FILES:
            assert (one / name).read_bytes() == (other / name).read_bytes()
    assert Datastore.open(writer.path).content_id == store.content_id


def test_content_id_changes_with_the_content(store, tmp_path):
    changed = LABEL_IDS.copy()
    changed[17] = (changed[17] + 1) % len(LABELS)
    assert write_store(tmp_path / "other", KEYS, changed).content_id != store.content_id


# A build that dies, and what becomes of it


def test_a_killed_build_is_resumed_from_its_finished_shards(path):
    script = """
import os, signal, sys
from pathlib import Path
from store_factory import open_writer, random_entries, write_shard
keys, labels = random_entries(250)
writer = open_writer(Path(sys.argv[1]), keys, 100)
write_shard(writer, 0, keys, labels, 100)
write_shard(writer, 2, keys, labels, 100)
with writer.shard(1, 100) as shard:
    shard.write(0, keys[100:130], labels[100:130], [20] * 30, [0] * 30)
    os.kill(os.getpid(), signal.SIGKILL)
"""
    root = Path(__file__).parents[2]
    environment = os.environ | {"PYTHONPATH": f"{root}{os.pathsep}{root / 'tests'}"}
    died = subprocess.run([sys.executable, "-c", script, path], env=environment)
    assert died.returncode == -signal.SIGKILL
    assert error_of(lambda: Datastore.open(path)) == (
        f"{path}/manifest.json: not found, so {path} holds no finished datastore; "
        "build it, or finish building it, with python -m knn_ner.build_datastore"
    )
    with open_writer(path, KEYS, 100) as writer:
        assert (writer.resumed, writer.discarded) == (2, 0)
        assert [writer.finished(number) for number in range(3)] == [True, False, True]
        with pytest.raises(ValueError, match="shard 1 of 3 is not finished"):
            writer.commit()
        write_shard(writer, 1, KEYS, LABEL_IDS, 100)
        writer.commit()
    store = Datastore.open(path)
    store.verify()
    np.testing.assert_array_equal(np.concatenate(store.keys), KEYS)
    assert sorted(item.name for item in path.iterdir() if not item.is_dir()) == [
        "building.lock",
        "manifest.json",
    ]
    assert len([item for item in path.iterdir() if item.is_dir()]) == 3


def test_a_shard_that_fails_leaves_nothing(path):
    with open_writer(path, KEYS, 100) as writer:
        with pytest.raises(KeyboardInterrupt), writer.shard(0, 100):
            raise KeyboardInterrupt
        assert not writer.finished(0)
        assert [item for item in path.iterdir() if item.is_dir()] == []


@pytest.mark.parametrize(
    "change", [{"fingerprint": "build 2"}, {"dtype": "float16"}, {"provenance": {"model": "m2"}}]
)
def test_another_build_discards_what_is_unfinished(path, change):
    with open_writer(path, KEYS, 100) as writer:
        write_shard(writer, 0, KEYS, LABEL_IDS, 100)
    with open_writer(path, KEYS, 100, **change) as writer:
        assert (writer.resumed, writer.discarded) == (0, 1)
        assert shard_folders(path) == []


def test_a_truncated_shard_is_not_resumed(path):
    with open_writer(path, KEYS, 100) as writer:
        write_shard(writer, 0, KEYS, LABEL_IDS, 100)
    with (shard_folders(path)[0] / "keys.npy").open("r+b") as stream:
        stream.truncate(500)
    with open_writer(path, KEYS, 100) as writer:
        assert writer.resumed == 0
        assert not writer.finished(0)


def test_a_rebuild_replaces_the_store_at_its_commit_and_readers_keep_theirs(path):
    keys, labels = random_entries(1000, dim=300)
    old = write_store(path, keys, labels, cut=500)
    old_folders = shard_folders(path)
    with open_writer(path, -keys, 1000, fingerprint="build 2") as writer:
        write_shard(writer, 0, -keys, labels, 1000)
        # Not committed: a new reader still gets the old store.
        assert Datastore.open(path).fingerprint == "build 1"
        writer.commit()
    assert is_built(path, "build 2") and not is_built(path, "build 1")
    assert not any(folder.exists() for folder in old_folders)
    np.testing.assert_array_equal(old.gather(np.arange(1000)), keys)
    assert old.sentence(120)["words"][0] == "词120"
    np.testing.assert_array_equal(Datastore.open(path).rows(0, 1000), -keys)


def test_a_dead_rebuild_leaves_the_store_as_it_was(store, path):
    with open_writer(path, KEYS, 100, fingerprint="build 2") as writer:
        write_shard(writer, 0, KEYS, LABEL_IDS, 100)
    Datastore.open(path).verify()
    assert is_built(path, "build 1")
    # The next build removes what the dead one left, not what the manifest names.
    with open_writer(path, KEYS, 100, fingerprint="build 3") as writer:
        assert writer.discarded == 1
    store.verify()


def test_a_crash_between_manifest_and_clean_up(store, path):
    journal = path / "building.json"
    with open_writer(path, -KEYS, 100, fingerprint="build 2") as writer:
        for number in range(3):
            write_shard(writer, number, -KEYS, LABEL_IDS, 100)
        left_behind = journal.read_text()
        writer.commit()
    journal.write_text(left_behind)
    with open_writer(path, -KEYS, 100, fingerprint="build 2") as writer:
        assert (writer.resumed, writer.discarded) == (0, 0)
        write_shard(writer, 0, -KEYS, LABEL_IDS, 100)
    Datastore.open(path).verify()


def test_two_builds_at_once(path):
    with open_writer(path, KEYS, 100):
        message = error_of(lambda: open_writer(path, KEYS, 100))
    assert message == (
        f"{path}: another process is writing to this datastore; wait until it has finished"
    )
    open_writer(path, KEYS, 100).close()


# What the writer refuses


def test_values_that_float16_cannot_hold(path):
    large = KEYS.copy()
    large[3, 1] = -70000
    with open_writer(path, large, 100, dtype="float16") as writer:
        message = error_of(lambda: write_shard(writer, 0, large, LABEL_IDS, 100))
    assert message == (
        f"{path}: a hidden state holds 70000, which float16 cannot; "
        "store keys as float32, or look for a model that diverged"
    )


def test_a_path_that_is_a_file(path):
    path.write_text("")
    message = error_of(lambda: open_writer(path, KEYS, 100))
    assert message == f"{path}: not a folder; give a folder for the datastore"


def test_rows_are_written_once_and_all(path):
    with open_writer(path, KEYS, 100) as writer:
        with (
            pytest.raises(ValueError, match="rows 5 to 15 of 100: outside, or written before"),
            writer.shard(0, 100) as shard,
        ):
            shard.write(0, KEYS[:10], LABEL_IDS[:10], [0] * 10, [0] * 10)
            shard.write(5, KEYS[:10], LABEL_IDS[:10], [0] * 10, [0] * 10)
        with (
            pytest.raises(ValueError, match="row 10 of 100 was never written"),
            writer.shard(0, 100) as shard,
        ):
            shard.write(0, KEYS[:10], LABEL_IDS[:10], [0] * 10, [0] * 10)
        with (
            pytest.raises(ValueError, match="an entry's sentence was not given"),
            writer.shard(0, 10) as shard,
        ):
            shard.write(0, KEYS[:10], LABEL_IDS[:10], [0] * 10, [0] * 10)
        with (
            pytest.raises(ValueError, match="label ids outside 0 to 4"),
            writer.shard(0, 10) as shard,
        ):
            shard.write(0, KEYS[:10], [5] * 10, [0] * 10, [0] * 10)
        assert not writer.finished(0)


# Damage, each with its one line


def test_a_truncated_file(store):
    file = shard_folders(store.path)[1] / "keys.npy"
    with file.open("r+b") as stream:
        stream.truncate(1000)
    assert error_of(lambda: Datastore.open(store.path)) == (
        f"{file}: 1000 bytes, but the manifest says 3328; build the datastore again"
    )
    assert not is_built(store.path, "build 1")


def test_a_missing_file(store):
    file = shard_folders(store.path)[0] / "sentences.jsonl"
    file.unlink()
    assert error_of(lambda: Datastore.open(store.path)) == (
        f"{file}: not found, but the manifest names it; build the datastore again"
    )


def test_verify_finds_one_changed_byte(store):
    file = shard_folders(store.path)[2] / "keys.npy"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    damaged = Datastore.open(store.path)
    assert error_of(damaged.verify) == (
        f"{file}: its content differs from the checksum in the manifest; build the datastore again"
    )


def test_a_file_that_is_no_npy(store):
    file = shard_folders(store.path)[0] / "norms.npy"
    file.write_bytes(b"x" * file.stat().st_size)
    message = error_of(lambda: Datastore.open(store.path))
    assert message.startswith(f"{file}: not a .npy file (")
    assert "\n" not in message and message.endswith("; build the datastore again")


def test_an_array_of_another_form(store):
    file = shard_folders(store.path)[0] / "labels.npy"
    np.save(file, np.zeros((50, 2), np.int16))
    assert error_of(lambda: Datastore.open(store.path)) == (
        f"{file}: holds int16 (50, 2), but the manifest says int16 (100,); "
        "build the datastore again"
    )


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "not valid JSON (Expecting property name enclosed in double quotes: line 1 column 2"),
        ("[]", "not the manifest of a datastore (no format 'knn-ner datastore')"),
        (
            '{"format": "knn-ner datastore", "version": 3}',
            "format version 3, expected 1 or 2; build the datastore again",
        ),
        (
            '{"format": "knn-ner datastore", "version": 1, "dim": 8}',
            "a field is missing or unknown ('dtype'); build the datastore again",
        ),
    ],
)
def test_manifests_that_cannot_be_read(store, content, message):
    file = store.path / "manifest.json"
    file.write_text(content)
    assert error_of(lambda: Datastore.open(store.path)).startswith(f"{file}: {message}")
    # Building again, as the message says, is possible.
    assert write_store(store.path, KEYS, LABEL_IDS, fingerprint="build 2").entries == 250
    assert len(shard_folders(store.path)) == 3


def test_a_store_is_read_with_what_it_was_made_with(store):
    store.check_provenance({"model": "m1"})
    store.check_provenance({"model": "m1", "layer": "last"})
    assert error_of(lambda: store.check_provenance({"layer": "last", "model": "m2"})) == (
        f"{store.path}: made with model 'm1', but to be read with model 'm2'; "
        "use what it was made with, or build the datastore again"
    )
    assert error_of(lambda: store.check_provenance({"scheme": "BIO"})) == (
        f"{store.path}: made with scheme None, but to be read with scheme 'BIO'; "
        "use what it was made with, or build the datastore again"
    )


def test_a_reader_that_opens_during_a_commit_gets_the_new_store(store, path, tmp_path):
    old = Manifest.read(path)
    replaced = write_store(tmp_path / "new", -KEYS, LABEL_IDS, fingerprint="build 2")

    class Racing(Datastore):
        def __init__(self, path: Path, manifest: Manifest):
            if manifest == old:
                # Between the reader's two looks another process commits.
                shutil.rmtree(path)
                shutil.copytree(replaced.path, path)
            super().__init__(path, manifest)

    assert Racing.open(path).fingerprint == "build 2"
