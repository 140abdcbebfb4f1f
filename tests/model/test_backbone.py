"""Encoders as they are loaded: positions, dropout, special tokens."""

import pytest
import torch
from encoder_zoo import POSITIONS, write_config, write_model, write_tokenizer

from knn_ner.model.backbone import load_encoder, load_tokenizer
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
