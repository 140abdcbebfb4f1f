"""Where a gain comes from: by hand, and sums that must come out whatever the groups."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from knn_ner.evaluation.breakdown import (
    DIMENSIONS,
    Forms,
    break_down,
    by_agreement,
    changed_entities,
    changed_tags,
)
from knn_ner.evaluation.prediction_files import read_predictions, read_votes, write_votes
from knn_ner.utils.errors import UserError

STORED = [
    ("Ada met Bob".split(), "S-PER O S-PER".split()),
    ("Ada sang".split(), "S-PER O".split()),
    ("the Ada language".split(), "O S-LANG O".split()),
    ("New York".split(), "B-LOC E-LOC".split()),
]
FORMS = Forms(STORED)
SENTENCES = [
    (
        "Ada saw New York".split(),
        "S-PER O B-LOC E-LOC".split(),
        "O O B-LOC E-LOC".split(),
        "S-PER O B-LOC E-LOC".split(),
    ),
    (
        "Bob knows Cid and York".split(),
        "S-LANG O S-PER O S-LOC".split(),
        "S-LANG O S-PER S-PER S-PER".split(),
        "S-PER O S-PER O O".split(),
    ),
]


def test_forms():
    assert FORMS.groups(["Ada"], ("PER", 0, 0)) == ("PER", "1", "seen", "2 to 4")
    assert FORMS.groups(["Bob"], ("LOC", 0, 0)) == ("LOC", "1", "seen with another type", "1")
    assert FORMS.groups("in New York".split(), ("LOC", 1, 2)) == ("LOC", "2", "seen", "1")
    assert FORMS.groups("a b c d e f".split(), ("LOC", 0, 5)) == (
        *("LOC", "5 or more", "unseen", "0"),
    )


def test_what_changed():
    """Fixed: Ada and `and`; broken: Bob; York wrong before and after. Four words of nine."""
    assert changed_tags(SENTENCES) == {
        **{"words": 9, "changed": 4, "fixed": 2},
        **{"broken": 1, "other": 1},
    }
    # Ada found; Bob (LANG) lost, and added as PER; `and` and York (PER) removed.
    assert changed_entities(SENTENCES) == {
        **{"gold": 5, "found": 1, "lost": 1},
        **{"removed": 2, "added": 1},
    }


def test_groups_by_hand():
    groups = break_down([SENTENCES], [{}], FORMS)["groups"]
    forms = {each["group"]: each for each in groups["form in training"]}
    assert list(forms) == ["seen", "seen with another type", "unseen"]
    # Seen: Ada and New York in gold; the tagger finds the latter; kNN both, and Bob as PER.
    assert forms["seen"]["entities"] == 2
    assert forms["seen"]["base"] == pytest.approx(200 / 3)
    assert forms["seen"]["knn"] == pytest.approx(400 / 5)
    assert forms["seen"]["gain"] == pytest.approx(400 / 5 - 200 / 3)
    assert (forms["seen"]["found"], forms["seen"]["added"]) == (1, 1)
    other = forms["seen with another type"]
    assert (other["entities"], other["base"], other["knn"], other["lost"]) == (1, 100, 0, 1)
    # Cid and York in gold; the tagger finds Cid, with `and` and York (PER) too many.
    assert (forms["unseen"]["base"], forms["unseen"]["removed"]) == (40, 2)
    assert [each["group"] for each in groups["type"]] == ["LANG", "LOC", "PER"]
    assert [each["group"] for each in groups["length"]] == ["1", "2"]
    assert [each["group"] for each in groups["times in training"]] == ["0", "1", "2 to 4"]


def test_agreement():
    votes = {
        (0, 0): ("S-PER", 0.95),
        (1, 0): ("S-PER", 0.5),
        (1, 3): ("O", 1.0),
        (1, 4): ("O", 0.4),
    }
    rows = {each["agreement"]: each for each in by_agreement([SENTENCES], [votes])}
    assert rows["0.9 to 0.99"] == {
        **{"agreement": "0.9 to 0.99", "words": 1, "entity words": 1, "tagger right": 0},
        **{"changed": 1, "fixed": 1, "broken": 0, "other": 0},
    }
    assert (rows["0.5 to 0.7"]["broken"], rows["0.99 to 1"]["fixed"]) == (1, 1)
    assert (rows["below 0.5"]["other"], rows["0.7 to 0.9"]["words"]) == (1, 0)
    assert (rows["not searched"]["words"], rows["not searched"]["changed"]) == (5, 0)


TAGS = st.lists(
    st.sampled_from(["O", "S-PER", "B-PER", "M-PER", "E-PER", "S-LOC", "B-LOC", "E-LOC"]),
    min_size=4,
    max_size=4,
)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(TAGS, TAGS, TAGS), min_size=1, max_size=4), st.integers(0, 99))
def test_groups_add_up(tagged, number):
    """Each entity is in one group of each dimension; whoever changes nothing gains nothing."""
    generator = np.random.default_rng(number)
    words = [generator.choice(["Ada", "Bob", "New", "York"], 4).tolist() for _ in tagged]
    sentences = [(each, *tags) for each, tags in zip(words, tagged, strict=True)]
    told = break_down([sentences], [{}], FORMS)
    for dimension in DIMENSIONS:
        groups = told["groups"][dimension]
        for name in ("found", "lost", "removed", "added"):
            assert sum(each[name] for each in groups) == told["entities"][name]
        assert sum(each["entities"] for each in groups) == told["entities"]["gold"]
    tags = told["tags"]
    assert tags["changed"] == tags["fixed"] + tags["broken"] + tags["other"]
    same = [(each, gold, base, base) for each, gold, base, _ in sentences]
    for groups in break_down([same], [{}], FORMS)["groups"].values():
        assert all(each["gain"] == 0 and each["interval"] == [0, 0] for each in groups)


def test_votes_are_read_as_written(tmp_path):
    path = tmp_path / "votes.csv"
    write_votes(path, [0, 0, 3], [1, 4, 0], ["O", "B-a,b", 'S-"x"'], [1, 0.25, 0.33333])
    assert read_votes(path) == {
        **{(0, 1): ("O", 1.0), (0, 4): ("B-a,b", 0.25)},
        **{(3, 0): ('S-"x"', 0.3333)},
    }


def test_what_is_no_prediction_file(tmp_path):
    path = tmp_path / "predictions.txt"
    path.write_text("Ada\tO\tO\tO\n\nBob\tO\n")
    with pytest.raises(UserError, match=r"predictions.txt:3: 2 columns found, expected word, gold"):
        read_predictions(path)
    path.write_text("Ada\u2028x\tO\tO\tS-PER\nBob\tO\tO\tO\n\n\u3000\tO\tO\tO\n")
    assert read_predictions(path)[0][0] == ["Ada\u2028x", "Bob"]
    assert read_predictions(path)[1] == (["\u3000"], ["O"], ["O"], ["O"])
