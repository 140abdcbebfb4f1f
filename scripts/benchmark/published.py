"""The published inference (arXiv 2203.17103, its released code), as the baseline of the measurements.

It compares every token with every stored token: sentences in batches of 2, padded, special tokens included;
one matrix of all scores, the top k of each row, and their weights scattered over the labels.
"""

from collections.abc import Sequence

import numpy as np
import torch

from knn_ner.data.encoding import EncodedSentence
from knn_ner.datastore.reader import Datastore
from knn_ner.settings import RunSettings, VoteSettings
from knn_ner.tagging.trained_tagger import TrainedTagger

BATCH_SIZE = 2


class PublishedInference:
    """The published inference, with all keys in memory as float32.

    Args:
        tagger: the tagger.
        store: its datastore.
        device: where to compute.
    """

    def __init__(self, tagger: TrainedTagger, store: Datastore, device: torch.device):
        self.tagger, self.device = tagger, device
        keys = torch.from_numpy(store.rows(0, store.entries).astype(np.float32)).to(device)
        self.keys = keys / keys.norm(dim=1, keepdim=True)
        self.labels = torch.from_numpy(store.label_ids.astype(np.int64)).to(device)
        self.num_labels = len(store.labels)

    def tag(self, sentences: Sequence[EncodedSentence], vote: VoteSettings) -> np.ndarray:
        """Tag sentences.

        Returns:
            (R,) int64, the label id of each word piece, special tokens included.
        """
        tags = np.zeros(sum(map(len, sentences)), np.int64)
        run = RunSettings(batch_size=BATCH_SIZE)
        for batch in self.tagger.hidden_states(sentences, run, device=self.device):
            hidden, base = batch.hidden, batch.logits.softmax(dim=1)
            scores = hidden / hidden.norm(dim=1, keepdim=True) @ self.keys.T  # (n, entries)
            labels = self.labels.expand(len(scores), -1)
            if vote.k != -1:
                scores, nearest = scores.topk(min(vote.k, len(self.keys)), dim=1)
                labels = self.labels[nearest]
            weights = (scores / vote.temperature).softmax(dim=1)
            votes = base.new_zeros(len(scores), self.num_labels).scatter_add_(1, labels, weights)
            mixed = vote.knn_weight * votes + (1 - vote.knn_weight) * base
            tags[batch.rows.numpy()] = mixed.argmax(dim=1).cpu().numpy()
        return tags
