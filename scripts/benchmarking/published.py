"""The published inference (arXiv 2203.17103, its released code), as a measure of what is saved.

Every token is compared with every stored one: sentences in batches of 2, padded, special tokens too;
one matrix of all scores, the top k of each row, and their weights scattered over the labels.
"""

from collections.abc import Sequence

import numpy as np
import torch

from knn_ner.data.encoding import EncodedSentence
from knn_ner.model.representations import represent
from knn_ner.pipeline import LoadedTagger
from knn_ner.retrieval.datastore import Datastore
from knn_ner.retrieval.interpolation import KnnSettings

BATCH_SIZE = 2


class PublishedInference:
    """Args: tagger; its datastore, whose keys are loaded whole, in float32; k = -1 for all."""

    def __init__(self, tagger: LoadedTagger, store: Datastore):
        self.tagger = tagger
        keys = torch.from_numpy(store.rows(0, store.entries).astype(np.float32))
        self.keys = keys / keys.norm(dim=1, keepdim=True)
        self.labels = torch.from_numpy(store.label_ids.astype(np.int64))
        self.num_labels = len(store.labels)

    def tag(
        self, sentences: Sequence[EncodedSentence], settings: KnnSettings, device: torch.device
    ) -> np.ndarray:
        """The label id of each row of the sentences, special tokens included."""
        tags = np.zeros(sum(map(len, sentences)), np.int64)
        for batch in represent(
            self.tagger.model,
            sentences,
            pad_id=self.tagger.tokenizer.pad_token_id,
            max_length=self.tagger.max_length,
            batch_size=BATCH_SIZE,
            device=device,
        ):
            hidden = batch.hidden
            scores = hidden / hidden.norm(dim=1, keepdim=True) @ self.keys.T
            labels = self.labels.expand(len(scores), -1)
            if settings.k != -1:
                scores, nearest = scores.topk(min(settings.k, len(self.keys)), dim=1)
                labels = self.labels[nearest]
            weights = (scores / settings.temperature).softmax(dim=1)
            votes = torch.zeros(len(scores), self.num_labels).scatter_add_(1, labels, weights)
            mixed = settings.knn_weight * votes + (1 - settings.knn_weight) * batch.logits.softmax(
                dim=1
            )
            tags[batch.rows.numpy()] = mixed.argmax(dim=1).numpy()
        return tags
