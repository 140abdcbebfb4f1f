"""`python -m knn_ner.datastore` and its functions, on a tagger trained on the fly."""

import json
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from knn_ner import build_datastore, infer, tune
from knn_ner.data.corpus import Sentence, read_file
from knn_ner.datastore import __main__ as command
from knn_ner.datastore.edit import remove_sentences
from knn_ner.datastore.locking import FolderLock
from knn_ner.datastore.manifest import Manifest
from knn_ner.datastore.reader import Datastore
from knn_ner.settings import RunSettings
from knn_ner.tagging.edit_sentences import add_sentences, relabel_sentence
from knn_ner.tagging.trained_tagger import load_for_datastore
from knn_ner.utils.errors import UserError

DRUG = "Ada B-PER\nLovelace E-PER\ntook O\nibuprofenoxil S-DRUG\nand O\nvitamin B-DRUG\nD E-DRUG\n"


@pytest.fixture
def path(datastore, tmp_path) -> Path:
    """A datastore of 300 sentences to change."""
    return Path(shutil.copytree(datastore, tmp_path / "store"))


@pytest.fixture(scope="module")
def tagger(trained, datastore):
    return load_for_datastore(trained / "model", 512, datastore)


@pytest.fixture
def do(capfd):
    """Run a command; gives what it prints to stdout."""

    def run_command(*arguments: object, main=command.main) -> str:
        capfd.readouterr()
        main([str(argument) for argument in arguments])
        return capfd.readouterr().out.removesuffix("\n")

    return run_command


def write_columns(file: Path, sentences) -> Path:
    file.write_text(
        "\n".join(
            "".join(f"{word} {tag}\n" for word, tag in zip(s.words, s.tags, strict=True))
            for s in sentences
        )
    )
    return file


def entries_of(store: Datastore) -> Counter:
    """What a store holds, whatever the order and the ids."""
    words = {s["id"]: (tuple(s["words"]), tuple(s["tags"])) for s in store.sentences()}
    keys = store.rows(0, store.entries)
    return Counter(
        (words[sentence], position, store.labels[label], key.tobytes())
        for sentence, position, label, key in zip(
            store.sentence_ids.tolist(),
            store.positions.tolist(),
            store.label_ids.tolist(),
            keys,
            strict=True,
        )
    )


def test_an_edited_store_is_one_built_from_the_edited_corpus(do, tmp_path, tiny_corpus, trained):
    """One sentence at a time through the model, so that keys are the same to the last bit."""
    model = ("--model_path", trained / "model", "--device", "cpu", "--batch_size", 1)
    sentences = read_file(tiny_corpus / "train.word.bmes")[:120]
    rights = {number: s.tags for number, s in enumerate(sentences) if set(s.tags) != {"O"}}
    rights = dict(list(rights.items())[:7])
    wrong = [
        Sentence(s.words, ["O"] * len(s.words)) if number in rights else s
        for number, s in enumerate(sentences)
    ]
    parts = tmp_path / "edited", tmp_path / "built"
    for folder in parts:
        shutil.copytree(tiny_corpus, folder)
    write_columns(parts[0] / "train.word.bmes", wrong[:60])
    write_columns(parts[1] / "train.word.bmes", sentences[:20] + sentences[25:110])
    stores = [folder / "datastore" for folder in parts]
    for folder, store in zip(parts, stores, strict=True):
        line = ("--data_dir", folder, "--file_name", "word.bmes", *model, "--shard_words", 300)
        build_datastore.build_datastore(
            build_datastore.parse_arguments([*map(str, line), "--datastore_path", str(store)])
        )
    at = ("--datastore_path", stores[0])
    added = write_columns(tmp_path / "new.bmes", sentences[60:])
    assert do("add", *at, *model, "--file", added) == (
        f"{stores[0]}: 60 sentences added, ids 60-119"
    )
    corrected = [Sentence(sentences[n].words, tags) for n, tags in rights.items()]
    file = write_columns(tmp_path / "corrected.bmes", [*corrected[1:], sentences[70]])
    printed = do("relabel", *at, *model[:2], "--file", file)
    assert printed.startswith(f"{stores[0]}: 6 sentences relabelled, with ")
    assert printed.endswith("; 1 had these tags already")
    first, tags = next(iter(rights.items()))
    printed = do("relabel", *at, *model[:2], "--id", first, "--tags", " ".join(tags))
    assert printed.startswith(f"{stores[0]}: 1 sentence relabelled, with ")
    printed = do("remove", *at, "--ids", "20-24", 119, "110-118")
    assert printed.startswith(f"{stores[0]}: 15 sentences removed, with ")

    edited, built = map(Datastore.open, stores)
    assert entries_of(edited) == entries_of(built)
    assert edited.manifest.label_counts == built.manifest.label_counts
    tags = []
    for number, store in enumerate(stores):
        line = ("--data_dir", tiny_corpus, "--file_name", "word.bmes", *model)
        line = (*line, "--datastore_path", store, "--save_path", tmp_path / str(number))
        line = (*line, "--k", 16, "--temperature", 0.05, "--knn_weight", 0.6)
        infer.infer(infer.parse_arguments([*map(str, line)]))
        tags.append((tmp_path / str(number) / "predictions.txt").read_text())
    assert tags[0] == tags[1]


def test_labels_that_the_tagger_has_never_seen(path, tmp_path, tiny_corpus, trained, capsys):
    at = ("--datastore_path", path, "--model_path", trained / "model", "--device", "cpu")
    file = tmp_path / "drugs.bmes"
    file.write_text(DRUG)
    labels = Manifest.read(path).labels
    command.main([*map(str, ("add", *at, "--file", file))])
    printed = capsys.readouterr()
    assert printed.out == f"{path}: 1 sentence added, ids 300\n"
    assert "the tagger lacks B-DRUG, E-DRUG, S-DRUG: only neighbours can give these" in printed.err
    store = Datastore.open(path)
    # Pieces of a word with B or E need an inside label too.
    assert store.labels == [*labels, "B-DRUG", "E-DRUG", "S-DRUG", "M-DRUG"]
    own = store.sentence_ids == 300
    assert {store.labels[i] for i in store.label_ids[own]} >= {"B-DRUG", "S-DRUG", "M-DRUG"}

    folder = Path(shutil.copytree(tiny_corpus, tmp_path / "corpus"))
    (folder / "test.word.bmes").write_text(DRUG)
    (folder / "dev.word.bmes").write_text(DRUG + "\n" + (folder / "dev.word.bmes").read_text())
    corpus = ("--data_dir", folder, "--file_name", "word.bmes", *at)
    results = []
    for search in ((), ("--exhaustive",)):
        line = (*corpus, "--save_path", tmp_path, "--k", 1, "--temperature", 0.1, *search)
        settings = infer.parse_arguments([*map(str, line), "--knn_weight", "0.6"])
        results.append(infer.infer(settings))
        rows = (tmp_path / "predictions.txt").read_text().split()
        gold, base, knn = rows[1::4], rows[2::4], rows[3::4]
        assert knn == gold
        assert not any("DRUG" in tag for tag in base)
    assert results[0]["knn"] == results[1]["knn"]
    assert results[0]["knn"]["per_type"]["DRUG"]["f1"] == 100
    line = (*corpus, "--save_path", tmp_path, "--grid_k", 1, 4, -1, "--grid_temperature", 0.02)
    best = tune.tune(tune.parse_arguments([*map(str, line)]))["best"]
    line = (*corpus, "--save_path", tmp_path, "--split", "dev")
    line = (*line, "--tuning", tmp_path / "tuning.json")
    confirmed = infer.infer(infer.parse_arguments([*map(str, line)]))
    assert confirmed["knn"]["f1"] == pytest.approx(best["f1"])
    assert "DRUG" in confirmed["knn"]["per_type"]


def test_from_python(path, tagger):
    words = ["Ada", "Lovelace", "met", "Ibuprofenoxil"]
    sentences = [
        Sentence(words, ["B-PER", "E-PER", "O", "S-DRUG"]),
        Sentence(["Yes"], ["O"]),
    ]
    assert add_sentences(path, tagger, sentences) == [300, 301]
    assert add_sentences(path, tagger, []) == []
    store = Datastore.open(path)
    assert store.sentence(300) == {"id": 300, "words": words, "tags": sentences[0].tags}
    rows = np.flatnonzero(store.sentence_ids == 300)
    keys = store.gather(rows)

    relabel_sentence(path, tagger, 300, ["O", "S-PER", "O", "O"])
    changed = store.refresh()
    rows = np.flatnonzero(changed.sentence_ids == 300)
    np.testing.assert_array_equal(changed.gather(rows), keys)
    labels = {
        position: {
            changed.labels[i] for i in changed.label_ids[rows[changed.positions[rows] == position]]
        }
        for position in range(-1, 4)
    }
    assert labels == {-1: {"O"}, 0: {"O"}, 1: {"S-PER"}, 2: {"O"}, 3: {"O"}}
    # The same again is no change.
    relabel_sentence(path, tagger, 300, ["O", "S-PER", "O", "O"])
    assert changed.refresh() is changed

    entries = changed.entries - Manifest.read(path).history[0].entries
    assert remove_sentences(path, [300, 301, 300]) == entries
    assert remove_sentences(path, []) == 0
    assert store.refresh().manifest.sentences == 300


def test_sentences_of_any_length_and_script(path, tagger):
    sentences = [
        Sentence([f"w{i}" for i in range(700)], ["O"] * 700),
        Sentence(["\u3000", "👩\u200d🔬", "e\u0301", "\ufffd"], ["O"] * 4),
    ]
    ids = add_sentences(path, tagger, sentences, RunSettings(batch_size=1, device="cpu"))
    store = Datastore.open(path)
    for sentence_id, sentence in zip(ids, sentences, strict=True):
        positions = store.positions[store.sentence_ids == sentence_id]
        assert set(positions.tolist()) == {-1, *range(len(sentence.words))}
        assert store.sentence(sentence_id)["words"] == sentence.words
        relabel_sentence(path, tagger, sentence_id, ["S-PER"] * len(sentence.words))


def test_info(do, path, tmp_path):
    told = json.loads(do("info", "--datastore_path", path, "--json"))
    store = Datastore.open(path)
    assert (told["entries"], told["sentences"]) == (store.entries, 300)
    assert (told["dim"], told["dtype"], told["shards"]) == (32, "float16", 1)
    assert told["bytes"] == sum(file.stat().st_size for file in path.glob("shard-*/*")) - (
        next(path.glob("shard-*/shard.json")).stat().st_size
    )
    assert told["labels"] == store.manifest.label_counts
    assert told["made_with"] == store.provenance and told["content_id"] == store.content_id
    assert [commit["action"] for commit in told["history"]] == ["build"]
    do("remove", "--datastore_path", path, "--ids", "7")
    lines = do("info", "--datastore_path", path).splitlines()
    left = Datastore.open(path)
    assert lines[0].startswith(f"{path}: {left.entries} entries of 299 sentences, 32 x float16, ")
    assert (
        lines[1] == f"{store.entries - left.entries} removed entries still on disk, until compact"
    )
    count = left.manifest.label_counts["O"]
    assert f"  O       {count:>9}{100 * count / left.entries:>8.2f}%" in lines
    assert lines[-1].split()[2:] == [
        "remove",
        "1",
        "sentences",
        str(store.entries - left.entries),
        "entries",
    ]


def test_verify_names_the_first_bad_file(do, fails, path):
    assert do("verify", "--datastore_path", path).startswith(f"{path}: all 7 files (")
    file = next(path.glob("shard-*")) / "sentences.jsonl"
    content = file.read_bytes()
    file.write_bytes(content.replace(b'"O"', b'"P"', 1))
    assert fails(command.main, "verify", "--datastore_path", path) == (
        f"error: {file}: its content differs from the checksum in the manifest; "
        "build the datastore again"
    )


def test_merge_and_compact(do, path, datastore, tmp_path):
    do("remove", "--datastore_path", path, "--ids", "0-99")
    merged = tmp_path / "merged"
    entries = Datastore.open(path).entries + Datastore.open(datastore).entries
    assert do("merge", path, datastore, "--out", merged) == (
        f"{merged}: {entries} entries of 500 sentences"
    )
    assert entries_of(Datastore.open(merged)) == entries_of(Datastore.open(path)) + entries_of(
        Datastore.open(datastore)
    )
    before = Manifest.read(path).bytes
    printed = do("compact", "--datastore_path", path)
    after = Manifest.read(path).bytes
    assert after < before
    assert printed == f"{path}: 1 shard, {before / 1e6:.1f} MB -> 1 shard, {after / 1e6:.1f} MB"


def test_building_over_an_edited_store_must_be_meant(do, fails, path, tiny_corpus, trained, capfd):
    corpus = ("--data_dir", tiny_corpus, "--file_name", "word.bmes", "--device", "cpu")
    line = (*corpus, "--model_path", trained / "model", "--datastore_path", path)
    do(*line, main=build_datastore.main)
    do("compact", "--datastore_path", path)
    capfd.readouterr()
    do(*line, main=build_datastore.main)
    built = Manifest.read(path)
    assert [commit.action for commit in built.history] == ["build"]

    do("remove", "--datastore_path", path, "--ids", 3, 4)
    do("remove", "--datastore_path", path, "--ids", 5)
    assert fails(build_datastore.main, *line) == (
        f"error: {path}: was changed since it was built (remove 3 sentences), which building it would "
        "undo; build into another folder, or give --replace_edited"
    )
    assert Manifest.read(path).sentences == 297
    do(*line, "--replace_edited", main=build_datastore.main)
    again = Manifest.read(path)
    assert (again.sentences, len(again.history)) == (300, 1)
    assert again.content_id == built.content_id


ERRORS = {
    "no such file": (
        ("add", "MODEL", "--file", "nowhere"),
        "nowhere: not found; give a file with a token and its tag on each line",
    ),
    "an empty file": (
        ("add", "MODEL", "--file", ""),
        "FILE: no sentence found, expected at least one line with a token and a tag",
    ),
    "no tag": (
        ("add", "MODEL", "--file", "Ada PER\n"),
        "FILE:1: tag 'PER' found, expected O, or B- I- M- E- S- and a type, in the schemes BIO, IOB1, "
        "IOBES/BIOES or BMES",
    ),
    "an id": (
        ("remove", "--ids", "2", "300"),
        "P: no sentence 300; ids were given from 0 to 299, less what was removed since",
    ),
    "a range": (("remove", "--ids", "300-400"), "P: no sentence from 300 to 400"),
    "not an id": (
        ("remove", "--ids", "-3"),
        "argument --ids: '-3' found, an id or a range such as 20-30 expected; "
        "see python -m knn_ner.datastore remove --help",
    ),
    "too few tags": (
        ("relabel", "MODEL", "--id", "0", "--tags", "O"),
        "sentence 0: 1 tags found for WORDS words, expected at least one word, and one tag for each",
    ),
    "a bad tag": (
        ("relabel", "MODEL", "--id", "0", "--tags", "TAGS"),
        "sentence 0, word 0 ('WORD'): tag 'X-PER' found, expected O, or B- I- M- E- S- and a type, in "
        "the schemes BIO, IOB1, IOBES/BIOES or BMES",
    ),
    "an id to relabel": (
        ("relabel", "MODEL", "--id", "999", "--tags", "O"),
        "P: no sentence 999; ids were given from 0 to 299, less what was removed since",
    ),
    "an unknown sentence": (
        ("relabel", "MODEL", "--file", "Ada O\nslept O\n"),
        "FILE:1: 'Ada slept' is no sentence of P",
    ),
    "no tags": (
        ("relabel", "MODEL", "--id", "3"),
        "relabel takes --id with --tags, or --file; see python -m knn_ner.datastore --help",
    ),
    "no command": (
        (),
        "the following arguments are required: COMMAND; see python -m knn_ner.datastore --help",
    ),
}


@pytest.mark.parametrize(("line", "message"), ERRORS.values(), ids=ERRORS.keys())
def test_errors_are_one_line_and_change_nothing(fails, datastore, trained, tmp_path, line, message):
    words = Datastore.open(datastore).sentence(0)["words"]
    file = tmp_path / "new.bmes"
    arguments = []
    for argument in line:
        if argument == "MODEL":
            arguments += ["--model_path", trained / "model"]
        elif argument == "TAGS":
            arguments.append(" ".join(["X-PER"] * len(words)))
        elif "\n" in argument or not argument:
            file.write_text(argument)
            arguments.append(file)
        else:
            arguments.append(argument)
    if line:
        arguments[1:1] = ["--datastore_path", datastore]
    for name, value in (
        ("FILE", file),
        ("P:", f"{datastore}:"),
        ("of P", f"of {datastore}"),
        ("WORDS", len(words)),
        ("WORD", words[0]),
    ):
        message = message.replace(name, str(value))
    before = Manifest.read(datastore)
    assert fails(command.main, *arguments) == f"error: {message}"
    assert Manifest.read(datastore) == before


def test_sentences_in_another_scheme_are_converted(path, trained, tmp_path, capfd):
    file = tmp_path / "new.bio"
    file.write_text("The O\n\nAda B-PER\nLovelace I-PER\n")
    at = ("--datastore_path", path, "--model_path", trained / "model")
    command.main([*map(str, ("add", *at, "--file", file, "--device", "cpu"))])
    said = capfd.readouterr().err
    assert f"{file}: tags in BIO, converted to BMES, the scheme of the tagger" in said
    assert Datastore.open(path).sentence(301)["tags"] == ["B-PER", "E-PER"]


def test_a_store_is_changed_with_its_own_model_alone(fails, path, tiny_encoder, tagger, tmp_path):
    """Another model with the same tokeniser: keys would not fit; relabelling makes none."""
    from knn_ner.model.backbone import load_encoder, load_tokenizer

    load_encoder(tiny_encoder, tagger.labels).save_pretrained(tmp_path / "model")
    load_tokenizer(tiny_encoder).save_pretrained(tmp_path / "model")
    file = tmp_path / "new.bmes"
    file.write_text("Ada S-PER\n")
    at = ("--datastore_path", path, "--model_path", tmp_path / "model")
    message = fails(command.main, "add", *at, "--file", file)
    assert message.startswith(f"error: {path}: made with model '")
    assert Manifest.read(path).sentences == 300
    words = Datastore.open(path).sentence(0)["words"]
    command.main([*map(str, ("relabel", *at, "--id", 0)), "--tags", "O " * len(words)])
    assert set(Datastore.open(path).sentence(0)["tags"]) == {"O"}


def test_what_is_not_a_sentence(path, tagger):
    for sentence, message in (
        (
            Sentence(["Ada"], ["O", "O"]),
            "sentence 1: 2 tags found for 1 words, expected at least one word, and one tag for each",
        ),
        (
            Sentence([], []),
            "sentence 1: 0 tags found for 0 words, expected at least one word, and one tag for each",
        ),
        (
            Sentence(["Ada"], ["I-PER"]),
            "sentence 1, word 0 ('Ada'): tag 'I-PER' found, expected one of the scheme BMES, as in the "
            "datastore; convert the tags",
        ),
    ):
        with pytest.raises(UserError) as raised:
            add_sentences(path, tagger, [Sentence(["Yes"], ["O"]), sentence])
        assert str(raised.value) == message
    assert Manifest.read(path).sentences == 300


def test_a_change_waits_for_another(fails, path):
    with FolderLock(path):
        assert fails(
            command.main, "remove", "--datastore_path", path, "--ids", 3, "--wait", 0.1
        ) == (
            f"error: {path}: another process has been writing for 0.1 s to this datastore; "
            "wait until it has finished"
        )
    assert 3 in Datastore.open(path).stored_sentences


@pytest.mark.parametrize(
    "line", [("info", "--help"), ("verify", "--help"), ("remove", "--help"), ("info",)]
)
def test_commands_that_need_no_torch_do_not_load_it(run, datastore, line):
    if "--help" not in line:
        line = (*line, "--datastore_path", datastore)
    imported = run("-X", "importtime", "-m", "knn_ner.datastore", *line).stderr
    assert "knn_ner.settings" in imported and "torch" not in imported
