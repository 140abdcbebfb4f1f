"""Configuration of a ChineseBERT."""

from typing import Any

from huggingface_hub.dataclasses import strict
from transformers import BertConfig

from knn_ner.utils.errors import UserError

CLASSIFIERS = ("linear", "mlp")


@strict
class ChineseBertConfig(BertConfig):
    """A BERT configuration with the sizes of the pinyin and glyph embeddings.

    Attributes:
        pinyin_vocab_size: number of letters and tone digits in readings, the blank included.
        pinyin_embedding_size: width of a letter's embedding, before the convolution.
        glyph_embedding_size: pixels of a character: 3 fonts x 24 x 24.
        classifier: head over each word piece: "linear", or "mlp" (dense, tanh, dense).

    Raises:
        UserError: if `classifier` is neither.
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
