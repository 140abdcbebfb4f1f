"""The size of a small encoder."""

from dataclasses import dataclass
from typing import Any, ClassVar

from knn_ner.utils.arguments import flag, positive_int
from knn_ner.utils.errors import UserError


@dataclass(frozen=True, kw_only=True)
class Size:
    """The size of an encoder.

    Raises:
        UserError: if the heads do not divide the hidden size.
    """

    title: ClassVar[str] = "size"

    hidden_size: int = flag(128, parse=positive_int)
    """dimensions of a hidden state"""
    layers: int = flag(2, parse=positive_int)
    """transformer layers"""
    heads: int = flag(4, parse=positive_int)
    """attention heads of a layer"""
    max_position_embeddings: int = flag(512, parse=positive_int)
    """longest input in word pieces, special tokens included"""

    def __post_init__(self) -> None:
        if self.hidden_size % self.heads:
            raise UserError(
                f"hidden size {self.hidden_size} with {self.heads} heads found, expected a hidden "
                "size that the number of heads divides"
            )

    def config(self) -> dict[str, Any]:
        """The settings that the configurations of BERT, RoBERTa and ChineseBERT share."""
        return {
            "hidden_size": self.hidden_size,
            "num_hidden_layers": self.layers,
            "num_attention_heads": self.heads,
            "intermediate_size": 4 * self.hidden_size,
            # BERT's 0.02 suits its 768 dimensions; a narrow encoder learns faster from larger initial weights.
            "initializer_range": self.hidden_size**-0.5,
        }


DEFAULT_SIZE = Size()


@dataclass(frozen=True)
class EncoderStatistics:
    """The size of a written encoder.

    Attributes:
        pieces: word pieces of the vocabulary.
        weights: weights of the model.
    """

    pieces: int
    weights: int
