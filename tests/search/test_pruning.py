"""Pruned stores: entries that stand for others vote as these would; what changes them works or is refused."""

import json
import shutil

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from store_factory import random_entries, write_store
from studies import compare_keys, smaller_stores

from knn_ner import KnnTagger, infer, tune
from knn_ner.audit import __main__ as audit
from knn_ner.datastore.__main__ import main as datastore_command
from knn_ner.datastore.compaction import compact, merge, transform_keys
from knn_ner.datastore.edit import remove_sentences
from knn_ner.datastore.fit_transform import fit_transform
from knn_ner.datastore.info import verify
from knn_ner.datastore.manifest import WEIGHTS_FILE
from knn_ner.datastore.reader import Datastore
from knn_ner.search import pruning
from knn_ner.search.exact import ExactSearch
from knn_ner.search.key_clusters import quotas
from knn_ner.search.pruning import prune
from knn_ner.search.vote import vote, vote_prefixes
from knn_ner.utils.errors import UserError


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_counts_are_as_repeated_neighbours(data):
    counts = data.draw(st.lists(st.integers(1, 5), min_size=1, max_size=8), label="counts")
    generator = np.random.default_rng(data.draw(st.integers(0, 10**6), label="seed"))
    similarities = -torch.from_numpy(np.sort(generator.random((3, len(counts)))))
    labels = torch.from_numpy(generator.integers(0, 4, similarities.shape))
    many = torch.tensor(counts)
    repeated = [part.repeat_interleave(many, dim=1) for part in (similarities, labels)]
    ks = list(range(1, sum(counts) + 3))
    temperature = data.draw(st.sampled_from([0.01, 0.1, 1.0]), label="temperature")
    weights = many.double().expand_as(similarities)
    found = vote_prefixes(similarities, labels, 4, temperature, ks, weights)
    expected = vote_prefixes(*repeated, 4, temperature, ks)
    assert torch.allclose(found, expected, atol=1e-12)
    assert torch.allclose(vote(similarities, labels, 4, temperature, weights), expected[-1])


@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_merged_duplicates_change_no_vote(tmp_path_factory, data):
    """Every k, and -1: entries with equal keys, of one label and of several, in any order."""
    seed = data.draw(st.integers(0, 10**6), label="seed")
    distinct = data.draw(st.integers(1, 6), label="distinct")
    count = data.draw(st.integers(1, 30), label="entries")
    similarity = data.draw(st.sampled_from(["cosine", "l2"]), label="similarity")
    generator = np.random.default_rng(seed)
    keys = generator.standard_normal((distinct, 4)).astype(np.float32)
    keys = keys[generator.integers(0, distinct, count)]
    labels = generator.integers(0, 2, count)
    folder = tmp_path_factory.mktemp("duplicates")
    whole = write_store(folder / "whole", keys, labels, cut=10)
    prune(whole.path, folder / "pruned", keep=1, similarity=similarity)
    pruned = Datastore.open(folder / "pruned")
    assert pruned.weights is not None and pruned.weights.sum() == count
    assert pruned.entries >= len(np.unique(keys, axis=0))
    queries = torch.from_numpy(generator.standard_normal((5, 4)).astype(np.float32))
    search, smaller = ExactSearch(whole, similarity), ExactSearch(pruned, similarity)
    for k in (*range(1, count + 3), -1):
        for temperature in (0.02, 0.5):
            expected = search.votes(queries, k, temperature)
            found = smaller.votes(queries, k, temperature)
            # Of all entries the similarities are those of a product, whose rounding T divides.
            assert torch.allclose(found, expected, atol=1e-3 if k == -1 else 2e-6), k
    found, expected = (searcher.log_weights(queries, 0.5) for searcher in (smaller, search))
    assert torch.allclose(found.logs, expected.logs, atol=1e-4)
    assert torch.allclose(found.largest, expected.largest, atol=1e-6)


def clustered(count: int = 3000) -> tuple[np.ndarray, np.ndarray]:
    """Entries of label 0 in tight clusters, some of label 1 among them, and a few of label 2 apart."""
    generator = np.random.default_rng(11)
    centres = generator.standard_normal((40, 16))
    keys = centres[generator.integers(0, 40, count)] + 0.05 * generator.standard_normal((count, 16))
    labels = np.zeros(count, int)
    labels[generator.permutation(count)[:30]] = 1
    apart = generator.standard_normal(16)
    labels[:12] = 2
    keys[:12] = 3 * apart + 0.05 * generator.standard_normal((12, 16))
    return keys.astype(np.float32), labels


@pytest.mark.parametrize("similarity", ["cosine", "l2"])
def test_a_pruned_store_votes_nearly_as_the_whole(tmp_path, similarity):
    keys, labels = clustered()
    whole = write_store(tmp_path / "whole", keys, labels, cut=500, dtype="float16")
    before, after, plan = prune(
        whole.path, tmp_path / "pruned", 0.25, unanimous=8, similarity=similarity
    )
    pruned = Datastore.open(tmp_path / "pruned")
    pruned.verify()
    assert before == whole.manifest and after == pruned.manifest
    assert 0.2 * 3000 < pruned.entries <= 0.26 * 3000
    assert pruned.weights.sum() == 3000 and pruned.weights.min() >= 1
    # Of the rare labels all stay, each for itself.
    rare = pruned.label_ids > 0
    assert rare.sum() == (labels > 0).sum() and (pruned.weights[rare] == 1).all()
    assert (plan.similarity > 0.99) if similarity == "cosine" else (-0.2 < plan.similarity < 0)
    # What is kept is as it was: key, label, place and sentence.
    stored = whole.rows(0, 3000)
    for entry in range(0, pruned.entries, 37):
        original = plan.kept[entry]
        assert np.array_equal(pruned.rows(entry, entry + 1)[0], stored[original])
        assert pruned.positions[entry] == whole.positions[original]
        sentence_id = int(pruned.sentence_ids[entry])
        assert pruned.sentence(sentence_id) == whole.sentence(sentence_id)
    queries = torch.from_numpy(keys[np.random.default_rng(1).permutation(3000)[:200]])
    queries += 0.05 * torch.from_numpy(random_entries(200, dim=16, seed=3)[0])
    for k in (16, 64, -1):
        expected, found = (
            ExactSearch(store, similarity).votes(queries, k, 0.1) for store in (whole, pruned)
        )
        assert (found - expected).abs().max() < 0.12
        assert (found - expected).abs().mean() < 0.01


def test_pruning_again_adds_weights_up(tmp_path):
    keys, labels = clustered()
    write_store(tmp_path / "whole", keys, labels, cut=500)
    prune(tmp_path / "whole", tmp_path / "half", 0.5, unanimous=8)
    _, _, plan = prune(tmp_path / "half", tmp_path / "quarter", 0.5, unanimous=8)
    store = Datastore.open(tmp_path / "quarter")
    assert store.weights.sum() == 3000 and 700 < store.entries < 800
    assert np.array_equal(store.weights, plan.weights)
    prune(tmp_path / "whole", tmp_path / "again", 0.5, unanimous=8)
    assert Datastore.open(tmp_path / "again").content_id == (
        Datastore.open(tmp_path / "half").content_id
    )


@settings(max_examples=80, deadline=None)
@given(
    counts=st.lists(st.integers(0, 1000), min_size=1, max_size=10),
    share=st.floats(0.01, 1.2),
)
def test_rare_labels_leave_their_room_to_the_frequent(counts, share):
    counts = np.array(counts)
    room = share * counts.sum()
    shares = quotas(counts, room)
    assert ((shares >= 0) & (shares <= 1)).all()
    kept = shares * counts
    assert kept.sum() == pytest.approx(min(room, counts.sum()), abs=1e-6)
    # Nobody has more than another that was cut.
    cut = shares < 1
    assert not cut.any() or kept.max() <= kept[cut].min() + 1e-6


@pytest.fixture(scope="module")
def pruned(datastore, tmp_path_factory):
    """Half of the tiny datastore, whose labels lie close together."""
    folder = tmp_path_factory.mktemp("pruned") / "store"
    prune(datastore, folder, 0.5, unanimous=1)
    return folder


@pytest.fixture(scope="module")
def paths(tiny_corpus, trained):
    return (
        *("--data_dir", tiny_corpus, "--file_name", "word.bmes", "--device", "cpu"),
        *("--model_path", trained / "model"),
    )


def test_inference_and_tuning_with_a_pruned_store(pruned, datastore, paths, tmp_path):
    found = {}
    for name, path in (("whole", datastore), ("pruned", pruned)):
        flags = (*paths, "--datastore_path", path, "--save_path", tmp_path / name)
        grid = (*flags, "--grid_k", 4, 16, 10**6, -1, "--grid_temperature", 0.05, 0.2)
        tuned = tune.tune(tune.parse_arguments([str(flag) for flag in grid]))
        (path / "tuned.json").unlink()
        rows = (tmp_path / name / "tuning.csv").read_text().splitlines()[1:]
        found[name] = {tuple(row.split(",")[:3]): float(row.split(",")[3]) for row in rows}
        for k in (16, -1):
            vote_flags = (*flags, "--k", k, "--temperature", 0.2, "--knn_weight", 0.45)
            results = infer.infer(infer.parse_arguments([str(flag) for flag in vote_flags]))
            assert abs(results["knn"]["f1"] - results["base"]["f1"]) < 15
        assert tuned["best"]["f1"] >= tuned["base_f1"]
        # More than all that the entries stand for is all of them, as k = -1 is.
        ks = {key[0] for key in found[name]}
        most = str(max(map(int, ks)))
        for (k, *rest), f1 in found[name].items():
            if k == most:
                assert f1 == pytest.approx(found[name]["-1", *rest], abs=1e-9)
    assert np.mean(list(found["pruned"].values())) == pytest.approx(
        np.mean(list(found["whole"].values())), abs=3
    )


def test_shares_of_a_pruned_store_make_up_the_vote(pruned, trained):
    for k in (16, -1):
        tagger = KnnTagger.from_pretrained(
            trained / "model", pruned, k=k, temperature=0.2, knn_weight=0.45, device="cpu"
        )
        text = " ".join(tagger.store.sentence(int(tagger.store.sentence_ids[5]))["words"])
        (explained,) = tagger.explain_texts([text], neighbours=10**4, also=[range(3)])
        for evidence in explained.evidence.values():
            by_label: dict[str, float] = {}
            for neighbour in evidence.neighbours:
                by_label[neighbour.label] = by_label.get(neighbour.label, 0) + neighbour.share
            for label, share in evidence.vote.items():
                assert by_label[label] == pytest.approx(share, abs=1e-5)


def test_what_is_added_counts_once(pruned, datastore, trained, tmp_path):
    shutil.copytree(pruned, tmp_path / "store")
    tagger = KnnTagger.from_pretrained(
        trained / "model", tmp_path / "store", k=4, temperature=0.1, knn_weight=0.4, device="cpu"
    )
    before = tagger.store
    sentence_id = tagger.add(["Ada", "wrote"], ["S-PER", "O"])
    assert sentence_id == Datastore.open(datastore).manifest.next_sentence
    assert tagger.store.entries > before.entries
    assert np.array_equal(tagger.store.weights[: before.entries], before.weights)
    assert (tagger.store.weights[before.entries :] == 1).all()
    assert "files" in verify(tmp_path / "store")
    weights = tagger.store.weights
    compact(tmp_path / "store")
    compacted = Datastore.open(tmp_path / "store")
    assert len(compacted.manifest.shards) == 1
    assert np.array_equal(compacted.weights, weights)
    merge([tmp_path / "store", datastore], tmp_path / "merged")
    merged = Datastore.open(tmp_path / "merged")
    assert np.array_equal(merged.weights[: len(weights)], weights)
    assert (merged.weights[len(weights) :] == 1).all()


def test_what_is_refused(pruned, trained, paths, tmp_path, fails):
    refused = (
        f"{pruned}: is pruned, so that its entries stand for other sentences' too; change the datastore "
        "that it was made from, and prune that again"
    )
    with pytest.raises(UserError) as error:
        remove_sentences(pruned, [int(Datastore.open(pruned).sentence_ids[0])])
    assert str(error.value) == refused
    sentence = Datastore.open(pruned).sentence(int(Datastore.open(pruned).sentence_ids[0]))
    tags = " ".join("O" if tag != "O" else "S-PER" for tag in sentence["tags"])
    line = ("relabel", "--datastore_path", pruned, "--model_path", trained / "model")
    line = (*line, "--id", sentence["id"], "--tags", tags)
    assert fails(lambda _: datastore_command([str(item) for item in line])) == f"error: {refused}"
    line = (*paths, "--datastore_path", pruned, "--out", tmp_path / "audit")
    assert fails(lambda _: audit.main([str(item) for item in line])) == (
        f"error: {pruned}: is pruned; audit the datastore that it was made from"
    )


def test_the_command(datastore, tmp_path, capfd, fails):
    line = ["prune", "--datastore_path", str(datastore), "--out", str(tmp_path / "store")]
    datastore_command([*line, "--keep", "0.7", "--unanimous", "8"])
    told = capfd.readouterr().out.splitlines()
    store = Datastore.open(tmp_path / "store")
    assert told[0].startswith(f"{tmp_path}/store: {store.entries} entries for ")
    assert "went to others, cosine similarity 0." in told[1]
    assert store.manifest.history[-1].action == "prune"
    assert json.loads((tmp_path / "store" / "manifest.json").read_text())["version"] == 2
    assert fails(lambda _: datastore_command([*line, "--keep", "0.5"])) == (
        f"error: {tmp_path / 'store'}: holds a datastore; give a new folder for the pruned one"
    )
    line[-1] = str(tmp_path / "other")
    message = fails(lambda _: datastore_command([*line, "--keep", "0.02", "--unanimous", "500"]))
    assert message.startswith("error: --keep 0.02: ") and message.endswith(
        "have a neighbour of another label among so many, and stay; keep more, or look at fewer with "
        "--unanimous"
    )
    message = fails(lambda _: datastore_command([*line, "--keep", "0.5", "--similarity", "dot"]))
    assert message == "error: similarity 'dot': expected one of cosine, l2"
    assert not (tmp_path / "other").exists()


def test_an_interrupted_pruning_goes_on(tmp_path, monkeypatch):
    keys, labels = clustered(1000)
    store = write_store(tmp_path / "whole", keys, labels, cut=100)
    monkeypatch.setattr(pruning, "SHARD_ENTRIES", 100)
    prune(store.path, tmp_path / "expected", 0.5, unanimous=8)
    add = pruning.DatastoreWriter.shard
    written = []

    def die_at_the_third(self, number, entries):
        written.append(number)
        if len(written) == 3:
            raise RuntimeError("power failure")
        return add(self, number, entries)

    with monkeypatch.context() as patch:
        patch.setattr(pruning.DatastoreWriter, "shard", die_at_the_third)
        with pytest.raises(RuntimeError, match="power failure"):
            prune(store.path, tmp_path / "store", 0.5, unanimous=8)
        assert not (tmp_path / "store" / "manifest.json").exists()
        prune(store.path, tmp_path / "store", 0.5, unanimous=8)
    assert written == [0, 1, 2, *range(2, len(Datastore.open(tmp_path / "store").manifest.shards))]
    found, expected = (Datastore.open(tmp_path / name) for name in ("store", "expected"))
    assert found.content_id == expected.content_id


def test_a_transform_stays_with_a_pruned_store(tmp_path):
    keys, labels = clustered()
    store = write_store(tmp_path / "whole", keys, labels, cut=500)
    fitted = fit_transform(store, "svd:6")
    transform_keys(store, tmp_path / "smaller", fitted, "float16", "build 2")
    prune(tmp_path / "smaller", tmp_path / "pruned", 0.25, unanimous=8)
    pruned = Datastore.open(tmp_path / "pruned")
    assert pruned.transform.id == fitted.id == pruned.provenance["transform"]
    assert pruned.dim == 6 and pruned.weights.sum() == 3000


def test_other_stores_are_as_they_were(datastore, tmp_path):
    store = Datastore.open(datastore)
    assert store.weights is None and not store.manifest.pruned
    assert not list(datastore.glob(f"*/{WEIGHTS_FILE}"))
    shutil.copytree(datastore, tmp_path / "store")
    prune(datastore, tmp_path / "pruned", 1)
    file = next((tmp_path / "pruned").glob(f"*/{WEIGHTS_FILE}"))
    file.unlink()
    with pytest.raises(UserError, match=f"^{file}: not found, but the manifest names it"):
        Datastore.open(tmp_path / "pruned")


def test_smaller_stores_are_measured(paths, tmp_path, capfd):
    out = tmp_path / "out.json"
    forms = ("float32", "svd:16", "prune:0.8:2", "svd:8+prune:0.9:1")
    line = (*paths, "--work_path", tmp_path / "work", "--out", out, "--stores", *forms)
    smaller_stores.main([str(item) for item in (*line, "--grid_k", 8, "--grid_temperature", 0.1)])
    rows = json.loads(out.read_text())["stores"]
    assert [row["store"] for row in rows] == ["float16", *forms]
    assert [row["dim"] for row in rows] == [32, 32, 16, 32, 8]
    sizes = {row["store"]: row["bytes"] / row["entries"] for row in rows}
    # Keys, label, norm, and the weight of a pruned store; the rest is the head of a file.
    expected = [2 * 32 + 6, 4 * 32 + 6, 2 * 16 + 6, 2 * 32 + 10, 2 * 8 + 10]
    for size, wanted in zip(sizes.values(), expected, strict=True):
        assert size == pytest.approx(wanted, abs=0.2)
    assert rows[0]["tags_differ"] == 0 and rows[0]["test_untuned"] == rows[0]["knn"]["test"]
    assert len({row["base"]["test"] for row in rows}) == 1
    assert len(capfd.readouterr().out.splitlines()) == 7


def test_keys_are_compared(paths, tmp_path, capfd, fails):
    out = tmp_path / "out.json"
    line = (*paths, "--work_path", tmp_path / "work", "--out", out, "--grid_k", 8)
    line = [str(item) for item in (*line, "--grid_temperature", 0.1, "--keys")]
    compare_keys.main([*line, "last/none/cosine"])
    compare_keys.main([*line, "last/none/cosine", "penultimate/whiten/l2"])
    captured = capfd.readouterr()
    assert "last/none/cosine: 1 of 2, known" in captured.err
    rows = json.loads(out.read_text())
    assert [row["keys"] for row in rows] == ["last/none/cosine", "penultimate/whiten/l2"]
    assert rows[0]["test"]["base"] == rows[1]["test"]["base"]
    assert rows[1]["gain"] == pytest.approx(rows[1]["test"]["knn"] - rows[1]["test"]["base"])
    assert fails(lambda _: compare_keys.main([*line, "last/whiten"])) == (
        "error: --keys last/whiten: expected LAYER/TRANSFORM/SIMILARITY, as in ffn_input/whiten/l2"
    )
