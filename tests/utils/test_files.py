"""Atomic writes: the old content or the new one, and nothing beside it."""

import pytest

from knn_ner.utils.errors import UserError
from knn_ner.utils.files import atomic_path, atomic_writer, read_json, write_json


@pytest.mark.parametrize("fsync", [False, True])
@pytest.mark.parametrize("old", [None, "old"])
def test_a_file_is_replaced_at_the_end(tmp_path, old, fsync):
    file = tmp_path / "a" / "file"
    if old:
        file.parent.mkdir()
        file.write_text(old)
    with pytest.raises(KeyboardInterrupt), atomic_writer(file, fsync=fsync) as stream:
        stream.write("new")
        raise KeyboardInterrupt
    assert [item.read_text() for item in file.parent.iterdir()] == ([old] if old else [])
    with atomic_writer(file, fsync=fsync) as stream:
        stream.write("new é\n")
        assert file.exists() == bool(old)
    assert [item.name for item in file.parent.iterdir()] == ["file"]
    assert file.read_bytes() == "new é\n".encode()


@pytest.mark.parametrize("old", [None, ["x", "y"], []])
def test_a_folder_is_replaced_at_the_end(tmp_path, old):
    folder = tmp_path / "folder"
    if old is not None:
        folder.mkdir()
        for name in old:
            (folder / name).touch()
    with pytest.raises(RuntimeError), atomic_path(folder) as temporary:
        temporary.mkdir()
        (temporary / "z").touch()
        raise RuntimeError
    assert list(tmp_path.iterdir()) == ([folder] if old is not None else [])
    with atomic_path(folder) as temporary:
        temporary.mkdir()
        (temporary / "z").touch()
    assert list(tmp_path.iterdir()) == [folder] and [f.name for f in folder.iterdir()] == ["z"]


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").touch()
    for path in (tmp_path / "file" / "a", tmp_path / "file" / "b" / "c", f"{tmp_path}/file/d"):
        with pytest.raises(UserError, match=rf"^{path}: cannot be written \(.*\); choose another"):
            write_json(path, {})
    write_json(tmp_path / "a" / "b.json", {"é": [1]})
    assert read_json(tmp_path / "a" / "b.json") == {"é": [1]}
