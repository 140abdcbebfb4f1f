"""Words to word pieces and back: alignment, windows, words without a piece, words that share one."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoTokenizer, BertTokenizer

from knn_ner.data.corpus import Sentence, read_corpus
from knn_ner.data.encoding import (
    IGNORED,
    Encoding,
    complete_labels,
    detect_units,
    windows,
)
from knn_ner.data.tags import sort_labels
from knn_ner.data.word_decoding import WordDecoder
from knn_ner.synthetic.bert import write_roberta_encoder
from knn_ner.synthetic.size import Size

PIECES = "[PAD] [UNK] [CLS] [SEP] play ##ing ##s bee ##tho ##ven 20 ##22 2022 年 我 a b".split()
PER = ["O", "B-PER", "M-PER", "E-PER", "S-PER"]


@pytest.fixture(scope="module")
def wordpiece(tmp_path_factory):
    """A BERT tokeniser of a few pieces, named above."""
    path = tmp_path_factory.mktemp("vocabulary") / "vocab.txt"
    path.write_text("\n".join(PIECES) + "\n")
    return BertTokenizer(vocab=str(path), do_lower_case=False)


def encode(tokenizer, words, tags, piece_labels="published", units="words", labels=PER):
    encoding = Encoding(tokenizer, labels, piece_labels, units)
    return encoding.encode([Sentence(words.split(" "), tags.split())])[0]


def piece_tags(encoded, labels=PER):
    return " ".join("-" if index == IGNORED else labels[index] for index in encoded.labels[1:-1])


@pytest.mark.parametrize(
    ("tag", "published", "first"),
    [
        ("O", "O O O", "O - -"),
        ("S-PER", "S-PER S-PER S-PER", "S-PER - -"),
        ("B-PER", "B-PER M-PER M-PER", "B-PER - -"),
        ("M-PER", "M-PER M-PER M-PER", "M-PER - -"),
        ("E-PER", "M-PER M-PER E-PER", "E-PER - -"),
    ],
)
def test_the_pieces_of_a_word(wordpiece, tag, published, first):
    encoded = encode(wordpiece, "beethoven", tag)
    assert piece_tags(encoded) == published
    assert encoded.word_of_piece.tolist() == [-1, 0, 0, 0, -1]
    assert (encoded.first_piece.tolist(), encoded.last_piece.tolist()) == ([1], [3])
    assert piece_tags(encode(wordpiece, "beethoven", tag, "first")) == first


def test_special_tokens_carry_outside_or_nothing(wordpiece):
    assert encode(wordpiece, "play", "O").labels.tolist() == [0, 0, 0]
    assert encode(wordpiece, "play", "O", "first").labels.tolist() == [IGNORED, 0, IGNORED]


def test_bio_pieces_go_on_inside(wordpiece):
    labels = complete_labels(["O", "B-PER"])
    assert labels == ["O", "B-PER", "I-PER"]
    encoded = encode(wordpiece, "beethoven plays", "B-PER O", labels=labels)
    assert piece_tags(encoded, labels) == "B-PER I-PER I-PER O O"


def test_a_word_without_a_piece_takes_the_unknown_piece(wordpiece):
    encoded = encode(wordpiece, "\u200b play \ufffd\u3000 ing", "O S-PER B-PER E-PER")
    pieces = wordpiece.convert_ids_to_tokens(encoded.input_ids.tolist())
    assert pieces == ["[CLS]", "[UNK]", "play", "[UNK]", "[UNK]", "[SEP]"]
    assert piece_tags(encoded) == "O S-PER B-PER E-PER"


def test_a_piece_over_several_characters(wordpiece):
    encoded = encode(wordpiece, "我 2 0 2 2 年", "O B-PER M-PER M-PER E-PER O", units="characters")
    pieces = wordpiece.convert_ids_to_tokens(encoded.input_ids.tolist())
    assert pieces == ["[CLS]", "我", "2022", "年", "[SEP]"]
    assert piece_tags(encoded) == "O E-PER O"
    assert encoded.first_piece.tolist() == [1, 2, 2, 2, 2, 3]


@pytest.mark.parametrize(
    ("tags", "words"),
    [
        ("O O O", "O O O O O O"),
        ("O E-PER O", "O B-PER M-PER M-PER E-PER O"),
        ("B-PER E-PER O", "B-PER M-PER M-PER M-PER E-PER O"),
        ("B-PER M-PER E-PER", "B-PER M-PER M-PER M-PER M-PER E-PER"),
        ("O M-PER E-PER", "O B-PER M-PER M-PER M-PER E-PER"),
        ("O B-PER E-PER", "O O O O B-PER E-PER"),
        ("O S-PER O", "O O O O S-PER O"),
    ],
)
def test_words_that_share_a_piece(wordpiece, tags, words):
    encoded = encode(wordpiece, "我 2 0 2 2 年", "O O O O O O", units="characters")
    rows = np.array([0, *(PER.index(tag) for tag in tags.split()), 0])
    assert WordDecoder([encoded], PER).sentences(rows) == [words.split()]


@pytest.mark.parametrize(
    ("tags", "word"),
    [
        ("M-PER M-PER E-PER", "E-PER"),
        ("B-PER M-PER M-PER", "B-PER"),
        ("B-PER M-PER E-PER", "S-PER"),
        ("S-PER O O", "S-PER"),
        ("O B-PER E-PER", "O"),
    ],
)
def test_a_word_closes_its_entity_when_its_last_piece_does(wordpiece, tags, word):
    encoded = encode(wordpiece, "beethoven", "O")
    rows = np.array([0, *(PER.index(tag) for tag in tags.split()), 0])
    assert WordDecoder([encoded], PER).sentences(rows) == [[word]]


def test_the_published_alignment(shared):
    cases = json.loads((shared / "reference" / "paper_alignment_cases.json").read_text())
    chinese = cases["zh (bert-base-chinese vocabulary, cased)"]
    vocabulary = shared / "data" / "vocab" / "bert-base-chinese.vocab.txt"
    tokenizer = BertTokenizer(vocab=str(vocabulary), do_lower_case=False)
    assert len(chinese) == 25
    for case in chinese:
        check_published(case, tokenizer, "characters")


def test_the_published_alignment_of_english(shared):
    """With the part of the uncased BERT vocabulary (Apache 2.0) that the cases use, under its own ids.

    Greedy longest match finds the same pieces with a part that holds all pieces it finds with the whole.
    """
    cases = json.loads((shared / "reference" / "paper_alignment_cases.json").read_text())
    english = cases["en (uncased English BERT vocabulary)"]
    vocabulary = json.loads((Path(__file__).parent / "uncased_pieces.json").read_text())
    tokenizer = BertTokenizer(vocab=vocabulary, do_lower_case=True)
    assert len(english) == 25
    for case in english:
        check_published(case, tokenizer, "words")


def check_published(case, tokenizer, units):
    labels = complete_labels(sort_labels(case["tags"]))
    encoding = Encoding(tokenizer, labels, "published", units)
    encoded = encoding.encode([Sentence(case["words"], case["tags"])])[0]
    assert encoded.input_ids.tolist() == case["input_ids"]
    assert [labels[index] for index in encoded.labels] == case["piece_tags"]
    assert WordDecoder([encoded], labels).sentences(encoded.labels) == [case["tags"]]


@pytest.fixture(scope="module")
def byte_level(tmp_path_factory):
    """A byte-level BPE tokeniser, as RoBERTa's, that has learned few merges."""
    folder = tmp_path_factory.mktemp("roberta")
    words = ["Ludwig", "van", "Beethoven", "plays", "in", "Wien"] * 3
    size = Size(hidden_size=8, layers=1, heads=1)
    write_roberta_encoder(folder, words, size, vocabulary_size=270)
    return AutoTokenizer.from_pretrained(folder)


def test_byte_level_pieces(byte_level):
    """The published rule for RoBERTa: B gives B then M, E gives M then E on the last piece."""
    words, tags = "Ada 😀 Beethoven \u00a0 é", "S-PER O B-PER M-PER E-PER"
    encoded = encode(byte_level, words, tags)
    by_word = {}
    for word, label in zip(encoded.word_of_piece[1:-1], encoded.labels[1:-1], strict=True):
        by_word.setdefault(int(word), []).append(PER[label])
    assert sorted(by_word) == [0, 1, 2, 3, 4]
    assert set(by_word[0]) == {"S-PER"} and set(by_word[1]) == {"O"}
    assert len(by_word[2]) > 1 and by_word[2] == ["B-PER"] + ["M-PER"] * (len(by_word[2]) - 1)
    assert set(by_word[3]) == {"M-PER"}
    assert len(by_word[4]) > 1 and by_word[4] == ["M-PER"] * (len(by_word[4]) - 1) + ["E-PER"]
    assert WordDecoder([encoded], PER).sentences(encoded.labels) == [tags.split()]


@given(
    words=st.lists(
        st.text(min_size=1, max_size=6).filter(lambda w: not set(w) & set(" \t\r\n")), min_size=1
    ),
    units=st.sampled_from(["words", "characters"]),
)
def test_every_word_has_a_piece(wordpiece, byte_level, words, units):
    """Whatever the text: pieces in order, a first and a last one for each word, gold tags of words kept."""
    for tokenizer in (wordpiece, byte_level):
        encoding = Encoding(tokenizer, PER, "published", units)
        encoded = encoding.encode([Sentence(words, ["S-PER"] * len(words))])[0]
        assert (encoded.first_piece >= 1).all() and (encoded.last_piece < len(encoded) - 1).all()
        assert (encoded.first_piece <= encoded.last_piece).all()
        assert (np.diff(encoded.word_of_piece[1:-1]) >= 0).all()


@given(pieces=st.integers(3, 400), max_length=st.integers(8, 64))
def test_windows_cover_every_row_once(pieces, max_length):
    owned = []
    for window in windows(0, pieces, max_length):
        assert len(window) <= max_length
        assert 1 <= window.start < window.stop <= pieces - 1
        assert window.start - 1 <= window.own_start and window.own_stop <= window.stop + 1
        # Only the windows at the ends own a special token.
        assert window.own_start >= window.start or window.start == 1
        assert window.own_stop <= window.stop or window.stop == pieces - 1
        owned += range(window.own_start, window.own_stop)
    assert owned == list(range(pieces))


def test_units_are_detected():
    assert detect_units([Sentence(list("我在北京"), ["O"] * 4)]) == "characters"
    assert detect_units([Sentence(["I", "am", "in", "Oslo"], ["O"] * 4)]) == "words"


@pytest.mark.parametrize(("name", "file_name"), [("weibo", "char.bmes"), ("wnut17", "word.bmes")])
def test_decoding_inverts_the_alignment_on_real_text(shared, name, file_name, byte_level):
    """Weibo: in two sentences a Latin name shares a piece with what follows it, which no piece can say."""
    corpus = read_corpus(shared / "data" / "bmes" / name, file_name)
    vocabulary = shared / "data" / "vocab" / "bert-base-chinese.vocab.txt"
    chinese = BertTokenizer(vocab=str(vocabulary), do_lower_case=False)
    sentences = corpus.splits["train"]
    labels = complete_labels(sort_labels({tag for s in sentences for tag in s.tags}))
    for tokenizer, lost in ((chinese, 2 if name == "weibo" else 0), (byte_level, 0)):
        encoding = Encoding(tokenizer, labels, "published", detect_units(sentences))
        encoded = encoding.encode(sentences)
        rows = np.concatenate([sentence.labels for sentence in encoded])
        decoded = WordDecoder(encoded, labels).sentences(rows)
        assert sum(tags != s.tags for tags, s in zip(decoded, sentences, strict=True)) == lost
