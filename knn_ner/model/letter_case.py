"""Lower-casing of a tokeniser: the setting of a training, and a warning where it is a default by accident."""

import json
import logging
import re
import tempfile
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from knn_ner.utils.errors import UserError
from knn_ner.utils.files import read_json
from knn_ner.utils.text import some

logger = logging.getLogger(__name__)

# A text that tells how a tokeniser normalises.
PROBE = "A Á"
# Least share of word pieces with upper case in the vocabulary of a cased encoder.
CASED_SHARE = 0.01


def set_lowercase(source: str, tokenizer: PreTrainedTokenizerBase, lowercase: bool) -> None:
    """Switch the lower-casing of a tokeniser on or off, in place.

    Raises:
        UserError: if a saved copy of the tokeniser would not keep the setting.
    """
    state = json.loads(tokenizer.backend_tokenizer.to_str())
    kept = _normalizers(state["normalizer"])
    bert = [part for part in kept if part["type"] == "BertNormalizer"]
    for part in bert:
        part["lowercase"] = lowercase
    kept = [part for part in kept if part["type"] != "Lowercase"]
    if lowercase and not bert:
        kept.insert(0, {"type": "Lowercase"})
    state["normalizer"] = {"type": "Sequence", "normalizers": kept} if len(kept) != 1 else kept[0]
    tokenizer.backend_tokenizer.normalizer = Tokenizer.from_str(json.dumps(state)).normalizer
    # Classes such as BertTokenizer make their normalizer anew when they are loaded.
    tokenizer.init_kwargs["do_lower_case"] = tokenizer.do_lower_case = lowercase
    with tempfile.TemporaryDirectory() as folder:
        tokenizer.save_pretrained(folder)
        saved = AutoTokenizer.from_pretrained(folder)
    if _normalized(saved) != _normalized(tokenizer):
        raise UserError(
            f"--{'' if lowercase else 'no-'}lowercase: {source}: {type(tokenizer).__name__} cannot save this "
            "setting; leave the flag out"
        )


def warn_of_default(source: str, tokenizer: PreTrainedTokenizerBase) -> None:
    """Warn if a folder with word pieces in upper case does not say whether its tokeniser lower-cases."""
    folder = Path(source)
    config = folder / "tokenizer_config.json"
    said = (folder / "tokenizer.json").is_file() or (
        config.is_file() and "do_lower_case" in read_json(config)
    )
    if said or not (folder / "vocab.txt").is_file() or _normalized(tokenizer)[:1] != "a":
        return
    vocabulary = tokenizer.get_vocab()
    cased = [
        piece for piece in vocabulary if piece != piece.lower() and not re.match(r"[\[<]", piece)
    ]
    if len(cased) > CASED_SHARE * len(vocabulary):
        logger.warning(
            f"{source}: the tokeniser lower-cases text by default, but word pieces such as {some(cased, 3)} have "
            "upper case; --no-lowercase trains without lower-casing, --lowercase with"
        )


def _normalized(tokenizer: PreTrainedTokenizerBase) -> str:
    normalizer = tokenizer.backend_tokenizer.normalizer
    return normalizer.normalize_str(PROBE) if normalizer else PROBE


def _normalizers(normalizer: dict[str, Any] | None) -> list[dict[str, Any]]:
    """A normalizer as the sequence of its parts."""
    if normalizer is None:
        return []
    if normalizer["type"] == "Sequence":
        return [part for inner in normalizer["normalizers"] for part in _normalizers(inner)]
    return [normalizer]
