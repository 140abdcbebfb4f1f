"""Encoders, taggers and tokenisers as they are loaded: what is found in them, and what is refused."""

import json

import pytest
import torch
from encoder_zoo import POSITIONS, write_config, write_model, write_tokenizer
from safetensors.torch import load_file, save_file

from knn_ner.model.backbone import load_encoder, load_tagger, load_tokenizer, tokenizer_hash
from knn_ner.model.encoder_probe import UNLIMITED, probe_encoder
from knn_ner.utils.errors import UserError

LABELS = ["O", "S-PER"]


@pytest.fixture
def encoder(tmp_path):
    """Write a tiny encoder of a type with a special token at each end: `encoder("bert")` is its folder."""

    def write(model_type: str, template: str = "ends", **settings):
        write_model(tmp_path, model_type, **settings)
        write_tokenizer(tmp_path, template)
        return tmp_path

    return write


FROM_THE_ROW_AFTER_PADDING = [
    *(
        "roberta",
        "camembert",
        "longformer",
        "data2vec-text",
        "luke",
        "xmod",
        "ibert",
        "esm",
        "xlm-roberta-xl",
    ),
    *("mpnet", "xlm-roberta", "roberta-prelayernorm"),
]
FROM_THE_FIRST_ROW = [
    *("bert", "albert", "deberta", "distilbert", "xlm", "big_bird", "roformer", "gpt2", "rembert"),
]


@pytest.mark.parametrize("model_type", FROM_THE_ROW_AFTER_PADDING + FROM_THE_FIRST_ROW)
def test_the_longest_input_is_what_the_position_embeddings_hold(encoder, model_type):
    folder = encoder(model_type, pad_token_id=1)
    model, tokenizer = load_encoder(folder, LABELS), load_tokenizer(folder)
    longest = probe_encoder(model, tokenizer)
    unused = 2 if model_type in FROM_THE_ROW_AFTER_PADDING else 0
    assert longest == POSITIONS - unused
    with torch.no_grad():
        model(input_ids=torch.full((1, longest), 5), attention_mask=torch.ones(1, longest))
        with pytest.raises((IndexError, RuntimeError)):
            longer = torch.full((1, longest + 1), 5)
            model(input_ids=longer, attention_mask=torch.ones_like(longer))


@pytest.mark.parametrize(
    ("model_type", "settings", "longest"),
    [
        ("deberta-v2", {"relative_attention": True, "position_biased_input": False}, POSITIONS),
        ("modernbert", {}, POSITIONS),
        ("esm", {"position_embedding_type": "rotary"}, POSITIONS),
        ("modernvbert", {}, POSITIONS),
        ("biogpt", {}, POSITIONS),
        ("t5", {}, UNLIMITED),
        ("xlnet", {}, UNLIMITED),
        ("bloom", {}, UNLIMITED),
    ],
)
def test_without_position_embeddings_the_configuration_has_the_limit(
    encoder, model_type, settings, longest
):
    folder = encoder(model_type, **settings)
    assert probe_encoder(load_encoder(folder, LABELS), load_tokenizer(folder)) == longest


DROPOUT = {
    "bert": ({"hidden_dropout_prob"}, {"attention_probs_dropout_prob"}),
    "distilbert": ({"dropout"}, {"attention_dropout", "seq_classif_dropout", "qa_dropout"}),
    "modernbert": (
        {"embedding_dropout", "mlp_dropout"},
        {"attention_dropout", "classifier_dropout"},
    ),
    "xlm": ({"dropout"}, {"attention_dropout"}),
    "flaubert": ({"dropout"}, {"attention_dropout", "layerdrop"}),
    "xlnet": ({"dropout"}, {"summary_last_dropout"}),
    "t5": ({"dropout_rate"}, {"classifier_dropout"}),
    "gpt2": ({"resid_pdrop", "embd_pdrop"}, {"attn_pdrop", "summary_first_dropout"}),
    "starcoder2": ({"residual_dropout", "embedding_dropout"}, {"attention_dropout"}),
    "biogpt": ({"hidden_dropout_prob"}, {"activation_dropout", "attention_probs_dropout_prob"}),
    "falcon": ({"hidden_dropout"}, {"attention_dropout"}),
}


@pytest.mark.parametrize(("model_type", "names"), DROPOUT.items(), ids=DROPOUT)
def test_hidden_dropout_goes_by_the_name_that_the_configuration_has(
    encoder, model_type, names, caplog
):
    folder = encoder(model_type)
    before = load_encoder(folder, LABELS).config
    after = load_encoder(folder, LABELS, hidden_dropout_prob=0.37).config
    set_, kept = names
    assert {getattr(after, name) for name in set_} == {0.37}
    assert all(getattr(after, name) == getattr(before, name) != 0.37 for name in kept)
    assert not [record for record in caplog.records if record.name.startswith("knn_ner")]


def test_dropout_of_nested_configurations(encoder):
    config = load_encoder(encoder("t5gemma"), LABELS, hidden_dropout_prob=0.37).config
    assert config.encoder.dropout_rate == config.decoder.dropout_rate == config.dropout_rate == 0.37


@pytest.mark.parametrize("model_type", ["llama", "eurobert", "apertus", "helium"])
def test_an_encoder_without_hidden_dropout_is_told_in_one_line(encoder, model_type, caplog):
    with caplog.at_level("INFO", logger="knn_ner"):
        model = load_encoder(encoder(model_type), LABELS, hidden_dropout_prob=0.2)
    told = f"--hidden_dropout_prob 0.2: {type(model.config).__name__} has no hidden dropout"
    (message,) = [record.getMessage() for record in caplog.records if "dropout" in record.msg]
    assert message.startswith(told)


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("none", "puts 0 special tokens before a text and 0 after it, expected one at each end"),
        ("start", "puts 1 special tokens before a text and 0 after it, expected one at each end"),
        ("end", "puts 0 special tokens before a text and 1 after it, expected one at each end"),
        ("xlnet", "puts 0 special tokens before a text and 2 after it, expected one at each end"),
        ("funnel", "gives token types [0, 2], expected 0 for all word pieces"),
    ],
)
def test_special_tokens_that_windows_cannot_have_are_refused(tmp_path, template, message):
    write_tokenizer(tmp_path, template)
    write_config(tmp_path, "bert")
    with pytest.raises(UserError) as refused:
        load_tokenizer(tmp_path)
    assert str(refused.value).startswith(f"{tmp_path}: TokenizersBackend {message}")


@pytest.mark.parametrize(
    "model_type", ["bert", "roberta", "xlm-roberta", "t5", "deberta-v2", "albert", "camembert"]
)
def test_a_folder_without_a_vocabulary_is_refused(tmp_path, model_type):
    """Transformers makes a vocabulary of special tokens, by which every word is unknown."""
    write_model(tmp_path, model_type)
    with pytest.raises(UserError, match=f"^{tmp_path}: no vocabulary found, expected "):
        load_tokenizer(tmp_path)


@pytest.mark.parametrize(
    "content", [b"", b"version https://git-lfs.github.com/spec/v1\noid sha256:1\n"]
)
@pytest.mark.parametrize("name", ["vocab.txt", "tokenizer.json", "sentencepiece.bpe.model"])
def test_a_tokeniser_file_without_content_is_named(tmp_path, name, content):
    write_config(tmp_path, "bert")
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError) as refused:
        load_tokenizer(tmp_path)
    what = "a Git LFS pointer found" if content else "an empty file found"
    assert str(refused.value).startswith(f"{tmp_path / name}: {what}")


@pytest.mark.parametrize("kept", [40, 300, 900])
def test_a_cut_off_tokeniser_is_one_line(tmp_path, kept):
    write_config(tmp_path, "bert")
    write_tokenizer(tmp_path)
    file = tmp_path / "tokenizer.json"
    file.write_bytes(file.read_bytes()[:kept])
    with pytest.raises(UserError, match=f"^{tmp_path}: no tokeniser could be loaded") as refused:
        load_tokenizer(tmp_path)
    assert "\n" not in str(refused.value)


def test_merges_belong_to_a_vocabulary(tmp_path):
    write_config(tmp_path, "roberta")
    (tmp_path / "vocab.json").write_text(
        '{"<s>": 0, "<pad>": 1, "</s>": 2, "<unk>": 3, "a": 4, "b": 5}'
    )
    with pytest.raises(UserError, match=r"merges.txt: not found, expected beside vocab.json"):
        load_tokenizer(tmp_path)


LOADERS = {"encoder": lambda folder: load_encoder(folder, LABELS), "tagger": load_tagger}
DAMAGE = {
    "an LFS pointer": (
        lambda whole: b"version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 9\n",
        "a Git LFS pointer found, expected the file; fetch it with `git lfs pull`",
    ),
    "empty": (lambda whole: b"", "an empty file found; copy it again"),
    "cut off in the header": (
        lambda whole: whole[:60],
        "no safetensors header found; copy the file again",
    ),
    "cut off by a byte": (lambda whole: whole[:-1], r"\d+ bytes found, expected \d+ by its header"),
    "cut off in the middle": (
        lambda whole: whole[: len(whole) // 2],
        r"\d+ bytes found, expected \d+ by its header",
    ),
    "a web page": (lambda whole: b"<!DOCTYPE html>" + bytes(200), "no safetensors header found"),
}


@pytest.mark.parametrize("load", LOADERS.values(), ids=LOADERS)
@pytest.mark.parametrize(("damage", "message"), DAMAGE.values(), ids=DAMAGE)
def test_damaged_weights_are_named(encoder, load, damage, message):
    file = encoder("bert") / "model.safetensors"
    file.write_bytes(damage(file.read_bytes()))
    with pytest.raises(UserError, match=f"^{file}: {message}") as refused:
        load(file.parent)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("load", LOADERS.values(), ids=LOADERS)
def test_old_and_split_weights_are_checked_too(encoder, load):
    folder = encoder("bert", id2label=dict(enumerate(LABELS)))
    (folder / "model.safetensors").rename(folder / "whole")
    with pytest.raises(UserError, match=r"no model.safetensors or pytorch_model.bin found"):
        load(folder)
    torch.save(load_file(folder / "whole"), folder / "pytorch_model.bin")
    load(folder)
    whole = (folder / "pytorch_model.bin").read_bytes()
    (folder / "pytorch_model.bin").write_bytes(whole[:-100])
    with pytest.raises(UserError, match=r"pytorch_model.bin: the end of the archive is missing"):
        load(folder)
    index = {"weight_map": {"bert.embeddings.word_embeddings.weight": "model-1-of-1.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(
        UserError, match=r"model-1-of-1.safetensors: not found, expected by model.s"
    ):
        load(folder)


@pytest.mark.parametrize("load", LOADERS.values(), ids=LOADERS)
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize(
    "name", ["bert.embeddings.LayerNorm.weight", "bert.encoder.layer.1.output.dense.weight"]
)
def test_weights_that_are_no_numbers_are_refused(encoder, load, value, name):
    file = encoder("bert") / "model.safetensors"
    weights = load_file(file)
    weights[name].view(-1)[3] = value
    save_file(weights, file, {"format": "pt"})
    with pytest.raises(UserError, match=f"^{file.parent}: NaN or infinite values in {name}; "):
        load(file.parent)


@pytest.mark.parametrize("missing", ["encoder.layer.1", "embeddings.word_embeddings", "bert."])
def test_an_encoder_with_missing_weights_is_refused(encoder, missing):
    """Transformers fills them with random numbers."""
    file = encoder("bert") / "model.safetensors"
    kept = {name: weight for name, weight in load_file(file).items() if missing not in name}
    save_file(kept, file, {"format": "pt"})
    with pytest.raises(
        UserError, match=r"of the encoder's weights are missing or of another shape"
    ):
        load_encoder(file.parent, LABELS)


@pytest.mark.parametrize(("model_type", "rows"), [("bert", 15), ("roberta", 12), ("distilbert", 5)])
def test_a_vocabulary_beyond_the_embedding_table_is_refused(encoder, model_type, rows):
    folder = encoder(model_type, vocab_size=rows)
    with pytest.raises(UserError) as refused:
        probe_encoder(load_encoder(folder, LABELS), load_tokenizer(folder))
    assert str(refused.value) == (
        f"{folder}: word piece ids up to 15 in the tokeniser, but {rows} rows in the embedding table; give the "
        "tokeniser that the model was trained with"
    )


CASED = "[PAD] [UNK] [CLS] [SEP] [MASK] Ada ada London london the ##s É é"


@pytest.fixture
def vocab_folder(tmp_path):
    """A BERT's vocab.txt, with a tokenizer_config.json if settings for it are given."""

    def write(vocabulary=CASED, **settings):
        write_config(tmp_path, "bert")
        (tmp_path / "vocab.txt").write_text(vocabulary.replace(" ", "\n"))
        if settings:
            (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
        return tmp_path

    return write


@pytest.mark.parametrize(
    ("vocabulary", "settings", "warned"),
    [
        (CASED, {}, True),
        (CASED, {"model_max_length": 512}, True),
        (CASED, {"do_lower_case": True}, False),
        (CASED, {"do_lower_case": False}, False),
        (
            CASED.lower().replace(
                "[pad] [unk] [cls] [sep] [mask]", "[PAD] [UNK] [CLS] [SEP] [MASK]"
            ),
            {},
            False,
        ),
        ("[PAD] [UNK] [CLS] [SEP] [MASK] <S> <T> 我 们", {}, False),
    ],
)
def test_lower_casing_by_accident_is_told(vocab_folder, vocabulary, settings, warned, caplog):
    load_tokenizer(vocab_folder(vocabulary, **settings))
    messages = [record.getMessage() for record in caplog.records]
    assert bool(messages) == warned
    assert all("--no-lowercase trains without" in message for message in messages)


@pytest.mark.parametrize("saved", [False, True])
@pytest.mark.parametrize(
    ("lowercase", "pieces"),
    [(True, ["ada", "london", "[UNK]"]), (False, ["Ada", "London", "É"])],
)
def test_the_flag_decides_and_is_saved(vocab_folder, lowercase, pieces, saved, tmp_path, caplog):
    folder = vocab_folder()
    if saved:
        load_tokenizer(folder, not lowercase).save_pretrained(folder)
    tokenizer = load_tokenizer(folder, lowercase)
    tokenizer.save_pretrained(tmp_path / "again")
    write_config(tmp_path / "again", "bert")
    assert not caplog.records
    for each in (tokenizer, load_tokenizer(tmp_path / "again")):
        # Without lower case, accents go, too.
        assert each.tokenize("Ada London É") == pieces
    assert tokenizer_hash(tokenizer) == tokenizer_hash(load_tokenizer(tmp_path / "again"))


@pytest.mark.parametrize("model_type", ["roberta", "distilbert", "xlm-roberta"])
def test_lower_casing_of_a_tokeniser_without_a_normaliser(encoder, model_type, tmp_path):
    folder = encoder(model_type)
    tokenizer = load_tokenizer(folder, lowercase=True)
    assert tokenizer.tokenize("Wrote TO") == ["wrote", "to"]
    tokenizer.save_pretrained(folder)
    assert load_tokenizer(folder).tokenize("Wrote TO") == ["wrote", "to"]
    assert load_tokenizer(folder, lowercase=False).tokenize("Wrote to") == ["[UNK]", "to"]
