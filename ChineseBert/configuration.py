"""Sizes of a ChineseBERT: those of a BERT and of its two further embeddings."""

from typing import Any

from huggingface_hub.dataclasses import strict
from transformers import BertConfig

from knn_ner.utils.errors import UserError

CLASSIFIERS = ("linear", "mlp")


@strict
class ChineseBertConfig(BertConfig):
    """A BERT configuration with ChineseBERT's own sizes.

    pinyin_vocab_size: letters and tone digits that a reading is spelled with, the blank included.
    pinyin_embedding_size: numbers per letter, before the convolution.
    glyph_embedding_size: numbers per character image: 3 fonts x 24 x 24 pixels.
    classifier: the head over each piece, "linear", or "mlp" for dense, tanh, dense.

    Raises `UserError` for another classifier.
    """

    model_type = "chinese_bert"

    pinyin_vocab_size: int = 32
    pinyin_embedding_size: int = 128
    glyph_embedding_size: int = 3 * 24 * 24
    classifier: str = "linear"

    def __post_init__(self, **kwargs: Any) -> None:
        super().__post_init__(**kwargs)
        if self.classifier not in CLASSIFIERS:
            raise UserError(
                f"classifier {self.classifier!r} is unknown; choose one of {', '.join(CLASSIFIERS)}"
            )
