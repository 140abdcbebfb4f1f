"""Label lists of models of other code: their tags, and the entities that come of them."""

import pytest
import torch
from encoder_zoo import SPECIAL, WORDS, write_tokenizer
from transformers import BertConfig, BertForTokenClassification, DistilBertConfig
from transformers import DistilBertForTokenClassification as DistilBert

from knn_ner import KnnTagger
from knn_ner.model.backbone import load_tagger, tagger_labels
from knn_ner.model.hub_labels import label_changes, project_labels
from knn_ner.utils.errors import UserError

UNCHANGED = [
    "O B-PER I-PER",
    "O B-PER M-PER E-PER S-PER",
    "B-PER I-PER E-PER S-PER O",
    "O I-PER I-LOC",
    "O S-PER.NAM S-B_cell",
    "O",
]


@pytest.mark.parametrize("labels", UNCHANGED)
def test_tags_stay_as_they_are(labels):
    tags = project_labels(labels.split())
    assert tags == labels.split() and label_changes(labels.split(), tags) == ""


TRANSLATED = {
    # Bare types.
    "O PER LOC": "O I-PER I-LOC",
    "Disease O Chemical": "I-Disease O I-Chemical",
    "O person person-company": "O I-person I-person-company",
    "O S_cell T_cell": "O I-S_cell I-T_cell",
    # BILOU and BMEWO.
    "O B-PER I-PER L-PER U-PER": "O B-PER I-PER E-PER S-PER",
    "B-A I-A O U-A L-A U-B": "B-A I-A O S-A E-A S-B",
    "O B-PER M-PER E-PER W-PER": "O B-PER M-PER E-PER S-PER",
    # Other separators, position last, lower case.
    "O B_PER I_PER": "O B-PER I-PER",
    "O PER-B PER-I LOC-B LOC-I": "O B-PER I-PER B-LOC I-LOC",
    "O PER_B PER_I": "O B-PER I-PER",
    "O B/PER I/PER": "O B-PER I-PER",
    "o b-per i-per": "O B-per I-per",
    # Labels of special tokens.
    "[CLS] [SEP] O B-PER I-PER X": ". . O B-PER I-PER .",
    "<pad> O S-PER PAD": ". O S-PER .",
    "[PAD] O PER": ". O I-PER",
    # Other names of O.
    "outside PER": "O I-PER",
    "None B-PER I-PER": "O B-PER I-PER",
    "O none PER": "O I-none I-PER",
    # Both letters of words inside entities, for different types.
    "O B-A I-A E-A B-B M-B E-B": "O B-A I-A E-A B-B I-B E-B",
}


@pytest.mark.parametrize(("labels", "tags"), TRANSLATED.items(), ids=TRANSLATED)
def test_clear_labels_are_translated(labels, tags):
    found = project_labels(labels.split())
    assert [tag or "." for tag in found] == tags.split()
    assert label_changes(labels.split(), found)


REFUSED = {
    "LABEL_0 LABEL_1": "no names",
    "O LABEL_1 LABEL_2": "no names",
    "B-PER I-PER": "none for words outside entities (O)",
    "NN VB JJ": "none for words outside entities (O)",
    "outside none PER": "none for words outside entities (O)",
    "O B I": "no common notation of position and type",
    "O B- I-": "no common notation of position and type",
    "O B-PER B-": "no common notation of position and type",
    "O B-PER I-PER MISC": "no common notation of position and type",
    "O I-PER PER": "no common notation of position and type",
    "O O-PER": "no common notation of position and type",
    "O BPER IPER": "no common notation of position and type",
    "O PER -": "no common notation of position and type",
    "O B-PER b-PER": "more than one for B-PER",
    "O B-PER L-PER E-PER": "more than one for E-PER",
    "O S-PER U-PER": "more than one for S-PER",
    "O B-A I-A M-A E-A": "more than one for I-A",
    "O O B-PER": "more than one for O",
}


@pytest.mark.parametrize(("labels", "reason"), REFUSED.items(), ids=REFUSED)
def test_unclear_labels_are_refused_and_named(labels, reason):
    with pytest.raises(UserError) as refused:
        project_labels(labels.split())
    assert str(refused.value) == (
        f"labels {', '.join(labels.split())}: {reason} found, expected O and types with B- I- M- E- S-, "
        "BILOU's letters or no position; rename them in id2label of config.json"
    )


def write_forced(folder, labels, label_of_word, model_class=BertForTokenClassification):
    """A tagger whose logits depend on the word alone; the second best label is `O`."""
    size = len(SPECIAL) + len(WORDS)
    config = {
        "vocab_size": size,
        "pad_token_id": 0,
        "id2label": dict(enumerate(labels)),
        "label2id": {label: index for index, label in enumerate(labels)},
    }
    torch.manual_seed(0)
    if model_class is DistilBert:
        model = DistilBert(
            DistilBertConfig(dim=size, hidden_dim=8, n_layers=1, n_heads=2, **config)
        )
    else:
        sizes = {"hidden_size": size, "intermediate_size": 8, "num_attention_heads": 2}
        model = model_class(BertConfig(num_hidden_layers=1, **sizes, **config))
    with torch.no_grad():
        model.base_model.get_input_embeddings().weight.copy_(20 * torch.eye(size))
        model.classifier.weight.zero_()
        model.classifier.bias.zero_()
        if "O" in labels:
            model.classifier.bias[labels.index("O")] = 1.0
        for place, word in enumerate(WORDS):
            if word in label_of_word:
                row = labels.index(label_of_word[word])
                model.classifier.weight[row, len(SPECIAL) + place] = 1.0
    model.save_pretrained(folder)
    write_tokenizer(folder)
    return folder


def entities(folder, text):
    tagger = KnnTagger.from_pretrained(folder, device="cpu")
    return [(entity.type, entity.text) for entity in tagger.predict(text)]


NAMES = "Ada Lovelace wrote to Charles Babbage London of"
CASES = {
    "a run of a bare type is one entity": (
        ["O", "PER", "LOC"],
        {"Ada": "PER", "Lovelace": "PER", "Charles": "PER", "Babbage": "PER", "London": "LOC"},
        [("PER", "Ada Lovelace"), ("PER", "Charles Babbage"), ("LOC", "London")],
    ),
    "BILOU keeps neighbours apart": (
        ["B-PER", "I-PER", "L-PER", "U-PER", "O", "U-LOC"],
        {
            "Ada": "U-PER",
            "Lovelace": "U-PER",
            "Charles": "B-PER",
            "Babbage": "L-PER",
            "London": "U-LOC",
        },
        [("PER", "Ada"), ("PER", "Lovelace"), ("PER", "Charles Babbage"), ("LOC", "London")],
    ),
    "an underscore": (
        ["O", "B_PER", "I_PER"],
        {"Ada": "B_PER", "Lovelace": "I_PER", "Charles": "B_PER", "Babbage": "B_PER"},
        [("PER", "Ada Lovelace"), ("PER", "Charles"), ("PER", "Babbage")],
    ),
    "the position last": (
        ["PER-B", "PER-I", "O"],
        {"Ada": "PER-B", "Lovelace": "PER-I", "London": "PER-B"},
        [("PER", "Ada Lovelace"), ("PER", "London")],
    ),
    "special labels never win": (
        ["[CLS]", "[SEP]", "O", "B-PER", "I-PER", "X"],
        {"Ada": "B-PER", "Lovelace": "I-PER"},
        [("PER", "Ada Lovelace")],
    ),
    "lower case": (
        ["o", "b-per", "i-per"],
        dict.fromkeys(WORDS, "o") | {"Ada": "b-per", "Lovelace": "i-per"},
        [("per", "Ada Lovelace")],
    ),
}


@pytest.mark.parametrize("model_class", [BertForTokenClassification, DistilBert])
@pytest.mark.parametrize(("labels", "of_word", "expected"), CASES.values(), ids=CASES)
def test_entities_of_a_hub_model(labels, of_word, expected, model_class, tmp_path, capfd):
    folder = write_forced(tmp_path, labels, of_word, model_class)
    assert entities(folder, NAMES) == expected
    told = [
        line for line in capfd.readouterr().err.splitlines() if line.startswith(f"{folder}: label")
    ]
    assert len(told) == 1


def test_a_special_label_with_the_highest_logit_is_passed_over(tmp_path):
    labels = ["O", "B-PER", "X", "[PAD]"]
    folder = write_forced(tmp_path, labels, {"Ada": "B-PER", "London": "X", "of": "[PAD]"})
    model = load_tagger(folder)
    assert tagger_labels(model) == ["O", "B-PER"] and model.num_labels == 2
    assert model(input_ids=torch.tensor([[2, 5, 3]])).logits.shape[-1] == 2
    assert entities(folder, NAMES) == [("PER", "Ada")]


def test_a_model_without_label_names_is_refused_by_the_commands(fails, tmp_path):
    from knn_ner.predict import main

    labels = ["LABEL_0", "LABEL_1"]
    folder = write_forced(tmp_path / "m", labels, dict.fromkeys(WORDS, "LABEL_0"))
    text = tmp_path / "text.txt"
    text.write_text(NAMES)
    message = fails(main, text, "--model_path", folder)
    assert message.startswith(
        f"error: {folder}: labels LABEL_0, LABEL_1: no names found, expected O"
    )
