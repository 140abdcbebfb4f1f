"""BERT with a classifier of two layers, as the BERT tagger of mrc-for-flat-nested-ner has it.

Importing this module registers the model type with transformers: its Auto classes and pipelines then open a folder
of such a tagger.
"""

from typing import Any

from huggingface_hub.dataclasses import strict
from torch import nn
from transformers import (
    AutoConfig,
    AutoModelForTokenClassification,
    AutoTokenizer,
    BertConfig,
    BertForTokenClassification,
    BertTokenizer,
)
from transformers.activations import ACT2FN

from knn_ner.utils.errors import UserError

ACTIVATIONS = ("gelu", "relu", "tanh")


@strict
class BertMlpConfig(BertConfig):
    """A BERT configuration with a classifier of two layers.

    Attributes:
        classifier_activation: function between the two layers: gelu, relu or tanh.
        classifier_size: width between the two layers; None for the hidden size.

    Raises:
        UserError: if the activation is another.
    """

    model_type = "bert_mlp"

    classifier_activation: str = "gelu"
    classifier_size: int | None = None

    def __post_init__(self, **kwargs: Any) -> None:
        super().__post_init__(**kwargs)
        if self.classifier_activation not in ACTIVATIONS:
            raise UserError(
                f"classifier activation {self.classifier_activation!r} found, expected one of "
                f"{', '.join(ACTIVATIONS)}"
            )


class BertMlpForTokenClassification(BertForTokenClassification):
    """BERT with a classifier over each word piece: dense, activation, dropout, dense."""

    config_class = BertMlpConfig
    config: BertMlpConfig

    def __init__(self, config: BertMlpConfig):
        super().__init__(config)
        size = config.classifier_size or config.hidden_size
        self.classifier = nn.Sequential(  # type: ignore[assignment]
            nn.Linear(config.hidden_size, size),
            ACT2FN[config.classifier_activation],
            nn.Dropout(self.dropout.p),
            nn.Linear(size, len(config.id2label or {})),
        )
        self.post_init()


AutoConfig.register(BertMlpConfig.model_type, BertMlpConfig)
AutoModelForTokenClassification.register(BertMlpConfig, BertMlpForTokenClassification)
AutoTokenizer.register(BertMlpConfig, tokenizer_class=BertTokenizer)
