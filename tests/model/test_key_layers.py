"""What keys are: layers by hooks, transforms by their formulas, and queries that are made as keys were."""

import shutil

import numpy as np
import pytest
import torch
from chinesebert_factory import make_chinesebert_folder
from store_factory import random_entries, write_store
from transformers import DistilBertConfig, DistilBertForTokenClassification

from knn_ner import KnnTagger, build_datastore, infer, tune
from knn_ner.audit.evidence import Auditor
from knn_ner.data.corpus import read_corpus
from knn_ner.datastore import compaction
from knn_ner.datastore.__main__ import main as datastore_command
from knn_ner.datastore.compaction import compact, merge, transform_keys
from knn_ner.datastore.edit import remove_sentences
from knn_ner.datastore.fit_transform import DAMPING, fit_transform
from knn_ner.datastore.info import verify
from knn_ner.datastore.key_transform import KeyTransform
from knn_ner.datastore.reader import Datastore
from knn_ner.model.backbone import load_encoder, load_tokenizer
from knn_ner.model.encode import hidden_states
from knn_ner.model.key_layers import canonical_layer, layer_width, tapping
from knn_ner.search.exact import ExactSearch
from knn_ner.settings import VoteSettings
from knn_ner.synthetic.bert import write_bert_encoder, write_roberta_encoder
from knn_ner.synthetic.size import Size
from knn_ner.tagging import store_keys
from knn_ner.tagging.edit_sentences import add_sentences
from knn_ner.tagging.trained_tagger import load_for_datastore
from knn_ner.utils.errors import UserError

WORDS = "Ada Lovelace wrote to Charles Babbage in London".split()


@pytest.fixture(scope="module")
def encoders(tmp_path_factory):
    """Taggers of four layers: BERT, RoBERTa and ChineseBERT, each with the input for a small batch."""
    folder = tmp_path_factory.mktemp("encoders")
    size = Size(hidden_size=16, layers=4, heads=2)
    write_bert_encoder(folder / "bert", WORDS, size, vocabulary_size=200)
    write_roberta_encoder(folder / "roberta", WORDS, size, vocabulary_size=300)
    make_chinesebert_folder(folder / "chinesebert", "我们在北京", hidden_size=16, layers=4)
    made = {}
    for name in ("bert", "roberta", "chinesebert"):
        texts = ["我们在北京", "在"] if name == "chinesebert" else [" ".join(WORDS), "Ada wrote"]
        inputs = load_tokenizer(folder / name)(texts, padding=True, return_tensors="pt")
        made[name] = load_encoder(folder / name, ["O", "S-PER"]).eval(), inputs
    return made


@pytest.mark.parametrize("encoder", ["bert", "roberta", "chinesebert"])
def test_layers_are_those_of_output_hidden_states(encoders, encoder):
    model, inputs = encoders[encoder]
    with torch.inference_mode():
        states = model(**inputs, output_hidden_states=True).hidden_states
        last = model.base_model.encoder.layer[-1]
        hooks = len(last._forward_hooks)

        def tapped(name):
            with tapping(model, name) as taken:
                model(**inputs)
                return taken()

        for name, place in {"last": -1, "-2": -2, "-4": -4}.items():
            assert torch.equal(tapped(name), states[place])
            assert layer_width(model, name) == 16
        three = tapped("last3")
        assert three.shape[-1] == layer_width(model, "last3") == 48
        for number, part in enumerate(three.split(16, dim=-1)):
            expected = states[number - 3]
            assert torch.allclose(part.norm(dim=-1), torch.ones(part.shape[:2]))
            assert torch.allclose(part * expected.norm(dim=-1, keepdim=True), expected, atol=1e-5)
        # What the feed-forward block makes of its input is the layer's output.
        into = tapped("ffn_input")
        assert torch.allclose(last.output(last.intermediate(into), into), states[-1], atol=1e-6)
        last.chunk_size_feed_forward = 1
        assert torch.allclose(tapped("ffn_input"), into)
        last.chunk_size_feed_forward = 0
    assert not model.base_model._forward_hooks and len(last._forward_hooks) == hooks


def test_names_of_layers(encoders):
    assert [canonical_layer(name) for name in ("penultimate", "-1", "last1", "last3")] == [
        *("-2", "last", "last", "last3")
    ]
    known = "expected last, -N (the N-th layer from the end; penultimate is -2), ffn_input"
    for name in ("first", "0", "-0", "last0", "last-2", "3"):
        with pytest.raises(UserError, match=f"^--key_layer {name}: ") as error:
            canonical_layer(name)
        assert known in str(error.value)
    model, _ = encoders["bert"]
    for name in ("-5", "last5"):
        with pytest.raises(UserError, match=f"^--key_layer {name}: the encoder has 4 layers; use"):
            layer_width(model, name)
    small = DistilBertConfig(vocab_size=10, dim=8, hidden_dim=8, n_layers=2, n_heads=2)
    distilled = DistilBertForTokenClassification(small)
    assert layer_width(distilled, "last") == 8
    with pytest.raises(UserError, match=r"has no encoder\.layer, as BERT's kin have; use last"):
        layer_width(distilled, "-2")


@pytest.fixture(scope="module")
def uneven(tmp_path_factory) -> Datastore:
    """1,000 entries whose directions differ in variance by six orders of magnitude."""
    keys, labels = random_entries(1000, dim=12, seed=5)
    generator = np.random.default_rng(6)
    rotation = np.linalg.qr(generator.standard_normal((12, 12)))[0]
    keys = keys * np.logspace(0, -3, 12) @ rotation + generator.standard_normal(12)
    folder = tmp_path_factory.mktemp("uneven")
    return write_store(folder / "store", keys.astype(np.float32), labels, cut=300)


def test_transforms_follow_their_formulas(uneven):
    stored = uneven.rows(0, 1000)
    keys = stored.astype(np.float64)
    centred = keys - keys.mean(axis=0)
    values, vectors = np.linalg.eigh(np.cov(keys.T, bias=True))
    damped = values + DAMPING * values.max()
    # Whitened keys in another basis: their products, and so cosines and distances, are the same.
    expected = centred @ vectors / np.sqrt(damped) / np.sqrt(2 * (values / damped).sum())
    whitened = fit_transform(uneven, "whiten").of_array(stored)
    assert whitened.dtype == np.float32 and whitened.shape == (1000, 12)
    np.testing.assert_allclose(whitened @ whitened.T, expected @ expected.T, rtol=1e-4, atol=1e-5)
    reduced = fit_transform(uneven, "whiten:4").of_array(stored)
    ratio = reduced / whitened[:, :4]
    np.testing.assert_allclose(ratio, np.median(ratio), rtol=1e-2)

    largest = np.linalg.svd(keys, full_matrices=False)[2][:5].T
    projected = fit_transform(uneven, "svd:5").of_array(stored)
    ratio = np.abs(projected) / np.abs(keys @ largest)
    np.testing.assert_allclose(ratio, np.median(ratio), rtol=1e-2)

    # The whole of `svd` turns and scales: cosines are what they were.
    turned = fit_transform(uneven, "svd:12").of_array(stored)
    norms = np.linalg.norm(keys, axis=1)
    lengths = np.linalg.norm(turned, axis=1)
    cosines = turned @ turned.T / np.outer(lengths, lengths)
    np.testing.assert_allclose(cosines, keys @ keys.T / np.outer(norms, norms), atol=1e-5)
    for name in ("whiten", "whiten:3", "svd:5", "svd:12"):
        made = fit_transform(uneven, name).of_array(stored).astype(np.float64)
        distances = 2 * (np.square(made).sum(axis=1).mean() - np.square(made.mean(axis=0)).sum())
        assert distances == pytest.approx(1, rel=1e-3)


def test_a_transform_is_kept_to_the_last_bit(uneven, tmp_path):
    fitted = fit_transform(uneven, "whiten:4")
    fitted.write(tmp_path / "transform.npz")
    read = KeyTransform.read(tmp_path / "transform.npz")
    assert (read.id, read.name, read.width) == (fitted.id, "whiten:4", 4)
    assert np.array_equal(read.mean, fitted.mean) and np.array_equal(read.matrix, fitted.matrix)
    assert fitted.id != fit_transform(uneven, "whiten:5").id
    with torch.autocast("cpu", dtype=torch.bfloat16):
        again = fitted.of_array(uneven.rows(0, 7))
    assert np.array_equal(again, fitted.of_array(uneven.rows(0, 7)))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "white",
            "--key_transform white: expected none, whiten, whiten:D or svd:D with D dim",
        ),
        (
            "whiten:0",
            "--key_transform whiten:0: expected none, whiten, whiten:D or svd:D wi",
        ),
        ("svd", "--key_transform svd: expected svd:D with D dimensions to keep, as in svd:96"),
        ("svd:13", "--key_transform svd:13: keys are 12 wide; keep no more than that"),
    ],
)
def test_names_of_transforms(uneven, name, message):
    with pytest.raises(UserError) as error:
        fit_transform(uneven, name)
    assert str(error.value).startswith(message)


@pytest.mark.parametrize("similarity", ["cosine", "l2"])
def test_a_transformed_store_is_searched_as_any_other(uneven, tmp_path, similarity):
    fitted = fit_transform(uneven, "whiten")
    transform_keys(uneven, tmp_path / "store", fitted, "float32", "build 2")
    store = Datastore.open(tmp_path / "store")
    assert np.array_equal(store.label_ids, uneven.label_ids)
    assert store.sentence(3) == uneven.sentence(3)
    assert store.recipe.transform.id == fitted.id == store.provenance["transform"]
    queries = uneven.rows(0, 50) + 0.001
    found = ExactSearch(store, similarity).search(fitted(torch.from_numpy(queries)), 5)
    keys, asked = fitted.of_array(uneven.rows(0, 1000)), fitted.of_array(queries)
    if similarity == "cosine":
        norms = np.linalg.norm(asked, axis=1)[:, None] * np.linalg.norm(keys, axis=1)
        scores = asked @ keys.T / norms
    else:
        scores = -np.square(asked[:, None] - keys).sum(axis=2)
    np.testing.assert_allclose(found.similarities, -np.sort(-scores)[:, :5], rtol=1e-3, atol=1e-4)
    with pytest.raises(UserError, match="its keys are transformed already \\(whiten\\); build it"):
        fit_transform(store, "svd:2")


def test_a_store_keeps_its_transform(uneven, tmp_path):
    paths = [tmp_path / "a", tmp_path / "b", tmp_path / "c"]
    fitted = fit_transform(uneven, "whiten:6")
    for path, transform in zip(
        paths, (fitted, fitted, fit_transform(uneven, "svd:6")), strict=True
    ):
        transform_keys(uneven, path, transform, "float16", "build 2")
    shutil.copytree(paths[0], tmp_path / "copy")
    remove_sentences(paths[1], [0, 3])
    compact(paths[1])
    merge(paths[:2], tmp_path / "merged")
    for path in (*paths[:2], tmp_path / "copy", tmp_path / "merged"):
        store = Datastore.open(path)
        assert store.transform.id == store.provenance["transform"] == fitted.id
        assert "files" in verify(path)
    assert Datastore.open(tmp_path / "merged").entries == 1990

    def refused(*stores):
        with pytest.raises(UserError) as error:
            merge(stores, tmp_path / "refused")
        return str(error.value)

    assert refused(paths[0], paths[2]) == (
        f"{paths[2]}: keys went through svd:6, but those of {paths[0]} through whiten:6, each fitted on "
        "its own keys; build one store of all sentences, or add the ones to the other"
    )
    assert f"{paths[0]}: keys went through whiten:6, but" in refused(uneven.path, paths[0])

    file = next(paths[2].glob("transform-*.npz"))
    content = file.read_bytes()
    file.write_bytes(content[:-1] + b"!")
    with pytest.raises(UserError, match=f"^{file}: "):
        verify(paths[2])
    file.unlink()
    with pytest.raises(UserError, match=f"^{file}: not found, but the manifest names it; "):
        Datastore.open(paths[2])


@pytest.fixture(scope="module")
def corpus_flags(tiny_corpus, trained):
    return (
        *("--data_dir", tiny_corpus, "--file_name", "word.bmes", "--device", "cpu"),
        *("--model_path", trained / "model"),
    )


def build(*flags) -> dict:
    return build_datastore.build_datastore(
        build_datastore.parse_arguments([str(flag) for flag in flags])
    )


@pytest.fixture(scope="module")
def whitened(corpus_flags, tmp_path_factory):
    """The keys of the last but one layer as they are, in float32, and whitened in float16."""
    folder = tmp_path_factory.mktemp("whitened")
    layer = (*corpus_flags, "--key_layer", "penultimate", "--shard_words", 700)
    build(*layer, "--datastore_path", folder / "raw", "--key_dtype", "float32")
    build(*layer, "--datastore_path", folder / "white", "--key_transform", "whiten:24")
    return folder


def test_a_build_with_a_transform(whitened):
    raw, white = Datastore.open(whitened / "raw"), Datastore.open(whitened / "white")
    assert (raw.provenance["layer"], white.provenance["layer"]) == ("-2", "-2")
    assert (raw.dim, white.dim, white.dtype) == (32, 24, np.float16)
    fitted = fit_transform(raw, "whiten:24")
    assert fitted.id == white.transform.id
    expected = fitted.of_array(raw.rows(0, raw.entries)).astype(np.float16)
    assert np.array_equal(white.rows(0, white.entries), expected)
    assert np.array_equal(white.label_ids, raw.label_ids)
    assert np.array_equal(white.sentence_ids, raw.sentence_ids)
    assert not (whitened / "white" / store_keys.UNTRANSFORMED).exists()
    assert (raw.manifest.transform, len(white.manifest.shards)) == (None, len(raw.manifest.shards))


def test_building_again_finds_the_store(whitened, corpus_flags, capfd):
    flags = ("--key_layer", "-2", "--shard_words", 700, "--key_transform", "whiten:24")
    build(*corpus_flags, *flags, "--datastore_path", whitened / "white")
    assert "this datastore is there already, and whole" in capfd.readouterr().err


def test_queries_are_made_as_keys_were(whitened, trained, tiny_corpus):
    """A stored token, asked for as a text, finds its own entry with similarity 1."""
    tagger = KnnTagger.from_pretrained(
        trained / "model", whitened / "white", k=8, temperature=0.1, knn_weight=0.4, device="cpu"
    )
    sentences = read_corpus(tiny_corpus, "word.bmes", splits=("train",)).splits["train"][:6]
    every = [range(len(sentence.words)) for sentence in sentences]
    texts = tagger.explain_texts((s.words for s in sentences), neighbours=3, also=every)
    for text in texts:
        for evidence in text.evidence.values():
            assert evidence.neighbours[0].similarity > 0.9999
            assert evidence.neighbours[0].words == text.prediction.text.words


def test_what_is_added_goes_through_the_same_map(whitened, trained, tiny_corpus, tmp_path):
    shutil.copytree(whitened / "white", tmp_path / "store")
    before = Datastore.open(tmp_path / "store")
    tagger = load_for_datastore(trained / "model", 512, tmp_path / "store")
    sentences = read_corpus(tiny_corpus, "word.bmes", splits=("train",)).splits["train"][:20]
    add_sentences(tmp_path / "store", tagger, sentences)
    store = before.refresh()
    assert store.transform.id == before.transform.id
    added = store.rows(before.entries, store.entries).astype(np.float32)
    # As a build with that map: these sentences were built from the same words.
    built = store.rows(0, len(added)).astype(np.float32)
    assert np.array_equal(store.label_ids[before.entries :], store.label_ids[: len(added)])
    np.testing.assert_allclose(added, built, rtol=2e-3, atol=2e-3)


def test_commands_read_layer_and_transform_from_the_store(whitened, corpus_flags, tmp_path):
    base = ("--k", 8, "--temperature", 0.1, "--knn_weight", 0.49, "--exhaustive")
    results = {}
    for name in ("raw", "white"):
        flags = [*corpus_flags, "--datastore_path", whitened / name, "--save_path", tmp_path / name]
        results[name] = infer.infer(infer.parse_arguments([str(f) for f in (*flags, *base)]))
        grid = (*flags, "--grid_k", 8, "--grid_temperature", 0.1)
        tuned = tune.tune(tune.parse_arguments([str(flag) for flag in grid]))
        assert tuned["best"]["f1"] >= tuned["base_f1"]
        (whitened / name / "tuned.json").unlink()
    assert results["raw"]["base"] == results["white"]["base"]
    assert results["white"]["searched_tokens"] == results["white"]["tokens"]


def test_the_audit_asks_the_tagger_where_keys_are_not_its_own(whitened, datastore, trained):
    tagger = load_for_datastore(trained / "model", 512, datastore)
    entries = np.array([0, 1, 2, 40, 41, 300, 7])
    own, other = (
        Auditor(tagger, ExactSearch(Datastore.open(path)), VoteSettings(4, 0.1, 0.5)).opinions(
            entries
        )[2]
        for path in (datastore, whitened / "white")
    )
    assert torch.allclose(own, other, atol=5e-3)


def test_an_interrupted_rewrite_goes_on_and_leaves_the_old_store(
    whitened, corpus_flags, tmp_path, monkeypatch, capfd
):
    path = tmp_path / "store"
    flags = (*corpus_flags, "--datastore_path", path, "--shard_words", 700)
    build(*flags)
    old = (path / "manifest.json").read_bytes()
    copy, copied = compaction.copy_entries, []

    def die_at_the_second(*arguments, **options):
        copied.append(arguments)
        if len(copied) == 2:
            raise RuntimeError("power failure")
        return copy(*arguments, **options)

    other = (*flags, "--key_layer", "-2", "--key_transform", "whiten:24")
    with monkeypatch.context() as patch:
        patch.setattr(compaction, "copy_entries", die_at_the_second)
        with pytest.raises(RuntimeError, match="power failure"):
            build(*other)
    assert (path / "manifest.json").read_bytes() == old
    Datastore.open(path).verify()

    copied.clear()
    monkeypatch.setattr(
        compaction, "copy_entries", lambda *a, **o: (copied.append(a), copy(*a, **o))[1]
    )
    monkeypatch.setattr(
        store_keys, "write_shard", lambda *a: pytest.fail("encoded for a second time")
    )
    build(*other)
    store, expected = Datastore.open(path), Datastore.open(whitened / "white")
    assert len(copied) == len(store.manifest.shards) - 1 > 0
    assert store.content_id == expected.content_id
    assert store.provenance == expected.provenance
    assert not (path / store_keys.UNTRANSFORMED).exists()
    assert len(list(path.glob("transform-*"))) == 1


def test_the_default_is_what_it_was(datastore):
    manifest = (datastore / "manifest.json").read_text()
    assert '"version": 1' in manifest and '"transform"' not in manifest
    assert Datastore.open(datastore).provenance["layer"] == "last"


def test_bad_flags_end_in_one_line(fails, corpus_flags, tmp_path):
    line = (*corpus_flags, "--datastore_path", tmp_path / "store")
    for flags, message in (
        (("--key_layer", "-9"), "error: --key_layer -9: the encoder has 2 layers; use fewer"),
        (
            ("--key_transform", "svd:99"),
            "error: --key_transform svd:99: keys are 32 wide; keep no more than that",
        ),
    ):
        assert fails(lambda _, f=flags: build(*line, *f)) == message
    assert not (tmp_path / "store").exists()


def test_info_tells_what_keys_are(whitened, capfd):
    datastore_command(["info", "--datastore_path", str(whitened / "white")])
    told = capfd.readouterr().out
    assert "layer         -2" in told and "transform     whiten:24 " in told


def test_represent_gives_keys_of_some_rows(trained, tiny_corpus, whitened):
    store = Datastore.open(whitened / "white")
    tagger = load_for_datastore(trained / "model", 512, store.path)
    sentences = read_corpus(tiny_corpus, "word.bmes", splits=("dev",)).splits["dev"][:4]
    (batch,) = hidden_states(
        tagger.model,
        tagger.encoding.encode(sentences),
        pad_id=tagger.tokenizer.pad_token_id,
        max_length=512,
        batch_size=4,
        device=torch.device("cpu"),
        recipe=store.recipe,
    )
    chosen = torch.arange(len(batch.rows)) % 3 == 0
    assert torch.allclose(batch.keys(chosen), batch.keys()[chosen], atol=1e-5)
    assert batch.keys().shape == (len(batch.rows), 24) and batch.hidden.shape[1] == 32
