"""A tiny random ChineseBERT in the published layout, made on the fly."""

import json
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from pypinyin import Style, pinyin

from ChineseBert import ChineseBertConfig, ChineseBertModel

SPECIAL_TOKENS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
FONTS = ["STFangsong.TTF.24.npy", "STXINGKA.TTF.24.npy", "方正古隶繁体.ttf.24.npy"]
LETTERS = "_abcdefghijklmnopqrstuvwxyz12345"


def make_chinesebert_folder(
    path: str | Path,
    characters: Iterable[str],
    hidden_size: int = 32,
    layers: int = 2,
    seed: int = 0,
) -> Path:
    """Write a ChineseBERT folder whose vocabulary covers `characters`, and return its path.

    Letters and digits also get a `##` piece, so that words of them are covered. `hidden_size` is a
    multiple of 4, the number of attention heads. Weights depend on `seed` and on the vocabulary's size.
    """
    folder = Path(path)
    (folder / "config").mkdir(parents=True, exist_ok=True)
    covered = sorted({c for text in characters for c in text.lower() if not c.isspace()})
    continued = [f"##{c}" for c in covered if c.isascii() and c.isalnum()]
    vocabulary = [*SPECIAL_TOKENS, *covered, *continued]
    (folder / "vocab.txt").write_text("\n".join(vocabulary) + "\n", encoding="utf-8")

    sizes = {
        "vocab_size": len(vocabulary),
        "hidden_size": hidden_size,
        "num_hidden_layers": layers,
        "num_attention_heads": 4,
        "intermediate_size": 4 * hidden_size,
        "max_position_embeddings": 512,
    }
    # The published file calls itself a BERT and carries settings that transformers no longer knows.
    published = {
        "model_type": "bert",
        "architectures": ["BertForMaskedLM"],
        "directionality": "bidi",
    }
    _write_json(folder / "config.json", {**published, "gradient_checkpointing": False, **sizes})
    _write_tables(folder / "config", covered)

    images = np.random.default_rng(seed).integers(
        0, 256, size=(len(FONTS), len(vocabulary), 24, 24), dtype=np.uint8
    )
    for name, font in zip(FONTS, images, strict=True):
        np.save(folder / "config" / name, font)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        encoder = ChineseBertModel(ChineseBertConfig(**sizes))
    weights = {f"bert.{name}": value for name, value in encoder.state_dict().items()}
    glyphs = torch.from_numpy(images).transpose(0, 1).flatten(1).float()
    weights["bert.embeddings.glyph_embeddings.embedding.weight"] = glyphs
    # Pixels go up to 255: with weights of the usual size they would drown characters and readings.
    weights["bert.embeddings.glyph_map.weight"] /= 255 * 24
    # What pretraining leaves behind, and no tagger reads.
    weights["bert.embeddings.position_ids"] = torch.arange(512).unsqueeze(0)
    weights["cls.predictions.bias"] = torch.zeros(len(vocabulary))
    torch.save(weights, folder / "pytorch_model.bin")
    return folder


def _write_tables(folder: Path, characters: list[str]) -> None:
    char_to_id = {letter: index for index, letter in enumerate(LETTERS)}
    id_to_char = {str(index): letter for letter, index in char_to_id.items()}
    _write_json(folder / "pinyin_map.json", {"idx2char": id_to_char, "char2idx": char_to_id})
    reading_to_ids, id_to_reading = {}, {}
    for index, character in enumerate(characters, start=len(SPECIAL_TOKENS)):
        (readings,) = pinyin(character, style=Style.TONE3, heteronym=True, errors=lambda _: [["_"]])
        id_to_reading[str(index)] = readings
        for reading in readings:
            if set(reading) <= set(LETTERS[1:]):
                ids = [char_to_id[letter] for letter in reading]
                reading_to_ids[reading] = ids + [0] * (8 - len(ids))
    _write_json(folder / "pinyin2tensor.json", reading_to_ids)
    _write_json(folder / "id2pinyin.json", id_to_reading)


def _write_json(path: Path, data: dict) -> None:
    path.write_text(json.dumps(data, ensure_ascii=False), encoding="utf-8")
