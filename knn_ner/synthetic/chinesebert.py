"""A small ChineseBERT with random weights and random glyphs, in the layout of the published checkpoints."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch

from ChineseBert import ChineseBertConfig, ChineseBertModel
from ChineseBert.pinyin import PINYIN_LENGTH, TABLE_FOLDER
from knn_ner.synthetic.bert import make_folder, weight_seed
from knn_ner.synthetic.size import DEFAULT_SIZE, EncoderStatistics, Size
from knn_ner.synthetic.vocabulary import Vocabulary, character_vocabulary
from knn_ner.utils.files import write_json, write_text

FONTS = ("STFangsong.TTF.24.npy", "STXINGKA.TTF.24.npy", "方正古隶繁体.ttf.24.npy")
GLYPH_PIXELS = 24  # on each side
PINYIN_CHARACTERS = "_abcdefghijklmnopqrstuvwxyz12345"


def write_chinesebert_encoder(
    out: str | Path, characters: Iterable[str], size: Size = DEFAULT_SIZE, *, seed: int = 0
) -> EncoderStatistics:
    """Write a ChineseBERT with random weights.

    Args:
        out: the folder to write.
        characters: the characters of its vocabulary.
        size: the size of the encoder.
        seed: random seed of weights and glyphs.

    Raises:
        UserError: if the folder cannot be written.
    """
    vocabulary = character_vocabulary(characters, lowercase=True)
    config = {
        "vocab_size": len(vocabulary),
        "max_position_embeddings": size.max_position_embeddings,
        **size.config(),
    }
    # The published file names BERT as its type and has settings that transformers does not use any more.
    published = {
        "model_type": "bert",
        "architectures": ["BertForMaskedLM"],
        "directionality": "bidi",
        "gradient_checkpointing": False,
    }
    tables = make_folder(Path(out, TABLE_FOLDER))
    write_text(Path(out, "vocab.txt"), "".join(f"{piece}\n" for piece in vocabulary))
    _write_pinyin_tables(tables, vocabulary)
    glyphs = np.random.default_rng(seed).integers(
        0, 256, size=(len(FONTS), len(vocabulary), GLYPH_PIXELS, GLYPH_PIXELS), dtype=np.uint8
    )
    for name, font in zip(FONTS, glyphs, strict=True):
        np.save(tables / name, font)
    weights = _random_weights(ChineseBertConfig(**config), glyphs, seed)
    torch.save(weights, Path(out, "pytorch_model.bin"))
    # The last file, because a folder without it is not taken for an encoder.
    write_json(Path(out, "config.json"), published | config)
    return EncoderStatistics(len(vocabulary), sum(weight.numel() for weight in weights.values()))


def _random_weights(
    config: ChineseBertConfig, glyphs: np.ndarray, seed: int
) -> dict[str, torch.Tensor]:
    """The weights by their published names; the glyphs (3, V, 24, 24) are among them."""
    with weight_seed(seed):
        encoder = ChineseBertModel(config)
    weights = {f"bert.{name}": value for name, value in encoder.state_dict().items()}
    # Published weights are the pixels from 0 to 255. Random weights need a high learning rate, with which one step
    # of such large inputs would hide characters and pinyin; here pixels are from -1 to 1.
    pixels = torch.from_numpy(glyphs).transpose(0, 1).flatten(1).float() / 127.5 - 1
    weights["bert.embeddings.glyph_embeddings.embedding.weight"] = pixels
    weights["bert.embeddings.glyph_map.weight"] /= pixels.shape[1] ** 0.5
    # Remains of pretraining, which no tagger reads.
    weights["bert.embeddings.position_ids"] = torch.arange(config.max_position_embeddings)[None]
    weights["cls.predictions.bias"] = torch.zeros(config.vocab_size)
    return weights


def _write_pinyin_tables(folder: Path, vocabulary: Vocabulary) -> None:
    # Imported here because its dictionaries are large, and other encoders do not need them.
    from pypinyin import Style, pinyin

    character_ids = {character: index for index, character in enumerate(PINYIN_CHARACTERS)}
    reading_to_ids, id_to_readings = {}, {}
    for piece, index in vocabulary.items():
        if len(piece) > 1:
            continue
        (readings,) = pinyin(piece, style=Style.TONE3, heteronym=True, errors=lambda _: "_")
        id_to_readings[str(index)] = readings
        for reading in readings:
            if set(reading) <= set(PINYIN_CHARACTERS[1:]):
                ids = [character_ids[character] for character in reading]
                reading_to_ids[reading] = ids + [0] * (PINYIN_LENGTH - len(ids))
    id_to_character = {str(index): character for character, index in character_ids.items()}
    write_json(folder / "pinyin_map.json", {"idx2char": id_to_character, "char2idx": character_ids})
    write_json(folder / "pinyin2tensor.json", reading_to_ids)
    write_json(folder / "id2pinyin.json", id_to_readings)
