"""Datastore, inference and tuning through their command lines, on a tagger trained on the fly."""

import json
import shutil

import numpy as np
import pytest

from knn_ner import build_datastore, infer, tune
from knn_ner.data.corpus import read_corpus
from knn_ner.datastore.reader import Datastore
from knn_ner.tagging import store_keys

VOTE = ("--k", 32, "--temperature", 0.1, "--knn_weight", 0.4)


@pytest.fixture(scope="module")
def paths(tiny_corpus, trained, datastore):
    """The flags that every command over this tagger and datastore takes."""
    return (
        *("--data_dir", tiny_corpus, "--file_name", "word.bmes", "--device", "cpu"),
        *("--model_path", trained / "model", "--datastore_path", datastore),
    )


def run_in_process(module, function, *arguments):
    return function(module.parse_arguments([str(argument) for argument in arguments]))


def tags_of(save_path):
    return (save_path / "predictions.txt").read_text()


def test_the_datastore_holds_every_piece_in_the_order_of_the_corpus(datastore, tiny_corpus, paths):
    store = Datastore.open(datastore)
    store.verify()
    sentences = read_corpus(tiny_corpus, "word.bmes", splits=("train",)).splits["train"]
    assert store.manifest.sentences == len(sentences)
    assert (np.diff(store.sentence_ids) >= 0).all()
    # Two special tokens for each sentence, with label O, as published.
    special = store.positions == -1
    assert special.sum() == 2 * len(sentences)
    assert {store.labels[index] for index in store.label_ids[special]} == {"O"}
    for entry in range(0, store.entries, 97):
        if store.positions[entry] >= 0:
            sentence = store.sentence(store.sentence_ids[entry])
            label = store.labels[store.label_ids[entry]]
            gold = sentence["tags"][store.positions[entry]]
            assert label[1:] == gold[1:] and (label[0] == "M" or label == gold)


def test_keys_are_the_last_hidden_states(datastore, trained):
    """Against transformers alone: the first sentence, special tokens included."""
    import torch
    from transformers import AutoModelForTokenClassification, AutoTokenizer

    store = Datastore.open(datastore)
    tokenizer = AutoTokenizer.from_pretrained(trained / "model")
    model = AutoModelForTokenClassification.from_pretrained(trained / "model").eval()
    encoded = tokenizer(" ".join(store.sentence(0)["words"]), return_tensors="pt")
    with torch.inference_mode():
        hidden = model(**encoded, output_hidden_states=True).hidden_states[-1][0]
    assert np.allclose(store.rows(0, len(hidden)), hidden, atol=2e-3)


def test_the_store_does_not_depend_on_batch_size_windows_or_shards(tmp_path, paths, datastore):
    whole = Datastore.open(datastore)
    for name, flags in (
        ("one by one", ("--batch_size", 1)),
        ("many shards", ("--shard_words", 300, "--batch_size", 7)),
    ):
        path = tmp_path / name
        built = run_in_process(
            build_datastore,
            build_datastore.build_datastore,
            *paths,
            *("--datastore_path", path, "--key_dtype", "float32", *flags),
        )
        store = Datastore.open(path)
        assert built["entries"] == store.entries == whole.entries
        assert np.array_equal(store.label_ids, whole.label_ids)
        assert np.array_equal(store.sentence_ids, whole.sentence_ids)
        assert np.array_equal(store.positions, whole.positions)
        keys = store.rows(0, store.entries)
        assert keys.dtype == np.float32
        assert np.allclose(keys, whole.rows(0, whole.entries), atol=2e-3)


def test_an_interrupted_build_goes_on_from_its_finished_shards(
    tmp_path, paths, datastore, monkeypatch, capfd
):
    path = tmp_path / "store"
    line = (*paths, "--datastore_path", path, "--shard_words", 500)
    write = store_keys.write_shard
    calls = []

    def die_at_the_third(*arguments):
        calls.append(arguments)
        if len(calls) == 3:
            raise RuntimeError("power failure")
        return write(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(store_keys, "write_shard", die_at_the_third)
        with pytest.raises(RuntimeError, match="power failure"):
            run_in_process(build_datastore, build_datastore.build_datastore, *line)
    assert not (path / "manifest.json").exists()

    calls.clear()
    monkeypatch.setattr(store_keys, "write_shard", lambda *a: (calls.append(a), write(*a))[1])
    run_in_process(build_datastore, build_datastore.build_datastore, *line)
    store = Datastore.open(path)
    assert f"{path}: 2 of {len(store.keys)} shards are finished already" in capfd.readouterr().err
    assert len(calls) == len(store.keys) - 2
    whole = Datastore.open(datastore)
    assert np.array_equal(store.label_ids, whole.label_ids)
    # Other batches, other padding: the last bit of a float16 may differ.
    keys = store.rows(0, store.entries)
    assert np.allclose(keys, whole.rows(0, whole.entries), atol=2e-3)


def test_building_again_says_so_and_mends_a_damaged_store(tmp_path, paths, capfd):
    line = (*paths, "--datastore_path", tmp_path)
    run_in_process(build_datastore, build_datastore.build_datastore, *line)
    manifest = (tmp_path / "manifest.json").read_bytes()
    run_in_process(build_datastore, build_datastore.build_datastore, *line)
    assert f"{tmp_path}: this datastore is there already, and whole" in capfd.readouterr().err
    assert (tmp_path / "manifest.json").read_bytes() == manifest

    keys = next(tmp_path.glob("shard-*/keys.npy"))
    keys.write_bytes(keys.read_bytes()[:-1] + b"\0")
    run_in_process(build_datastore, build_datastore.build_datastore, *line)
    assert (
        "differs from the checksum in the manifest; build the datastore again, which is what "
        in (capfd.readouterr().err)
    )
    Datastore.open(tmp_path).verify()


def test_first_piece_labels_store_words_alone(run, tiny_corpus, tiny_encoder, tmp_path):
    corpus = ("--data_dir", tiny_corpus, "--file_name", "word.bmes", "--device", "cpu")
    run(
        *("-m", "knn_ner.train", *corpus, "--bert_path", tiny_encoder, "--save_path", tmp_path),
        *("--piece_labels", "first", "--max_epochs", 1),
    )
    stored = (*corpus, "--model_path", tmp_path / "model", "--datastore_path", tmp_path / "store")
    run_in_process(build_datastore, build_datastore.build_datastore, *stored)
    words = sum(
        len(s.words)
        for s in read_corpus(tiny_corpus, "word.bmes", splits=("train",)).splits["train"]
    )
    store = Datastore.open(tmp_path / "store")
    assert store.entries == words and (store.positions >= 0).all()
    results = run_in_process(infer, infer.infer, *stored, "--save_path", tmp_path, *VOTE)
    assert results["tokens"] == sum(
        len(s.words) for s in read_corpus(tiny_corpus, "word.bmes", splits=("test",)).splits["test"]
    )


@pytest.fixture(scope="module")
def inferred(run, paths, tmp_path_factory):
    """The folder and the output of one run of the command line."""
    folder = tmp_path_factory.mktemp("inferred")
    finished = run("-m", "knn_ner.infer", *paths, "--save_path", folder, *VOTE)
    return folder, finished


def test_what_inference_writes(inferred, tiny_corpus):
    folder, finished = inferred
    results = json.loads((folder / "knn_results.json").read_text())
    scores = {"precision", "recall", "f1", "strict_f1", "piece_f1", "per_type"}
    assert results["base"].keys() >= scores and results["knn"].keys() >= scores
    assert (results["k"], results["temperature"], results["knn_weight"]) == (32, 0.1, 0.4)
    assert 0 < results["searched_tokens"] < results["tokens"]
    assert 0 < results["changed_tokens"] <= results["searched_tokens"]
    assert results["seconds"].keys() == {"encode", "search"}

    sentences = read_corpus(tiny_corpus, "word.bmes", splits=("test",)).splits["test"]
    blocks = tags_of(folder).removesuffix("\n").split("\n\n")
    assert len(blocks) == len(sentences)
    for block, sentence in zip(blocks, sentences, strict=True):
        columns = list(zip(*(line.split("\t") for line in block.split("\n")), strict=True))
        assert list(columns[0]) == sentence.words and list(columns[1]) == sentence.tags

    lines = finished.stdout.splitlines()
    assert lines[0].split() == ["precision", "recall", "f1", "strict_f1", "piece_f1", "seconds"]
    for line, name in zip(lines[1:3], ("base", "knn"), strict=True):
        assert line.split()[1:4] == [
            f"{results[name][score]:.2f}" for score in ("precision", "recall", "f1")
        ]


def test_scores_are_those_of_the_predictions(inferred):
    """The file of predictions, scored by seqeval, gives the numbers of the result file."""
    from seqeval.metrics import f1_score

    folder, _ = inferred
    results = json.loads((folder / "knn_results.json").read_text())
    gold, base, knn = [], [], []
    for block in tags_of(folder).removesuffix("\n").split("\n\n"):
        rows = [line.replace("\tM-", "\tI-").split("\t") for line in block.split("\n")]
        for column, part in enumerate((gold, base, knn), start=1):
            part.append([row[column] for row in rows])
    assert 100 * f1_score(gold, base) == pytest.approx(results["base"]["f1"])
    assert 100 * f1_score(gold, knn) == pytest.approx(results["knn"]["f1"])


@pytest.mark.parametrize("batch_size", [1, 5, 200])
def test_results_do_not_depend_on_the_batch_size(inferred, paths, tmp_path, batch_size):
    run_in_process(
        infer, infer.infer, *paths, "--save_path", tmp_path, *VOTE, "--batch_size", batch_size
    )
    assert tags_of(tmp_path) == tags_of(inferred[0])


@pytest.mark.parametrize("k", [1, 32, -1])
@pytest.mark.parametrize("knn_weight", [0.1, 0.45, 0.8])
@pytest.mark.parametrize("similarity", ["cosine", "l2"])
def test_skipping_changes_no_tag(paths, tmp_path, k, knn_weight, similarity):
    line = (*paths, "--k", k, "--temperature", 0.05, "--knn_weight", knn_weight)
    line = (*line, "--similarity", similarity)
    skipping = run_in_process(infer, infer.infer, *line, "--save_path", tmp_path / "a")
    searching = run_in_process(
        infer, infer.infer, *line, "--save_path", tmp_path / "b", "--exhaustive"
    )
    assert tags_of(tmp_path / "a") == tags_of(tmp_path / "b")
    assert skipping["knn"] == searching["knn"]
    assert searching["searched_tokens"] == searching["tokens"] >= skipping["searched_tokens"]


def test_long_sentences_go_through_windows(run, paths, tmp_path, trained, datastore, capfd):
    """Windows of twelve pieces: another datastore and other tags, but the same words and gold entities."""
    line = (*paths, "--datastore_path", tmp_path / "store", "--max_length", 12)
    built = run_in_process(build_datastore, build_datastore.build_datastore, *line)
    assert built["entries"] == Datastore.open(datastore).entries
    results = run_in_process(infer, infer.infer, *line, "--save_path", tmp_path, *VOTE)
    assert "warning: --max_length 12, but the tagger was trained with --max_length 512" in (
        capfd.readouterr().err
    )
    support = sum(counts["support"] for counts in results["knn"]["per_type"].values())
    plain = json.loads((trained / "train_results.json").read_text())
    assert support == sum(counts["support"] for counts in plain["test"]["per_type"].values())


def test_the_published_flag_names(inferred, paths, tmp_path):
    published = ("--topk", 32, "--link_temperature", 0.1, "--link_ratio", 0.4)
    run_in_process(infer, infer.infer, *paths, "--save_path", tmp_path, *published)
    assert tags_of(tmp_path) == tags_of(inferred[0])


@pytest.fixture(scope="module")
def tuned(run, paths, tmp_path_factory):
    """The folder of one tuning, every stored token (k = -1) tried too."""
    folder = tmp_path_factory.mktemp("tuned")
    run(
        *("-m", "knn_ner.tune", *paths, "--save_path", folder),
        *("--grid_k", 1, 8, 64, -1, "--grid_temperature", 0.02, 0.1, 0.5),
    )
    return folder


def test_tuning_finds_what_inference_confirms(tuned, paths, tmp_path):
    """The F1 that the sweep computes for its best setting is the one that inference on dev measures."""
    best = json.loads((tuned / "tuning.json").read_text())["best"]
    line = (*paths, "--save_path", tmp_path, "--split", "dev", "--tuning", tuned / "tuning.json")
    results = run_in_process(infer, infer.infer, *line)
    assert results["knn"]["f1"] == pytest.approx(best["f1"], abs=1e-9)
    assert results["k"] == best["k"] and results["settings_source"] == "tuned"
    assert best["f1"] >= results["base"]["f1"]


def test_every_line_of_the_sweep_is_what_inference_gives(tuned, paths, tmp_path):
    lines = (tuned / "tuning.csv").read_text().splitlines()
    assert lines[0] == "k,temperature,knn_weight,f1"
    assert len(lines) == 1 + 4 * 3 * 101
    for line in lines[1 :: len(lines) // 12]:
        k, temperature, knn_weight, f1 = line.split(",")
        results = run_in_process(
            infer,
            infer.infer,
            *(*paths, "--save_path", tmp_path, "--split", "dev", "--k", k),
            *("--temperature", temperature, "--knn_weight", knn_weight),
        )
        assert results["knn"]["f1"] == pytest.approx(float(f1), abs=5e-4)


def test_tuning_never_reads_the_test_split(tuned, paths, tiny_corpus, tmp_path):
    folder = tmp_path / "corpus"
    shutil.copytree(tiny_corpus, folder)
    (folder / "test.word.bmes").unlink()
    line = (*paths, "--data_dir", folder, "--save_path", tmp_path)
    line = (*line, "--grid_k", 1, 8, 64, -1, "--grid_temperature", 0.02, 0.1, 0.5)
    run_in_process(tune, tune.tune, *line)
    assert (tmp_path / "tuning.csv").read_text() == (tuned / "tuning.csv").read_text()


def test_tuning_on_sentences_that_are_not_stored(
    paths, tiny_corpus, datastore, tmp_path, capfd, fails
):
    """With --unseen, stored sentences in dev change nothing; without, they are warned of."""
    store = tmp_path / "datastore"
    shutil.copytree(datastore, store)
    paths = (*paths, "--datastore_path", store)
    grid = ("--grid_k", 1, 64, "--grid_temperature", 0.1, "--device", "cpu")

    def sentences(split: str) -> list[str]:
        return (tiny_corpus / f"{split}.word.bmes").read_text().strip().split("\n\n")

    def tuned_on(name: str, dev: list[str], *flags: str) -> str:
        folder = tmp_path / name
        folder.mkdir()
        (folder / "dev.word.bmes").write_text("\n\n".join(dev) + "\n")
        line = (*paths, "--data_dir", folder, "--save_path", folder, *grid, *flags)
        run_in_process(tune, tune.tune, *line)
        return (folder / "tuning.csv").read_text()

    train = sentences("train")
    words = [line.split()[0] for line in train[0].splitlines()]
    known = {tuple(line.split()[0] for line in each.splitlines()) for each in train}
    dev = [
        each
        for each in sentences("dev")
        if tuple(line.split()[0] for line in each.splitlines()) not in known
    ]
    retagged = "\n".join(f"{word} O" for word in words)
    alone = tuned_on("alone", dev)
    assert "in the datastore" not in capfd.readouterr().err
    mixed = [*train[5:15], *dev, retagged]
    assert tuned_on("unseen", mixed, "--unseen") == alone
    assert (
        f"dev: 11 of {len(mixed)} sentences are in the datastore word for word, and left out"
        in (capfd.readouterr().err)
    )
    assert tuned_on("mixed", mixed) != alone
    assert (
        f"warning: dev: 11 of {len(mixed)} sentences are in the datastore" in capfd.readouterr().err
    )
    (tmp_path / "stored").mkdir()
    (tmp_path / "stored" / "dev.word.bmes").write_text("\n\n".join(train[:3]) + "\n")
    line = (*paths, "--data_dir", tmp_path / "stored", "--save_path", tmp_path / "stored")
    assert fails(tune.main, *line, *grid, "--unseen") == (
        "error: dev: 3 of 3 sentences are in the datastore word for word, and --unseen leaves them out; tune "
        "on other sentences, or without --unseen"
    )
    assert not (tmp_path / "stored" / "tuning.json").exists()


def test_a_store_is_read_with_its_own_model_alone(
    fails, paths, tiny_encoder, tiny_corpus, run, tmp_path
):
    run(
        *("-m", "knn_ner.train", "--data_dir", tiny_corpus, "--file_name", "word.bmes"),
        *("--bert_path", tiny_encoder, "--save_path", tmp_path, "--max_epochs", 1, "--seed", 9),
    )
    line = (*paths, "--model_path", tmp_path / "model", "--save_path", tmp_path / "new", *VOTE)
    message = fails(infer.main, *line)
    assert message.startswith(f"error: {paths[9]}: made with model '")
    assert message.endswith("use what it was made with, or build the datastore again")
    assert not (tmp_path / "new").exists()


def test_what_was_tuned_for_a_store_is_used_when_nothing_is_given(
    fails, tuned, paths, datastore, tmp_path, capfd
):
    best = json.loads((tuned / "tuning.json").read_text())["best"]
    line = (*paths, "--save_path", tmp_path / "out", "--split", "dev")
    results = run_in_process(infer, infer.infer, *line)
    assert results["knn"]["f1"] == pytest.approx(best["f1"], abs=1e-9)
    assert results["settings_source"] == "tuned"
    used = (
        f"{datastore}: k {best['k']}, temperature {best['temperature']:g}, "
        f"knn_weight {best['knn_weight']:g}, cosine similarity, as tuned on dev"
    )
    assert used in capfd.readouterr().err.splitlines()

    other = tmp_path / "store"
    shutil.copytree(datastore, other)
    content = json.loads((other / "tuned.json").read_text())
    (other / "tuned.json").write_text(json.dumps(content | {"content_id": "of another day"}))
    results = run_in_process(infer, infer.infer, *line, "--datastore_path", other, "--k", 3)
    assert (results["k"], results["temperature"]) == (3, best["temperature"])
    assert "as tuned on dev before the datastore was changed" in capfd.readouterr().err

    assert fails(infer.main, *line, "--datastore_path", other, "--similarity", "l2") == (
        f"error: {other}/tuned.json: tuned for similarity cosine, but l2 is asked for; take the same, or "
        "give k, temperature and knn_weight"
    )
    (other / "tuned.json").write_text("{}")
    assert fails(infer.main, *line, "--datastore_path", other) == (
        f"error: {other}/tuned.json: not as knn_ner.tune writes it ('k'); tune again, or remove the file"
    )
    (other / "tuned.json").unlink()
    assert fails(infer.main, *line, "--datastore_path", other, "--knn_weight", 0.4) == (
        f"error: k not given, and nothing was tuned for {other}; give k, temperature and knn_weight, or "
        "run knn_ner.tune with this datastore"
    )


ERRORS = {
    "k": (
        (*VOTE, "--k", 0),
        "error: k 0: expected at least 1, or -1 for every entry of the datastore",
    ),
    "temperature": (
        (*VOTE, "--temperature", 0),
        "error: temperature 0.0: expected a number above 0",
    ),
    "knn_weight": (
        (*VOTE, "--knn_weight", 1.5),
        "error: knn_weight 1.5: expected a number from 0 to 1",
    ),
    "no tuning": (("--tuning", "nowhere.json"), "error: nowhere.json: not found"),
}


@pytest.mark.parametrize(("flags", "message"), ERRORS.values(), ids=ERRORS.keys())
def test_errors_of_inference_are_one_line(fails, paths, tmp_path, flags, message):
    assert fails(infer.main, *paths, "--save_path", tmp_path / "new", *flags) == message
    assert not (tmp_path / "new").exists()


def test_no_datastore(fails, paths, tmp_path):
    line = (*paths, "--datastore_path", tmp_path, "--save_path", tmp_path / "new", *VOTE)
    assert fails(infer.main, *line) == (
        f"error: {tmp_path}/manifest.json: not found, so {tmp_path} holds no finished datastore; build it, "
        "or finish building it, with python -m knn_ner.build_datastore"
    )
