"""The audit: what counts as evidence, the ranked list, its files, and the benchmark that measures it."""

import csv
import re
import shutil
import sys
from html.parser import HTMLParser

import numpy as np
import pytest
import torch
from store_factory import open_writer, random_entries
from studies import audit as audit_benchmark

from get_labels import write_labels
from knn_ner import build_datastore
from knn_ner.audit import __main__ as audit
from knn_ner.audit.evidence import neighbours_elsewhere
from knn_ner.audit.findings import COLUMNS, Finding, to_csv, to_html
from knn_ner.audit.ranking import group_units
from knn_ner.audit.stored_sentences import StoredSentences
from knn_ner.data.corpus import read_corpus
from knn_ner.data.spans import word_spans
from knn_ner.data.tags import BMES
from knn_ner.datastore.reader import Datastore
from knn_ner.search.exact import ExactSearch
from knn_ner.tagging.entities import Neighbour


def audit_rows(folder):
    with (folder / "audit.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def noisy(tiny_corpus, trained, tmp_path_factory):
    """The tiny corpus with a tenth of its training entities changed, and its datastore.

    The tagger is that of the unchanged corpus: what is tested is that the evidence is found and ranked.
    """
    folder = tmp_path_factory.mktemp("noisy")
    corpus = folder / "corpus"
    audit_benchmark.main(
        [
            *("plant", "--data_dir", str(tiny_corpus), "--file_name", "word.bmes"),
            *("--out", str(corpus), "--part", "0.1", "--seed", "5"),
        ]
    )
    write_labels(corpus, "word.bmes")
    flags = ["--data_dir", corpus, "--file_name", "word.bmes", "--model_path", trained / "model"]
    flags = [str(flag) for flag in [*flags, "--datastore_path", folder / "store"]]
    build_datastore.build_datastore(build_datastore.parse_arguments(flags))
    return folder, flags


@pytest.fixture
def cleanlab():
    """Skip the test where cleanlab is not installed."""
    pytest.importorskip("cleanlab", reason="cleanlab is not installed: pip install .[audit]")


def run_audit(flags, out, *more):
    settings = audit.parse_arguments([*flags, "--out", str(out), *map(str, more)])
    return audit.audit(settings)


@pytest.mark.usefixtures("cleanlab")
@pytest.mark.parametrize("knn_weight", [0, 0.5, 1])
def test_planted_errors_come_first(noisy, tmp_path, knn_weight):
    """By the tagger alone, by both, and by the neighbours alone."""
    folder, flags = noisy
    planted = audit_benchmark.read_rows(folder / "corpus" / "planted.csv")
    run_audit(flags, tmp_path, "--knn_weight", knn_weight, "--limit", len(planted))
    rows = audit_rows(tmp_path)
    assert len(rows) == len(planted)
    found = sum(
        any(
            row["sentence"] == error["sentence"]
            and int(row["first_word"]) <= int(error["last"])
            and int(row["last_word"]) >= int(error["first"])
            for error in planted
        )
        for row in rows
    )
    # By chance it would be one or two of the 51: there are some 2,500 places.
    assert found > 0.25 * len(planted)


@pytest.mark.usefixtures("cleanlab")
def test_what_is_written(noisy, tmp_path, capfd):
    folder, flags = noisy
    audit.main([*flags, "--out", str(tmp_path), "--limit", "30"])
    printed = capfd.readouterr().out.splitlines()
    rows = audit_rows(tmp_path)
    path = folder / "corpus" / "train.word.bmes"
    lines = path.read_text(encoding="utf-8").split("\n")
    sentences = read_corpus(folder / "corpus", "word.bmes", splits=("train",)).splits["train"]
    scores = [float(row["score"]) for row in rows]
    assert len(rows) == 30 and scores == sorted(scores, reverse=True)
    assert printed[-1] == f"30 places in {tmp_path}/audit.csv and {tmp_path}/audit.html"
    assert printed[0].startswith(f"  1 {scores[0]:.3f} {path}:{rows[0]['line']} ")
    for row in rows:
        sentence = sentences[int(row["sentence"])]
        place = slice(int(row["first_word"]), int(row["last_word"]) + 1)
        assert row["words"] == " ".join(sentence.words[place])
        assert row["given"] == " ".join(sentence.tags[place])
        assert row["file"] == str(path)
        first = f"{sentence.words[place.start]} {sentence.tags[place.start]}"
        assert lines[int(row["line"]) - 1] == first
        assert f"[{row['words']}]" in row["context"]
        suggested = row["suggested"].split()
        assert len(suggested) == place.stop - place.start and suggested != row["given"].split()
        assert BMES.count_malformed(suggested) <= 2  # at the two ends, where the sentence goes on
        # A neighbour is never of the same sentence.
        assert " ".join(sentence.words) not in row["neighbours"].replace("[", "").replace("]", "")
    page = (tmp_path / "audit.html").read_text(encoding="utf-8")
    assert page.count("<article") == 30
    assert not re.search(r"https?:|src=|<script|<link|@import|url\(", page)
    assert "default-src 'none'" in page


@pytest.mark.parametrize("similarity", ["cosine", "l2"])
def test_neighbours_are_the_nearest_of_other_sentences(tmp_path, similarity):
    """Against a full sort; copies of a sentence count as the sentence."""
    keys, labels = random_entries(60)
    keys[5:10] = keys[40:45] = keys[0:5]
    texts = [f"sentence {number}" for number in range(12)]
    texts[1] = texts[8] = texts[0]
    store = store_of(tmp_path, keys, labels, texts)
    stored = StoredSentences(store)
    assert stored.copy_sizes.tolist() == [15] + [5] * 9
    assert stored.first_copy[41] == 1 and stored.first_copy[12] == 12
    searcher = ExactSearch(store, similarity)
    entries = np.array([3, 44, 12, 59])
    found = neighbours_elsewhere(searcher, stored, entries, 50)
    for row, entry in enumerate(entries):
        own = stored.copies_of_entry == stored.copies_of_entry[entry]
        if similarity == "cosine":
            every = keys @ keys[entry] / np.linalg.norm(keys, axis=1) / np.linalg.norm(keys[entry])
        else:
            every = -np.square(keys - keys[entry]).sum(1)
        best = np.argsort(-np.where(own, -np.inf, every), kind="stable")[: min(50, (~own).sum())]
        assert np.allclose(found.similarities[row, : len(best)], every[best], atol=1e-5)
        assert found.indices[row, : len(best)].tolist() == best.tolist()
        assert (found.similarities[row, len(best) :] == -torch.inf).all()


def store_of(path, keys, labels, texts) -> Datastore:
    """Sentences of five entries: a special token, then four of words."""
    with open_writer(path, keys, len(keys)) as writer:
        with writer.shard(0, len(keys)) as shard:
            rows = np.arange(len(keys))
            shard.write(0, keys, labels, rows // 5, rows % 5 - 1)
            for number, text in enumerate(texts):
                shard.add_sentence(number, [*text.split(), "a", "b"], ["O"] * 4)
        writer.commit()
    return Datastore.open(path)


@pytest.mark.usefixtures("cleanlab")
def test_a_copy_with_another_tag_is_evidence(trained, tmp_path, corpus_folder):
    """Three times the same sentence, once tagged otherwise; its copies are no neighbours."""
    from knn_ner.synthetic.corpus import write_corpus

    write_corpus(tmp_path / "other", seed=7, sizes={"train": 40, "dev": 1, "test": 1})
    rest = (tmp_path / "other" / "train.word.bmes").read_text(encoding="utf-8")
    first, *others = rest.strip("\n").split("\n\n")
    # The words of an entity of the corpus are given another type, once.
    tags = [line.split()[1] for line in first.split("\n")]
    kinds = sorted({tag[2:] for block in others for tag in block.split() if tag[1:2] == "-"})
    kind, start, _ = word_spans(tags)[0]
    wrong = next(other for other in kinds if other != kind)
    changed = first.replace(f"-{kind}", f"-{wrong}")
    folder = corpus_folder("word.bmes", train="\n\n".join([first, *others, first, changed]) + "\n")
    flags = ["--data_dir", folder, "--file_name", "word.bmes", "--model_path", trained / "model"]
    flags = [str(flag) for flag in [*flags, "--datastore_path", tmp_path / "store"]]
    build_datastore.build_datastore(build_datastore.parse_arguments(flags))
    findings = run_audit(flags, tmp_path / "out", "--knn_weight", 1)
    last = [f for f in findings if f.sentence == len(others) + 2 and f.first <= start <= f.last]
    assert [(f.copies, f.differing_copies) for f in last] == [(2, 2)]
    assert {one.sentence_id for one in last[0].differing} == {0, len(others) + 1}
    assert not {one.sentence_id for one in last[0].neighbours} & {
        0,
        len(others) + 1,
        len(others) + 2,
    }
    assert last[0].score >= 2 / 3
    (right,) = [f for f in findings if f.sentence == 0 and f.first <= start <= f.last]
    assert (right.copies, right.differing_copies) == (2, 1)


def test_places_touch_nothing_of_each_other():
    """Units next to a listed one join it; another sentence's do not; the limit counts places."""
    scores = np.array([0.1, 0.9, 0.8, 0.0, 0.7, 0.6, 0.5])
    sentences = np.array([0, 0, 0, 0, 0, 1, 1])
    assert group_units(scores, sentences, 10) == [[1, 2, 0], [4], [5, 6]]
    assert group_units(scores, sentences, 2) == [[1, 2], [4]]


class Page(HTMLParser):
    """The texts of a page, and the names of its elements."""

    def __init__(self, page: str):
        super().__init__()
        self.elements, self.texts = set(), []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.elements.add(tag)

    def handle_data(self, data):
        self.texts.append(data.strip())


def test_corpus_text_is_text():
    """Markup, quotes and line separators of a corpus neither become markup nor break a line of the CSV."""
    words = ["<script>alert(1)</script>", 'a"b,c', "&amp;", "x\u2028y", "</td>"]
    tags = ["O", "S-<b>", "O", "O", "O"]
    near = Neighbour("S-<b>", 0.5, 1.0, 7, words, tags, 1, 0)
    found = Finding(
        score=0.75,
        sentence=3,
        words=words,
        tags=tags,
        first=0,
        last=1,
        suggested=["O", "S-&"],
        entry=0,
        file="train.x",
        line=12,
        label="S-<b>",
        position=1,
        vote={"S-<b>": 0.25, "O": 0.75},
        tagger={"O": 1.0},
        neighbours=[near],
        copies=2,
        differing_copies=1,
        differing=[near],
    )
    page = Page(to_html([found], "<i>"))
    assert not {"script", "b>", "i"} & page.elements
    assert any(words[0] in text for text in page.texts)
    assert "S-<b>" in page.texts and "S-&" in page.texts
    (row,) = csv.DictReader(to_csv([found]).splitlines(keepends=True))
    assert tuple(row) == COLUMNS
    assert row["words"] == f"{words[0]} {words[1]}" and row["given"] == "O S-<b>"
    assert row["neighbours_say"] == "S-<b> 25%, O 75%"
    assert row["copies"] == "1 of 2 differ"


@pytest.mark.usefixtures("cleanlab")
def test_sentences_added_later_are_judged_too(noisy, tmp_path, capfd):
    """They have no line in the corpus; the others keep theirs."""
    from knn_ner.datastore import __main__ as datastore

    folder, flags = noisy
    shutil.copytree(folder / "store", tmp_path / "store")
    (tmp_path / "new.word.bmes").write_text("Zq S-PER\nWv S-GENE\nxy O\n", encoding="utf-8")
    model = flags[flags.index("--model_path") + 1]
    datastore.main(
        [
            *("add", "--datastore_path", str(tmp_path / "store"), "--model_path", model),
            *("--file", str(tmp_path / "new.word.bmes"), "--device", "cpu"),
        ]
    )
    flags = [*flags, "--datastore_path", str(tmp_path / "store")]
    findings = run_audit(flags, tmp_path, "--limit", 4000)
    stored = Datastore.open(tmp_path / "store").stored_sentences
    new = [found for found in findings if found.sentence == stored[-1]]
    assert new and all((found.file, found.line) == ("", 0) for found in new)
    assert all(found.line for found in findings if found.sentence != stored[-1])
    assert "1 of 301 stored sentences are not in it" in capfd.readouterr().err


ERRORS = {
    "k": (("--k", 0), "error: k 0: expected at least 1, or -1 for every entry of the datastore"),
    "all": (("--k", -1), "error: k -1: expected at least 1 neighbour for each token"),
    "temperature": (
        ("--temperature", -1),
        "error: temperature -1.0: expected a number above 0",
    ),
    "knn_weight": (("--knn_weight", 2), "error: knn_weight 2.0: expected a number from 0 to 1"),
}


@pytest.mark.usefixtures("cleanlab")
@pytest.mark.parametrize(("flags", "message"), ERRORS.values(), ids=ERRORS.keys())
def test_errors_are_one_line(fails, noisy, tmp_path, flags, message):
    assert fails(audit.main, *noisy[1], "--out", tmp_path / "new", *flags) == message
    assert not (tmp_path / "new").exists()


def test_without_cleanlab(fails, noisy, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "cleanlab", None)
    assert fails(audit.main, *noisy[1], "--out", tmp_path / "new") == (
        "error: cleanlab is not installed; run `python -m pip install .[audit]`"
    )


@pytest.mark.usefixtures("cleanlab")
def test_another_corpus_is_refused(fails, noisy, corpus_folder, tmp_path):
    folder = corpus_folder("word.bmes")
    message = fails(
        audit.main, *noisy[1], "--data_dir", folder, "--out", tmp_path / "new", "--device", "cpu"
    )
    assert message == (
        f"error: {noisy[0] / 'store'}: none of its 300 sentences is in {folder}/train.word.bmes; give "
        "the corpus that the datastore was built from"
    )
    assert not (tmp_path / "new").exists()


def test_planting_changes_what_it_says(noisy, tiny_corpus, tmp_path):
    folder, _ = noisy
    planted = audit_benchmark.read_rows(folder / "corpus" / "planted.csv")
    read = [
        read_corpus(where, "word.bmes", splits=("train",)).splits["train"]
        for where in (tiny_corpus, folder / "corpus")
    ]
    before, after = (
        {(n, *span) for n, s in enumerate(sentences) for span in word_spans(s.tags)}
        for sentences in read
    )
    rows = [
        tuple(int(v) if v.isdecimal() else v for v in row.values()) for row in planted
    ]  # sentence, line, kind, type, first, last, new_type, new_first, new_last
    assert before - after == {(row[0], *row[3:6]) for row in rows}
    assert after - before == {(row[0], *row[6:9]) for row in rows if row[2] != "missing"}
    assert len(rows) == round(0.1 * len(before))
    kinds = [sum(row[2] == kind for row in rows) for kind in audit_benchmark.KINDS]
    assert max(kinds) - min(kinds) <= 1
    for old, new in zip(*read, strict=True):
        assert old.words == new.words and BMES.count_malformed(new.tags) == 0
    for split in ("dev", "test"):
        name = f"{split}.word.bmes"
        texts = [
            (where / name).read_text().strip("\n") for where in (tiny_corpus, folder / "corpus")
        ]
        assert texts[0] == texts[1]
    # The same seed, the same errors; another, others.
    for seed, same in ((5, True), (6, False)):
        again = audit_benchmark.plant_errors(
            read_corpus(tiny_corpus, "word.bmes").splits["train"], "BMES", 0.1, seed
        )
        assert ([tuple(row.values()) for row in again] == rows) == same


def test_scores_of_a_ranking():
    def place(sentence, first, last):
        return {"sentence": str(sentence), "first_word": str(first), "last_word": str(last)}

    def error(sentence, kind, first, last, new_first, new_last):
        names = ("sentence", "kind", "first", "last", "new_first", "new_last")
        values = (sentence, kind, first, last, new_first, new_last)
        return dict(zip(names, map(str, values), strict=True))

    planted = [
        error(0, "type", 2, 3, 2, 3),
        error(1, "missing", 0, 1, 0, 1),
        error(2, "boundary", 5, 5, 5, 6),
        error(3, "missing", 1, 1, 1, 1),
    ]
    places = [place(0, 3, 3), place(0, 0, 1), place(2, 6, 6), place(2, 5, 5)]
    places += [place(9, 0, 0)] * 146 + [place(1, 1, 4)]
    scores = audit_benchmark.score_ranking(planted, places)
    assert scores["precision@100"] == pytest.approx(3.0)
    assert scores["precision@200"] == pytest.approx(2.0)
    assert scores["precision@500"] == pytest.approx(0.8)
    assert [scores[f"recall@{n}"] for n in (100, 200, 500)] == [50, 75, 75]
    assert [scores[kind] for kind in audit_benchmark.KINDS] == [100, 100, 50]


def test_words_without_a_piece_of_their_own_take_the_next_ones(tmp_path):
    keys, labels = random_entries(5)
    with open_writer(tmp_path, keys, 5) as writer:
        with writer.shard(0, 5) as shard:
            # The words 0 to 2 share the piece that is stored for word 2.
            shard.write(0, keys, labels, np.zeros(5, int), np.array([-1, 2, 3, 3, -1]))
            shard.add_sentence(0, ["2", "0", "2", "x"], ["O"] * 4)
        writer.commit()
    stored = StoredSentences(Datastore.open(tmp_path))
    assert len(stored) == 4
    scores = np.array([9, 0.2, 0.3, 0.5, 9], np.float32)
    means, worst = stored.word_scores(scores)
    assert worst.tolist() == [1, 1, 1, 3]
    assert means.tolist() == pytest.approx([0.2, 0.2, 0.2, 0.4])
