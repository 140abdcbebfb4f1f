"""A trained tagger: its network, its tokeniser, and its encoding of words as labelled word pieces."""

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm
from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from knn_ner.data.corpus import Corpus, check_labels, other_positions
from knn_ner.data.encoding import EncodedSentence, Encoding, detect_units
from knn_ner.data.tags import SCHEMES, Scheme, scheme_of_labels
from knn_ner.data.word_splitting import detect_word_rule
from knn_ner.datastore.key_transform import PUBLISHED, KeyRecipe
from knn_ner.datastore.manifest import Manifest
from knn_ner.datastore.reader import Datastore
from knn_ner.model.backbone import (
    CONFIG_KEY,
    load_tagger,
    load_tokenizer,
    tagger_labels,
    tokenizer_hash,
    weights_hash,
)
from knn_ner.model.encode import HiddenStates, hidden_states
from knn_ner.model.encoder_probe import probe_encoder
from knn_ner.parallel.process_group import SharedProgress
from knn_ner.settings import RunSettings
from knn_ner.utils.device import choose_device

logger = logging.getLogger(__name__)

# Sentences from which the rule of word splitting is detected.
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
        """Label list; label ids are indices into it."""
        return self.encoding.labels

    @property
    def scheme(self) -> Scheme:
        """Tag scheme of the training corpus; that of the labels if the training did not record it."""
        recorded = _recorded(self.model).get("scheme", "")
        return SCHEMES.get(recorded) or scheme_of_labels(self.labels)

    @cached_property
    def provenance(self) -> dict[str, Any]:
        """Hashes and settings of the tagger that its keys depend on; a datastore refuses any other tagger.

        Layer and transform of the keys belong to the datastore (`Datastore.recipe`).
        """
        return {
            "model": weights_hash(self.model),
            "tokenizer": tokenizer_hash(self.tokenizer),
            "piece_labels": self.encoding.piece_labels,
            "units": self.encoding.units,
        }

    def encoding_with(self, labels: Iterable[str]) -> Encoding:
        """Return the encoding over the tagger's labels and, after them, further labels."""
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
        """Compute hidden states and logits of sentences, batch by batch (see `model.encode.hidden_states`).

        Args:
            sentences: sentences in this tagger's word pieces.
            run: run settings; the window length is the tagger's.
            recipe: layer and transform of keys.
            device: device of the computation; by default that of `run`.
            share: (i, n): this is process i of n and takes every n-th batch.
            progress: bar that advances by the number of word pieces.
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
        """Return the label ids that the tagger alone predicts: (rows,) int64."""
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
    """Load a trained tagger for a corpus, and convert the corpus to the tagger's tag scheme.

    A tagger of other code does not record whether words are joined with spaces: this is detected from the corpus.

    Args:
        model_path: folder or hub name.
        max_length: word pieces in a window; the encoder's limit if that is lower.
        corpus: corpus to tag or store.
        further_labels: labels of the datastore, which the corpus may hold beside the tagger's, with other position
            letters too.
        units: `words`, `characters`, or `auto` for those of the training.

    Raises:
        UserError: if the tagger cannot be loaded or lacks a label of the corpus.
    """
    model = load_tagger(model_path)
    recorded = _recorded(model)
    if units == "auto":
        units = recorded.get("units") or detect_units(next(iter(corpus.splits.values())))
    piece_labels = recorded.get("piece_labels", "published")
    tokenizer = load_tokenizer(model_path)
    encoding = Encoding(tokenizer, tagger_labels(model), piece_labels, units)
    tagger = TrainedTagger(model, tokenizer, encoding, fitting_length(model, tokenizer, max_length))
    corpus.convert_for(tagger.scheme)
    labels = list(dict.fromkeys([*encoding.labels, *further_labels]))
    for split, sentences in corpus.splits.items():
        others = other_positions(sentences, further_labels)
        check_labels(sentences, [*labels, *others], corpus.files[split])
    return tagger


def load_for_datastore(
    model_path: str | Path, max_length: int, datastore_path: str | Path
) -> TrainedTagger:
    """Load the tagger of a datastore; it joins words and labels word pieces as the build did.

    Raises:
        UserError: if the tagger cannot be loaded, there is no datastore, or another tagger built it.
    """
    manifest = Manifest.read(Path(datastore_path))
    tagger = load_alone(model_path, max_length, manifest.provenance)
    manifest.check_provenance(Path(datastore_path), tagger.provenance)
    return tagger


def load_alone(
    model_path: str | Path, max_length: int, provenance: Mapping[str, Any] | None = None
) -> TrainedTagger:
    """Load a tagger without a corpus; it joins words and labels word pieces as its training did.

    Without any record, words are joined with spaces and all word pieces are labelled.

    Args:
        model_path: folder or hub name.
        max_length: word pieces in a window; the encoder's limit if that is lower.
        provenance: provenance of a datastore; it takes precedence over the tagger's own record.

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
    return TrainedTagger(model, tokenizer, encoding, fitting_length(model, tokenizer, max_length))


def open_datastore(path: str | Path, tagger: TrainedTagger) -> Datastore:
    """Open a datastore that this tagger built.

    Raises:
        UserError: if there is none, or another tagger built it.
    """
    store = Datastore.open(path)
    store.check_provenance(tagger.provenance)
    return store


def word_rule(tagger: TrainedTagger, store: Datastore | None = None) -> str:
    """Return the rule of `data.word_splitting` that splits raw text into words for a tagger.

    Training records it with the tagger; without a record it is detected from the datastore's sentences.
    """
    recorded = _recorded(tagger.model)
    if "word_rule" in recorded:
        return recorded["word_rule"]
    units = tagger.encoding.units
    if store is not None and (units == "characters" or len(store.stored_sentences)):
        ids = store.stored_sentences[:RULE_SENTENCES]
        return detect_word_rule((store.sentence(id_)["words"] for id_ in ids), units)
    return "penn" if units == "words" else "characters"


def recorded_scheme(model_path: str | Path) -> Scheme | None:
    """Return the tag scheme that the training of a tagger recorded; None without a record."""
    try:
        config, _ = PretrainedConfig.get_config_dict(str(model_path))
    except OSError:
        return None
    return SCHEMES.get(config.get(CONFIG_KEY, {}).get("scheme", ""))


def fitting_length(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, max_length: int
) -> int:
    """Return `max_length`, or the number of the encoder's positions if that is lower; logs a change.

    A length other than in training is logged too: in an encoder trained from scratch, positions that no
    training sentence reached are random.

    Raises:
        UserError: if the encoder cannot be used (see `probe_encoder`).
    """
    room = probe_encoder(model, tokenizer)
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
    """Return what training recorded in the tagger's configuration; empty for a tagger of other code."""
    return getattr(model.config, CONFIG_KEY, None) or {}
