"""Tokeniser of ChineseBERT: BERT's word pieces in lower case, with a row of pinyin ids for each."""

from collections.abc import Sequence
from itertools import zip_longest
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Encoding
from transformers import BatchEncoding, BertTokenizer

from ChineseBert.pinyin import (
    PINYIN_LENGTH,
    PINYIN_MAP,
    PINYIN_TO_TENSOR,
    TABLE_FOLDER,
    PinyinTable,
)
from knn_ner.utils.errors import UserError


class ChineseBertTokenizer(BertTokenizer):
    """`BertTokenizer` whose encodings also hold `pinyin_ids`, 8 ids for each word piece.

    Args:
        vocab: as for `BertTokenizer`.
        pinyin_map_file: table of the checkpoint; `from_pretrained` finds it in the folder `config/`.
        pinyin2tensor_file: table of the checkpoint, found in the same way.
        kwargs: further arguments of `BertTokenizer`.

    Raises:
        UserError: if a table is missing or broken.
    """

    vocab_files_names = BertTokenizer.vocab_files_names | {
        "pinyin_map_file": f"{TABLE_FOLDER}/{PINYIN_MAP}",
        "pinyin2tensor_file": f"{TABLE_FOLDER}/{PINYIN_TO_TENSOR}",
    }
    model_input_names = [*BertTokenizer.model_input_names, "pinyin_ids"]  # noqa: RUF012

    def __init__(
        self,
        vocab: str | dict[str, int] | None = None,
        pinyin_map_file: str | None = None,
        pinyin2tensor_file: str | None = None,
        **kwargs: Any,
    ):
        if pinyin_map_file is None or pinyin2tensor_file is None:
            raise UserError(
                f"ChineseBERT's tokeniser needs {TABLE_FOLDER}/{PINYIN_MAP} and "
                f"{TABLE_FOLDER}/{PINYIN_TO_TENSOR}; take them from the published checkpoint"
            )
        self.pinyin = PinyinTable.read(pinyin_map_file, pinyin2tensor_file)
        super().__init__(vocab=vocab, **kwargs)

    def __call__(
        self,
        text: str | Sequence[Any],
        text_pair: str | Sequence[Any] | None = None,
        *,
        is_split_into_words: bool = False,
        return_tensors: str | None = None,
        **kwargs: Any,
    ) -> BatchEncoding:
        """Encode sentences as `BertTokenizer` does, with `pinyin_ids` (pieces, 8) beside `input_ids`.

        Split words are joined without spaces before their readings are looked up.

        Raises:
            UserError: for a batch of tuples; the second sentences belong into `text_pair`.
        """
        single = isinstance(text, str) or (
            is_split_into_words and all(isinstance(word, str) for word in text)
        )
        if not single and not is_split_into_words and not all(isinstance(t, str) for t in text):
            raise UserError(
                "a batch must be a list of sentences; pass the second ones as text_pair"
            )
        encoded = super().__call__(
            text, text_pair, is_split_into_words=is_split_into_words, **kwargs
        )
        pairs = [(text, text_pair)] if single else list(zip_longest(text, text_pair or []))
        samples = encoded.get("overflow_to_sample_mapping", range(len(pairs)))
        rows = [
            self._pinyin_ids(encoding, pairs[sample])
            for sample, encoding in zip(samples, encoded.encodings, strict=True)
        ]
        batched = not single or "overflow_to_sample_mapping" in encoded
        encoded["pinyin_ids"] = rows if batched else rows[0]
        return encoded.convert_to_tensors(return_tensors, prepend_batch_axis=not batched)

    def _pinyin_ids(
        self, encoding: Encoding, parts: tuple[str | Sequence[str] | None, ...]
    ) -> list[list[int]]:
        """Pinyin ids of an encoded sentence or pair, (pieces, 8), special tokens and padding included."""
        rows = np.zeros((len(encoding), PINYIN_LENGTH), dtype=np.int64)
        sequence_ids, word_ids = encoding.sequence_ids, encoding.word_ids
        all_offsets = np.array(encoding.offsets, dtype=np.int64).reshape(-1, 2)
        for sequence, part in enumerate(parts):
            pieces = [i for i, number in enumerate(sequence_ids) if number == sequence]
            offsets = all_offsets[pieces]
            if part and not isinstance(part, str):
                # Offsets of split words count from the start of their own word.
                word_starts = np.cumsum([0, *map(len, part)])
                offsets += word_starts[[word_ids[i] or 0 for i in pieces]][:, None]
            rows[pieces] = self.piece_features("".join(part or ()), offsets)["pinyin_ids"]
        return rows.tolist()

    def piece_features(
        self, text: str, offsets: np.ndarray | Sequence[tuple[int, int]]
    ) -> dict[str, np.ndarray]:
        """Return the model's inputs for word pieces, beside their ids.

        Args:
            text: the whole sentence.
            offsets: (pieces, 2): the first character of each piece, and one past its last, in code points.

        Returns:
            `pinyin_ids`, (pieces, 8) int64: the reading of a piece of one character; zeros for other pieces.
        """
        starts, ends = np.asarray(offsets, dtype=np.int64).reshape(-1, 2).T
        one_character = ends - starts == 1
        pinyin_ids = np.zeros((len(starts), PINYIN_LENGTH), dtype=np.int64)
        pinyin_ids[one_character] = self.pinyin.rows(text)[starts[one_character]]
        return {"pinyin_ids": pinyin_ids}

    def _pad(self, encoded_inputs: Any, *args: Any, **kwargs: Any) -> Any:
        encoded = super()._pad(encoded_inputs, *args, **kwargs)
        if "pinyin_ids" in encoded:
            rows = encoded["pinyin_ids"]
            zeros = [[0] * PINYIN_LENGTH] * (len(encoded["input_ids"]) - len(rows))
            left = (kwargs.get("padding_side") or self.padding_side) == "left"
            encoded["pinyin_ids"] = zeros + rows if left else rows + zeros
        return encoded

    def _save_pretrained(self, save_directory: str | PathLike, *args: Any, **kwargs: Any) -> Any:
        # The pinyin tables are saved too, so that the folder is complete.
        files = super()._save_pretrained(save_directory, *args, **kwargs)
        return (*files, *self.pinyin.write(Path(save_directory) / TABLE_FOLDER))
