"""A trained tagger: its network, its tokeniser, and the one way in which it turns words into labelled pieces."""

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from knn_ner.data.corpus import Corpus, check_labels
from knn_ner.data.encoding import EncodedSentence, Encoding, detect_units
from knn_ner.data.word_splitting import detect_word_rule
from knn_ner.datastore.key_transform import PUBLISHED, KeyRecipe
from knn_ner.datastore.manifest import Manifest
from knn_ner.datastore.reader import Datastore
from knn_ner.model.backbone import (
    CONFIG_KEY,
    load_tagger,
    load_tokenizer,
    longest_input,
    tagger_labels,
    tokenizer_hash,
    weights_hash,
)
from knn_ner.model.encode import HiddenStates, hidden_states
from knn_ner.parallel.process_group import SharedProgress
from knn_ner.settings import RunSettings
from knn_ner.utils.device import choose_device

logger = logging.getLogger(__name__)

# Sentences that are read to find the rule by which a corpus was split into words.
RULE_SENTENCES = 2000


@dataclass
class TrainedTagger:
    """A tagger with its tokeniser and encoding."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    encoding: Encoding
    max_length: int
    """Word pieces in a window, special tokens included."""

    @property
    def labels(self) -> list[str]:
        """The label list, by index."""
        return self.encoding.labels

    @cached_property
    def provenance(self) -> dict[str, Any]:
        """What of the tagger the keys depend on; a datastore is read with nothing else. Hashed once.

        Layer and transform belong to the store (`Datastore.recipe`).
        """
        return {
            "model": weights_hash(self.model),
            "tokenizer": tokenizer_hash(self.tokenizer),
            "piece_labels": self.encoding.piece_labels,
            "units": self.encoding.units,
        }

    def encoding_with(self, labels: Iterable[str]) -> Encoding:
        """The encoding over the tagger's labels followed by those of `labels` that it lacks."""
        return self.encoding.over(list(dict.fromkeys([*self.labels, *labels])))

    def hidden_states(
        self,
        sentences: Sequence[EncodedSentence],
        run: RunSettings,
        recipe: KeyRecipe = PUBLISHED,
        *,
        device: torch.device | None = None,
        share: tuple[int, int] = (0, 1),
        progress: tqdm | SharedProgress | None = None,
    ) -> Iterator[HiddenStates]:
        """Hidden states and logits of sentences, batch by batch (see `model.encode.hidden_states`).

        Args:
            sentences: the sentences in this tagger's word pieces.
            run: how the encoder runs; the window length is the tagger's.
            recipe: what keys are made of.
            device: where to compute, if not where `run` says.
            share: (i, n): this is process i of n, and takes every n-th batch.
            progress: a bar that advances by the number of pieces.
        """
        return hidden_states(
            self.model,
            sentences,
            pad_id=self.tokenizer.pad_token_id,
            max_length=self.max_length,
            batch_size=run.batch_size,
            device=device or choose_device(run.device),
            precision=run.precision,
            workers=run.workers,
            recipe=recipe,
            share=share,
            progress=progress,
        )

    def predict(self, sentences: Sequence[EncodedSentence], run: RunSettings) -> np.ndarray:
        """The label id that the tagger alone gives each row: (rows,) int64."""
        predicted = np.zeros(sum(len(sentence) for sentence in sentences), dtype=np.int64)
        for batch in self.hidden_states(sentences, run):
            predicted[batch.rows.numpy()] = batch.logits.argmax(-1).cpu().numpy()
        return predicted


def load(
    model_path: str | Path,
    max_length: int,
    corpus: Corpus,
    further_labels: Sequence[str] = (),
    units: str = "auto",
) -> TrainedTagger:
    """Load a trained tagger for a corpus, all of whose labels it has.

    For a tagger that was not trained here, the corpus tells whether tokens are joined with spaces.

    Args:
        model_path: a folder or a hub name.
        max_length: word pieces in a window; the encoder's own limit if that is lower.
        corpus: the corpus to tag or store.
        further_labels: labels that the corpus may hold beside the tagger's: those of the datastore.
        units: `words`, `characters`, or `auto` for those of the training.

    Raises:
        UserError: if the tagger cannot be loaded, or lacks a label of the corpus.
    """
    model = load_tagger(model_path)
    recorded = _recorded(model)
    if units == "auto":
        units = recorded.get("units") or detect_units(next(iter(corpus.splits.values())))
    piece_labels = recorded.get("piece_labels", "published")
    tokenizer = load_tokenizer(model_path)
    encoding = Encoding(tokenizer, tagger_labels(model), piece_labels, units)
    labels = list(dict.fromkeys([*encoding.labels, *further_labels]))
    for split, sentences in corpus.splits.items():
        check_labels(sentences, labels, corpus.files[split])
    return TrainedTagger(model, tokenizer, encoding, fitting_length(model, max_length))


def load_for_datastore(
    model_path: str | Path, max_length: int, datastore_path: str | Path
) -> TrainedTagger:
    """Load the tagger of a datastore, with words joined and pieces labelled as for its keys.

    Raises:
        UserError: if the tagger cannot be loaded, there is no datastore, or another tagger made it.
    """
    manifest = Manifest.read(Path(datastore_path))
    tagger = load_alone(model_path, max_length, manifest.provenance)
    manifest.check_provenance(Path(datastore_path), tagger.provenance)
    return tagger


def load_alone(
    model_path: str | Path, max_length: int, provenance: Mapping[str, Any] | None = None
) -> TrainedTagger:
    """Load a tagger without a corpus; it joins words and labels pieces as in its own training.

    Args:
        model_path: a folder or a hub name.
        max_length: word pieces in a window; the encoder's own limit if that is lower.
        provenance: what a datastore records of joining and labelling, which has precedence. Where nothing is
            recorded, words are joined with spaces and all pieces are labelled.

    Raises:
        UserError: if the tagger cannot be loaded.
    """
    model = load_tagger(model_path)
    tokenizer = load_tokenizer(model_path)
    recorded = _recorded(model) | dict(provenance or {})
    encoding = Encoding(
        tokenizer,
        tagger_labels(model),
        recorded.get("piece_labels", "published"),
        recorded.get("units", "words"),
    )
    return TrainedTagger(model, tokenizer, encoding, fitting_length(model, max_length))


def open_datastore(path: str | Path, tagger: TrainedTagger) -> Datastore:
    """Open a datastore that this tagger made.

    Raises:
        UserError: if there is none, or another tagger made it.
    """
    store = Datastore.open(path)
    store.check_provenance(tagger.provenance)
    return store


def word_rule(tagger: TrainedTagger, store: Datastore | None = None) -> str:
    """The rule of `data.word_splitting` by which raw text is split into words for a tagger.

    Training records it with the tagger; failing that, the sentences of the datastore tell it.
    """
    recorded = _recorded(tagger.model)
    if "word_rule" in recorded:
        return recorded["word_rule"]
    ids = store.stored_sentences[:RULE_SENTENCES] if store else []
    if store is None or (tagger.encoding.units == "words" and not len(ids)):
        return "penn" if tagger.encoding.units == "words" else "characters"
    return detect_word_rule((store.sentence(id_)["words"] for id_ in ids), tagger.encoding.units)


def fitting_length(model: PreTrainedModel, max_length: int) -> int:
    """`max_length`, or the number of positions that the encoder has if that is lower; reports a change.

    Another length than in training is reported too: in an encoder that was trained from nothing, positions
    that training never reached are random.
    """
    room = longest_input(model)
    if max_length > room:
        logger.info(f"--max_length {max_length}: the encoder has {room} positions, {room} are used")
    length = min(max_length, room)
    trained = _recorded(model).get("max_length", length)
    if trained != length:
        logger.warning(
            f"--max_length {length}, but the tagger was trained with --max_length {trained}"
        )
    return length


def _recorded(model: PreTrainedModel) -> dict[str, Any]:
    """What training recorded in the tagger's configuration; empty for a tagger of other code."""
    return getattr(model.config, CONFIG_KEY, None) or {}
