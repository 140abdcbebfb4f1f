"""`KnnTagger`: texts in, entities out, against inference, transformers, and neighbours looked up by hand."""

import json
import shutil
import subprocess
import sys
import unicodedata
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from store_factory import LABELS, random_entries, write_store
from transformers import pipeline

from knn_ner import KnnTagger, infer
from knn_ner.data.corpus import read_corpus
from knn_ner.data.word_splitting import split_words
from knn_ner.model.backbone import load_encoder, load_tokenizer, save_tagger
from knn_ner.search.exact import ExactSearch
from knn_ner.search.interpolation import LabelAlignment
from knn_ner.settings import VoteSettings
from knn_ner.synthetic.bert import write_character_encoder
from knn_ner.synthetic.size import Size
from knn_ner.tagging.entities import find_entities
from knn_ner.tagging.explanation import neighbour_shares
from knn_ner.tagging.texts import Text
from knn_ner.utils.errors import UserError

VOTE = VoteSettings(k=32, temperature=0.1, knn_weight=0.45)
EVERY = VoteSettings(k=-1, temperature=0.05, knn_weight=0.45)


@pytest.fixture(scope="module")
def sentences(tiny_corpus):
    return read_corpus(tiny_corpus, "word.bmes", splits=("test",)).splits["test"]


@pytest.fixture(scope="module")
def tagger(trained, datastore):
    return KnnTagger.from_pretrained(
        trained / "model", datastore, k=32, temperature=0.1, knn_weight=0.45, device="cpu"
    )


def random_tagger(folder, encoder, labels, units):
    """A tagger whose classifier is random, so that it finds something in any text."""
    torch.manual_seed(0)
    model = load_encoder(encoder, labels)
    torch.nn.init.normal_(model.classifier.weight, std=2.0)
    rule = {"words": "penn", "characters": "characters"}[units]
    model.config.knn_ner = {"units": units, "piece_labels": "published", "word_rule": rule}
    save_tagger(folder, model, load_tokenizer(encoder))
    return KnnTagger.from_pretrained(folder, device="cpu")


@pytest.fixture(scope="module")
def bio_tagger(tiny_encoder, tmp_path_factory):
    labels = ["O", "B-PER", "I-PER", "B-LOC", "I-LOC"]
    return random_tagger(tmp_path_factory.mktemp("bio") / "model", tiny_encoder, labels, "words")


@pytest.fixture(scope="module")
def character_tagger(tmp_path_factory):
    folder = tmp_path_factory.mktemp("characters")
    size = Size(hidden_size=16, layers=1)
    write_character_encoder(folder / "encoder", "我爱北京天安门他在上海", size)
    labels = ["O", "B-LOC", "M-LOC", "E-LOC", "S-LOC"]
    return random_tagger(folder / "model", folder / "encoder", labels, "characters")


@pytest.mark.parametrize("vote", [VOTE, EVERY], ids=["k 32", "every entry"])
def test_the_tags_are_those_of_inference(tagger, sentences, tiny_corpus, tmp_path, vote):
    line = ["--data_dir", tiny_corpus, "--file_name", "word.bmes", "--save_path", tmp_path]
    line += [
        "--datastore_path",
        tagger.store.path,
        "--model_path",
        tagger.tagger.model.name_or_path,
    ]
    line += ["--k", vote.k, "--temperature", vote.temperature, "--knn_weight", vote.knn_weight]
    infer.infer(infer.parse_arguments([*map(str, line), "--device", "cpu"]))
    lines = (tmp_path / "predictions.txt").read_text().split("\n")
    expected = [line.split("\t")[2:] for line in lines if line]
    predictions = tagger.stream((s.words for s in sentences), settings=vote, at_once=25)
    found = [list(pair) for p in predictions for pair in zip(p.base_tags, p.tags, strict=True)]
    assert found == expected
    assert any(base != knn for base, knn in found)


def rounded(entities):
    """Entities, of one text or of many, comparable across batches, which move the last bits of a score."""
    if isinstance(entities, list):
        return [rounded(entity) for entity in entities]
    return (*entity_fields(entities), [entity_fields(other) for other in entities.base])


def entity_fields(entity):
    return entity.type, entity.text, entity.start, entity.end, entity.words, round(entity.score, 4)


def test_an_entity_and_what_the_tagger_alone_found(tagger, sentences):
    for sentence, prediction in zip(
        sentences, tagger.stream([s.words for s in sentences]), strict=True
    ):
        text = " ".join(sentence.words)
        for entity in prediction.entities:
            assert text[entity.start : entity.end] == entity.text
            assert entity.text.split() == sentence.words[slice(*entity.words)]
            assert 0 < entity.score <= 1
            assert entity.base == tuple(e for e in prediction.base_entities if e.overlaps(entity))
            assert entity.changed == ([e.span for e in entity.base] != [entity.span])
            assert json.loads(json.dumps(entity.to_dict()))["words"] == list(entity.words)


def test_one_or_many_of_texts_or_words(tagger, sentences):
    def predict(inputs, **how):
        return rounded(tagger.predict(inputs, **how))

    words = [s.words for s in sentences[:5]]
    texts = [" ".join(sentence) for sentence in words]
    many = predict(words)
    assert sum(map(len, many)) > 3
    assert predict(texts) == many == predict([texts[0], *words[1:]])
    assert [predict(text) for text in texts] == many
    assert [predict(sentence) for sentence in words] == many
    assert [predict(sentence, words=True) for sentence in words] == many
    # Single words are a sentence, unless they are said to be texts.
    assert predict(words[0], words=False) == [predict(word) for word in words[0]]
    assert predict([]) == [] and predict("") == [] and predict(" \n") == []
    assert predict([[], "", words[0]]) == [[], [], many[0]]
    assert predict([""]) == [[]] and predict(["", ""]) == [[], []]


def test_a_text_longer_than_the_encoder_reads(tagger, sentences):
    text = "\n\n".join(" ".join(s.words) for s in sentences)
    assert len(tagger.tagger.tokenizer(text)["input_ids"]) > 3 * tagger.tagger.max_length
    entities = tagger.predict(text)
    apart = [entity for found in tagger.predict(text.split("\n\n")) for entity in found]
    assert len(entities) > 0.7 * len(apart)
    assert max(entity.end for entity in entities) > 0.9 * len(text)
    for entity in entities:
        words = [word for s in sentences for word in s.words][slice(*entity.words)]
        assert text[entity.start : entity.end].split() == entity.text.split() == words


def test_several_threads(tagger, sentences):
    texts = [[s.words for s in sentences[start : start + 10]] for start in range(0, 60, 10)]
    alone = [rounded(tagger.predict(part)) for part in texts]
    with ThreadPoolExecutor(4) as pool:
        assert [rounded(found) for found in pool.map(tagger.predict, texts)] == alone


def test_chinese_characters(character_tagger):
    text = "我爱 北京😀e\u0301\u3000天安门\n"
    entities = character_tagger.predict(text)
    assert entities
    characters = [character for character in text if not character.isspace()]
    for entity in entities:
        assert text[entity.start : entity.end] == entity.text
        kept = [character for character in entity.text if not character.isspace()]
        assert kept == characters[slice(*entity.words)]
    as_words = character_tagger.predict(characters)
    assert [e.span for e in as_words] == [e.span for e in entities]
    # No white space between the texts of many, but no single characters either.
    assert [len(found) for found in character_tagger.predict(["我爱北京", "他在上海"])] == [
        len(character_tagger.predict("我爱北京")),
        len(character_tagger.predict("他在上海")),
    ]


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(text=st.text("abC é\u0301\u200d\ufe0f😀👍🏽🇩🇪'.-!\t\n\u3000中", max_size=40))
@example(text="C \u200d")
def test_offsets_point_into_the_text_as_given(bio_tagger, text):
    spans = split_words(text, "penn")
    end = 0
    for entity in bio_tagger.predict(text):
        assert text[entity.start : entity.end] == entity.text != ""
        # Invisible characters at the ends are not part of an entity.
        first, last = spans[entity.words[0]][0], spans[entity.words[1] - 1][1]
        assert end <= first <= entity.start < entity.end <= last
        cut = text[first : entity.start] + text[entity.end : last]
        # The white space before a word of invisible characters goes with it.
        assert all(unicodedata.category(c) in {"Cc", "Cf"} or c.isspace() for c in cut)
        assert entity.text == entity.text.strip()
        end = entity.end


def test_the_base_is_what_transformers_pipeline_gives(bio_tagger, sentences, monkeypatch):
    """Types, offsets and scores, where both see the same words: BERT's are those of `punctuation`."""
    monkeypatch.setattr(bio_tagger, "word_rule", "punctuation")
    model = bio_tagger.tagger.model.name_or_path
    transformers = pipeline(
        "token-classification", model=model, aggregation_strategy="first", device="cpu"
    )
    texts = ["  Don't; été mid-week!\n", *(" ".join(s.words) for s in sentences)]
    found = bio_tagger.predict(texts)
    assert sum(map(len, found)) > 100
    for text, entities in zip(texts, found, strict=True):
        expected = transformers(text)
        assert [(e.type, e.start, e.end) for e in entities] == [
            (e["entity_group"], e["start"], e["end"]) for e in expected
        ]
        assert [e.score for e in entities] == pytest.approx([e["score"] for e in expected], 1e-4)


@pytest.mark.parametrize("vote", [VOTE, EVERY], ids=["k 32", "every entry"])
def test_explanations_against_neighbours_looked_up_by_hand(tagger, sentences, vote):
    """Similarities, shares and the answer without the neighbours, from the keys alone."""
    shown = 8
    store, labels = tagger.store, np.array(tagger.labels)
    keys = store.rows(0, store.entries).astype(np.float64)
    keys /= np.linalg.norm(keys, axis=1, keepdims=True)
    stored = np.array(store.labels)[store.label_ids]
    checked = 0
    for text in tagger.explain_texts(
        (s.words for s in sentences[:20]), neighbours=shown, settings=vote
    ):
        for word, why in text.evidence.items():
            similarity = keys @ (text.hidden[word] / np.linalg.norm(text.hidden[word]))
            order = np.argsort(-similarity, kind="stable")
            voters = order[: vote.k] if vote.k > 0 else order
            weights = np.exp(similarity / vote.temperature)
            for neighbour in why.neighbours:
                assert neighbour.similarity == pytest.approx(similarity[neighbour.entry], abs=1e-5)
                share = weights[neighbour.entry] / weights[voters].sum()
                assert neighbour.share == pytest.approx(share, rel=1e-3)
                assert neighbour.label == stored[neighbour.entry]
                sentence = store.sentence(neighbour.sentence_id)
                assert (neighbour.words, neighbour.tags) == (sentence["words"], sentence["tags"])
            assert [n.similarity for n in why.neighbours] == pytest.approx(
                similarity[order[:shown]], abs=1e-5
            )
            for label, share in why.vote.items():
                expected = weights[voters][stored[voters] == label].sum() / weights[voters].sum()
                assert share == pytest.approx(expected, abs=1e-4)
            assert sum(why.vote.values()) == pytest.approx(1, abs=0.01)
            later = order[shown:][: vote.k] if vote.k > 0 else order[shown:]
            vote_without = np.array(
                [weights[later][stored[later] == label].sum() for label in labels]
            )
            with torch.inference_mode():
                hidden = torch.from_numpy(text.hidden[word])
                base = tagger.tagger.model.classifier(hidden).softmax(-1).double().numpy()
            assert why.base_score == pytest.approx(base.max(), abs=1e-5)
            mixed = 0.45 * vote_without / vote_without.sum() + 0.55 * base
            assert why.without_score == pytest.approx(mixed.max(), abs=1e-3)
            assert why.without == labels[mixed.argmax()]
            checked += 1
    assert checked > 20


@pytest.mark.parametrize("k", [2, 5, -1])
def test_without_any_neighbour_left_the_tagger_alone_answers(tmp_path, k):
    keys, labels = random_entries(3)
    searcher = ExactSearch(write_store(tmp_path / "store", keys, labels))
    alignment = LabelAlignment(LABELS, LABELS)
    base = torch.tensor([[0.5, 0.2, 0.1, 0.1, 0.1]])
    vote = VoteSettings(k, temperature=0.1, knn_weight=0.5)
    weighed = neighbour_shares(searcher, alignment, torch.from_numpy(keys[:1]), base, vote, shown=8)
    assert weighed.entries.shape[1] == weighed.shares.shape[1] == (2 if k == 2 else 3)
    assert weighed.shares.sum() == pytest.approx(1)
    if k == 2:
        # One entry is left, which would be the only neighbour.
        label = labels[({0, 1, 2} - set(weighed.entries[0].tolist())).pop()]
        assert weighed.without[0, label] == pytest.approx(0.5 + 0.5 * base[0, label])
    else:
        assert torch.equal(weighed.without, base)


def test_what_explain_says_of_an_entity(tagger, sentences):
    texts = [s.words for s in sentences]
    found_by = {"both": 0, "knn": 0, "base": 0}
    decisive = 0
    for words, explained in zip(texts, tagger.explain(texts, neighbours=4), strict=True):
        (prediction,) = tagger.stream([words])
        base = [e.span for e in prediction.base_entities]
        knn = [e.span for e in prediction.entities]
        assert [e.span for e in explained if e.found_by != "base"] == knn
        assert sorted(e.span for e in explained if e.found_by != "knn") == sorted(base)
        for entity in explained:
            found_by[entity.found_by] += 1
            assert [why.word for why in entity.evidence] == list(range(*entity.words))
            assert len(entity.neighbours) == 4 * len(entity.evidence)
            answer = [e.span for e in prediction.entities if e.overlaps(entity)]
            assert entity.decisive == ([e.span for e in entity.without] != answer)
            decisive += entity.decisive
            json.dumps(entity.to_dict())
    assert all(found_by.values()) and decisive


def test_a_sentence_that_is_added_counts_at_once(trained, datastore, tmp_path):
    copy = tmp_path / "store"
    shutil.copytree(datastore, copy)
    tagger = KnnTagger.from_pretrained(
        trained / "model", copy, k=1, temperature=0.1, knn_weight=1.0, device="cpu"
    )
    words, tags = ["the", "Qorvex", "Nine", "hummed"], ["O", "B-DEVICE", "E-DEVICE", "O"]
    assert "DEVICE" not in {entity.type for entity in tagger.predict(words)}
    before = tagger.store.manifest.sentences
    sentence_id = tagger.add(words, tags)
    assert tagger.store.manifest.sentences == before + 1
    (entity,) = tagger.predict("the Qorvex Nine hummed")
    assert (entity.type, entity.text, entity.score) == ("DEVICE", "Qorvex Nine", 1.0)
    assert "B-DEVICE" in tagger.labels and "B-DEVICE" not in tagger.tagger.labels
    (explained,) = [e for e in tagger.explain(words) if e.type == "DEVICE"]
    assert explained.found_by == "knn" and explained.neighbours[0].sentence_id == sentence_id
    assert explained.neighbours[0].share == 1.0


def test_settings_come_from_the_tuning_of_the_datastore(trained, datastore, tmp_path, capfd):
    copy = tmp_path / "store"
    shutil.copytree(datastore, copy)
    (copy / "tuned.json").unlink(missing_ok=True)
    with pytest.raises(UserError) as raised:
        KnnTagger.from_pretrained(trained / "model", copy)
    assert str(raised.value) == (
        f"k not given, and nothing was tuned for {copy}; give k, temperature and knn_weight, or run "
        "knn_ner.tune with this datastore"
    )
    tuned = {"k": 7, "temperature": 0.2, "knn_weight": 0.3, "similarity": "l2", "f1": 90.0}
    content = json.loads((copy / "manifest.json").read_text())
    (copy / "tuned.json").write_text(json.dumps(tuned | {"content_id": "earlier"}))
    tagger = KnnTagger.from_pretrained(trained / "model", copy, k=9, device="cpu")
    assert tagger.settings == VoteSettings(k=9, temperature=0.2, knn_weight=0.3)
    assert tagger.similarity == "l2" and content["labels"]
    said = capfd.readouterr().err.splitlines()
    assert (
        f"{copy}: temperature 0.2, knn_weight 0.3, l2 similarity, as tuned on dev before the "
        "datastore was changed"
    ) in said


def test_without_a_datastore_the_tagger_alone_answers(trained, tagger, sentences):
    alone = KnnTagger.from_pretrained(trained / "model", device="cpu")
    for sentence in sentences[:20]:
        (prediction,) = tagger.stream([sentence.words])
        assert [e.span for e in alone.predict(sentence.words)] == [
            e.span for e in prediction.base_entities
        ]
    for call in (alone.explain, lambda words: alone.add(words, ["O"])):
        with pytest.raises(UserError, match="no datastore: give one to from_pretrained, as"):
            call(["Ada"])


REFUSED = {
    "a number": (3, {}, "int found, expected a text, a list of words, or a list of either"),
    "a text as words": (
        "Ada runs",
        {"words": True},
        "words=True, but a string found ('Ada runs'), expected a list of words",
    ),
    "a number among texts": (["Ada", 3], {}, "int found, expected a text or a list of words"),
    "a word with a space": (
        [["New York", "is"]],
        {},
        "word 0 of ['New York', 'is']: 'New York' found, expected text without spaces, tabs and line ends",
    ),
    "an empty word": (
        ["Ada", ""],
        {},
        "word 1 of ['Ada', '']: '' found, expected text without spaces, tabs and line ends",
    ),
    "half a character": (
        "Ada \ud83d",
        {},
        "character 4 of a text is half of a surrogate pair, expected whole characters; decode the text "
        "anew",
    ),
}


@pytest.mark.parametrize(("inputs", "how", "message"), REFUSED.values(), ids=REFUSED.keys())
def test_what_is_refused(tagger, inputs, how, message):
    with pytest.raises(UserError) as raised:
        tagger.predict(inputs, **how)
    assert str(raised.value) == message


def test_entities_of_any_tags():
    """conlleval's rules: a stray inside tag opens an entity, and another type ends one."""
    text = Text.of_words("a b c d e".split(), " ")
    found = find_entities(
        text, ["M-X", "E-X", "S-Y", "B-X", "B-X"], [0.5, 0.7, 1, 0.2, 0.4], "BMES"
    )
    assert [(e.type, e.text, e.words) for e in found] == [
        ("X", "a b", (0, 2)),
        ("Y", "c", (2, 3)),
        ("X", "d", (3, 4)),
        ("X", "e", (4, 5)),
    ]
    assert [e.score for e in found] == pytest.approx([0.6, 1, 0.2, 0.4])


def test_the_package_is_cheap_to_import():
    code = "import knn_ner, sys; assert not {'torch', 'transformers', 'numpy'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
