"""Several processes give what one gives: the same store, the same tags; and an error in one ends all."""

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import ROOT
from hypothesis import given, settings
from hypothesis import strategies as st
from process_group import in_processes
from store_factory import LABELS, open_writer, random_entries, write_shard, write_store

from knn_ner import build_datastore, infer
from knn_ner.datastore import writer as writing
from knn_ner.datastore.reader import Datastore
from knn_ner.search import index_choice
from knn_ner.search.candidates import Candidates
from knn_ner.search.distributed import (
    DistributedSearch,
    StorePart,
    merge_candidates,
    merge_log_weights,
    merge_nearest,
    part_borders,
)
from knn_ner.search.exact import ExactSearch
from knn_ner.search.searcher import LogWeights, SearchResult
from knn_ner.tagging import store_keys
from knn_ner.utils.errors import UserError


@pytest.fixture(scope="module")
def paths(tiny_corpus, trained):
    return (
        *("--data_dir", tiny_corpus, "--file_name", "word.bmes", "--device", "cpu"),
        *("--model_path", trained / "model"),
    )


@pytest.fixture(scope="module")
def building(paths):
    return (*paths, "--shard_words", 500)


@pytest.fixture(scope="module")
def alone(building, tmp_path_factory):
    """The store of the training set in seven shards, built by one process."""
    folder = tmp_path_factory.mktemp("alone") / "store"
    build(None, *building, "--datastore_path", folder)
    return Datastore.open(folder)


def build(group, *line):
    return build_datastore.build_datastore(
        build_datastore.parse_arguments([str(word) for word in line]), group
    )


def run_infer(group, *line):
    return infer.infer(infer.parse_arguments([str(word) for word in line]), group)


def contents(folder: Path) -> list[dict[str, bytes]]:
    """All files of each shard, in the order of the manifest."""
    shards = json.loads((folder / "manifest.json").read_text())["shards"]
    return [
        {name: (folder / shard["folder"] / name).read_bytes() for name in shard["files"]}
        for shard in shards
    ]


def leave_unfinished(monkeypatch, shards: int, *line) -> None:
    """A build by one process that dies after some shards."""
    write, written = store_keys.write_shard, []

    def until_then(*arguments):
        if len(written) == shards:
            raise RuntimeError("power failure")
        written.append(write(*arguments))

    with monkeypatch.context() as patch:
        patch.setattr(store_keys, "write_shard", until_then)
        with pytest.raises(RuntimeError, match="power failure"):
            build(None, *line)


def test_processes_resume_what_one_began_and_build_the_same_store(
    run, building, alone, tmp_path, monkeypatch
):
    line = (*building, "--datastore_path", tmp_path / "store")
    leave_unfinished(monkeypatch, 2, *line)
    built = run("-m", "knn_ner.build_datastore", *line, "--devices", 2)
    assert contents(tmp_path / "store") == contents(alone.path)
    store = Datastore.open(tmp_path / "store")
    assert store.content_id == alone.content_id and store.fingerprint == alone.fingerprint
    # Only the first process talks.
    assert built.stdout.count("\n") == 1 and f"{alone.entries} entries of 300" in built.stdout
    assert built.stderr.count("tag scheme: BMES") == 1
    assert built.stderr.startswith("2 processes with ")
    assert f"{store.path}: 2 of {len(store.keys)} shards are finished already\n" in built.stderr
    assert not [item for item in store.path.iterdir() if item.name.startswith(".")]


def test_more_processes_than_shards(paths, tmp_path):
    line = (*paths, "--split", "dev", "--shard_words", 400)
    build(None, *line, "--datastore_path", tmp_path / "one")
    one, *others = in_processes(4, build, *line, "--datastore_path", tmp_path / "four")
    assert one["sentences"] == 60 and others == [{}, {}, {}]
    assert len(contents(tmp_path / "one")) == 2
    assert contents(tmp_path / "four") == contents(tmp_path / "one")


def test_processes_build_with_a_transform(paths, tmp_path):
    line = (*paths, "--split", "dev", "--shard_words", 300, "--key_transform", "svd:8")
    build(None, *line, "--datastore_path", tmp_path / "one")
    built, _ = in_processes(2, build, *line, "--datastore_path", tmp_path / "two")
    assert built["dim"] == 8
    assert contents(tmp_path / "two") == contents(tmp_path / "one")


def test_a_store_that_is_there_is_not_built_again(building, alone, capfd):
    before = (alone.path / "manifest.json").read_bytes()
    one, other = in_processes(2, build, *building, "--datastore_path", alone.path)
    assert one["entries"] == alone.entries and other == {}
    assert (alone.path / "manifest.json").read_bytes() == before
    assert capfd.readouterr().err.count("this datastore is there already, and whole") == 1


def on_two_machines(line, hinder_second=None) -> list[subprocess.CompletedProcess]:
    """The command on two machines by Lightning's variables, both of which are this one."""
    environment = os.environ | {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", *map(str, line), "--num_nodes", "2"],
            cwd=ROOT,
            env=environment | {"NODE_RANK": str(node), "CUDA_VISIBLE_DEVICES": ""},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=hinder_second if node else None,
        )
        for node in range(2)
    ]
    try:
        ends = [process.communicate(timeout=240) for process in processes]
    finally:
        for process in processes:
            process.kill()
    return [
        subprocess.CompletedProcess(process.args, process.returncode, *end)
        for process, end in zip(processes, ends, strict=True)
    ]


def free_port() -> int:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def test_an_unexpected_error_on_one_machine_ends_both_and_one_process_resumes(
    building, alone, tmp_path, capfd
):
    line = (*building, "--datastore_path", tmp_path / "store")

    def without_large_files() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (8000, 8000))

    first, second = on_two_machines(("knn_ner.build_datastore", *line), without_large_files)
    assert (first.returncode, second.returncode) == (2, 1)
    assert first.stderr.splitlines()[-1] == "error: process 1: OSError: [Errno 27] File too large"
    assert "Traceback" not in first.stderr and first.stdout == second.stdout == ""
    # Whoever looks for the cause finds it where it is.
    assert second.stderr.startswith("Traceback") and "in write_shard" in second.stderr
    assert not (tmp_path / "store" / "manifest.json").exists()
    build(None, *line)
    shards = len(contents(alone.path))
    assert f"1 of {shards} shards are finished already" in capfd.readouterr().err
    assert contents(tmp_path / "store") == contents(alone.path)


def test_inference_under_torchrun_gives_the_tags_of_one_process(run, paths, datastore, tmp_path):
    line = (*paths, "--datastore_path", datastore, "--temperature", 0.1, "--knn_weight", 0.4)
    line = (*line, "--k", 32, "--batch_size", 8)
    expected = run_infer(None, *line, "--save_path", tmp_path / "one")
    shared = run(
        *("-m", "torch.distributed.run", "--nproc_per_node", 2, "-m", "knn_ner.infer"),
        *(*line, "--save_path", tmp_path / "two"),
    )
    assert_same_results(tmp_path / "one", tmp_path / "two")
    assert 0 < expected["searched_tokens"] < expected["tokens"]
    assert shared.stdout.count("kNN") == 1 and shared.stderr.count("tag scheme: BMES") == 1


def assert_same_results(one: Path, other: Path) -> None:
    """But for the seconds, and how each tag became certain."""
    assert sorted(file.name for file in one.iterdir()) == sorted(
        file.name for file in other.iterdir()
    )
    for file in one.iterdir():
        if file.name != "knn_results.json":
            assert file.read_bytes() == (other / file.name).read_bytes()
    results = [json.loads((folder / "knn_results.json").read_text()) for folder in (one, other)]
    seconds, settled = ([result.pop(n) for result in results] for n in ("seconds", "settled_by"))
    assert results[0] == results[1] and seconds[0].keys() == seconds[1].keys()
    assert sum(settled[0].values()) == sum(settled[1].values())


@pytest.mark.parametrize(
    ("processes", "flags"),
    [
        (2, ("--k", 8, "--exhaustive")),
        (3, ("--k", 200, "--similarity", "l2", "--temperature", 5)),
        (2, ("--k", -1)),
        (2, ("--k", 64, "--votes")),
        (3, ("--k", -1, "--exhaustive")),
    ],
)
def test_inference_gives_the_tags_of_one_process(
    paths, datastore, tmp_path, monkeypatch, processes, flags
):
    # Blocks that are small enough for each process to have a part of the store.
    monkeypatch.setattr(
        index_choice, "DistributedSearch", partial(DistributedSearch, block_keys=512)
    )
    line = (*paths, "--datastore_path", datastore, "--split", "dev", "--batch_size", 5)
    line = (*line, "--temperature", 0.1, "--knn_weight", 0.45, *flags)
    run_infer(None, *line, "--save_path", tmp_path / "one")
    _, *others = in_processes(processes, run_infer, *line, "--save_path", tmp_path / "more")
    assert others == [{}] * (processes - 1)
    assert_same_results(tmp_path / "one", tmp_path / "more")


def search_in_turns(group, folder: Path, queries: torch.Tensor, similarity: str):
    """Each process searches for its own queries, the one more often than the other."""
    found = []
    store = Datastore.open(folder)
    with DistributedSearch(store, similarity, "cpu", group, block_keys=16) as searcher:
        for turn in range(3 * group.rank):
            part = queries[group.rank + turn :: 7]
            nearest = searcher.search(part, 60)
            # Arrays: a tensor is sent as a reference to memory that ends with its process.
            found.append((part.numpy(), nearest.similarities.numpy(), nearest.indices.numpy()))
    return found


@pytest.mark.parametrize("entries", [2, 203])
@pytest.mark.parametrize("similarity", ["cosine", "l2"])
def test_processes_search_for_each_other_as_often_as_any_has_queries(tmp_path, entries, similarity):
    """One has no queries, one has twice as many as another; two entries are one part."""
    keys, labels = random_entries(entries, seed=1)
    keys[entries // 2 :] = keys[: entries - entries // 2]
    store = write_store(tmp_path / "store", keys, labels)
    queries = torch.from_numpy(random_entries(40, seed=2)[0])
    results = in_processes(3, search_in_turns, store.path, queries, similarity)
    assert [len(result) for result in results] == [0, 3, 6]
    alone = ExactSearch(store, similarity)
    for part, similarities, indices in results[1] + results[2]:
        expected = alone.search(torch.from_numpy(part), 60)
        assert np.array_equal(indices, expected.indices)
        assert np.array_equal(similarities, expected.similarities)


def fail_while_others_search(group, folder: Path, how: str):
    store = Datastore.open(folder)
    with DistributedSearch(store, "cosine", "cpu", group) as searcher:
        queries = torch.ones(3, store.dim)
        searcher.search(queries, 2)
        if group.rank == 1:
            if how == "killed":
                os.kill(os.getpid(), signal.SIGKILL)
            queries[1] = torch.nan
        searcher.votes(queries, -1, 0.1)


def test_an_error_in_one_process_ends_all(tmp_path, capfd):
    store = write_store(tmp_path / "store", *random_entries(20))
    one, other = in_processes(2, fail_while_others_search, store.path, "raises")
    assert isinstance(one, UserError)
    assert str(one).startswith("process 1: hidden states to search for are not finite")
    assert isinstance(other, SystemExit) and other.code == 2
    assert capfd.readouterr().err == ""


def test_a_process_that_is_killed_is_noticed(tmp_path):
    store = write_store(tmp_path / "store", *random_entries(20))
    one, other, third = in_processes(3, fail_while_others_search, store.path, "killed")
    assert str(one).startswith("another process of this run ended (")
    assert other is None and isinstance(third, SystemExit)


def test_a_store_that_another_process_writes_to(building, tmp_path):
    keys, _ = random_entries(20)
    with open_writer(tmp_path, keys, 20):
        one, other = in_processes(2, build, *building, "--datastore_path", tmp_path)
    assert str(one) == (
        f"{tmp_path}: another process is writing to this datastore; wait until it has finished"
    )
    assert isinstance(other, SystemExit) and other.code == 2


def build_of_another_corpus(group, folders, *line):
    return build(group, *line, "--data_dir", folders[group.rank])


def test_machines_with_other_files_are_told(building, tiny_corpus, tmp_path):
    other = tmp_path / "corpus"
    shutil.copytree(tiny_corpus, other)
    train = other / "train.word.bmes"
    train.write_text(train.read_text() + "\nBye O\n")
    line = (*building, "--datastore_path", tmp_path / "store")
    one, _ = in_processes(2, build_of_another_corpus, [tiny_corpus, other], *line)
    assert str(one) == (
        "process 1 has another corpus, tagger or setting than process 0; "
        "give every machine the same files and flags"
    )
    train.write_text(train.read_text() + "\nBye B-WHO\n")
    one, _ = in_processes(2, build_of_another_corpus, [tiny_corpus, other], *line)
    assert str(one).startswith(f"process 1: {train}:") and "B-WHO" in str(one)
    assert not (tmp_path / "store").exists()


def test_an_index_is_for_one_process(paths, datastore, tmp_path):
    line = (*paths, "--datastore_path", datastore, "--save_path", tmp_path, "--index", "auto")
    line = (*line, "--k", 8, "--temperature", 0.1, "--knn_weight", 0.4)
    one, _ = in_processes(2, run_infer, *line)
    assert str(one) == (
        "--index auto: 2 processes search exactly; leave it out, or use one process"
    )
    assert not list(tmp_path.iterdir())


def test_flags_that_torchrun_contradicts(fails, building, tmp_path, monkeypatch, capfd):
    for name, value in {
        "TORCHELASTIC_RUN_ID": "1",
        "LOCAL_WORLD_SIZE": "2",
        "WORLD_SIZE": "4",
        "LOCAL_RANK": "0",
    }.items():
        monkeypatch.setenv(name, value)
    line = (*building, "--datastore_path", tmp_path, "--devices", 3)
    assert fails(build_datastore.main, *line) == (
        "error: --devices 3 --num_nodes 2: torchrun has started 4 processes; leave these flags out"
    )
    # Of the processes on a machine only the first says what is wrong with the command line.
    monkeypatch.setenv("LOCAL_RANK", "1")
    with pytest.raises(SystemExit) as end:
        build_datastore.main(["--devices", "0"])
    assert end.value.code == 2 and capfd.readouterr().err == ""


def test_machines_that_would_not_find_each_other(fails, building, tmp_path, monkeypatch):
    for name in ("MASTER_ADDR", "MASTER_PORT", "NODE_RANK"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    line = (*building, "--datastore_path", tmp_path, "--num_nodes", 2)
    assert fails(build_datastore.main, *line) == (
        "error: --num_nodes 2: MASTER_PORT and NODE_RANK not found in the environment; set "
        "MASTER_ADDR, MASTER_PORT, NODE_RANK on each machine, or start the command by torchrun"
    )


def test_a_build_that_is_joined(tmp_path, monkeypatch):
    """The second process has the lock too, so that nobody builds anew while it still writes."""
    keys, labels = random_entries(40)
    first = open_writer(tmp_path, keys, 20)
    first.share()
    second = open_writer(tmp_path, keys, 20, join=first.build)
    write_shard(first, 0, keys, labels, 20)
    first.close()
    with pytest.raises(UserError, match="another process is writing"):
        open_writer(tmp_path, keys, 20)
    write_shard(second, 1, keys, labels, 20)
    second.close()
    with open_writer(tmp_path, keys, 20) as third:
        assert third.build == first.build and third.resumed == 2
        third.commit()
    monkeypatch.setattr(writing, "VISIBLE_WITHIN_SECONDS", 0)
    with pytest.raises(UserError) as error:
        open_writer(tmp_path / "elsewhere", keys, 20, join=first.build)
    assert str(error.value) == (
        f"{tmp_path / 'elsewhere'}: building.json of the build that process 0 has begun is not "
        "found here; give a folder that all machines share"
    )
    assert not (tmp_path / "elsewhere").exists()


@pytest.fixture(scope="module")
def small_store(tmp_path_factory):
    """90 entries, half of them twice, in shards of 35."""
    keys, labels = random_entries(90, seed=3)
    keys[45:] = keys[:45]
    return write_store(tmp_path_factory.mktemp("merge") / "store", keys, labels, cut=35)


def parts_of(store, parts):
    borders = part_borders(store.entries, parts, block_keys=2)
    return [StorePart(store, *borders[i : i + 2]) for i in range(parts)]


@given(
    parts=st.integers(1, 60),
    k=st.sampled_from([1, 7, 45, 90, 4096]),
    similarity=st.sampled_from(["cosine", "l2"]),
)
@settings(max_examples=25, deadline=None)
def test_the_nearest_of_all_parts_are_the_nearest(small_store, parts, k, similarity):
    queries = torch.from_numpy(random_entries(6, seed=4)[0])
    found = []
    for part in parts_of(small_store, parts):
        if part.entries:
            nearest = ExactSearch(part, similarity).search(queries, k)
            found.append(SearchResult(nearest.similarities, nearest.indices + part.first))
    merged = merge_nearest(found, k)
    whole = ExactSearch(small_store, similarity).search(queries, k)
    assert torch.equal(merged.indices, whole.indices)
    assert torch.equal(merged.similarities, whole.similarities)


@given(
    parts=st.integers(1, 60),
    k=st.sampled_from([1, 7, 45, 90, 4096]),
    similarity=st.sampled_from(["cosine", "l2"]),
)
@settings(max_examples=25, deadline=None)
def test_the_candidates_of_all_parts_are_the_best(small_store, parts, k, similarity):
    queries = torch.from_numpy(random_entries(6, seed=4)[0])
    found = []
    for part in parts_of(small_store, parts):
        if part.entries:
            ((_, one),) = ExactSearch(part, similarity, block_keys=2).candidates(queries, k)
            found.append(Candidates(one.scores, one.indices + part.first, one.floor))
    merged = merge_candidates(found, k)
    ((_, all_),) = ExactSearch(small_store, similarity, block_keys=2).candidates(queries, 90)
    scores = all_.scores.gather(1, all_.indices.argsort(dim=1))
    assert merged.scores.shape[1] >= min(k, 90)
    assert torch.equal(merged.scores, scores.gather(1, merged.indices))
    # Whatever is no candidate scores no better than the floor, which no candidate is below.
    others = scores.scatter(1, merged.indices, -torch.inf).amax(dim=1)
    assert (others <= merged.floor).all()
    assert (merged.floor <= merged.scores.amin(dim=1)).all()


@given(parts=st.integers(1, 60), temperature=st.sampled_from([0.001, 0.05, 1.0, 100.0]))
@settings(max_examples=25, deadline=None)
def test_the_votes_of_all_parts_are_the_vote(small_store, parts, temperature):
    queries = torch.from_numpy(random_entries(6, seed=4)[0])
    merged = merge_log_weights(
        [
            ExactSearch(part, block_keys=2).log_weights(queries, temperature)
            for part in parts_of(small_store, parts)
            if part.entries
        ],
        temperature,
    )
    whole = ExactSearch(small_store, block_keys=2).log_weights(queries, temperature)
    assert merged.logs.shape == (6, len(LABELS)) and merged.logs.isfinite().all()
    np.testing.assert_allclose(merged.logs.softmax(1), whole.logs.softmax(1), atol=1e-6)
    assert torch.equal(merged.largest, whole.largest)


def test_a_label_that_no_part_has_keeps_no_weight():
    nothing = torch.full((2, 3), -torch.inf, dtype=torch.float64)
    some = nothing.clone()
    some[:, 1] = torch.tensor([1.0, 2.0])
    parts = [LogWeights(logs, torch.zeros(2)) for logs in (nothing, some, some)]
    merged = merge_log_weights(parts, 0.1).logs
    assert torch.equal(merged[:, [0, 2]], nothing[:, :2])
    torch.testing.assert_close(merged[:, 1], some[:, 1] + np.log(2))
