"""The examples of the README run unchanged, one after the other, on a small corpus and encoder.

What the README and the documents name has to exist: files, commands, flags, and the numbers' sources.
"""

import importlib
import importlib.util
import io
import os
import re
import shlex
import shutil
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
DOCUMENTS = {
    path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8")
    for path in [
        ROOT / "README.md",
        ROOT / "CONTRIBUTING.md",
        *sorted((ROOT / "docs").glob("*.md")),
    ]
}


def blocks(language: str, marker: str) -> str:
    """The one code block of the README in a language that holds the marker."""
    (block,) = (
        text for text in re.findall(rf"```{language}\n(.*?)```", README, re.S) if marker in text
    )
    return block


def run_lines(block: str, monkeypatch) -> None:
    """Run the Python commands of a shell block in this process, its variables expanded."""
    variables: dict[str, str] = {}
    for line in block.replace("\\\n", " ").splitlines():
        assignment = re.fullmatch(r'(\w+)="(.*)"', line)
        if assignment:
            variables[assignment[1]] = assignment[2]
            continue
        for name, value in variables.items():
            line = re.sub(rf"\${name}\b", value, line)
        command, _, standard_input = reversed(line.partition(" | "))
        if not _:
            command, standard_input = line, ""
        words = shlex.split(command, comments=True)
        if words[:1] != ["python"]:
            continue
        text = " ".join(shlex.split(standard_input)[1:]) + "\n"
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text.encode())))
        if words[1] == "-m":
            package = ROOT / words[2].replace(".", "/")
            name = words[2] + ".__main__" * (package / "__main__.py").is_file()
            module, arguments = importlib.import_module(name), words[3:]
        else:
            module, arguments = importlib.import_module(words[1].removesuffix(".py")), words[2:]
        assert not module.main(arguments), line


@pytest.fixture(scope="module")
def folder(tiny_corpus, tiny_encoder, tmp_path_factory) -> Path:
    """Where the examples run: data/wnut17 is the small corpus, the encoder lies under its hub name."""
    folder = tmp_path_factory.mktemp("readme")
    shutil.copytree(tiny_corpus, folder / "data" / "wnut17")
    (folder / "google-bert").mkdir()
    shutil.copytree(tiny_encoder, folder / "google-bert" / "bert-base-cased")
    (folder / "new.bmes").write_text("Ada B-person\nLovelace E-person\nwrote O\n. O\n")
    (folder / "corrected.bmes").write_text("Ada B-PER\nLovelace E-PER\nwrote O\n. O\n")
    return folder


@pytest.fixture(autouse=True)
def there(folder, monkeypatch):
    monkeypatch.chdir(folder)
    # The working directory comes first on the path of `python -m`, and `data` is a folder there.
    monkeypatch.setattr(sys, "path", [str(ROOT), *sys.path])


def test_the_steps_one_by_one(monkeypatch, capsys):
    run_lines(blocks("bash", "knn_ner.tune"), monkeypatch)
    assert "kNN" in capsys.readouterr().out
    for path in re.findall(r"^\| `([SPO])/([\w.]+\.(?:json|csv|txt))`", README, re.M):
        where = {"S": "outputs/wnut17", "P": "outputs/wnut17/datastore", "O": "outputs/wnut17"}
        assert Path(where[path[0]], path[1]).is_file()


def test_an_index(monkeypatch, capsys):
    run_lines(blocks("bash", "knn_ner.build_index"), monkeypatch)
    assert "kNN" in capsys.readouterr().out
    assert list(Path("outputs/wnut17/datastore").glob("index-cosine-*.faiss"))


def test_the_python_example(capsys):
    example = blocks("python", "KnnTagger")
    exec(compile(example, "README.md", "exec"), {})
    assert "Ada Lovelace wrote ." in capsys.readouterr().out


def test_the_commands_in_use(monkeypatch, capsys):
    run_lines(blocks("bash", "knn_ner.predict"), monkeypatch)
    printed = capsys.readouterr().out
    assert '"entities"' in printed
    assert Path("report.html").stat().st_size > 1000
    assert {path.name for path in Path("outputs/audit").iterdir()} >= {"audit.csv", "audit.html"}


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_file_and_script_that_is_named_is_there(document):
    text = DOCUMENTS[document]
    folder = (ROOT / document).parent
    for link in re.findall(r"\]\(([\w/.-]+)\)", text):
        assert (folder / link).exists(), link
    for path in re.findall(
        r"[` ]((?:scripts|bert|ChineseBert|knn_ner|tests|docs)/[\w/.-]*\w)", text
    ):
        assert (ROOT / path).exists(), path


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_command_of_the_package_is_there_with_its_flags(document, capsys):
    text = DOCUMENTS[document].replace("\\\n", " ")
    for module, arguments in re.findall(r"python -m (knn_ner[\w.]*)([^\n`#|;]*)", text):
        package = (ROOT / module.replace(".", "/") / "__main__.py").is_file()
        name = module + ".__main__" * package
        assert importlib.util.find_spec(name), module
        flags = re.findall(r"--\w+", arguments)
        if flags:
            subcommand = re.findall(r"^ (\w+)", arguments) if module.endswith("datastore") else []
            with pytest.raises(SystemExit):
                importlib.import_module(name).main([*subcommand, "--help"])
            known = re.findall(r"--\w+", capsys.readouterr().out)
            assert set(flags) <= set(known), (module, arguments)


def test_every_measured_score_stands_in_the_documents():
    prose = re.sub(r"```.*?```", "", README, flags=re.S)
    sources = [text for name, text in DOCUMENTS.items() if name.startswith("docs/")]
    sources.append((ROOT / "knn_ner/experiment/paper_results.csv").read_text(encoding="utf-8"))
    # The weight of the speed table, and scores; the gains of the paper are differences of its scores.
    found = set(re.findall(r"\d+\.\d\d+", prose)) - {"1.63", "2.24", "2203.17103"}
    assert {number for number in found if not any(number in text for text in sources)} == set()


def test_no_example_needs_the_machine_it_was_written_on():
    assert str(Path.home()) not in README and os.sep + "work" + os.sep not in README
