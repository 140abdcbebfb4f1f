"""The ChineseBERT encoder and its token-classification head.

Only the embeddings are ChineseBERT's own (arXiv 2106.16038, section 3); attention, masks and layers are
those of `transformers.BertModel`. Parameter names are the published checkpoint's.
"""

from typing import Any

import torch
from torch import Tensor, nn
from transformers import BertModel, BertPreTrainedModel
from transformers.modeling_outputs import (
    BaseModelOutputWithPoolingAndCrossAttentions,
    TokenClassifierOutput,
)
from transformers.models.bert.modeling_bert import BertEmbeddings
from transformers.utils import can_return_tuple

from ChineseBert.configuration import ChineseBertConfig
from ChineseBert.pinyin import PINYIN_LENGTH
from knn_ner.utils.errors import UserError


class PinyinEmbeddings(nn.Module):
    """A piece's reading as one vector: letters embedded, convolved in pairs, the maximum over the places."""

    def __init__(self, config: ChineseBertConfig):
        super().__init__()
        self.embedding = nn.Embedding(config.pinyin_vocab_size, config.pinyin_embedding_size)
        self.conv = nn.Conv1d(config.pinyin_embedding_size, config.hidden_size, kernel_size=2)

    def forward(self, pinyin_ids: Tensor) -> Tensor:
        """(batch, pieces, 8) -> (batch, pieces, hidden)."""
        letters = self.embedding(pinyin_ids).flatten(0, 1)  # (batch * pieces, 8, embedding)
        pairs = self.conv(letters.transpose(1, 2))  # (batch * pieces, hidden, 7)
        return pairs.amax(dim=-1).unflatten(0, pinyin_ids.shape[:2])


class GlyphEmbeddings(nn.Module):
    """The images of a piece in three fonts, flattened; the pixels are weights and can be trained."""

    def __init__(self, config: ChineseBertConfig):
        super().__init__()
        self.embedding = nn.Embedding(config.vocab_size, config.glyph_embedding_size)

    def forward(self, input_ids: Tensor) -> Tensor:
        """(batch, pieces) -> (batch, pieces, 1728)."""
        return self.embedding(input_ids)


class ChineseBertEmbeddings(BertEmbeddings):
    """BERT's embeddings, whose word vectors are a fusion of character, pinyin and glyph."""

    def __init__(self, config: ChineseBertConfig):
        super().__init__(config)
        self.pinyin_embeddings = PinyinEmbeddings(config)
        self.glyph_embeddings = GlyphEmbeddings(config)
        self.glyph_map = nn.Linear(config.glyph_embedding_size, config.hidden_size)
        self.map_fc = nn.Linear(3 * config.hidden_size, config.hidden_size)

    def fuse(self, input_ids: Tensor, pinyin_ids: Tensor) -> Tensor:
        """The fusion layer: (batch, pieces) and (batch, pieces, 8) -> (batch, pieces, hidden)."""
        views = [
            self.word_embeddings(input_ids),
            self.pinyin_embeddings(pinyin_ids),
            self.glyph_map(self.glyph_embeddings(input_ids)),
        ]
        return self.map_fc(torch.cat(views, dim=-1))


class ChineseBertModel(BertModel):
    """ChineseBERT without a head."""

    config: ChineseBertConfig

    def __init__(self, config: ChineseBertConfig, add_pooling_layer: bool = True):
        super().__init__(config, add_pooling_layer=add_pooling_layer)
        self.embeddings = ChineseBertEmbeddings(config)
        self.post_init()

    def forward(
        self,
        input_ids: Tensor,
        pinyin_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        **kwargs: Any,
    ) -> BaseModelOutputWithPoolingAndCrossAttentions | tuple[Tensor, ...]:
        """Encode a batch; arguments and result are those of `BertModel`, and `pinyin_ids`.

        input_ids: (batch, pieces). pinyin_ids: (batch, pieces, 8), zeros where a piece has no reading.
        `last_hidden_state` is (batch, pieces, hidden).

        Raises `UserError` when the pinyin ids are missing or misshapen, or a row has too many pieces.
        """
        self._check(input_ids, pinyin_ids)
        return super().forward(
            inputs_embeds=self.embeddings.fuse(input_ids, pinyin_ids),
            attention_mask=attention_mask,
            token_type_ids=token_type_ids,
            position_ids=position_ids,
            **kwargs,
        )

    def _check(self, input_ids: Tensor, pinyin_ids: Tensor | None) -> None:
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


class ChineseBertForTokenClassification(BertPreTrainedModel):
    """ChineseBERT with a classifier over each piece (`config.classifier`: "linear" or "mlp")."""

    config: ChineseBertConfig

    def __init__(self, config: ChineseBertConfig):
        super().__init__(config)
        self.num_labels = config.num_labels
        self.bert = ChineseBertModel(config, add_pooling_layer=False)
        dropout = config.classifier_dropout
        self.dropout = nn.Dropout(config.hidden_dropout_prob if dropout is None else dropout)
        self.classifier = nn.Linear(config.hidden_size, config.num_labels)
        if config.classifier == "mlp":
            hidden = nn.Linear(config.hidden_size, config.hidden_size)
            self.classifier = nn.Sequential(hidden, nn.Tanh(), self.classifier)
        self.post_init()

    @can_return_tuple
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
        """Score every label for every piece.

        input_ids, labels: (batch, pieces); a label of -100 does not count in the loss.
        pinyin_ids: (batch, pieces, 8). `logits` is (batch, pieces, labels). With
        `output_hidden_states=True`, `hidden_states[-1]` is the last hidden state.

        Raises `UserError` as `ChineseBertModel.forward` does.
        """
        outputs = self.bert(
            input_ids,
            pinyin_ids=pinyin_ids,
            attention_mask=attention_mask,
            token_type_ids=token_type_ids,
            position_ids=position_ids,
            return_dict=True,
            **kwargs,
        )
        logits = self.classifier(self.dropout(outputs.last_hidden_state))
        loss = None
        if labels is not None:
            loss = nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten())
        return TokenClassifierOutput(
            loss=loss,
            logits=logits,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
        )
