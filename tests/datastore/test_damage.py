"""Damaged and hostile datastores: each is refused in one line that names the file."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from store_factory import open_writer, random_entries, write_store

from knn_ner.datastore import __main__ as command
from knn_ner.datastore.edit import Edit, remove_sentences
from knn_ner.datastore.locking import FolderLock, lock_file
from knn_ner.datastore.manifest import Manifest
from knn_ner.datastore.reader import Datastore
from knn_ner.utils.errors import UserError

KEYS, LABEL_IDS = random_entries(250)
AGAIN = "build the datastore again"


@pytest.fixture
def path(tmp_path) -> Path:
    """250 entries, 50 sentences, shards of 100, 100 and 50 entries."""
    write_store(tmp_path / "store", KEYS, LABEL_IDS)
    return tmp_path / "store"


def error_of(action) -> str:
    with pytest.raises(UserError) as raised:
        action()
    assert "\n" not in str(raised.value)
    return str(raised.value)


def shard(path: Path, number: int = 0) -> Path:
    return sorted(path.glob("shard-*"))[number]


def change_array(file: Path, row, value) -> None:
    array = np.load(file)
    array[row] = value
    np.save(file, array)


def change_manifest(path: Path, change, keep_checksum: bool = False) -> None:
    """Change the content of a manifest; without a checksum, it is like one of an earlier version."""
    file = path / "manifest.json"
    content = json.loads(file.read_text())
    change(content)
    if not keep_checksum:
        content.pop("sha256", None)
    file.write_text(json.dumps(content, indent=2) + "\n")


@pytest.mark.parametrize(
    ("name", "row", "value", "found"),
    [
        ("labels.npy", 7, 3000, "label id 3000 found, expected 0 to 4"),
        ("labels.npy", 99, 5, "label id 5 found, expected 0 to 4"),
        ("labels.npy", 0, -1, "label id -1 found, expected 0 to 4"),
        ("positions.npy", 3, -2, "position -2 found, expected -1 to "),
        ("positions.npy", 50, 1 << 30, f"position {1 << 30} found, expected -1 to "),
        ("sentence_ids.npy", 1, -5, "sentence id -5 found, expected 0 to 49"),
        ("sentence_ids.npy", 1, 50, "sentence id 50 found, expected 0 to 49"),
        ("sentence_index.npy", (2, 0), 77, "sentence id 77 found, expected 0 to 49"),
        ("sentence_index.npy", (2, 1), -1, "byte -1 found, expected 0 to "),
        ("sentence_index.npy", (19, 2), 1 << 40, "byte 10995116"),
    ],
)
def test_numbers_out_of_range(path, fails, name, row, value, found):
    file = shard(path) / name
    change_array(file, row, value)
    message = error_of(lambda: Datastore.open(path))
    assert message.startswith(f"{file}: {found}") and message.endswith(f"; {AGAIN}")
    before = sorted(path.rglob("*"))
    for line in (("compact",), ("remove", "--ids", "3"), ("verify",)):
        assert fails(command.main, line[0], "--datastore_path", path, *line[1:]) == (
            f"error: {message}"
        )
    assert sorted({*path.rglob("*")} - {path / "building.lock"}) == [
        item for item in before if item.name != "building.lock"
    ]


@pytest.mark.parametrize("bit", [0, 3, 8, 31])
def test_a_bit_of_a_removal_list(path, bit):
    remove_sentences(path, [1, 2, 30])
    file = sorted(path.glob("removed-*"))[0]
    content = bytearray(file.read_bytes())
    content[-8 + bit // 8] ^= 1 << bit % 8
    file.write_bytes(content)
    assert error_of(lambda: Datastore.open(path)) == (
        f"{file}: its content differs from the checksum in the manifest; {AGAIN}"
    )


@pytest.mark.parametrize(
    ("field", "found"),
    [
        ("entries", "leaves 90 entries of 18 sentences, but the manifest says 89 of 18"),
        ("sentences", "holds int32 (2,), but the manifest says int32 (3,)"),
        ("bytes", "136 bytes, but the manifest says 137"),
    ],
)
def test_counts_of_a_removal(path, field, found):
    remove_sentences(path, [1, 2])

    def add_one(content):
        content["shards"][0]["removed"][field] += 1

    change_manifest(path, add_one)
    (file,) = path.glob("removed-*")
    assert error_of(lambda: Datastore.open(path)) == f"{file}: {found}; {AGAIN}"


def test_entries_that_are_left_are_counted(path):
    """An id outside a removal list changes: its entries would vote again, or no more."""
    remove_sentences(path, [1, 2])
    change_array(shard(path) / "sentence_ids.npy", slice(5, 6), 0)
    (file,) = path.glob("removed-*")
    assert error_of(lambda: Datastore.open(path)) == (
        f"{file}: leaves 91 entries of 18 sentences, but the manifest says 90 of 18; {AGAIN}"
    )


@pytest.mark.parametrize(
    "name", ["/etc", "..", "../other", "a/b", "", ".", "shard-0/../../x", "a\0b", "\n"]
)
@pytest.mark.parametrize("where", ["folder", "file", "removed"])
def test_names_that_lead_out_of_the_folder(path, name, where):
    remove_sentences(path, [1])

    def rename(content):
        first = content["shards"][0]
        if where == "folder":
            first["folder"] = name
        elif where == "file":
            first["files"][name] = first["files"]["keys.npy"]
        else:
            first["removed"]["file"] = name

    change_manifest(path, rename)
    assert error_of(lambda: Manifest.read(path)) == (
        f"{path}/manifest.json: file name {name!r} found, expected one without a folder; {AGAIN}"
    )


@pytest.mark.parametrize(
    "pattern", ["shard-*", "shard-*/labels.npy", "shard-*/keys.npy", "removed-*"]
)
def test_symbolic_links_out_of_the_folder(path, tmp_path, pattern):
    remove_sentences(path, [1])
    item = sorted(path.glob(pattern))[0]
    moved = Path(shutil.move(item, tmp_path / item.name))
    item.symlink_to(moved)
    file = item / "keys.npy" if moved.is_dir() else item
    message = error_of(lambda: Datastore.open(path))
    assert message == (
        f"{file}: a symbolic link to {file.resolve()}, expected a file in {path}; {AGAIN}"
    )
    # A link that stays inside does no harm, and nor does one to the whole datastore.
    item.unlink()
    shutil.move(moved, path / f"moved-{item.name}")
    item.symlink_to(path / f"moved-{item.name}")
    (tmp_path / "link").symlink_to(path)
    assert Datastore.open(tmp_path / "link").entries == 245


@pytest.mark.parametrize("ids", [["0-9999"], ["0-49"], ["0-24", "25-48", "49"]])
def test_a_store_is_emptied_only_on_purpose(path, fails, capfd, ids):
    at = ("--datastore_path", path, "--ids", *ids)
    assert fails(command.main, "remove", *at) == (
        f"error: {path}: all 50 sentences would be removed; give --all if that is meant"
    )
    assert Datastore.open(path).entries == 250
    command.main([*map(str, ("remove", *at)), "--all"])
    assert capfd.readouterr().out == f"{path}: 50 sentences removed, with 250 entries\n"
    assert Datastore.open(path).entries == 0


# The manifest's checksum, and what else `verify` checks


@pytest.mark.parametrize(
    ("old", "new"),
    [('"B-PER"', '"B-LOC"'), ('"next_sentence": 50', '"next_sentence": 51'), ('"build 1"', '"b"')],
)
def test_a_changed_manifest(path, fails, old, new):
    file = path / "manifest.json"
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new, 1))
    assert fails(command.main, "verify", "--datastore_path", path) == (
        f"error: {file}: its content differs from its own checksum (sha256); {AGAIN}"
    )
    file.write_text(text)
    assert Datastore.open(path).entries == 250


def test_a_manifest_without_a_checksum(path, capsys):
    change_manifest(path, lambda content: None)
    assert "sha256" not in json.loads((path / "manifest.json").read_text())
    command.main(["verify", "--datastore_path", str(path)])
    assert capsys.readouterr().out.startswith(f"{path}: all 21 files (")
    # The next commit writes one.
    remove_sentences(path, [3])
    assert "sha256" in json.loads((path / "manifest.json").read_text())


def test_verify_checks_indexes_covers_and_tuned_settings(path, fails, capfd):
    from knn_ner.search.faiss_index import IndexRecord

    (path / "index-cosine-Flat-0.faiss").write_bytes(b"index")
    record = IndexRecord(
        *("Flat", "cosine", 8, 250, 250, [], "id", "index-cosine-Flat-0.faiss", 5, 0, 0.1, "1", "")
    )
    record.write(path)
    np.savez(path / "cover-cosine.npz", a=np.arange(100))
    tuned = {"k": 8, "temperature": 0.1, "knn_weight": 0.5, "similarity": "cosine"}
    tuned |= {"f1": 90.0, "content_id": "id"}
    (path / "tuned.json").write_text(json.dumps(tuned))
    verify = ("verify", "--datastore_path", path)
    command.main([*map(str, verify)])
    assert capfd.readouterr().out.splitlines()[1] == (
        "index-cosine-Flat-0.faiss, cover-cosine.npz, tuned.json: no damage found"
    )
    (path / "tuned.json").write_text(json.dumps(tuned | {"k": 0}))
    assert "tuned.json: not as knn_ner.tune writes it" in fails(command.main, *verify)
    cover = path / "cover-cosine.npz"
    content = bytearray(cover.read_bytes())
    content[len(content) // 2] ^= 1
    cover.write_bytes(content)
    assert fails(command.main, *verify).startswith(f"error: {cover}: damaged (")
    (path / "index-cosine-Flat-0.faiss").write_bytes(b"inde")
    assert fails(command.main, *verify) == (
        f"error: {path}/index-cosine-Flat-0.faiss: missing or damaged; build the index again"
    )
    (path / "index-cosine-Flat.json").write_text("{}")
    assert "not as knn_ner.build_index writes it" in fails(command.main, *verify)


# The lock file


@pytest.mark.parametrize(
    "line", [("remove", "--ids", "3"), ("compact",), ("remove", "--ids", "1-5", "--wait", "0")]
)
def test_a_lock_file_that_is_a_symbolic_link(path, tmp_path, fails, line):
    target = tmp_path / "target"
    target.write_bytes(b"x" * 900)
    (path / "building.lock").unlink()
    (path / "building.lock").symlink_to(target)
    message = f"{path}/building.lock: is a symbolic link, expected a file; remove it"
    assert fails(command.main, line[0], "--datastore_path", path, *line[1:]) == f"error: {message}"
    for action in (
        lambda: open_writer(path, KEYS, 100),
        lambda: FolderLock(path, shared=True),
        lambda: lock_file(path / "building.lock", "busy"),
    ):
        assert error_of(action) == message
    assert target.read_bytes() == b"x" * 900
    assert Datastore.open(path).entries == 250


@pytest.mark.parametrize("shared", [False, True])
def test_a_lock_file_keeps_its_content(path, shared):
    (path / "building.lock").write_bytes(b"x" * 900)
    with FolderLock(path, shared=shared):
        pass
    assert (path / "building.lock").read_bytes() == b"x" * 900


HOLD = """
import sys, time
from pathlib import Path
from knn_ner.datastore.locking import FolderLock
lock = FolderLock(Path(sys.argv[1]), shared=sys.argv[2] == "joined")
if sys.argv[2] == "shared":
    lock.share()
print("held", flush=True)
time.sleep(100)
"""


@pytest.mark.parametrize("kind", ["exclusive", "shared", "joined"])
def test_a_lock_ends_with_its_process(path, kind):
    """One lock excludes the others as long as its process lives; shared locks exclude only exclusive ones."""
    root = Path(__file__).parents[2]
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, path, kind],
        env=os.environ | {"PYTHONPATH": str(root)},
        stdout=subprocess.PIPE,
    )
    assert holder.stdout is not None and holder.stdout.readline() == b"held\n"
    busy = f"{path}: another process is writing to this datastore; wait until it has finished"
    assert error_of(lambda: FolderLock(path)) == busy
    if kind == "exclusive":
        assert error_of(lambda: FolderLock(path, shared=True)) == busy
    else:
        FolderLock(path, shared=True).close()
        assert error_of(lambda: FolderLock(path)) == busy
    holder.send_signal(signal.SIGKILL)
    with Edit(path, wait=10) as edit:
        edit.commit("remove", *edit.remove([3]))
    holder.communicate()
    assert Datastore.open(path).entries == 245
