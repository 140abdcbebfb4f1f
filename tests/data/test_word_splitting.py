"""Raw text to words: the rule of each kind of corpus, and offsets that hold for any text."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from knn_ner.data.corpus import read_corpus
from knn_ner.data.encoding import detect_units
from knn_ner.data.word_splitting import WORD_RULES, detect_word_rule, split_words

SPECIMENS = "ab'’.-!?@#&/:0 \t\n\u3000éß中e\u0301\u200d\ufe0f😀👍🏽🇩\ud800"


def words_of(text: str, rule: str = "penn") -> list[str]:
    return [text[start:end] for start, end in split_words(text, rule)]


@given(text=st.text() | st.text(SPECIMENS), rule=st.sampled_from(WORD_RULES))
def test_words_are_in_order_and_hold_every_character_but_white_space(text, rule):
    spans = split_words(text, rule)
    ends = list(itertools.chain([0], *spans, [len(text)]))
    assert ends == sorted(ends) and all(start < end for start, end in spans)
    assert not any(character.isspace() for start, end in spans for character in text[start:end])
    between = zip(ends[::2], ends[1::2], strict=True)
    assert all(not text[start:end].strip() for start, end in between)


@given(text=st.text() | st.text(SPECIMENS))
def test_each_character_of_chinese_text_is_a_word(text):
    assert words_of(text, "characters") == [c for c in text if not c.isspace()]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Ada didn't stay in Berlin.", "Ada did n't stay in Berlin ."),
        ("Don’t! It's O'Brien's, not the dogs'.", "Do n’t ! It 's O'Brien 's , not the dogs ' ."),
        ('("Mid-week", 3,000.50 or 5/11?)', '( " Mid-week " , 3,000.50 or 5/11 ? )'),
        ("Dr. J. Smith of the U.S. left AT&T.", "Dr. J. Smith of the U.S. left AT&T ."),
        ("He likes plan B.", "He likes plan B ."),
        ("and/or -- wait... what?!", "and / or -- wait ... what ?!"),
        ("@paul_w: see http://bit.ly/x9), #nlp", "@paul_w : see http://bit.ly/x9 ) , #nlp"),
        ("a.b@c.org is on amazon.com.Really", "a.b@c.org is on amazon.com . Really"),
        ("e\u0301te\u0301, 👍🏽👨\u200d👩!", "e\u0301te\u0301 , 👍🏽 👨\u200d👩 !"),
        ("🇩🇪🇫🇷1\ufe0f\u20e3 ok", "🇩🇪 🇫🇷 1\ufe0f\u20e3 ok"),
    ],
)  # fmt: skip
def test_english_as_conll_has_it(text, words):
    assert words_of(text) == words.split()


def test_the_other_rules_for_text_with_spaces():
    text = "mid-week doses of 0.5 mg don't"
    assert words_of(text, "penn-hyphens") == "mid - week doses of 0.5 mg do n't".split()
    assert words_of(text, "punctuation") == "mid - week doses of 0 . 5 mg don ' t".split()


@pytest.mark.parametrize(
    ("name", "file_name", "rule", "same"),
    [
        ("weibo", "char.bmes", "characters", 1.0),
        ("bc5cdr", "word.bmes", "punctuation", 1.0),
        ("wnut17", "word.bmes", "penn", 0.97),
        ("crossner_politics", "word.bmes", "penn", 0.999),
        ("crossner_ai", "word.bmes", "penn", 0.995),
    ],
)
def test_real_corpora_come_out_as_they_were_split(shared, name, file_name, rule, same):
    """Join the words of a corpus and split them again by the rule that is found for it."""
    sentences = read_corpus(shared / "data/bmes" / name, file_name, ("dev",)).splits["dev"]
    units = detect_units(sentences)
    assert detect_word_rule([s.words for s in sentences], units) == rule
    kept = total = 0
    for sentence in sentences:
        joiner = " " if units == "words" else ""
        found = set(split_words(joiner.join(sentence.words), rule))
        start = 0
        for word in sentence.words:
            kept += (start, start + len(word)) in found
            start += len(word) + len(joiner)
        total += len(sentence.words)
    assert kept >= same * total


def test_a_corpus_that_splits_hyphens_alone():
    sentences = [["the", "U.S.", "-", "based", "firm"], ["mid", "-", "week", "'s"]] * 10
    assert detect_word_rule(sentences, "words") == "penn-hyphens"
