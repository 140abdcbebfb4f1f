"""Checkpoints as old Lightning wrote them become taggers; taggers of plain transformers serve as they are."""

import argparse
import json
import os
from collections import OrderedDict
from pathlib import Path

import pytest
import torch
from chinesebert_factory import make_chinesebert_folder
from pytorch_lightning import Trainer
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.utilities.parsing import AttributeDict
from torch.nn import functional
from transformers import AutoModel, AutoModelForTokenClassification, AutoTokenizer

import ChineseBert
from knn_ner import KnnTagger, build_datastore, infer
from knn_ner.import_checkpoint import import_checkpoint, main, parse_arguments
from knn_ner.model.backbone import load_tagger, tagger_labels, weights_hash

VOTE = ("--k", 32, "--temperature", 0.1, "--knn_weight", 0.4)
ENGLISH = {"language": "en", "classifier": "single", "lr": 3e-5}


def old_checkpoint(path, state, hyper_parameters=None, **more) -> Path:
    """A file laid out as Lightning 0.9 did, with the network's weights under `model.`."""
    content = {
        "epoch": 3,
        "global_step": 120,
        "pytorch-lightning_version": "0.9.0",
        "checkpoint_callback_best_model_score": torch.tensor(0.9),
        "checkpoint_callback_best_model_path": "/home/somebody/checkpoint/epoch=2.ckpt",
        "optimizer_states": [{"state": {0: {"step": 1}}, "param_groups": [{"lr": 3e-5}]}],
        "lr_schedulers": [{"base_lrs": [3e-5], "last_epoch": 1, "lr_lambdas": [None]}],
        "state_dict": OrderedDict((f"model.{name}", value) for name, value in state.items()),
    }
    if hyper_parameters is not None:
        content |= {"hparams_name": "args", "hyper_parameters": hyper_parameters}
    torch.save(content | more, path)
    return path


def old_names(state):
    """The weights of a BERT tagger with what transformers 3 saved besides."""
    dim = state["bert.embeddings.LayerNorm.weight"].shape[0]
    return {
        "bert.embeddings.position_ids": torch.arange(512)[None],
        **state,
        "bert.pooler.dense.weight": torch.zeros(dim, dim),
        "bert.pooler.dense.bias": torch.zeros(dim),
    }


@pytest.fixture(scope="module")
def tagger(trained):
    return load_tagger(trained / "model")


@pytest.fixture
def labels(tagger, tmp_path) -> Path:
    path = tmp_path / "ner_labels.txt"
    path.write_text("".join(f"{label}\n" for label in tagger_labels(tagger)))
    return path


@pytest.fixture
def arguments(tiny_encoder, labels, tmp_path):
    """The command line for a checkpoint of the tiny tagger."""

    def make(checkpoint, *further):
        return [
            *("--checkpoint", str(checkpoint), "--bert_path", str(tiny_encoder)),
            *("--labels", str(labels), "--save_path", str(tmp_path / "saved"), *further),
        ]

    return make


def infer_in(tmp_path, corpus, model_path, name="store"):
    """Build and infer with a tagger, in this process."""
    paths = (
        *("--data_dir", corpus, "--file_name", "word.bmes", "--device", "cpu"),
        *("--model_path", model_path, "--datastore_path", tmp_path / name),
    )
    build_datastore.build_datastore(build_datastore.parse_arguments([str(a) for a in paths]))
    line = (*paths, "--save_path", tmp_path / f"{name} results", *VOTE)
    return infer.infer(infer.parse_arguments([str(argument) for argument in line]))


HYPER_PARAMETERS = {
    "a namespace": argparse.Namespace(**ENGLISH),
    "a dict": ENGLISH,
    "Lightning's own dict": AttributeDict(ENGLISH),
}


@pytest.mark.parametrize("settings", HYPER_PARAMETERS.values(), ids=HYPER_PARAMETERS.keys())
def test_the_tagger_that_comes_out_is_the_one_that_went_in(
    settings, tagger, trained, arguments, tmp_path, capsys
):
    path = old_checkpoint(tmp_path / "x.ckpt", old_names(tagger.state_dict()), settings)
    main(arguments(path))
    saved = tmp_path / "saved" / "model"
    assert weights_hash(load_tagger(saved)) == weights_hash(tagger)
    config = json.loads((saved / "config.json").read_text())
    assert config["knn_ner"] == {"units": "words", "piece_labels": "published"}
    text = "the road to Roadmere"
    mine, theirs = (AutoTokenizer.from_pretrained(f)(text) for f in (saved, trained / "model"))
    assert mine["input_ids"] == theirs["input_ids"]
    shown = capsys.readouterr()
    assert shown.err.splitlines()[-2:] == [
        "missing: none of the tagger's weights",
        "unused: bert.pooler.dense.weight, bert.pooler.dense.bias",
    ]
    assert shown.out == (
        f"{saved}: the tagger; {len(tagger.state_dict())} weights, {tagger.num_labels} labels, "
        "tokens are words\n"
    )


def test_build_and_infer_take_it(tagger, arguments, tmp_path, tiny_corpus, trained):
    path = old_checkpoint(tmp_path / "x.ckpt", tagger.state_dict(), ENGLISH)
    import_checkpoint(parse_arguments(arguments(path)))
    results = infer_in(tmp_path, tiny_corpus, tmp_path / "saved" / "model")
    before = json.loads((trained / "train_results.json").read_text())
    assert results["base"]["f1"] == before["test"]["f1"] > 0
    assert results["changed_tokens"] > 0


def test_what_old_lightning_leaves_in_a_file_is_passed_over(
    tagger, arguments, tmp_path, monkeypatch
):
    """Classes of callbacks, paths, numpy scalars, and the function that 0.9 had among its defaults."""
    import numpy as np

    def default(x):
        return x

    default.__module__, default.__qualname__ = Trainer.__module__, "Trainer._gpus_arg_default"
    monkeypatch.setattr(Trainer, "_gpus_arg_default", staticmethod(default), raising=False)
    settings = AttributeDict(ENGLISH | {"tpu_cores": default, "save_path": tmp_path})
    path = old_checkpoint(
        tmp_path / "x.ckpt",
        tagger.state_dict(),
        settings,
        callbacks={ModelCheckpoint: {"best_model_score": np.float64(0.5)}},
    )
    assert b"getattr" in path.read_bytes() and b"multiarray" in path.read_bytes()
    imported = import_checkpoint(parse_arguments(arguments(path)))
    assert imported["units"] == "words"
    assert weights_hash(load_tagger(tmp_path / "saved" / "model")) == weights_hash(tagger)


def test_labels_in_the_order_of_the_training_file(tagger, arguments, labels, tmp_path):
    """The published get_labels.py writes them as they come: the classifier's rows are brought into order."""
    order = [3, 1, 0, 2, *range(4, tagger.num_labels)]
    state = dict(tagger.state_dict())
    for name in ("classifier.weight", "classifier.bias"):
        state[name] = state[name][order]
    names = tagger_labels(tagger)
    labels.write_text("".join(f"{names[index]}\n" for index in order))
    path = old_checkpoint(tmp_path / "x.ckpt", state, ENGLISH)
    import_checkpoint(parse_arguments(arguments(path)))
    found = load_tagger(tmp_path / "saved" / "model")
    assert tagger_labels(found) == ["O", names[3], names[1], names[2], *names[4:]]
    assert torch.equal(found.classifier.bias[:4], tagger.classifier.bias[[0, 3, 1, 2]])
    assert torch.equal(found.classifier.weight[:4], tagger.classifier.weight[[0, 3, 1, 2]])


def test_the_other_name_of_a_linear_classifier(tagger, arguments, tmp_path):
    state = {
        name.replace("classifier.", "classifier.classifier."): value
        for name, value in tagger.state_dict().items()
    }
    path = old_checkpoint(tmp_path / "x.ckpt", state, ENGLISH)
    import_checkpoint(parse_arguments(arguments(path)))
    assert weights_hash(load_tagger(tmp_path / "saved" / "model")) == weights_hash(tagger)


@pytest.mark.parametrize("classifier", ["linear", "mlp"])
def test_chinesebert(classifier, tmp_path, capsys):
    """Published names of the head, position ids, a pooler, no language in the hyper-parameters."""
    text, names = "我们在银行", ["B-LOC", "O", "E-LOC"]
    encoder = make_chinesebert_folder(tmp_path / "encoder", text)
    id2label = dict(enumerate(names))
    original = ChineseBert.load_model(encoder, classifier=classifier, id2label=id2label).eval()
    published = {"classifier.0": "classifier.dense_layer"} | {
        "classifier.2": "classifier.dense_to_labels_layer"
    }
    state = {}
    for name, value in original.state_dict().items():
        for ours, theirs in published.items():
            name = name.replace(ours, theirs)
        state[name] = value
    assert ("classifier.dense_layer.weight" in state) == (classifier == "mlp")
    path = old_checkpoint(tmp_path / "x.ckpt", old_names(state), argparse.Namespace(lr=1e-5))
    labels = tmp_path / "ner_labels.txt"
    labels.write_text("\n".join(names))
    main(
        [
            *("--checkpoint", str(path), "--bert_path", str(encoder), "--labels", str(labels)),
            *("--save_path", str(tmp_path / "saved")),
        ]
    )
    assert "3 labels, tokens are characters" in capsys.readouterr().out
    found = load_tagger(tmp_path / "saved" / "model")
    assert tagger_labels(found) == ["O", "B-LOC", "E-LOC"] and found.config.classifier == classifier
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "saved" / "model")
    batch = tokenizer(text, return_tensors="pt")
    assert batch["pinyin_ids"].any()
    with torch.no_grad():
        assert torch.equal(found(**batch).logits, original(**batch).logits[..., [1, 0, 2]])


class MrcTagger(torch.nn.Module):
    """The BERT tagger of mrc-for-flat-nested-ner, from its description."""

    def __init__(self, bert, labels, act_func="gelu", size=None):
        super().__init__()
        self.bert, self.act_func = bert, getattr(functional, act_func)
        width = bert.config.hidden_size
        self.classifier = torch.nn.Module()
        self.classifier.classifier1 = torch.nn.Linear(width, size or width)
        self.classifier.classifier2 = torch.nn.Linear(size or width, labels)

    def forward(self, **batch):
        hidden = self.act_func(self.classifier.classifier1(self.bert(**batch).last_hidden_state))
        return self.classifier.classifier2(hidden)


MRC = {"bert_dropout": 0.1, "classifier_dropout": 0.1, "data_sign": "en_conll03", "lr": 2e-5}


@pytest.mark.parametrize(
    ("hyper_parameters", "head", "units"),
    [
        (argparse.Namespace(**MRC, chinese=False), {}, "words"),
        (argparse.Namespace(**MRC, chinese=True), {}, "characters"),
        (
            MRC | {"chinese": "True", "classifier_act_func": "relu"},
            {"act_func": "relu"},
            "characters",
        ),
        (
            MRC | {"chinese": 0, "classifier_act_func": "tanh"},
            {"act_func": "tanh", "size": 24},
            "words",
        ),
        (MRC | {"chinese": False, "language": "zh"}, {"size": 48}, "characters"),
    ],
)
def test_the_classifier_of_mrc_for_flat_nested_ner(
    hyper_parameters, head, units, tiny_encoder, tmp_path, capfd
):
    """Two layers, `O` last as in its label lists: logits within 1e-5, through our loader."""
    torch.manual_seed(1)
    names = ["S-PER", "B-PER", "M-PER", "E-PER", "O"]
    bert = AutoModel.from_pretrained(tiny_encoder)
    original = MrcTagger(bert, len(names), **head).eval()
    path = old_checkpoint(tmp_path / "x.ckpt", original.state_dict(), hyper_parameters)
    (tmp_path / "labels.txt").write_text("\n".join(names))
    line = ["--checkpoint", path, "--bert_path", tiny_encoder, "--labels", tmp_path / "labels.txt"]
    main([str(part) for part in (*line, "--save_path", tmp_path)])
    shown = capfd.readouterr()
    assert f"tokens are {units}" in shown.out
    assert "transformers opens this tagger after `import knn_ner.model.bert_mlp`" in shown.err
    assert "give --piece_labels first" in shown.err
    tagger = load_tagger(tmp_path / "model")
    assert tagger_labels(tagger) == ["O", *names[:-1]]
    batch = AutoTokenizer.from_pretrained(tmp_path / "model")(
        ["the road to Roadmere", "the"], padding=True, return_tensors="pt"
    )
    with torch.no_grad():
        expected = original(**batch)[..., [4, 0, 1, 2, 3]]
        torch.testing.assert_close(tagger(**batch).logits, expected, rtol=0, atol=1e-5)
    entities = KnnTagger.from_pretrained(tmp_path / "model", device="cpu").predict("the road")
    assert isinstance(entities, list)


def test_build_and_infer_take_a_classifier_of_two_layers(tagger, arguments, tmp_path, tiny_corpus):
    original = MrcTagger(tagger.bert, tagger.num_labels).eval()
    state = original.state_dict()
    # Positive and negative part of the hidden state, so that GELU(x) - GELU(-x) = x.
    width, weight = tagger.config.hidden_size, tagger.classifier.weight.data
    state["classifier.classifier1.weight"] = torch.cat([torch.eye(width), -torch.eye(width)])
    state["classifier.classifier1.bias"] = torch.zeros(2 * width)
    state["classifier.classifier2.weight"] = torch.cat([weight, -weight], dim=1)
    state["classifier.classifier2.bias"] = tagger.classifier.bias.data
    path = old_checkpoint(tmp_path / "x.ckpt", state, MRC | {"chinese": False})
    import_checkpoint(parse_arguments(arguments(path)))
    results = infer_in(tmp_path, tiny_corpus, tmp_path / "saved" / "model")
    assert results["base"]["f1"] > 0 and results["changed_tokens"] > 0


def test_without_this_project_transformers_refuses_the_folder(run, tiny_encoder, tmp_path):
    state = MrcTagger(AutoModel.from_pretrained(tiny_encoder), 2).state_dict()
    path = old_checkpoint(tmp_path / "x.ckpt", state, MRC | {"chinese": False})
    (tmp_path / "labels.txt").write_text("S-PER\nO\n")
    line = ["--checkpoint", path, "--bert_path", tiny_encoder, "--labels", tmp_path / "labels.txt"]
    main([str(part) for part in (*line, "--save_path", tmp_path)])
    opens = f"from transformers import pipeline; pipeline('ner', model='{tmp_path}/model')"
    assert "bert_mlp" in run("-c", opens, code=1).stderr
    run("-c", f"import knn_ner.model.bert_mlp; {opens}")


@pytest.mark.parametrize(
    ("flag", "settings", "same"),
    [
        ((), ENGLISH, True),
        ((), ENGLISH | {"do_lowercase": True}, True),
        ((), ENGLISH | {"do_lowercase": False}, False),
        (("--lowercase",), ENGLISH | {"do_lowercase": False}, True),
        (("--no-lowercase",), ENGLISH, False),
    ],
)
def test_letter_case_is_that_of_the_training(flag, settings, same, tagger, arguments, tmp_path):
    path = old_checkpoint(tmp_path / "x.ckpt", tagger.state_dict(), settings)
    import_checkpoint(parse_arguments(arguments(path, *flag)))
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "saved" / "model")
    assert (tokenizer.tokenize("THE") == tokenizer.tokenize("the")) == same


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_weights_that_are_no_numbers_are_refused(value, tagger, arguments, fails, tmp_path):
    state = {name: weight.clone() for name, weight in tagger.state_dict().items()}
    state["bert.encoder.layer.0.output.dense.bias"][3] = value
    path = old_checkpoint(tmp_path / "x.ckpt", state, ENGLISH)
    assert fails(main, *arguments(path)) == (
        f"error: {path}: NaN or infinite values in bert.encoder.layer.0.output.dense.bias; the training of this "
        "model went wrong: take another checkpoint"
    )
    assert not (tmp_path / "saved").exists()


class Harmful:
    """Makes a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch '{self.path}'",)


class Quiet:
    """Harmful without a name of its own: through a function of the standard library."""

    def __reduce__(self):
        return eval, ("1 + 1",)


@pytest.mark.parametrize(
    ("harm", "name"), [(Harmful, "posix.system"), (lambda path: Quiet(), "eval")]
)
def test_a_harmful_file_is_refused_and_does_nothing(harm, name, tagger, arguments, fails, tmp_path):
    path = old_checkpoint(
        tmp_path / "x.ckpt", tagger.state_dict(), ENGLISH, extra=harm(tmp_path / "harm")
    )
    assert fails(main, *arguments(path)) == (
        f"error: {path}: {name}, which could run code, found, expected tensors and plain data alone; "
        "nothing of the file was used: take it from a source you trust, or save its weights alone"
    )
    assert not (tmp_path / "harm").exists() and not (tmp_path / "saved").exists()


def test_errors_are_one_line(tagger, arguments, labels, fails, tmp_path):
    saved = tmp_path / "saved"
    state = dict(tagger.state_dict())

    def error_of(state, settings=ENGLISH, *flags):
        path = old_checkpoint(tmp_path / "x.ckpt", state, settings)
        message = fails(main, *arguments(path, *flags))
        assert not saved.exists()
        return message.replace(str(tmp_path), "T")

    missing = {name: value for name, value in state.items() if "layer.1" not in name}
    assert error_of(missing).startswith(
        f"error: T/x.ckpt: 16 of {len(state)} weights missing (bert.encoder.layer.1."
    )
    short = state | {"bert.embeddings.word_embeddings.weight": torch.zeros(7, 32)}
    assert error_of(short).startswith(
        "error: T/x.ckpt: bert.embeddings.word_embeddings.weight of shape (7, 32) found, expected "
    )
    unknown = {
        name.replace("classifier.", "classifier.classifier1."): value
        for name, value in state.items()
    }
    assert error_of(unknown) == (
        "error: T/x.ckpt: classifier with classifier.classifier1.weight, "
        "classifier.classifier1.bias found, expected a linear one, ChineseBERT's dense, tanh, dense, or "
        "mrc-for-flat-nested-ner's dense, GELU, dense"
    )
    assert error_of(state, None) == (
        "error: --units auto: no language in the checkpoint's hyper-parameters; give --units words or "
        "characters"
    )
    torch.save({"weights": state}, tmp_path / "other.ckpt")
    assert fails(main, *arguments(tmp_path / "other.ckpt")) == (
        f"error: {tmp_path}/other.ckpt: no state_dict found, expected a checkpoint of PyTorch Lightning"
    )
    torch.save({"state_dict": state}, tmp_path / "bare.ckpt")
    assert fails(main, *arguments(tmp_path / "bare.ckpt")) == (
        f"error: {tmp_path}/bare.ckpt: {len(state)} weights and none named model.* found, expected a "
        "tagger's checkpoint"
    )
    whole = (tmp_path / "bare.ckpt").read_bytes()
    (tmp_path / "cut.ckpt").write_bytes(whole[: len(whole) // 2])
    message = fails(main, *arguments(tmp_path / "cut.ckpt"))
    assert message.startswith(f"error: {tmp_path}/cut.ckpt: cannot be read (")
    assert fails(main, *arguments(tmp_path / "none.ckpt")) == (
        f"error: {tmp_path}/none.ckpt: not found, expected a checkpoint of PyTorch Lightning"
    )
    labels.write_text("O\nB-PER\n")
    assert error_of(state) == (
        f"error: T/ner_labels.txt: 2 labels found, expected {tagger.num_labels} as in the classifier of "
        "T/x.ckpt; give the ner_labels.txt that it was trained with"
    )


def test_units_can_be_said(tagger, arguments, tmp_path):
    path = old_checkpoint(tmp_path / "x.ckpt", tagger.state_dict(), argparse.Namespace())
    line = arguments(path, "--units", "characters", "--piece_labels", "first")
    import_checkpoint(parse_arguments(line))
    config = json.loads((tmp_path / "saved" / "model" / "config.json").read_text())
    assert config["knn_ner"] == {"units": "characters", "piece_labels": "first"}


def test_a_folder_of_plain_transformers_is_used_as_it_is(tagger, trained, tiny_corpus, tmp_path):
    """Without anything of ours in its config, and with `O` last: the same scores as with our own folder."""
    order = [*range(1, tagger.num_labels), 0]
    names = tagger_labels(tagger)
    plain = AutoModelForTokenClassification.from_pretrained(
        trained / "model",
        id2label={place: names[index] for place, index in enumerate(order)},
        label2id={names[index]: place for place, index in enumerate(order)},
    )
    for name in ("weight", "bias"):
        getattr(plain.classifier, name).data = getattr(tagger.classifier, name).data[order]
    del plain.config.knn_ner
    plain.save_pretrained(tmp_path / "plain")
    AutoTokenizer.from_pretrained(trained / "model").save_pretrained(tmp_path / "plain")
    assert "knn_ner" not in (tmp_path / "plain" / "config.json").read_text()
    found = infer_in(tmp_path, tiny_corpus, tmp_path / "plain", "plain store")
    expected = infer_in(tmp_path, tiny_corpus, trained / "model")
    for system in ("base", "knn"):
        assert found[system] == expected[system]
    assert found["changed_tokens"] == expected["changed_tokens"] > 0
