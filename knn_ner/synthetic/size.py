"""How large an encoder is to be, and what was written."""

from dataclasses import dataclass

from knn_ner.utils.errors import UserError


@dataclass(frozen=True)
class EncoderStatistics:
    """What was written: word pieces in the vocabulary, and weights in the model."""

    pieces: int
    weights: int


@dataclass(frozen=True)
class Size:
    """The size of an encoder.

    max_position_embeddings: longest input in word pieces, special tokens included.

    Raises `UserError` when the heads do not divide the hidden size.
    """

    hidden_size: int = 128
    layers: int = 2
    heads: int = 4
    max_position_embeddings: int = 512

    def __post_init__(self) -> None:
        if self.hidden_size % self.heads:
            raise UserError(
                f"hidden size {self.hidden_size} with {self.heads} heads found, expected a hidden "
                "size that the number of heads divides"
            )

    def settings(self) -> dict[str, int | float]:
        """The settings that the configurations of BERT, RoBERTa and ChineseBERT share."""
        return {
            "hidden_size": self.hidden_size,
            "num_hidden_layers": self.layers,
            "num_attention_heads": self.heads,
            "intermediate_size": 4 * self.hidden_size,
            # BERT's 0.02 suits its 768 dimensions; a narrow encoder learns faster from a wider start.
            "initializer_range": self.hidden_size**-0.5,
        }
