"""A small ChineseBERT with random weights and random glyphs, in the layout of the published checkpoints."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch

from ChineseBert import ChineseBertConfig, ChineseBertModel
from ChineseBert.pinyin import PINYIN_LENGTH, TABLE_FOLDER
from knn_ner.synthetic.size import EncoderStatistics, Size
from knn_ner.synthetic.vocabulary import Vocabulary, character_vocabulary
from knn_ner.utils.errors import UserError
from knn_ner.utils.files import write_json, write_text

FONTS = ("STFangsong.TTF.24.npy", "STXINGKA.TTF.24.npy", "方正古隶繁体.ttf.24.npy")
GLYPH = 24  # pixels a side
LETTERS = "_abcdefghijklmnopqrstuvwxyz12345"


def write_chinesebert_encoder(
    out: str | Path, characters: Iterable[str], *, seed: int = 0, **size: int
) -> EncoderStatistics:
    """Write a ChineseBERT with random weights whose vocabulary covers the characters.

    size: `hidden_size`, `layers`, `heads`, `max_position_embeddings`; see `Size`.

    Raises `UserError` when heads do not divide the hidden size or the folder cannot be written.
    """
    chosen = Size(**size)
    folder = Path(out)
    vocabulary = character_vocabulary(characters, lowercase=True)
    config = {
        "vocab_size": len(vocabulary),
        "max_position_embeddings": chosen.max_position_embeddings,
        **chosen.settings(),
    }
    # The published file calls itself a BERT and carries settings that transformers no longer knows.
    published = {
        "model_type": "bert",
        "architectures": ["BertForMaskedLM"],
        "directionality": "bidi",
        "gradient_checkpointing": False,
    }
    write_text(folder / "vocab.txt", "".join(f"{piece}\n" for piece in vocabulary))
    _write_pinyin_tables(folder / TABLE_FOLDER, vocabulary)
    glyphs = np.random.default_rng(seed).integers(
        0, 256, size=(len(FONTS), len(vocabulary), GLYPH, GLYPH), dtype=np.uint8
    )
    try:
        for name, font in zip(FONTS, glyphs, strict=True):
            np.save(folder / TABLE_FOLDER / name, font)
        weights = _random_weights(ChineseBertConfig(**config), glyphs, seed)
        torch.save(weights, folder / "pytorch_model.bin")
    except OSError as error:
        raise UserError(f"{folder}: cannot write an encoder there: {error.strerror}") from None
    # Last, so that a folder that is not whole is no encoder.
    write_json(folder / "config.json", published | config)
    return EncoderStatistics(len(vocabulary), sum(weight.numel() for weight in weights.values()))


def _random_weights(
    config: ChineseBertConfig, glyphs: np.ndarray, seed: int
) -> dict[str, torch.Tensor]:
    """The weights by their published names; glyphs (3, V, 24, 24) are among them."""
    # Only the CPU's generator is seeded, and put back: the caller's random numbers go on undisturbed.
    with torch.random.fork_rng(devices=[]), torch.device("cpu"):
        torch.random.default_generator.manual_seed(seed)
        encoder = ChineseBertModel(config)
    weights = {f"bert.{name}": value for name, value in encoder.state_dict().items()}
    # Published weights are the pixels as they are, up to 255. At the learning rate that random weights
    # need, one step of those would drown characters and readings: here they are from -1 to 1.
    pixels = torch.from_numpy(glyphs).transpose(0, 1).flatten(1).float() / 127.5 - 1
    weights["bert.embeddings.glyph_embeddings.embedding.weight"] = pixels
    weights["bert.embeddings.glyph_map.weight"] /= pixels.shape[1] ** 0.5
    # What pretraining leaves behind, and no tagger reads.
    weights["bert.embeddings.position_ids"] = torch.arange(config.max_position_embeddings)[None]
    weights["cls.predictions.bias"] = torch.zeros(config.vocab_size)
    return weights


def _write_pinyin_tables(folder: Path, vocabulary: Vocabulary) -> None:
    # Imported here as its dictionaries are large, and other encoders do without.
    from pypinyin import Style, pinyin

    char_to_id = {letter: index for index, letter in enumerate(LETTERS)}
    reading_to_ids, id_to_readings = {}, {}
    for piece, index in vocabulary.items():
        if len(piece) > 1:
            continue
        (readings,) = pinyin(piece, style=Style.TONE3, heteronym=True, errors=lambda _: [["_"]])
        id_to_readings[str(index)] = readings
        for reading in readings:
            if set(reading) <= set(LETTERS[1:]):
                ids = [char_to_id[letter] for letter in reading]
                reading_to_ids[reading] = ids + [0] * (PINYIN_LENGTH - len(ids))
    id_to_char = {str(index): letter for letter, index in char_to_id.items()}
    tables = {"idx2char": id_to_char, "char2idx": char_to_id}
    write_json(folder / "pinyin_map.json", tables)
    write_json(folder / "pinyin2tensor.json", reading_to_ids)
    write_json(folder / "id2pinyin.json", id_to_readings)
