"""The demo: what it renders, what it answers, and, where Gradio and Chromium are installed, the page itself.

`bash scripts/test_demo.sh` installs what the skipped tests ask for and runs them.
"""

import json
import shutil
import socket
import sys
from itertools import pairwise
from pathlib import Path

import pytest
from browser import browser, prefer_colours  # noqa: F401

from knn_ner.data.corpus import read_corpus
from knn_ner.demo.__main__ import main, parse_arguments
from knn_ner.demo.backend import HINT, MAX_CHARACTERS, PARTS, Backend, check_type, neighbours
from knn_ner.html.renderer import Palette
from knn_ner.settings import VoteSettings
from knn_ner.tagging.entities import Entity, ExplainedEntity, Neighbour, WordEvidence
from knn_ner.tagging.knn_tagger import KnnTagger
from knn_ner.utils.errors import UserError

LABELS = ["O", "B-LOC", "M-LOC", "E-LOC", "S-LOC", "B-PER", "M-PER", "E-PER", "S-PER"]
PALETTE = Palette(LABELS)
ATTACK = "<img src=x onerror=window.hacked=1> ${window.hacked=1} {{value}} \"'"
ESCAPED = "&lt;img src=x onerror=window.hacked=1&gt; ${window.hacked=1} {{value}} &#34;&#39;"


def entity(kind: str, text: str, start: int, words: tuple[int, int], **more) -> ExplainedEntity:
    return ExplainedEntity(kind, text, start, start + len(text), words, 0.75, **more)


def evidence(*neighbours: Neighbour, vote: dict | None = None) -> WordEvidence:
    vote = vote or {"S-PER": 0.9, "S-LOC": 0.0996, "O": 0.0004}
    return WordEvidence(0, "S-LOC", 0.5, "S-PER", 0.75, vote, list(neighbours), "S-LOC", 0.6)


def test_palette_gives_each_type_a_colour_that_stays():
    assert PALETTE.hues == {"LOC": 255, "PER": 33} and PALETTE.hue_of_label("O") is None
    assert Palette([*LABELS, "S-ART"]).hue("PER") == PALETTE.hue_of_label("S-PER") == 33
    many = sorted(Palette(f"S-{letter}" for letter in "ABCDEFGHIJKL").hues.values())
    assert min(b - a for a, b in pairwise(many)) >= 19


def test_text_with_entities_keeps_every_character():
    text = "  Ada\tmet  Bo "
    found = [Entity("PER", "Ada", 2, 5, (0, 1), 0.9), Entity("LOC", "Bo", 11, 13, (2, 3), 0.456)]
    assert PARTS.marked(text, found, PALETTE, [("PER", (0, 1))]) == (
        '<p class="text">  <mark style="--hue:33" title="probability 0.90">Ada<small>PER</small></mark>'
        '\tmet  <mark class=outlined style="--hue:255" title="probability 0.46">Bo<small>LOC</small></mark> </p>'
    )


def test_side_by_side_says_whether_the_sides_differ():
    found = [Entity("PER", "Ada", 0, 3, (0, 1), 0.9)]
    same = PARTS.side_by_side("Ada", found, found, PALETTE)
    assert "Both sides agree." in same and "outlined" not in same
    assert same.count("1 entity") == 2
    other = PARTS.side_by_side("Ada", [], found, PALETTE)
    assert other.count("outlined") == 1 and "0 entities" in other and "Outlined" in other


def test_neighbour_is_shown_in_its_sentence():
    words = [f"w{number}" for number in range(30)]
    near = Neighbour("S-PER", 0.98765, 0.421, 7, words, ["O"] * 30, 15, 400)
    border = Neighbour("O", -12.5, 0.0002, 8, ["Bo", "left"], ["S-PER", "O"], -1, 500)
    html = neighbours(
        [entity("PER", "Ada", 0, (0, 1), found_by="knn", evidence=(evidence(near, border),))],
        ["Ada"],
        PALETTE,
        " ",
    )
    label = '<span class="label" style="--hue:33">S-PER</span>'
    assert (
        '<tr><td>0.988</td><td><span class="bar"><span style="width:42.1%"></span></span>42%</td>'
        f"<td>{label}</td><td>… w5 w6 w7 w8 w9 w10 w11 w12 w13 w14 "
        '<mark style="--hue:33">w15</mark> w16 w17 w18 w19 w20 w21 w22 w23 w24 w25 … '
        "<small>sentence 7</small></td></tr>"
    ) in html
    assert "<td>-12.500</td>" in html and "&lt;0.1%</td>" in html
    assert "<td><em>(start or end of)</em> Bo left <small>sentence 8</small></td>" in html
    assert f"<span>mix {label} 0.75</span>" in html
    assert "vote " + label + " 90%" in html and "10%" in html
    assert "with neighbours; the tagger alone: nothing" in html
    characters = neighbours(
        [entity("PER", "王", 0, (0, 1), evidence=(evidence(near),))], ["王"], PALETTE, ""
    )
    assert 'w14<mark style="--hue:33">w15</mark>w16' in characters


def test_neighbours_tell_what_decided_and_show_nothing_twice():
    instead = Entity("LOC", "Ada", 0, 3, (0, 1), 0.5)
    mixed = entity(
        *("PER", "Ada", 0, (0, 1)),
        found_by="knn",
        base=(instead,),
        evidence=(evidence(),),
        without=(instead,),
        decisive=True,
    )
    lost = entity("LOC", "Ada", 0, (0, 1), found_by="base", evidence=(evidence(),))
    html = neighbours([mixed, lost], ["Ada"], PALETTE, " ")
    assert html.count("<details") == 1
    assert "with neighbours; the tagger alone: Ada LOC" in html
    assert "Without the neighbours below: Ada LOC" in html
    html = neighbours([lost], ["Ada"], PALETTE, " ")
    assert html.count("<details") == 1 and "found by the tagger alone, not with" in html
    assert "The same without the neighbours below" in html
    assert "No entity" in neighbours([], ["Ada"], PALETTE, " ")


def test_form_offers_the_labels_for_each_word():
    form = PARTS.form(["Ada", "ran"], ["S-PER", "O"], ["O", "S-PER"])
    assert form.replace("\n", "") == (
        '<div class="form">'
        '<label><span>Ada</span><select aria-label="tag of Ada" data-entity><option>O</option>'
        "<option selected>S-PER</option></select></label>"
        '<label><span>ran</span><select aria-label="tag of ran"><option selected>O</option>'
        "<option>S-PER</option></select></label></div>"
    )


def test_everything_from_users_and_corpora_is_escaped():
    neighbour = Neighbour("S-" + ATTACK, 0.9, 0.5, 1, [ATTACK, "x"], ["O", "O"], 0, 2)
    attack = entity(ATTACK, ATTACK, 0, (0, 1), evidence=(evidence(neighbour, vote={ATTACK: 1.0}),))
    attack_lost = entity("LOC", "x", 0, (1, 2), found_by="base", without=(attack,), decisive=True)
    pages = [
        PARTS.side_by_side(ATTACK, [attack], [], PALETTE),
        neighbours([attack, attack_lost], [ATTACK], PALETTE, " "),
        PARTS.form([ATTACK], [ATTACK], [ATTACK]),
        PARTS.message(ATTACK, "error"),
    ]
    for page in pages:
        assert "<img" not in page and ESCAPED in page


@pytest.fixture(scope="module")
def store(datastore, tmp_path_factory) -> Path:
    """A datastore that may be changed."""
    return shutil.copytree(datastore, tmp_path_factory.mktemp("demo") / "datastore")


@pytest.fixture(scope="module")
def page(trained, store) -> Backend:
    return Backend(
        KnnTagger.from_pretrained(
            trained / "model", store, k=8, temperature=0.1, knn_weight=0.5, device="cpu"
        )
    )


@pytest.fixture(scope="module")
def contested(page, tiny_corpus) -> str:
    """A sentence in which tagger and neighbours differ."""
    for sentence in read_corpus(tiny_corpus, "word.bmes", splits=("dev",)).splits["dev"]:
        text = " ".join(sentence.words)
        if "outlined" in page.answer(text, 8, 0.1, 1.0).sides:
            return text
    raise AssertionError("no dev sentence in which they differ")


def test_answer_follows_the_settings(page, contested):
    for k in (8, -1):
        alone = page.answer(contested, k, 0.1, 0.0)
        assert "Both sides agree." in alone.sides
    mixed = page.answer(contested, 8, 0.1, 1.0)
    assert "Outlined" in mixed.sides and mixed.neighbours != alone.neighbours
    assert mixed.words == contested.split() and len(mixed.tags) == len(mixed.words)
    (found,) = page.tagger.stream([contested], settings=VoteSettings(8, 0.1, 1.0))
    assert mixed.tags == found.tags and mixed.sides.count("<mark") == len(found.entities) + len(
        found.base_entities
    )


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (("  \n", 8, 0.1, 0.5), "no text found; type a sentence"),
        (
            ("a" * (MAX_CHARACTERS + 1), 8, 0.1, 0.5),
            "4001 characters found, at most 4000 expected; give a shorter text",
        ),
        (("Ada", None, 0.1, 0.5), "a setting is empty; give k, temperature and knn_weight"),
        (("Ada", 0, 0.1, 0.5), "k 0: expected at least 1, or -1 for every entry of the datastore"),
        (("Ada", 8, 0, 0.5), "temperature 0.0: expected a number above 0"),
        (("Ada", 8, 0.1, 2), "knn_weight 2.0: expected a number from 0 to 1"),
    ],
)
def test_what_cannot_be_answered_is_said(page, arguments, error):
    with pytest.raises(UserError) as raised:
        page.answer(*arguments)
    assert str(raised.value) == error


@pytest.mark.parametrize(
    ("tags", "error"),
    [
        ("O O", "3 words and 2 tags found, expected a tag for each word"),
        ("E-PER O O", "Ada: tag E-PER found, expected B-PER before it"),
        ("B-PER O O", "Ada: tag B-PER found, expected M-PER or E-PER after it"),
        ("O O B-PER", ".: tag B-PER found, expected M-PER or E-PER after it"),
        ("S-PER O Q-PER", ".: tag 'Q-PER' found, expected O, or B-"),
        ("I-PER O O", "(?s)tag 'I-PER' found, expected one of the scheme BMES"),
    ],
)
def test_wrong_tags_are_not_added(page, tags, error):
    before = page.tagger.store.content_id
    with pytest.raises(UserError) as raised:
        page.add(["Ada", "slept", "."], tags.split())
    assert error.removeprefix("(?s)") in str(raised.value)
    page.tagger.refresh()
    assert page.tagger.store.content_id == before


def test_added_sentence_counts_at_once(page):
    words = ["Zorbex", "purred", "."]
    before = len(page.tagger.store.stored_sentences)
    assert "S-ANIMAL" in page.labels(["ANIMAL"]) and "S-ANIMAL" not in page.labels()
    told = page.add(words, ["S-ANIMAL", "O", "O"])
    assert told.startswith(f"sentence {before} added")
    assert f"{before + 1} stored sentences" in page.about()
    answer = page.answer("Zorbex purred .", 1, 0.1, 1.0)
    assert answer.tags == ["S-ANIMAL", "O", "O"] and "<td>1.000</td>" in answer.neighbours
    with pytest.raises(UserError, match="no sentence found; tag one first"):
        page.add([], [])
    assert check_type(" ANIMAL ") == "ANIMAL"
    for kind in ("", "two words"):
        with pytest.raises(UserError, match="expected a name without spaces"):
            check_type(kind)


def test_bad_command_lines(fails, monkeypatch, tmp_path):
    needed = ("--model_path", tmp_path, "--datastore_path", tmp_path)
    assert "70000 found, a number from 1 to 65535 expected" in fails(main, *needed, "--port", 70000)
    monkeypatch.delitem(sys.modules, "knn_ner.demo.app", raising=False)
    monkeypatch.setitem(sys.modules, "gradio", None)
    assert fails(main, *needed) == (
        "error: gradio is not installed; run `python -m pip install .[demo]`"
    )


def test_it_is_private_unless_told_otherwise():
    settings = parse_arguments(["--model_path", "M", "--datastore_path", "P"])
    assert (settings.host, settings.port, settings.allow_edit) == ("127.0.0.1", 7860, False)


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


@pytest.fixture
def served(page):
    """Serve the page: `served(allow_edit=True)` gives its address."""
    pytest.importorskip("gradio", reason="gradio is not installed: scripts/test_demo.sh does that")
    from knn_ner.demo.app import build, serve

    apps = []

    def start(allow_edit: bool) -> str:
        apps.append(build(page, allow_edit))
        return serve(apps[-1], "127.0.0.1", free_port())

    yield start
    for app in apps:
        app.close()


def test_endpoints(served, page, contested):
    address = served(allow_edit=False)
    from gradio_client import Client

    client = Client(address, verbose=False, analytics_enabled=False)
    assert set(client.view_api(return_format="dict")["named_endpoints"]) == {"/tag"}
    problem, sides, *_ = client.predict(contested, 8, False, 0.1, 1.0, api_name="/tag")
    assert problem == "" and "Outlined" in sides
    # Settings that are left out are where the sliders start.
    assert client.predict(contested, api_name="/tag")[4] == page.answer(contested, 8, 0.1, 0.5).tags
    problem, *rest = client.predict("", 8, False, 0.1, 1.0, api_name="/tag")
    assert "error: no text found" in problem and rest[:3] == [HINT, "", []]
    with pytest.raises(ValueError, match="add"):
        client.predict(["Ada"], ["S-PER"], api_name="/add")


def test_additions_at_once_lose_nothing(served, page):
    address = served(allow_edit=True)
    from gradio_client import Client

    client = Client(address, verbose=False, analytics_enabled=False)
    before = len(page.tagger.store.stored_sentences)
    jobs = [client.submit([f"Ada{number}"], ["S-PER"], api_name="/add") for number in range(6)] + [
        client.submit(["Ada"], ["E-PER"], api_name="/add")
    ]
    *added, refused = [job.result()[0] for job in jobs]
    assert all("added" in told for told in added)
    assert "error: Ada: tag E-PER found, expected B-PER before it" in refused
    assert len(page.tagger.store.stored_sentences) == before + 6


def test_taken_port_is_an_error(page):
    pytest.importorskip("gradio", reason="gradio is not installed: scripts/test_demo.sh does that")
    from knn_ner.demo.app import build, serve

    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = listener.getsockname()[1]
        with pytest.raises(UserError, match=f"127.0.0.1:{port}: cannot be served .*--port"):
            serve(build(page, allow_edit=False), "127.0.0.1", port)


def test_in_the_browser(served, browser, page, contested):  # noqa: F811
    address = served(allow_edit=True)
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys
    from selenium.webdriver.support.ui import Select, WebDriverWait

    def wait(condition):
        return WebDriverWait(browser, 60).until(lambda _: condition())

    def find(selector):
        return wait(lambda: browser.find_elements(By.CSS_SELECTOR, selector))[0]

    def shown(selector):
        return browser.execute_script(
            "const found = document.querySelector(arguments[0]); return found ? found.innerText : ''",
            selector,
        )

    def write(selector, text, end=Keys.ENTER):
        find(selector).send_keys(Keys.CONTROL + "a", Keys.DELETE)
        find(selector).send_keys(text + end)

    def dark():
        return browser.execute_script("return document.body.classList.contains('dark')")

    for scheme in ("dark", "light"):
        prefer_colours(browser, scheme)
        browser.get(address)
        find("#knn-input textarea")
        assert dark() == (scheme == "dark")

    # An attack is text.
    write("#knn-input textarea", ATTACK)
    wait(lambda: "onerror" in shown("#knn-base") and "{{value}}" in shown("#knn-base"))
    assert not browser.find_elements(By.CSS_SELECTOR, "img[src=x]")
    assert browser.execute_script("return window.hacked") is None

    # Sliders take effect at once.
    write("#knn-weight input[type=number]", "1", Keys.TAB)
    write("#knn-k input[type=number]", "8", Keys.TAB)
    write("#knn-input textarea", contested)
    wait(lambda: "Outlined" in shown("#knn-sides"))
    write("#knn-weight input[type=number]", "0", Keys.TAB)
    wait(lambda: "Both sides agree" in shown("#knn-sides"))

    # A bad input is one line, and goes when the next is good.
    write("#knn-input textarea", " ")
    wait(lambda: shown("#knn-problem") == "error: no text found; type a sentence")

    # A corrected sentence, with a type that no one knew, counts at once.
    write("#knn-input textarea", "Quibblo slithered .")
    wait(lambda: "Quibblo" in shown("#knn-base") and not shown("#knn-problem"))
    write("#knn-k input[type=number]", "1", Keys.TAB)
    write("#knn-weight input[type=number]", "1", Keys.TAB)
    browser.find_element(
        By.XPATH, "//button[.//span[contains(., 'Correct this sentence')]]"
    ).click()
    wait(lambda: len(browser.find_elements(By.CSS_SELECTOR, "#knn-form select")) == 3)
    wait(lambda: find("#knn-form select").is_displayed())
    write("#knn-type input, #knn-type textarea", "REPTILE")
    wait(lambda: "S-REPTILE" in find("#knn-form select").text)
    fields = browser.find_elements(By.CSS_SELECTOR, "#knn-form select")
    for field, tag in zip(fields, ("B-REPTILE", "O", "O"), strict=True):
        Select(field).select_by_visible_text(tag)
    before = len(page.tagger.store.stored_sentences)
    find("#knn-add").click()
    wait(
        lambda: (
            "error: Quibblo: tag B-REPTILE found, expected M-REPTILE or E-REPTILE after it"
            in shown("#knn-told")
        )
    )
    Select(fields[0]).select_by_visible_text("S-REPTILE")
    find("#knn-add").click()
    wait(lambda: f"sentence {before} added" in shown("#knn-told"))
    wait(lambda: "REPTILE" in shown("#knn-knn"))
    assert f"{before + 1} stored sentences" in shown("#knn-about")

    # Nothing is asked of any other machine.
    events = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    urls = {
        event["params"]["request"]["url"]
        for event in events
        if event["method"] == "Network.requestWillBeSent"
    }
    assert any(url.startswith(address) for url in urls)
    assert {
        url for url in urls if not url.startswith((address, "data:", "blob:", "chrome"))
    } == set()
