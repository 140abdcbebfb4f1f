"""Raw text between scripts: a word ends where the script changes; offsets stay exact."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from knn_ner.data.word_splitting import WORD_RULES, split_words
from knn_ner.tagging.entities import find_entities
from knn_ner.tagging.texts import Text

SPACED = [rule for rule in WORD_RULES if rule != "characters"]


@pytest.mark.parametrize("rule", SPACED)
@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Merkel在Berlin和Obama", "Merkel 在 Berlin 和 Obama"),
        ("名前はJohnです", "名前 は John です"),
        ("Hello世界", "Hello 世界"),
        ("iPhone15を買ったAda", "iPhone15 を 買 った Ada"),
        ("Москва2024London", "Москва2024 London"),
        ("서울Seoul", "서울 Seoul"),
        ("コーヒーcoffee", "コーヒー coffee"),
        # A Greek letter in Latin text is a symbol.
        ("TNFα 5μm", "TNFα 5μm"),
        ("naïve café", "naïve café"),
    ],
)
def test_a_word_ends_where_the_script_changes(rule, text, words):
    assert [text[start:end] for start, end in split_words(text, rule)] == words.split()


@given(st.text(), st.sampled_from(WORD_RULES))
def test_every_visible_character_is_in_one_word(text, rule):
    spans = split_words(text, rule)
    assert all(start < end for start, end in spans)
    assert all(before[1] <= after[0] for before, after in itertools.pairwise(spans))
    covered = {place for start, end in spans for place in range(start, end)}
    assert all(place in covered or text[place].isspace() for place in range(len(text)))


@pytest.mark.parametrize("mark", ["\ufeff", "\u202a", "\u200b", "\u2066", "\u00ad"])
def test_an_entity_does_not_begin_or_end_with_an_invisible_character(mark):
    raw = f"{mark}Ada{mark} Lovelace{mark} wrote"
    text = Text.of_text(raw, "penn")
    tags = ["O"] * len(text)
    named = [n for n, word in enumerate(text.words) if "Ada" in word or "Lovelace" in word]
    tags[named[0]], tags[named[1]] = "B-PER", "I-PER"
    (entity,) = find_entities(text, tags, [1.0] * len(tags), "BIO")
    assert entity.text == f"Ada{mark} Lovelace" == raw[entity.start : entity.end]
