"""ChineseBERT: the same ids and hidden states as the published model, and a good Hugging Face citizen."""

import json
import logging
import os
import pickle
import shutil
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from chinesebert_factory import make_chinesebert_folder
from transformers import AutoConfig, AutoModel, AutoModelForTokenClassification, AutoTokenizer

import ChineseBert
from ChineseBert.pinyin import PYPINYIN_VERSION, PinyinTable, check_pypinyin
from knn_ner.utils.errors import UserError

TEXT = "我们在银行，行长AB很重要2！😀"
LABELS = {0: "O", 1: "B-PER", 2: "M-PER", 3: "E-PER"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A tiny random checkpoint in the published layout that covers TEXT but for the emoji."""
    return make_chinesebert_folder(
        tmp_path_factory.mktemp("chinesebert"), TEXT.replace("😀", "") + "庆"
    )


@pytest.fixture
def copy(folder, tmp_path) -> Path:
    """The same checkpoint, to be broken."""
    return Path(shutil.copytree(folder, tmp_path / "copy"))


@pytest.fixture(scope="module")
def tokenizer(folder):
    return ChineseBert.load_tokenizer(folder)


@pytest.fixture(scope="module")
def model(folder):
    return ChineseBert.load_model(folder, id2label=LABELS)


def pinyin_of(tokenizer, text: str) -> list[str]:
    """The pinyin of each piece, spelled out again, so that a test can be read."""
    letters = {index: letter for letter, index in tokenizer.pinyin.char_to_id.items()}
    rows = tokenizer(text)["pinyin_ids"]
    return ["".join(letters[index] for index in row if index) for row in rows]


def logits_of(model, batch) -> torch.Tensor:
    with torch.no_grad():
        return model(**batch).logits


# Against the published model


@pytest.fixture(scope="module")
def published(shared):
    """(folder, sentences with the expected ids, expected hidden states) of the published model."""
    reference = shared / "reference" / "chinesebert"
    sentences = json.loads((reference / "expected_inputs.json").read_text(encoding="utf-8"))
    with np.load(reference / "expected_hidden.npz") as hidden:
        return reference, sentences, [hidden[f"hidden_{i}"] for i in range(len(sentences))]


def test_ids_are_the_published_ones(published):
    reference, sentences, _ = published
    tokenizer = ChineseBert.load_tokenizer(reference)
    assert len(sentences) == 5
    for sentence in sentences:
        encoded = tokenizer(sentence["text"])
        assert encoded["input_ids"] == sentence["input_ids"]
        assert encoded["pinyin_ids"] == sentence["pinyin_ids"]


def test_hidden_states_are_the_published_ones_alone_and_in_a_padded_batch(published):
    reference, sentences, expected = published
    tokenizer, model = ChineseBert.load_tokenizer(reference), ChineseBert.load_model(reference)
    texts = [sentence["text"] for sentence in sentences]
    with torch.no_grad():
        batch = tokenizer(texts, padding=True, return_tensors="pt")
        together = model(**batch, output_hidden_states=True).hidden_states[-1].numpy()
        for text, hidden, row in zip(texts, expected, together, strict=True):
            single = tokenizer(text, return_tensors="pt")
            alone = model(**single, output_hidden_states=True).hidden_states[-1][0].numpy()
            np.testing.assert_allclose(alone, hidden, rtol=0, atol=1e-5)
            np.testing.assert_allclose(row[: len(hidden)], hidden, rtol=0, atol=1e-5)


# The tokeniser


def test_readings_come_from_the_sentence_and_only_for_pieces_of_one_character(tokenizer):
    assert tokenizer.tokenize(TEXT) == [
        *"我们在银行，行长",
        *("a", "##b"),
        *"很重要",
        *("2", "！", "[UNK]"),
    ]
    # 行 is hang2 in 银行, a phrase that pypinyin knows, and xing2 in 行长, which it does not.
    assert pinyin_of(tokenizer, TEXT) == [
        "",
        *("wo3", "men", "zai4", "yin2", "hang2", "", "xing2", "zhang3"),
        *("", "", "hen3", "zhong4", "yao4"),
        *("", "", "", ""),
    ]
    assert pinyin_of(tokenizer, "重庆")[1:3] == ["chong2", "qing4"]


def test_an_unknown_character_still_has_its_reading(tokenizer):
    assert tokenizer.tokenize("京") == ["[UNK]"]
    assert pinyin_of(tokenizer, "京") == ["", "jing1", ""]


def test_an_emoji_before_a_character_does_not_shift_its_reading(tokenizer):
    assert pinyin_of(tokenizer, "😀😀我A") == ["", "", "wo3", "", ""]  # both emoji are one [UNK]
    text = "😀\ufe0f我"  # the variation selector gives no piece
    encoding = tokenizer(text, return_offsets_mapping=True, add_special_tokens=False)
    assert text[slice(*encoding["offset_mapping"][-1])] == "我"
    assert any(encoding["pinyin_ids"][-1])


def test_piece_features_are_the_rows_of_the_encoding_without_its_special_tokens(tokenizer):
    encoding = tokenizer(TEXT, return_offsets_mapping=True, add_special_tokens=False)
    features = tokenizer.piece_features(TEXT, encoding["offset_mapping"])
    assert list(features) == ["pinyin_ids"]
    assert features["pinyin_ids"].dtype == np.int64
    assert features["pinyin_ids"].tolist() == tokenizer(TEXT)["pinyin_ids"][1:-1]
    assert tokenizer.piece_features("", [])["pinyin_ids"].shape == (0, 8)


def test_a_batch_is_padded_with_zeros_on_the_tokenisers_side(tokenizer):
    texts = ["我们在", "我"]
    batch = tokenizer(texts, padding=True, return_tensors="pt")
    assert batch["input_ids"].shape == (2, 5)
    assert batch["pinyin_ids"].shape == (2, 5, 8)
    assert batch["pinyin_ids"][1, :2].any(dim=-1).tolist() == [False, True]
    assert not batch["pinyin_ids"][1, 2:].any()
    encoded = [tokenizer(text) for text in texts]
    assert torch.equal(
        tokenizer.pad(encoded, return_tensors="pt")["pinyin_ids"], batch["pinyin_ids"]
    )
    left = tokenizer.pad(encoded, padding_side="left", return_tensors="pt")["pinyin_ids"]
    assert left[1].any(dim=-1).tolist() == [False, False, False, True, False]


def test_a_cut_sentence_keeps_the_readings_of_the_whole(tokenizer):
    windows = tokenizer("我在重庆", max_length=5, truncation=True, return_overflowing_tokens=True)[
        "pinyin_ids"
    ]
    whole = tokenizer("我在重庆")["pinyin_ids"]
    assert windows == [[whole[0], *whole[1:4], whole[5]], [whole[0], whole[4], whole[5]]]


def test_words_given_split_read_as_their_sentence(tokenizer):
    expected = tokenizer("我在重庆")["pinyin_ids"]
    assert tokenizer(list("我在重庆"), is_split_into_words=True)["pinyin_ids"] == expected
    batch = tokenizer([["我在", "重", "庆"]], is_split_into_words=True)
    assert batch["pinyin_ids"] == [expected]


def test_a_pair_has_the_readings_of_both(tokenizer):
    first, second = tokenizer("重庆")["pinyin_ids"], tokenizer("很重")["pinyin_ids"]
    assert tokenizer("重庆", "很重")["pinyin_ids"] == [*first, *second[1:]]
    assert tokenizer(["重庆"], ["很重"])["pinyin_ids"] == [[*first, *second[1:]]]
    with pytest.raises(UserError, match="pass the second ones as text_pair"):
        tokenizer([("重庆", "很重")])


def test_readings_outside_the_table_are_spelled_and_zero_when_a_letter_is_missing():
    table = PinyinTable({"_": 0, "w": 1, "o": 2, "3": 3}, {"men": [9] * 8})
    assert table.spell("wo3") == [1, 2, 3, 0, 0, 0, 0, 0]
    assert table.spell("wo4") == [0] * 8
    assert table.rows("我们a").tolist() == [[1, 2, 3, 0, 0, 0, 0, 0], [9] * 8, [0] * 8]


def test_another_pypinyin_is_warned_about_once(tmp_path, monkeypatch):
    check_pypinyin.cache_clear()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_pypinyin()  # the pinned release says nothing
    metadata = tmp_path / "pypinyin-0.55.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: pypinyin\nVersion: 0.55.0\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    check_pypinyin.cache_clear()
    with pytest.warns(UserWarning) as caught:
        PinyinTable({}, {})
        PinyinTable({}, {})
    assert [str(warning.message) for warning in caught] == [
        f"pypinyin 0.55.0 is installed; ChineseBERT expects {PYPINYIN_VERSION}, other releases read some "
        f"characters differently; run: pip install pypinyin=={PYPINYIN_VERSION}"
    ]
    check_pypinyin.cache_clear()


# Folders


def test_a_chinesebert_is_recognised_by_its_files(folder, model, tokenizer, tmp_path):
    assert ChineseBert.is_chinesebert_folder(folder)
    model.save_pretrained(tmp_path / "model")
    assert ChineseBert.is_chinesebert_folder(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "tokenizer")
    assert ChineseBert.is_chinesebert_folder(str(tmp_path / "tokenizer"))

    (tmp_path / "bert").mkdir()
    assert not ChineseBert.is_chinesebert_folder(tmp_path / "bert")
    (tmp_path / "bert" / "config.json").write_text('{"model_type": "bert"}')
    assert not ChineseBert.is_chinesebert_folder(tmp_path / "bert")
    assert not ChineseBert.is_chinesebert_folder("bert-base-chinese")


def test_only_a_hub_name_that_says_chinesebert_is_fetched(folder, tmp_path):
    assert ChineseBert.resolve(folder) == str(folder)
    assert ChineseBert.resolve("bert-base-chinese") == "bert-base-chinese"
    with pytest.raises(UserError, match="no such folder, and no download"):
        ChineseBert.resolve(tmp_path / "ChineseBERT-base")


def test_a_saved_folder_gives_the_same_logits_and_needs_no_other(model, tokenizer, tmp_path):
    for part in (model, tokenizer):
        part.save_pretrained(tmp_path / "saved")
    moved = (tmp_path / "saved").rename(tmp_path / "moved")
    assert (moved / "model.safetensors").is_file()
    before = tokenizer(TEXT, return_tensors="pt")
    for load_model, load_tokenizer in (
        (ChineseBert.load_model, ChineseBert.load_tokenizer),
        (AutoModelForTokenClassification.from_pretrained, AutoTokenizer.from_pretrained),
    ):
        again, its_tokenizer = load_model(moved), load_tokenizer(moved)
        assert type(again) is ChineseBert.ChineseBertForTokenClassification
        assert type(its_tokenizer) is ChineseBert.ChineseBertTokenizer
        after = its_tokenizer(TEXT, return_tensors="pt")
        assert {name: ids.tolist() for name, ids in after.items()} == {
            name: ids.tolist() for name, ids in before.items()
        }
        assert torch.equal(logits_of(again, after), logits_of(model, before))
        assert again.config.id2label == LABELS
        assert its_tokenizer.model_max_length == 512
    assert type(AutoConfig.from_pretrained(moved)) is ChineseBert.ChineseBertConfig
    assert type(AutoModel.from_pretrained(moved)) is ChineseBert.ChineseBertModel


def test_a_tokeniser_survives_being_sent_to_a_worker(tokenizer):
    again = pickle.loads(pickle.dumps(tokenizer))
    assert again(TEXT)["pinyin_ids"] == tokenizer(TEXT)["pinyin_ids"]


def test_overrides_replace_the_folders_settings(folder):
    model = ChineseBert.load_model(folder, id2label=LABELS, hidden_dropout_prob=0.3)
    assert model.config.label2id == {"O": 0, "B-PER": 1, "M-PER": 2, "E-PER": 3}
    assert model.dropout.p == 0.3
    assert model.bert.embeddings.dropout.p == 0.3
    assert not model.training


def test_what_was_new_or_left_over_is_said(copy, caplog):
    weights = torch.load(copy / "pytorch_model.bin", weights_only=True)
    torch.save({**weights, "bert.crystal_ball": torch.ones(1)}, copy / "pytorch_model.bin")
    with caplog.at_level(logging.INFO, logger="ChineseBert"):
        ChineseBert.load_model(copy)
    assert [(record.levelname, record.getMessage()) for record in caplog.records] == [
        (
            "WARNING",
            f"{copy}: no classifier in the weights; classifier.bias, classifier.weight are random",
        ),
        ("WARNING", f"{copy}: 1 unknown weights left out (bert.crystal_ball)"),
        ("INFO", f"{copy}: 3 pretraining weights left out"),
    ]


# What can be wrong with a folder


@pytest.mark.parametrize(
    "name",
    ["embeddings.glyph_map.weight", "embeddings.pinyin_embeddings.conv.bias", "encoder.layer.1."],
)
def test_a_missing_encoder_weight_is_an_error(copy, name):
    weights = torch.load(copy / "pytorch_model.bin", weights_only=True)
    kept = {key: value for key, value in weights.items() if not key.startswith(f"bert.{name}")}
    torch.save(kept, copy / "pytorch_model.bin")
    with pytest.raises(UserError, match=rf"of the encoder's weights are missing \(bert\.{name}"):
        ChineseBert.load_model(copy)


def test_weights_of_another_size_are_an_error(folder):
    with pytest.raises(UserError, match=r"bert\.embeddings\.LayerNorm\.bias has shape \(32,\)"):
        ChineseBert.load_model(folder, hidden_size=64)


class Hostile:
    """Unpickled, it runs a command of its author's choice."""

    def __init__(self, command: str):
        self.command = command

    def __reduce__(self):
        return os.system, (self.command,)


def test_a_hostile_pickle_is_refused_and_never_run(copy):
    torch.save({"weight": Hostile(f"touch {copy / 'taken'}")}, copy / "pytorch_model.bin")
    with pytest.raises(UserError, match="not a file of plain tensors") as caught:
        ChineseBert.load_model(copy)
    assert "\n" not in str(caught.value)
    assert not (copy / "taken").exists()


@pytest.mark.parametrize("kept", [0, 1000, 100_000])
def test_weights_cut_off_are_an_error_of_one_line(copy, kept):
    file = copy / "pytorch_model.bin"
    file.write_bytes(file.read_bytes()[:kept])
    with pytest.raises(UserError, match="weights") as caught:
        ChineseBert.load_model(copy)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("missing", "load", "message"),
    [
        ("pytorch_model.bin", ChineseBert.load_model, "expected pytorch_model.bin or"),
        ("config.json", ChineseBert.load_model, "config.json: not found"),
        ("vocab.txt", ChineseBert.load_tokenizer, "neither vocab.txt nor tokenizer.json"),
        ("config/pinyin_map.json", ChineseBert.load_tokenizer, "pinyin_map.json: not found"),
        ("config/pinyin2tensor.json", ChineseBert.load_tokenizer, "pinyin2tensor.json: not found"),
    ],
)
def test_a_missing_file_is_named(copy, missing, load, message):
    (copy / missing).unlink()
    with pytest.raises(UserError, match=message):
        load(copy)


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("pinyin_map.json", "{}", "pinyin_map.json: no table `char2idx`"),
        ("pinyin_map.json", "letters", "pinyin_map.json: JSON expected"),
        ("pinyin2tensor.json", '{"wo3": [1, 2]}', r"'wo3' has \[1, 2\]; expected 8 ids"),
        (
            "pinyin2tensor.json",
            '{"wo3": [99, 0, 0, 0, 0, 0, 0, 0]}',
            "expected 8 ids of `char2idx`",
        ),
    ],
)
def test_a_broken_pinyin_table_is_named(copy, file, content, message):
    (copy / "config" / file).write_text(content)
    with pytest.raises(UserError, match=message):
        ChineseBert.load_tokenizer(copy)


# The model


@pytest.mark.parametrize("classifier", ["linear", "mlp"])
def test_the_head_scores_every_label_and_the_loss_skips_what_is_not_labelled(
    folder, tokenizer, classifier
):
    model = ChineseBert.load_model(folder, id2label=LABELS, classifier=classifier)
    batch = tokenizer(["我们在", "我"], padding=True, return_tensors="pt")
    labels = torch.tensor([[0, 1, 2, 3, 0], [0, 1, 0, -100, -100]])
    with torch.no_grad():
        output = model(**batch, labels=labels, output_hidden_states=True)
    assert output.logits.shape == (2, 5, 4)
    counted = torch.log_softmax(output.logits, dim=-1)[labels >= 0]
    expected = -counted.gather(1, labels[labels >= 0].unsqueeze(1)).mean()
    torch.testing.assert_close(output.loss, expected)

    hidden = output.hidden_states[-1]
    if classifier == "mlp":
        dense, _, last = model.classifier
        torch.testing.assert_close(output.logits, last(torch.tanh(dense(hidden))))
    else:
        torch.testing.assert_close(output.logits, model.classifier(hidden))


def test_an_mlp_head_is_saved_and_loaded(folder, tokenizer, tmp_path):
    model = ChineseBert.load_model(folder, id2label=LABELS, classifier="mlp")
    model.save_pretrained(tmp_path)
    batch = tokenizer(TEXT, return_tensors="pt")
    again = ChineseBert.load_model(tmp_path)
    assert again.config.classifier == "mlp"
    assert torch.equal(logits_of(again, batch), logits_of(model, batch))


def test_an_unknown_head_is_an_error(folder):
    with pytest.raises(UserError, match="classifier 'crf' is unknown; choose one of linear, mlp"):
        ChineseBert.load_model(folder, classifier="crf")


def test_a_training_step_moves_all_three_views_of_a_character(folder, tokenizer):
    model = ChineseBert.load_model(folder, id2label=LABELS).train()
    embeddings = model.bert.embeddings
    watched = {
        "character": embeddings.word_embeddings.weight,
        "pinyin letters": embeddings.pinyin_embeddings.embedding.weight,
        "pinyin convolution": embeddings.pinyin_embeddings.conv.weight,
        "glyphs": embeddings.glyph_embeddings.embedding.weight,
        "glyph map": embeddings.glyph_map.weight,
        "fusion": embeddings.map_fc.weight,
    }
    before = {name: weight.detach().clone() for name, weight in watched.items()}
    batch = tokenizer("我们在", return_tensors="pt")
    model(**batch, labels=torch.tensor([[0, 1, 2, 3, 0]])).loss.backward()
    torch.optim.SGD(model.parameters(), lr=1.0).step()
    for name, weight in watched.items():
        assert not torch.equal(weight, before[name]), name


def test_a_model_can_be_made_without_a_checkpoint():
    config = ChineseBert.ChineseBertConfig(
        vocab_size=10, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, num_labels=3
    )
    model = ChineseBert.ChineseBertForTokenClassification(config).eval()
    batch = {"input_ids": torch.tensor([[2, 5, 3]]), "pinyin_ids": torch.zeros(1, 3, 8).long()}
    assert logits_of(model, batch).shape == (1, 3, 3)


def test_the_reading_of_a_character_changes_its_hidden_state(model, tokenizer):
    batch = tokenizer("重", return_tensors="pt")
    other = {**batch, "pinyin_ids": torch.zeros_like(batch["pinyin_ids"])}
    assert not torch.allclose(logits_of(model, batch), logits_of(model, other), atol=1e-4)


def test_pinyin_ids_that_are_missing_or_misshapen_are_an_error(model):
    input_ids = torch.tensor([[2, 5, 3]])
    with pytest.raises(UserError, match=r"got no pinyin_ids; expected shape \(1, 3, 8\)"):
        model(input_ids)
    with pytest.raises(UserError, match=r"have shape \(1, 24\); expected \(1, 3, 8\)"):
        model(input_ids, torch.zeros(1, 24, dtype=torch.long))


def test_a_sequence_beyond_the_last_position_is_an_error(model):
    too_long = torch.zeros(1, 513, dtype=torch.long)
    with pytest.raises(UserError, match="has 513 pieces; the model takes 512"):
        model(too_long, torch.zeros(1, 513, 8, dtype=torch.long))
