"""FAISS indexes: kept in the store, tied to what it holds, and searched as exactly as they can be."""

import fcntl
import hashlib
import json
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from store_factory import LABELS, random_entries, write_store

from knn_ner import KnnTagger, infer, tune
from knn_ner.build_index import main as build_index_main
from knn_ner.datastore.__main__ import main as datastore_main
from knn_ner.datastore.compaction import compact
from knn_ner.datastore.edit import Edit, NewLabels, remove_sentences
from knn_ner.datastore.reader import Datastore
from knn_ner.search import faiss_index, faiss_search, index_choice
from knn_ner.search.exact import ExactSearch
from knn_ner.search.faiss_build import build_index, recommended
from knn_ner.search.faiss_index import list_records, read_record
from knn_ner.search.faiss_search import FaissSearch
from knn_ner.search.index_choice import open_searcher
from knn_ner.utils.errors import UserError

SIMILARITIES = ["cosine", "l2"]
DIM = 32


def clustered(count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Keys around 40 centres that share a direction, as hidden states do; the centre gives the label."""
    generator = np.random.default_rng(seed)
    centres = np.random.default_rng(99).standard_normal((40, DIM)) + 2
    kinds = generator.integers(0, 40, count)
    keys = centres[kinds] + 0.4 * generator.standard_normal((count, DIM))
    return keys.astype(np.float32), kinds % len(LABELS)


def queries_like(count: int, seed: int = 7) -> torch.Tensor:
    return torch.from_numpy(clustered(count, seed)[0])


def add_sentences(path: Path, count: int, seed: int, times: int = 1) -> None:
    """Add sentences of `count` entries, one commit each."""
    for number in range(times):
        keys, label_ids = clustered(count, seed + number)
        with Edit(path) as edit:
            sentence = edit.next_sentence
            with edit.shard(0, count) as shard:
                shard.write(0, keys, label_ids, [sentence] * count, np.arange(count))
                shard.add_sentence(sentence, ["w"] * count, [LABELS[i] for i in label_ids])
            edit.next_sentence += 1
            edit.commit("add", 1, count)


def same(found, expected) -> bool:
    return torch.equal(found.indices, expected.indices) and torch.equal(
        found.similarities, expected.similarities
    )


def recall(found, expected) -> float:
    pairs = zip(found.indices.numpy(), expected.indices.numpy(), strict=True)
    return float(np.mean([len(np.intersect1d(a, b)) / len(b) for a, b in pairs]))


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Path:
    """2,000 float16 entries in shards of 300, with some indexes; not to be changed."""
    path = tmp_path_factory.mktemp("faiss") / "store"
    write_store(path, *clustered(2000), cut=300, dtype="float16")
    for index in ("Flat", "IVF16,Flat", "IVF16,SQfp16", "HNSW16", "PCA24,IVF16,Flat", "SQ8"):
        build_index(path, index)
    build_index(path, "Flat", "l2")
    build_index(path, "IVF16,Flat", "l2")
    return path


@pytest.fixture
def path(tmp_path, built) -> Path:
    """A copy of that store, without indexes."""
    return Path(shutil.copytree(built, tmp_path / "store", ignore=shutil.ignore_patterns("index*")))


@pytest.mark.parametrize("similarity", SIMILARITIES)
def test_flat_finds_what_exact_search_finds(tmp_path, similarity):
    # Equal keys, of which any k cuts some off, and zero vectors.
    keys, labels = clustered(900)
    keys[300:600] = keys[:300]
    keys[600:660] = keys[0]
    keys[[7, 450, 899]] = 0
    store = write_store(tmp_path / "store", keys, labels, cut=250, dtype="float16")
    build_index(store.path, "Flat", similarity)
    searcher, exact = FaissSearch.open(store, "Flat", similarity), ExactSearch(store, similarity)
    queries = torch.cat([queries_like(30), torch.zeros(1, DIM), torch.from_numpy(keys[:20])])
    for k in (1, 7, 61, 100, 899, 900, 5000):
        expected = exact.search(queries, k)
        assert same(searcher.search(queries, k), expected)
        for size in (1, 13):
            parts = [searcher.search(part, k) for part in queries.split(size)]
            assert torch.equal(torch.cat([part.indices for part in parts]), expected.indices)


@pytest.mark.parametrize("similarity", SIMILARITIES)
def test_all_lists_visited_is_exact(built, similarity):
    store = Datastore.open(built)
    searcher = FaissSearch.open(store, "IVF16,Flat", similarity, nprobe=16)
    exact = ExactSearch(store, similarity)
    for k in (1, 50, 2000):
        assert same(searcher.search(queries_like(40), k), exact.search(queries_like(40), k))


@pytest.mark.parametrize("index", ["IVF16,SQfp16", "HNSW16", "PCA24,IVF16,Flat", "SQ8"])
def test_indexes_find_most_and_score_exactly(built, index):
    store = Datastore.open(built)
    searcher, exact = FaissSearch.open(store, index), ExactSearch(store)
    queries = queries_like(60)
    for k in (1, 10, 100):
        found, expected = searcher.search(queries, k), exact.search(queries, k)
        assert recall(found, expected) > 0.9
        # What was found has its own similarity, in its own place.
        assert same(exact.rescore(queries, found.indices), found)
        for size in (1, 7, 33):
            parts = [searcher.search(part, k).indices for part in queries.split(size)]
            assert torch.equal(torch.cat(parts), found.indices)


def test_too_few_found_visits_more(built):
    store = Datastore.open(built)
    queries = queries_like(30)
    narrow = FaissSearch.open(store, "IVF16,Flat", nprobe=1)
    found, expected = narrow.search(queries, 400), ExactSearch(store).search(queries, 400)
    assert all(len(set(row)) == 400 for row in found.indices.tolist())
    assert recall(found, expected) > 0.5
    assert same(narrow.search(queries, 2500), ExactSearch(store).search(queries, 2500))
    # Votes are of real neighbours.
    votes = narrow.votes(queries, 400, 0.1)
    assert torch.allclose(votes.sum(dim=1), torch.ones(30))

    first = narrow.approximate(queries, 400)
    missing = first.similarities == -torch.inf
    assert missing.any() and not missing.all(dim=1).any()
    assert (first.indices[missing] == 0).all()
    # The index's own scores, of float32 vectors, are those of its entries but for rounding.
    row = int(missing.any(dim=1).nonzero()[0])
    there = ~missing[row]
    scores = ExactSearch(store).rescore(queries[row, None], first.indices[row, None, there])
    assert torch.allclose(
        scores.similarities[0],
        first.similarities[row, there].sort(descending=True).values,
        atol=1e-6,
    )


def test_approximate_scores(built):
    store = Datastore.open(built)
    for similarity in SIMILARITIES:
        expected = ExactSearch(store, similarity).search(queries_like(20), 10)
        found = FaissSearch.open(store, "Flat", similarity).approximate(queries_like(20), 10)
        assert torch.allclose(found.similarities, expected.similarities, rtol=1e-4, atol=1e-4)
        assert recall(found, expected) > 0.99
    everything = FaissSearch.open(store, "Flat").approximate(queries_like(2), 9999)
    assert everything.indices.shape == (2, 2000)


def test_every_entry_votes_exactly(built, capfd):
    faiss_search._log_that_all_vote.cache_clear()
    store = Datastore.open(built)
    searcher, exact = FaissSearch.open(store, "IVF16,SQfp16"), ExactSearch(store)
    queries = queries_like(20)
    assert torch.equal(searcher.votes(queries, -1, 0.1), exact.votes(queries, -1, 0.1))
    without = torch.arange(40).view(20, 2)
    found, expected = (s.log_weights(queries, 0.1, without) for s in (searcher, exact))
    assert torch.equal(found.logs, expected.logs) and torch.equal(found.largest, expected.largest)
    assert capfd.readouterr().err == (
        "k -1: every stored token votes, so that keys are searched exactly, without the index\n"
    )


def test_what_is_added_counts_before_the_index_knows_it(path, capfd):
    build_index(path, "Flat")
    build_index(path, "IVF16,SQfp16")
    add_sentences(path, 30, seed=50)
    store = Datastore.open(path)
    queries = torch.cat([queries_like(30), torch.from_numpy(clustered(30, 50)[0])])
    exact = ExactSearch(store)
    searcher = FaissSearch.open(store, "Flat")
    assert searcher.indexed == 2000
    for k in (1, 20, 2010, 2030):
        assert same(searcher.search(queries, k), exact.search(queries, k))
    # Keys that were added find themselves.
    narrow = FaissSearch.open(store, "IVF16,SQfp16")
    for found in (narrow.search(queries[30:], 3), narrow.approximate(queries[30:], 3)):
        assert found.indices[:, 0].tolist() == list(range(2000, 2030))
    capfd.readouterr()
    open_searcher(store, index="Flat")
    assert capfd.readouterr().err == ""

    add_sentences(path, 200, seed=60)
    open_searcher(Datastore.open(path), index="IVF16,SQfp16")
    assert capfd.readouterr().err == (
        f'{path}: 230 entries were added since index "IVF16,SQfp16" was built, and are searched exactly; '
        f'`python -m knn_ner.build_index --datastore_path {path} --index "IVF16,SQfp16"` takes them in\n'
    )
    assert build_index(path, "IVF16,SQfp16").action == "extended"
    searcher = FaissSearch.open(Datastore.open(path), "IVF16,SQfp16")
    assert searcher.indexed == 2230 and searcher.loaded.record.trained_on == 2000
    everything = FaissSearch.open(Datastore.open(path), "IVF16,SQfp16", nprobe=16)
    expected = ExactSearch(Datastore.open(path)).search(queries, 20)
    assert recall(everything.search(queries, 20), expected) > 0.99
    # There is one file for each index, the old ones are gone.
    assert len(list(path.glob("index-*.faiss"))) == 2


def test_building_again(path, capsys):
    command = ["--datastore_path", str(path), "--index", "IVF16,SQfp16"]
    build_index_main(command)
    said = capsys.readouterr()
    line = r'.*: index "IVF16,SQfp16" \(cosine\) built of 2000 entries, 0\.\d MB, \d+\.\d s\n'
    assert re.fullmatch(line, said.out)
    assert 'index "IVF16,SQfp16": training on 2000 of 2000 keys\n' in said.err
    assert "WARNING" not in said.err
    files = {file.name: file.stat().st_mtime_ns for file in path.glob("index*")}
    build_index_main(command)
    said = capsys.readouterr()
    assert (
        said.out
        == f'{path}: index "IVF16,SQfp16" (cosine) is there already, with all 2000 entries\n'
    )
    assert {file.name: file.stat().st_mtime_ns for file in path.glob("index-*")} == {
        name: time for name, time in files.items() if name != "indexing.lock"
    }

    add_sentences(path, 40, seed=50)
    build_index_main(command)
    assert f'{path}: index "IVF16,SQfp16" (cosine) extended by 40 entries to 2040, ' in (
        capsys.readouterr().out
    )
    # Twice the entries it was trained on: its lists are no longer good.
    add_sentences(path, 1960, seed=51)
    assert FaissSearch.open(Datastore.open(path), "IVF16,SQfp16").indexed == 2040
    build_index_main(command)
    said = capsys.readouterr()
    assert (
        f"{path}: built anew, as 2000 entries that it was trained on have become 4000\n" in said.err
    )
    assert "built of 4000 entries" in said.out

    datastore_main(["info", "--datastore_path", str(path)])
    assert "\nindexes\n  IVF16,SQfp16, cosine: 4000 entries, 0." in capsys.readouterr().out
    remove_sentences(path, [0])
    datastore_main(["info", "--datastore_path", str(path)])
    assert capsys.readouterr().out.endswith(
        "; the datastore was changed since: run knn_ner.build_index\n"
    )


@pytest.mark.parametrize("change", ["remove the first", "remove the last", "relabel", "replace"])
def test_an_index_of_other_entries_is_refused(path, change):
    build_index(path, "Flat")
    before = FaissSearch.open(Datastore.open(path), "Flat")
    expected = before.search(queries_like(10), 5)
    if change == "relabel":
        with Edit(path) as edit:
            entries = np.flatnonzero(edit.store.sentence_ids == 3)
            positions = edit.store.positions[entries]
            tags = edit.sentence(3)["tags"]
            count = edit.relabel({3: NewLabels(tags, np.zeros(len(entries), int), positions)})
            edit.commit("relabel", 1, count)
    elif change == "replace":
        keys, labels = clustered(2000, seed=1)
        write_store(path, keys, labels, cut=300, dtype="float16", fingerprint="build 2")
    else:
        remove_sentences(path, [0 if "first" in change else 399])
    store = Datastore.open(path)
    with pytest.raises(UserError) as error:
        open_searcher(store, index="Flat")
    assert str(error.value) == (
        f'{path}: index "Flat" was built of other entries than the datastore has now; run `python -m '
        f'knn_ner.build_index --datastore_path {path} --index "Flat"`, or search without --index'
    )
    # Whoever had it open goes on, also while it is built anew.
    again = build_index(path, "Flat")
    assert (again.action, again.reason) == (
        "built",
        "entries that it was built of are gone or others",
    )
    assert same(before.search(queries_like(10), 5), expected)
    searcher = FaissSearch.open(store, "Flat")
    assert same(
        searcher.search(queries_like(10), 5), ExactSearch(store).search(queries_like(10), 5)
    )


def test_folded_and_compacted_stores_keep_their_index(path, monkeypatch):
    add_sentences(path, 5, seed=20, times=3)
    build_index(path, "Flat")
    folders = [record.folder for record in Datastore.open(path).manifest.shards]
    # So many small shards that the last ones, which the index was built of, are written into one.
    add_sentences(path, 5, seed=30, times=16)
    store = Datastore.open(path)
    assert not set(folders) <= {record.folder for record in store.manifest.shards}
    searcher = FaissSearch.open(store, "Flat")
    assert searcher.indexed == 2015 and store.entries == 2095
    assert same(
        searcher.search(queries_like(10), 9), ExactSearch(store).search(queries_like(10), 9)
    )

    assert build_index(path, "Flat").action == "extended"
    file = read_record(path, "Flat", "cosine").file
    compact(path)
    store = Datastore.open(path)
    # The same entries in other files: compared by their content, unless that is too much for a reader.
    assert FaissSearch.open(store, "Flat").indexed == 2095
    monkeypatch.setattr(faiss_index.fits, "__defaults__", (1000,))
    with pytest.raises(UserError, match="built of other entries"):
        FaissSearch.open(store, "Flat")
    assert build_index(path, "Flat").action == "there"
    assert FaissSearch.open(store, "Flat").loaded.record.file == file


def test_builds_are_the_same(path, tmp_path):
    """One seed, one file, also with several threads; another seed trains on other keys."""
    other = shutil.copytree(path, tmp_path / "other")
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        for index in ("IVF16,SQfp16", "HNSW16"):
            digests = []
            for folder in (path, other):
                record = build_index(folder, index, seed=4).record
                digests.append(hashlib.sha256((folder / record.file).read_bytes()).digest())
            assert digests[0] == digests[1]
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize(
    ("index", "message"),
    [
        (
            "IVF,Fla",
            'index "IVF,Fla": faiss knows no such index; give a string of its index_factory, such as Flat, '
            'HNSW32, "IVF1024,SQfp16" or "IVF1024,PQ48"',
        ),
        (
            "IVF4096,Flat",
            'index "IVF4096,Flat": 4096 lists for 2000 entries; take fewer lists, such as "IVF32,SQfp16"',
        ),
        (
            "IVF16,PQ12",
            'index "IVF16,PQ12": the number after PQ has to divide the width of the vectors; keys are 32 '
            "wide, so take one of 2, 4, 8, 16, or the width that a transform before it gives",
        ),
        (
            "IDMap,Flat",
            'index "IDMap,Flat": add does not make sense with IndexIDMap, use add_with_ids; take another '
            "index",
        ),
        (
            "PCA64,Flat",
            None,
        ),
    ],
)
def test_what_faiss_cannot_build(fails, path, index, message):
    said = fails(build_index_main, "--datastore_path", path, "--index", index)
    assert said.startswith(f'error: index "{index}": ') and len(said) < 250 and ".cpp" not in said
    assert message is None or said == f"error: {message}"
    assert not list(path.glob("index-*")) and not list(path.glob(".index-*"))


def test_few_entries_for_each_list(path, capsys):
    build_index(path, "IVF64,Flat")
    said = capsys.readouterr().err
    assert (
        'index "IVF64,Flat": 31 entries for each list, where 39 or more are good; "IVF32,SQfp16" has fewer '
        "lists\n"
    ) in said
    assert "WARNING" not in said


def test_small_samples_train_without_warnings(path, capfd):
    for index in ("PQ4x4fs", "OPQ4_8,IVF8,PQ4x4fs"):
        build_index(path, index)
    said = capfd.readouterr().err
    assert "WARNING" not in said
    queries = queries_like(20)
    searcher = FaissSearch.open(Datastore.open(path), "PQ4x4fs")
    expected = ExactSearch(searcher.store).search(queries, 10)
    assert recall(searcher.search(queries, 10), expected) > 0.5


def test_settings_and_names_that_do_not_fit(built, path):
    store = Datastore.open(built)

    def error(**settings) -> str:
        with pytest.raises(UserError) as raised:
            open_searcher(store, **settings)
        return str(raised.value)

    assert error(index="Flat", nprobe=4) == (
        '--nprobe 4: index "Flat" has no inverted lists (IVF), so it has no such setting; leave it out'
    )
    assert error(index="IVF16,Flat", ef_search=4) == (
        '--ef_search 4: index "IVF16,Flat" has no graph (HNSW), so it has no such setting; leave it out'
    )
    assert error(nprobe=3) == (
        "--nprobe 3: exact search has no such setting; leave it out, or name an index with --index"
    )
    assert error(index="IVF16,Flat", nprobe=0) == "--nprobe 0: expected at least 1"
    assert error(index="SQ8", similarity="l2") == (
        f'{built}: no index "SQ8" for l2 similarity, only "Flat", "IVF16,Flat"; build it with `python -m '
        f'knn_ner.build_index --datastore_path {built} --index "SQ8" --similarity l2`'
    )
    with pytest.raises(
        UserError, match='no index "Flat" for cosine similarity, and no other; build'
    ):
        open_searcher(Datastore.open(path), index="Flat")
    searcher = open_searcher(store, index="Flat")
    with pytest.raises(UserError, match="k 0: expected at least 1"):
        searcher.search(queries_like(2), 0)
    with pytest.raises(UserError, match=r"keys are 32 wide, .* shape \(2, 31\)"):
        searcher.search(queries_like(2)[:, 1:], 3)
    with pytest.raises(UserError, match="not finite"):
        searcher.approximate(queries_like(2) / 0, 3)
    wide = FaissSearch.open(store, "HNSW16", ef_search=200).search(queries_like(50), 10)
    assert recall(wide, ExactSearch(store).search(queries_like(50), 10)) > 0.98


def test_damaged_files(path, fails):
    record = build_index(path, "Flat").record
    file = path / record.file
    whole = file.read_bytes()
    file.write_bytes(whole[:-5])
    command = f'`python -m knn_ner.build_index --datastore_path {path} --index "Flat"`'
    with pytest.raises(UserError) as error:
        open_searcher(Datastore.open(path), index="Flat")
    assert str(error.value) == (
        f"{file}: gone, or not {len(whole)} bytes long as it was built; run {command}"
    )
    assert build_index(path, "Flat").reason == "its file is gone or damaged"
    file = path / read_record(path, "Flat", "cosine").file
    file.write_bytes(b"none" * (len(whole) // 4) + whole[len(whole) // 4 * 4 :])
    with pytest.raises(UserError) as error:
        open_searcher(Datastore.open(path), index="Flat")
    assert str(error.value).startswith(f"{file}: ") and str(error.value).endswith(
        f"; run {command}"
    )

    about = path / "index-cosine-Flat.json"
    about.write_text("{}")
    with pytest.raises(UserError, match=r"not as .* writes it"):
        open_searcher(Datastore.open(path), index="Flat")
    assert build_index(path, "Flat").action == "built"
    with (path / "indexing.lock").open("w") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        assert fails(build_index_main, "--datastore_path", path) == (
            f"error: {path}: another process is building an index of this datastore; wait until it has "
            "finished"
        )
    assert "not found, so" in fails(build_index_main, "--datastore_path", path / "none")


def test_a_build_that_dies_leaves_what_was_there(tmp_path):
    keys, labels = random_entries(20000, dim=96)
    path = write_store(tmp_path / "store", keys, labels, cut=20000, dtype="float16").path
    build_index(path, "Flat")
    expected = FaissSearch.open(Datastore.open(path), "Flat").search(torch.from_numpy(keys[:5]), 3)
    before = sorted(file.name for file in path.iterdir())
    building = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "knn_ner.build_index",
            "--datastore_path",
            path,
            "--index",
            "HNSW64",
        ],
        cwd=Path(__file__).parents[2],
        stderr=subprocess.PIPE,
    )
    # The bar's first line: keys are being added.
    assert building.stderr.read(6) == b"\rindex"
    building.send_signal(signal.SIGINT)
    assert building.communicate(timeout=120)[1].endswith(b"interrupted\n")
    assert building.returncode == 130
    assert sorted(file.name for file in path.iterdir()) == before
    # One that was killed while it wrote.
    (path / ".index-cosine-HNSW8-0123abcd.faiss").write_bytes(b"half")
    again = FaissSearch.open(Datastore.open(path), "Flat").search(torch.from_numpy(keys[:5]), 3)
    assert same(again, expected)
    assert build_index(path, "SQfp16").action == "built"
    assert not list(path.glob(".index-*"))
    assert [record.index for record in list_records(path)] == ["Flat", "SQfp16"]


def test_without_faiss(path, monkeypatch):
    build_index(path, "Flat")
    monkeypatch.setitem(sys.modules, "faiss", None)
    store = Datastore.open(path)
    assert same(
        open_searcher(store).search(queries_like(3), 2),
        ExactSearch(store).search(queries_like(3), 2),
    )
    with pytest.raises(
        UserError, match=r"run `python -m pip install -r requirements.txt` \(with CUDA"
    ):
        open_searcher(store, index="Flat")


def test_auto_says_what_it_picks_and_why(built, path, monkeypatch, capfd):
    def said(store_path: Path, **settings) -> tuple[str, str]:
        capfd.readouterr()
        searcher = open_searcher(Datastore.open(store_path), index="auto", **settings)
        return searcher.index_name, capfd.readouterr().err

    assert said(built, k=12) == (
        "exact",
        "--index auto: exact (2000 entries, which up to 32768 are searched as fast without an index)\n",
    )
    monkeypatch.setitem(index_choice.MAX_EXACT_ENTRIES, "cpu", 1000)
    assert said(built, k=-1) == ("exact", "--index auto: exact (every stored token votes)\n")
    assert said(built, k=64)[1] == (
        "--index auto: exact (64 neighbours of 2000 entries, for which an index saves nothing)\n"
    )
    # Built last, as what fits best is not there.
    assert said(built, k=12, similarity="l2") == (
        "IVF16,Flat",
        "--index auto: IVF16,Flat (2000 entries, 2000 of them in this index)\n",
    )
    command = f'`python -m knn_ner.build_index --datastore_path {path} --index "auto"`'
    assert said(path, k=12) == (
        "exact",
        f"--index auto: exact (2000 entries, but no index was built: {command} makes search faster)\n",
    )
    assert build_index(path).record.index == "IVF32,SQfp16"
    build_index(path, "Flat")
    assert said(path, k=12, nprobe=4)[0] == "IVF32,SQfp16"
    remove_sentences(path, [5])
    assert "but no index is up to date" in said(path, k=12)[1]
    assert [recommended(n) for n in (10, 10**5, 252043, 10**6, 10**7, 10**9)] == [
        "Flat",
        "IVF1024,SQfp16",
        "IVF2048,SQfp16",
        "IVF4096,SQfp16",
        "IVF16384,SQfp16",
        "IVF16384,SQfp16",
    ]


@pytest.fixture
def indexed(datastore, tmp_path) -> Path:
    """The datastore of the tiny tagger, with indexes."""
    path = Path(shutil.copytree(datastore, tmp_path / "indexed"))
    build_index(path, "Flat")
    build_index(path, "IVF16,SQfp16")
    return path


def test_commands_take_an_index(tiny_corpus, trained, indexed, tmp_path, monkeypatch, fails):
    monkeypatch.setitem(index_choice.MAX_EXACT_ENTRIES, "cpu", 100)
    common = ["--data_dir", tiny_corpus, "--file_name", "word.bmes", "--device", "cpu"]
    common += ["--model_path", trained / "model", "--datastore_path", indexed]
    vote = ["--k", 16, "--temperature", 0.1, "--knn_weight", 0.6, "--exhaustive"]

    def outcome(name: str, *index: object) -> tuple[str, dict]:
        out = tmp_path / name
        arguments = [*common, *vote, "--save_path", out, *index]
        results = infer.infer(infer.parse_arguments(list(map(str, arguments))))
        return (out / "predictions.txt").read_text(), results

    tags, results = outcome("exact")
    assert results["changed_tokens"] > 0 and results["index"] == "exact"
    for name, index in (
        ("flat", ("--index", "Flat")),
        ("auto", ("--index", "auto", "--nprobe", 16)),
    ):
        found, results = outcome(name, *index)
        assert found == tags, name
        assert results["index"] == ("Flat" if name == "flat" else "IVF16,SQfp16")

    grid = ["--grid_k", 4, 16, -1, "--grid_temperature", 0.1, 0.3]
    for name, index in (("a", ()), ("b", ("--index", "Flat"))):
        arguments = [*common, *grid, "--save_path", tmp_path / name, *index]
        tune.tune(tune.parse_arguments(list(map(str, arguments))))
    assert (tmp_path / "a" / "tuning.csv").read_text() == (
        tmp_path / "b" / "tuning.csv"
    ).read_text()

    last = fails(infer.main, *common, *vote, "--save_path", tmp_path, "--index", "HNSW8")
    assert last.startswith(
        f'error: {indexed}: no index "HNSW8" for cosine similarity, only "Flat", '
    )
    last = fails(infer.main, *common, *vote, "--save_path", tmp_path, "--nprobe", 0)
    assert "--nprobe: 0 found, a number of at least 1 expected" in last


def test_knn_tagger_adds_with_an_index(trained, indexed, tmp_path, capfd):
    """What is added counts at once; when entries were removed, search goes on exactly."""
    other = Path(shutil.copytree(indexed, tmp_path / "other"))
    vote = {"k": 8, "temperature": 0.1, "knn_weight": 0.9, "device": "cpu"}
    taggers = {
        index: KnnTagger.from_pretrained(trained / "model", store, index=index, **vote)
        for index, store in (("exact", other), ("Flat", indexed))
    }
    sentence = ["Zorblatt", "visited", "Quux", "yesterday"]
    for _ in range(3):
        for tagger in taggers.values():
            tagger.add(sentence, ["S-NEW", "O", "S-NEW", "O"])
    added = {index: tagger.explain(sentence, 4, words=True) for index, tagger in taggers.items()}
    assert added["exact"] == added["Flat"]
    assert "NEW" in {entity.type for entity in added["Flat"]}
    assert isinstance(taggers["Flat"]._searcher, FaissSearch)
    assert taggers["Flat"]._searcher.indexed < taggers["Flat"].store.entries
    # Another process takes the new sentences in: the tagger reads that index when it refreshes.
    build_index(indexed, "Flat")
    taggers["Flat"].refresh()
    assert taggers["Flat"]._searcher.indexed == taggers["Flat"].store.entries
    assert taggers["Flat"].explain(sentence, 4, words=True) == added["exact"]

    remove_sentences(indexed, [0])
    remove_sentences(other, [0])
    capfd.readouterr()
    for tagger in taggers.values():
        tagger.refresh()
    assert capfd.readouterr().err == (
        f'{indexed}: index "Flat" is of other entries by now, so search is exact; bring it up to date with '
        f'`python -m knn_ner.build_index --datastore_path {indexed} --index "Flat"`\n'
    )
    assert isinstance(taggers["Flat"]._searcher, ExactSearch)
    after = [tagger.explain(sentence, 4, words=True) for tagger in taggers.values()]
    assert after[0] == after[1]
    assert isinstance(taggers["Flat"]._searcher.reopened(taggers["Flat"].store), ExactSearch)


def test_index_files_are_described(built):
    content = json.loads((built / "index-l2-IVF16,Flat.json").read_text())
    record = read_record(built, "IVF16,Flat", "l2")
    assert content["entries"] == record.entries == 2000
    assert content["content_id"] == Datastore.open(built).content_id
    assert (built / content["file"]).stat().st_size == content["bytes"]
    assert [shard["entries"] for shard in content["shards"]] == [300] * 6 + [200]
