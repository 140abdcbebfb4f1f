"""`python -m knn_ner.explain`: the cases that it finds, the rows of the page, and the page in a browser."""

import json
import re

import numpy as np
import pytest
from browser import browser, prefer_colours, resize  # noqa: F401

from knn_ner import KnnTagger
from knn_ner.data.corpus import read_corpus
from knn_ner.explain import __main__ as explain
from knn_ner.explain.cases import find_cases
from knn_ner.explain.page import build_page
from knn_ner.explain.projection import MAP_SIZE, project_to_map


def test_entities_that_overlap_are_one_case():
    gold = [("PER", 0, 2), ("LOC", 4, 5), ("ORG", 7, 9)]
    base = [("PER", 0, 1), ("LOC", 1, 2), ("LOC", 4, 5), ("ORG", 8, 9)]
    knn = [("PER", 0, 2), ("PER", 4, 5), ("LOC", 5, 6), ("ORG", 7, 8)]
    cases = find_cases(gold, base, knn)
    assert [(case.words, case.outcome) for case in cases] == [
        (range(0, 2), "fixed"),
        (range(4, 5), "broken"),
        (range(5, 6), "broken"),
        (range(7, 9), "changed"),
    ]
    assert find_cases([("A", 0, 1)], [], [])[0].outcome == "wrong"
    assert find_cases([("A", 0, 1)], [("A", 0, 1)], [("A", 0, 1)])[0].outcome == "right"
    assert find_cases([], [], []) == []


def test_a_map_keeps_the_distances_of_points_in_a_plane():
    generator = np.random.default_rng(0)
    flat = generator.standard_normal((20, 2))
    turned, _ = np.linalg.qr(generator.standard_normal((50, 2)))
    places = project_to_map((flat @ turned.T).astype(np.float32))
    assert places.min() == 0 and places.max() == MAP_SIZE

    def distances(points):
        return np.linalg.norm(points[:, None] - points[None], axis=2)

    ratio = distances(places)[0, 1:] / distances(flat)[0, 1:]
    np.testing.assert_allclose(ratio, ratio.mean(), rtol=0.1)
    assert (project_to_map(np.ones((3, 5))) == project_to_map(np.ones((3, 5)))[0]).all()
    assert project_to_map(np.ones((1, 5))).shape == (1, 2)


@pytest.fixture(scope="module")
def line(tiny_corpus, trained, datastore):
    paths = ("--data_dir", tiny_corpus, "--file_name", "word.bmes", "--device", "cpu")
    paths += ("--model_path", trained / "model", "--datastore_path", datastore)
    return [*map(str, paths), "--k", "32", "--temperature", "0.1", "--knn_weight", "0.7"]


@pytest.fixture(scope="module")
def written(line, tmp_path_factory):
    """The page, its data, and the writer of its cases."""
    page = tmp_path_factory.mktemp("report") / "report.html"
    writer, text = explain.explain(explain.parse_arguments([*line, "--out", str(page)]))
    assert page.read_text(encoding="utf-8") == text
    return page, data_of(page.read_text(encoding="utf-8")), writer


def data_of(page: str) -> dict:
    return json.loads(re.search(r'id="data">(.*?)</script>', page, re.S)[1])


def triples(flat):
    return {tuple(flat[i : i + 3]) for i in range(0, len(flat), 3)}


def test_the_page_holds_every_entity_with_its_evidence(written, tiny_corpus, trained, datastore):
    _, data, writer = written
    tagger = KnnTagger.from_pretrained(
        trained / "model", datastore, k=32, temperature=0.1, knn_weight=0.7, device="cpu"
    )
    sentences = read_corpus(tiny_corpus, "word.bmes", splits=("test",)).splits["test"]
    predictions = list(tagger.stream(s.words for s in sentences))
    base = {(i, *e.span) for i, p in enumerate(predictions) for e in p.base_entities}
    knn = {(i, *e.span) for i, p in enumerate(predictions) for e in p.entities}
    texts = [" ".join(s.words) for s in sentences]
    number = [texts.index(row[0]) for row in data["sentences"]]
    for column, expected in ((2, base), (3, knn)):
        shown = {
            (i, kind, (first, stop))
            for i, row in zip(number, data["sentences"], strict=True)
            for kind, first, stop in triples(row[column])
        }
        assert shown == expected
    gold = sum(len(triples(row[1])) for row in data["sentences"])
    right = sum(len(triples(row[1]) & triples(row[3])) for row in data["sentences"])
    assert writer.f1("knn") == pytest.approx(200 * right / (gold + len(knn)))
    counts = writer.outcomes
    assert sum(counts.values()) == len(data["cases"]) and counts["changed"] and counts["right"]

    for sentence, outcome, first, stop, words in data["cases"]:
        _, *answers = data["sentences"][sentence]
        gold, base, knn = (
            {t for t in triples(flat) if t[1] < stop and t[2] > first} for flat in answers
        )
        assert {"fixed": knn == gold != base, "broken": base == gold != knn}.get(
            data["outcomes"][outcome], True
        )
        assert len(words) == stop - first
        for *_, vote, neighbours, places in words:
            assert sum(vote[1::2]) == pytest.approx(1, abs=0.05)
            assert len(neighbours) == 8 * 5
            similarities = neighbours[3::5]
            assert similarities == sorted(similarities, reverse=True)
            for stored, word in zip(neighbours[::5], neighbours[1::5], strict=True):
                sentence_id, text, _ = data["stored"][stored]
                assert text.split(" ") == tagger.store.sentence(sentence_id)["words"]
                assert -1 <= word < len(text.split(" "))
            assert len(places) == 2 + 3 * 32 and places[2::3][:8] == neighbours[2::5]


def test_one_page_that_loads_nothing(written):
    page, *_ = written
    text = page.read_text(encoding="utf-8")
    assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)|src=|<link|@import|url\(", text)
    assert "default-src 'none'" in text


HOSTILE = [
    "</script><script>document.title='owned'</script>",
    "<!--<script>",
    "<b>",
    "&amp;",
    "'\"`{{js}}",
]


def test_text_never_becomes_code(written):
    _, data, _ = written
    content = data | {"facts": [["split", HOSTILE[0]]]}
    content["sentences"] = [[" ".join(HOSTILE), *row[1:]] for row in data["sentences"]]
    page = build_page(HOSTILE[0], content)
    assert page.count("<script") == 2 and page.count("</script>") == 2
    assert data_of(page) == content


def test_errors(fails, line, tmp_path):
    assert fails(explain.main, *line, "--out", tmp_path / "x" / "r.html", "--k", 0) == (
        "error: k 0: expected at least 1, or -1 for every entry of the datastore"
    )
    assert not (tmp_path / "x").exists()


# In the browser


def texts(window, selector):
    script = "return [...document.querySelectorAll(arguments[0])].map(each => each.textContent)"
    return window.execute_script(script, selector)


def click(window, selector):
    window.find_element("css selector", selector).click()


def press(window, selector, keys):
    window.find_element("css selector", selector).send_keys(keys)


@pytest.fixture
def opened(browser, written):  # noqa: F811
    """The page, opened, and its data."""
    page, data, _ = written
    browser.get("about:blank")
    browser.get(page.as_uri())
    return browser, data


def cases_with(data, *outcomes):
    return [case for case in data["cases"] if data["outcomes"][case[1]] in outcomes]


def count_of(window):
    return int(texts(window, "#count")[0].split()[0])


def test_filters_and_search(opened):
    window, data = opened
    sentences = data["sentences"]
    changed = cases_with(data, "fixed", "broken", "changed")
    assert count_of(window) == len(changed) > 0
    click(window, "#outcomes [value=right]")
    assert count_of(window) == len(changed) + len(cases_with(data, "right"))
    on = ["right", *{data["outcomes"][case[1]] for case in changed}]
    kept = max(on[1:], key=lambda name: len(cases_with(data, name)))
    for name in set(on) - {kept}:
        click(window, f"#outcomes [value={name}]")
    only = cases_with(data, kept)
    assert count_of(window) == len(only)
    assert set(texts(window, ".row .outcome")) == {kept}

    sentence, _, first, stop, _ = only[0]
    kind = next(
        t[0] for flat in sentences[sentence][1:] for t in triples(flat) if first <= t[1] < stop
    )
    press(window, "#type", kind)
    of_type = [
        (sentence, first, stop)
        for sentence, _, first, stop, _ in only
        if any(
            name == kind and a < stop and b > first
            for flat in sentences[sentence][1:]
            for name, a, b in triples(flat)
        )
    ]
    assert count_of(window) == len(of_type)
    word = sentences[of_type[0][0]][0].split(" ")[of_type[0][1]]
    press(window, "#search", word.upper())
    found = [case for case in of_type if word.lower() in sentences[case[0]][0].lower()]
    assert count_of(window) == len(found) >= 1
    press(window, "#search", "zzz")
    assert count_of(window) == 0 and texts(window, ".none") and not texts(window, "#detail h2")


def test_the_chosen_entity(opened):
    window, data = opened
    sentence, _, first, stop, words = cases_with(data, "fixed", "broken", "changed")[0]
    text = data["sentences"][sentence][0].split(" ")
    assert texts(window, "#detail h2")[0].startswith(" ".join(text[first:stop]))
    readings = texts(window, ".readings dd")
    assert len(readings) == 3
    for reading, flat in zip(readings, data["sentences"][sentence][1:], strict=True):
        shown = "".join(reading.split())
        for kind, a, b in sorted(triples(flat), key=lambda t: -t[1]):
            assert "".join(text[a:b]) + kind in shown
    changed = [i for i, word in enumerate(words) if word[0] != word[2]]
    word = words[changed[0] if changed else 0]
    items = texts(window, "ol li")
    assert len(items) == 8
    for item, stored, label in zip(items, word[7][::5], word[7][2::5], strict=True):
        sentence_id, stored_text, _ = data["stored"][stored]
        assert f"sentence {sentence_id}" in item and data["labels"][label] in item
        assert stored_text.split(" ")[0] in item
    assert len(texts(window, "svg circle")) == 32
    assert len(texts(window, ".tabs button")) == stop - first


def test_the_keyboard_and_the_address(opened):
    from selenium.webdriver.common.keys import Keys

    window, data = opened
    changed = [
        i
        for i, case in enumerate(data["cases"])
        if case in cases_with(data, "fixed", "broken", "changed")
    ]

    def chosen():
        assert window.execute_script(
            "return document.querySelector('[aria-selected=true]') !== null"
        )
        return int(
            window.execute_script(
                "return document.getElementById('list').getAttribute('aria-activedescendant')"
            )[5:]
        )

    press(window, "#list", Keys.ARROW_DOWN)
    assert chosen() == changed[1]
    press(window, "#list", Keys.END)
    assert chosen() == changed[-1]
    heading = texts(window, "#detail h2")
    address = window.execute_script("return location.href")
    press(window, "#list", Keys.HOME)
    assert chosen() == changed[0]
    window.get("about:blank")
    window.get(address)
    assert chosen() == changed[-1] and texts(window, "#detail h2") == heading
    press(window, "#list", Keys.ENTER)
    assert window.execute_script("return document.activeElement.id") == "detail"


def test_the_list_holds_only_what_can_be_seen(opened, tmp_path):
    from selenium.webdriver.common.keys import Keys

    window, data = opened
    many = data | {"cases": data["cases"] * (20000 // len(data["cases"]) + 1)}
    page = tmp_path / "many.html"
    page.write_text(build_page("many", many), encoding="utf-8")
    window.get(page.as_uri() + "#outcome=" + ",".join(data["outcomes"]))
    assert count_of(window) == len(many["cases"]) > 20000
    assert 0 < len(texts(window, ".row")) < 60
    press(window, "#list", Keys.END)
    assert texts(window, ".row")[-1] and len(texts(window, ".row")) < 60


def test_hostile_text_is_shown_as_it_is(opened, tmp_path):
    window, data = opened
    row = [" ".join(HOSTILE), ["<i>", 0, 2], [], ["<i>", 0, 2]]
    stored = [[index, " ".join(HOSTILE), ["<i>", 0, 1]] for index, *_ in data["stored"]]
    word = list(data["cases"][0][4][0])
    word[7] = [0, 1, 0, 0.5, 0.5]
    labels = ["B-<i>" if label != "O" else label for label in data["labels"]]
    hostile = data | {
        "sentences": [row],
        "stored": stored,
        "labels": labels,
        "cases": [[0, 0, 0, 2, [word, word]]],
        "facts": [["<b>", HOSTILE[0]]],
    }
    page = tmp_path / "hostile.html"
    page.write_text(build_page(HOSTILE[0], hostile), encoding="utf-8")
    window.get(page.as_uri())
    assert window.execute_script("return document.title").startswith(
        "What the neighbours changed: </script>"
    )
    assert texts(window, "#detail h2")[0].startswith(" ".join(HOSTILE[:2]))
    assert HOSTILE[0] in texts(window, "ol li .text")[0]
    assert (
        window.execute_script("return document.querySelectorAll('b i, .text b, #facts b').length")
        == 0
    )


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [1280, 390])
def test_nothing_is_wider_than_the_screen(opened, width, dark):
    window, _ = opened
    prefer_colours(window, "dark" if dark else "light")
    resize(window, width, 800)
    assert window.execute_script("return document.documentElement.scrollWidth") <= width
    colour = window.execute_script("return getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, re.findall(r"\d+", colour)[:3])) < 200) == dark
