"""The ChineseBERT encoder and its token-classification head (Sun et al. 2021, arXiv 2106.16038, section 3).

Embeddings are ChineseBERT's own; attention, layers and loss are BERT's, from transformers. Parameters have the
names of the published checkpoint.
"""

from typing import Any

import torch
from torch import Tensor, nn
from transformers import BertForTokenClassification, BertModel
from transformers.modeling_outputs import (
    BaseModelOutputWithPoolingAndCrossAttentions,
    TokenClassifierOutput,
)
from transformers.models.bert.modeling_bert import BertEmbeddings

from ChineseBert.configuration import ChineseBertConfig
from ChineseBert.pinyin import PINYIN_LENGTH
from knn_ner.utils.errors import UserError


class PinyinEmbeddings(nn.Module):
    """Embedding of a reading: letter embeddings, a convolution over pairs, the maximum over positions."""

    def __init__(self, config: ChineseBertConfig):
        super().__init__()
        self.embedding = nn.Embedding(config.pinyin_vocab_size, config.pinyin_embedding_size)
        self.conv = nn.Conv1d(config.pinyin_embedding_size, config.hidden_size, kernel_size=2)

    def forward(self, pinyin_ids: Tensor) -> Tensor:
        """Embed readings: (batch, pieces, 8) -> (batch, pieces, hidden)."""
        letters = self.embedding(pinyin_ids).flatten(0, 1)  # (batch * pieces, 8, embedding)
        pairs = self.conv(letters.transpose(1, 2))  # (batch * pieces, hidden, 7)
        return pairs.amax(dim=-1).unflatten(0, pinyin_ids.shape[:2])


class GlyphEmbeddings(nn.Module):
    """Images of a character in three fonts, flattened; the pixels are weights that training changes."""

    def __init__(self, config: ChineseBertConfig):
        super().__init__()
        self.embedding = nn.Embedding(config.vocab_size, config.glyph_embedding_size)

    def forward(self, input_ids: Tensor) -> Tensor:
        """Look up images: (batch, pieces) -> (batch, pieces, 1728)."""
        return self.embedding(input_ids)


class ChineseBertEmbeddings(BertEmbeddings):
    """BERT's embeddings, with a fusion of character, pinyin and glyph as the word embedding."""

    def __init__(self, config: ChineseBertConfig):
        super().__init__(config)
        self.pinyin_embeddings = PinyinEmbeddings(config)
        self.glyph_embeddings = GlyphEmbeddings(config)
        self.glyph_map = nn.Linear(config.glyph_embedding_size, config.hidden_size)
        self.map_fc = nn.Linear(3 * config.hidden_size, config.hidden_size)

    def fuse(self, input_ids: Tensor, pinyin_ids: Tensor) -> Tensor:
        """Apply the fusion layer: (batch, pieces) and (batch, pieces, 8) -> (batch, pieces, hidden)."""
        views = [
            self.word_embeddings(input_ids),
            self.pinyin_embeddings(pinyin_ids),
            self.glyph_map(self.glyph_embeddings(input_ids)),
        ]
        return self.map_fc(torch.cat(views, dim=-1))


class ChineseBertModel(BertModel):
    """ChineseBERT without a head."""

    config: ChineseBertConfig
    embeddings: ChineseBertEmbeddings

    def __init__(self, config: ChineseBertConfig, add_pooling_layer: bool = True):
        super().__init__(config, add_pooling_layer=add_pooling_layer)
        self.embeddings = ChineseBertEmbeddings(config)
        self.post_init()

    def forward(
        self, input_ids: Tensor, pinyin_ids: Tensor | None = None, **kwargs: Any
    ) -> BaseModelOutputWithPoolingAndCrossAttentions | tuple[Tensor, ...]:
        """Encode a batch.

        Args:
            input_ids: (batch, pieces).
            pinyin_ids: (batch, pieces, 8), zeros for a piece without a reading.
            kwargs: further arguments of `BertModel.forward`, such as `attention_mask`.

        Returns:
            The output of `BertModel`; `last_hidden_state` is (batch, pieces, hidden).

        Raises:
            UserError: if pinyin ids are missing or have another shape, or a row has too many pieces.
        """
        expected = (*input_ids.shape, PINYIN_LENGTH)
        if pinyin_ids is None:
            raise UserError(
                f"ChineseBERT got no pinyin_ids; expected shape {expected}: use the ids that its own "
                "tokeniser (ChineseBert.load_tokenizer) gives beside input_ids"
            )
        if tuple(pinyin_ids.shape) != expected:
            raise UserError(f"pinyin_ids have shape {tuple(pinyin_ids.shape)}; expected {expected}")
        longest = self.config.max_position_embeddings
        if input_ids.shape[1] > longest:
            raise UserError(
                f"a sequence has {input_ids.shape[1]} pieces; the model takes {longest}: cut it"
            )
        kwargs["inputs_embeds"] = self.embeddings.fuse(input_ids, pinyin_ids)
        return super().forward(**kwargs)


class ChineseBertForTokenClassification(BertForTokenClassification):
    """ChineseBERT with a classifier over each word piece (`config.classifier`: "linear" or "mlp")."""

    config: ChineseBertConfig

    def __init__(self, config: ChineseBertConfig):
        super().__init__(config)
        self.bert = ChineseBertModel(config, add_pooling_layer=False)
        if config.classifier == "mlp":
            hidden = nn.Linear(config.hidden_size, config.hidden_size)
            self.classifier = nn.Sequential(hidden, nn.Tanh(), self.classifier)  # type: ignore[assignment]
        self.post_init()

    def forward(
        self,
        input_ids: Tensor,
        pinyin_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        labels: Tensor | None = None,
        **kwargs: Any,
    ) -> TokenClassifierOutput | tuple[Tensor, ...]:
        """Compute logits as `BertForTokenClassification` does, from `pinyin_ids` (batch, pieces, 8) too.

        Raises:
            UserError: as in `ChineseBertModel.forward`.
        """
        return super().forward(
            input_ids, attention_mask, token_type_ids, position_ids,
            labels=labels, pinyin_ids=pinyin_ids, **kwargs,
        )  # fmt: skip
