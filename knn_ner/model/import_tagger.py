"""Convert a checkpoint of other Lightning code to the model folder for building and inference."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from transformers import BertConfig, PreTrainedModel

from ChineseBert import ChineseBertConfig
from knn_ner.data.corpus import read_labels
from knn_ner.data.encoding import UNITS
from knn_ner.data.tags import OUTSIDE
from knn_ner.model.backbone import (
    CONFIG_KEY,
    check_finite,
    load_config,
    load_encoder,
    load_tokenizer,
    save_tagger,
)
from knn_ner.model.bert_mlp import BertMlpConfig, BertMlpForTokenClassification
from knn_ner.model.encoder_probe import probe_encoder
from knn_ner.model.lightning_checkpoint import LightningCheckpoint, read_lightning_checkpoint
from knn_ner.settings import ImportSettings
from knn_ner.utils.errors import UserError
from knn_ner.utils.text import some

logger = logging.getLogger(__name__)


def import_tagger(settings: ImportSettings) -> dict[str, Any]:
    """Write `S/model/` from a checkpoint.

    Returns:
        Numbers of `weights` and `labels`, the `units`, and the names of `unused` weights.

    Raises:
        UserError: for bad input; then nothing is written.
    """
    checkpoint = read_lightning_checkpoint(settings.checkpoint)
    labels = read_labels(Path(settings.labels))
    _check_classifier(checkpoint, labels, settings)
    _put_outside_first(checkpoint, labels)
    lowercase = settings.lowercase
    if lowercase is None:
        lowercase = checkpoint.flag("do_lowercase")
    tokenizer = load_tokenizer(settings.bert_path, lowercase)
    model = _make_model(checkpoint, labels, settings)
    unused = [*checkpoint.unused, *_load_weights(model, checkpoint, settings)]
    check_finite(settings.checkpoint, model)
    probe_encoder(model.eval(), tokenizer)
    units = _choose_units(settings.units, model, checkpoint)
    if "chinese" in checkpoint.settings and settings.piece_labels == "published":
        logger.warning(
            "this checkpoint is of mrc-for-flat-nested-ner, which labels the first word piece of a word alone; "
            "give --piece_labels first"
        )
    setattr(model.config, CONFIG_KEY, {"units": units, "piece_labels": settings.piece_labels})
    save_tagger(Path(settings.save_path) / "model", model, tokenizer)
    return {
        "weights": len(model.state_dict()),
        "labels": len(labels),
        "units": units,
        "unused": unused,
    }


def _check_classifier(
    checkpoint: LightningCheckpoint, labels: Sequence[str], settings: ImportSettings
) -> None:
    """Raise UserError for an unknown classifier, or one for another number of labels."""
    if checkpoint.num_labels is None:
        raise UserError(
            f"{settings.checkpoint}: classifier with {', '.join(checkpoint.head) or 'no weights'} found, expected "
            "a linear one, ChineseBERT's dense, tanh, dense, or mrc-for-flat-nested-ner's dense, GELU, dense"
        )
    if checkpoint.num_labels != len(labels):
        raise UserError(
            f"{settings.labels}: {len(labels)} labels found, expected {checkpoint.num_labels} as in the "
            f"classifier of {settings.checkpoint}; give the ner_labels.txt that it was trained with"
        )


def _put_outside_first(checkpoint: LightningCheckpoint, labels: list[str]) -> None:
    """Move `O` to the front of the labels and of the classifier's rows, in place.

    The published get_labels.py writes labels in the order of the training file; here `O` is first.
    """
    index = labels.index(OUTSIDE)
    labels.insert(0, labels.pop(index))
    order = [index, *(other for other in range(len(labels)) if other != index)]
    for name in checkpoint.last_layer:
        checkpoint.weights[name] = checkpoint.weights[name][order]


def _make_model(
    checkpoint: LightningCheckpoint, labels: Sequence[str], settings: ImportSettings
) -> PreTrainedModel:
    """Make the model whose weights the checkpoint has."""
    if checkpoint.classifier != "bert_mlp":
        return load_encoder(settings.bert_path, labels, checkpoint.classifier or "linear")
    encoder = load_config(settings.bert_path)
    if encoder.model_type != BertConfig.model_type:
        raise UserError(
            f"{settings.bert_path}: an encoder of type {encoder.model_type} found, expected bert as in "
            f"{settings.checkpoint}; give the encoder that it was trained from"
        )
    config = BertMlpConfig(
        **encoder.to_dict()
        | {
            "id2label": dict(enumerate(labels)),
            "label2id": {label: index for index, label in enumerate(labels)},
            "classifier_activation": checkpoint.settings.get("classifier_act_func", "gelu"),
            "classifier_size": len(checkpoint.weights["classifier.0.weight"]),
            "architectures": None,
            "model_type": BertMlpConfig.model_type,
        }
    )
    logger.info(
        "the classifier has two layers: transformers opens this tagger after `import knn_ner.model.bert_mlp`"
    )
    return BertMlpForTokenClassification(config)


def _load_weights(
    model: PreTrainedModel, checkpoint: LightningCheckpoint, settings: ImportSettings
) -> list[str]:
    """Load the checkpoint's weights into a model; returns the names of weights that the model lacks."""
    own = model.state_dict()
    missing = [name for name in own if name not in checkpoint.weights]
    if missing:
        raise UserError(
            f"{settings.checkpoint}: {len(missing)} of {len(own)} weights missing "
            f"({some(missing)}), expected a tagger on {settings.bert_path}; give the encoder that it "
            "was trained from"
        )
    for name, tensor in own.items():
        found = checkpoint.weights[name].shape
        if found != tensor.shape:
            raise UserError(
                f"{settings.checkpoint}: {name} of shape {tuple(found)} found, expected "
                f"{tuple(tensor.shape)} as in {settings.bert_path}; give the encoder that it was "
                "trained from"
            )
    model.load_state_dict({name: checkpoint.weights[name] for name in own})
    return [name for name in checkpoint.weights if name not in own]


def _choose_units(units: str, model: PreTrainedModel, checkpoint: LightningCheckpoint) -> str:
    """Resolve `auto` from the encoder or the hyper-parameters of the checkpoint."""
    if units != "auto":
        return units
    if model.config.model_type == ChineseBertConfig.model_type:
        return "characters"
    if checkpoint.is_chinese is None:
        raise UserError(
            f"--units auto: no language in the checkpoint's hyper-parameters; give --units "
            f"{' or '.join(UNITS)}"
        )
    return "characters" if checkpoint.is_chinese else "words"
