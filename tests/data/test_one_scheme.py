"""One scheme for a corpus, decided on all its splits, whatever command reads it."""

import pytest

from get_labels import write_labels
from knn_ner import build_datastore, infer, tune
from knn_ner.data.corpus import read_corpus
from knn_ner.data.tags import BIO, BMES, IOB1, IOBES, convert_tags
from knn_ner.train import parse_arguments, train

SENTENCES = [
    (["Ada", "Lovelace", "met", "Bob"], ["B-PER", "I-PER", "O", "B-PER"]),
    (["In", "New", "York"], ["O", "B-LOC", "I-LOC"]),
    (["Paris"], ["B-LOC"]),
    (["Bank", "of", "England"], ["B-ORG", "I-ORG", "I-ORG"]),
]


def write(folder, **schemes):
    """Write the splits, each in a scheme; None: every tag is `O`."""
    folder.mkdir(parents=True, exist_ok=True)
    for split, scheme in schemes.items():
        blocks = []
        for words, tags in SENTENCES * 8:
            written = convert_tags(tags, scheme) if scheme else ["O"] * len(tags)
            blocks.append("".join(f"{w} {t}\n" for w, t in zip(words, written, strict=True)))
        (folder / f"{split}.bmes").write_text("\n".join(blocks))
    return folder


@pytest.mark.parametrize("splits", [("train", "dev", "test"), ("train",), ("dev",), ("test",)])
@pytest.mark.parametrize(
    ("schemes", "expected"),
    [
        ({"train": IOB1, "dev": BIO, "test": IOB1}, BIO),
        ({"train": BIO, "dev": IOB1, "test": None}, BIO),
        ({"train": BMES, "dev": BMES, "test": BIO}, BMES),
        ({"train": IOBES, "dev": IOBES, "test": None}, IOBES),
        ({"train": BIO, "dev": BMES, "test": BIO}, BIO),
    ],
)
def test_the_scheme_does_not_depend_on_the_splits_that_are_read(
    tmp_path, schemes, expected, splits
):
    folder = write(tmp_path / "c", **schemes)
    corpus = read_corpus(folder, "bmes", splits=splits)
    assert corpus.scheme == expected
    for split in splits:
        if schemes[split]:
            tags = [sentence.tags for sentence in corpus.splits[split][:4]]
            assert tags == [convert_tags(tags, expected) for _, tags in SENTENCES]


def test_a_few_needless_b_tags_do_not_make_iob1_bio(tmp_path):
    """As in CoNLL-2003: 2 of 23,499 entities begin with B without need."""
    folder = write(tmp_path / "c", train=IOB1, dev=IOB1, test=IOB1)
    file = folder / "train.bmes"
    file.write_text("Odd B-ORG\n\n" + file.read_text())
    labels = write_labels(folder, "bmes")
    assert {"B-PER", "I-PER", "B-LOC", "I-LOC", "B-ORG"} <= set(labels)
    corpus = read_corpus(folder, "bmes")
    assert corpus.found == "IOB1"
    tags = {tag for s in corpus.splits["test"] for tag in s.tags}
    assert tags == {"O", "B-PER", "I-PER", "B-LOC", "I-LOC", "B-ORG", "I-ORG"}


def test_conll_2003_in_iob1(shared, tmp_path):
    folder = tmp_path / "conll"
    folder.mkdir()
    for split in ("train", "dev", "test"):
        source = read_corpus(shared / "data" / "bmes" / "conll2003", "word.bmes", splits=(split,))
        blocks = []
        for sentence in source.splits[split][:3000]:
            tags = convert_tags(sentence.tags, IOB1)
            blocks.append("".join(f"{w} {t}\n" for w, t in zip(sentence.words, tags, strict=True)))
        text = "\n".join(blocks)
        # Two entities of the real files begin with B without need.
        (folder / f"{split}.iob1").write_text(text.replace(" I-", " B-", 2 * (split == "train")))
    assert read_corpus(folder, "iob1").found == "IOB1"
    assert {"B-PER", "B-LOC", "B-ORG", "B-MISC"} <= set(write_labels(folder, "iob1"))


@pytest.mark.parametrize(
    "schemes",
    [
        {"train": IOB1, "dev": BIO, "test": BIO},
        {"train": BMES, "dev": BMES, "test": None},
        {"train": BIO, "dev": IOBES, "test": BMES},
    ],
)
def test_tagger_store_and_scores_agree(tmp_path, tiny_encoder, schemes):
    folder = write(tmp_path / "c", **schemes)
    labels = write_labels(folder, "bmes")
    # Letters that the corpus lacks.
    if "S-PER" in labels:
        with (folder / "ner_labels.txt").open("a") as file:
            file.write("S-GPE\nE-GPE\nB-GPE\n")
    common = ["--data_dir", str(folder), "--file_name", "bmes", "--device", "cpu"]
    saved = ["--bert_path", str(tiny_encoder), "--save_path", str(tmp_path / "s")]
    results = train(parse_arguments([*common, *saved, "--lr", "1e-3", "--max_epochs", "2"]))
    gold = 0 if schemes["test"] is None else 40
    assert sum(each["support"] for each in results["test"]["per_type"].values()) == gold
    stored = ["--model_path", str(tmp_path / "s/model"), "--datastore_path", str(tmp_path / "d")]
    build_datastore.build_datastore(build_datastore.parse_arguments([*common, *stored]))
    out = ["--save_path", str(tmp_path / "o")]
    tune.tune(tune.parse_arguments([*common, *stored, *out, "--grid_k", "4"]))
    scores = infer.infer(infer.parse_arguments([*common, *stored, *out]))
    assert 0 <= scores["knn"]["strict_f1"] <= 100
    written = {
        line.split("\t")[1]
        for line in (tmp_path / "o/predictions.txt").read_text().split("\n")
        if line
    }
    assert written <= set(labels)
