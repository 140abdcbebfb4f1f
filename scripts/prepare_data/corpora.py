"""The published corpora: their files, the repair of their tokens, and their published sizes."""

from dataclasses import dataclass

from knn_ner.data.corpus import SPLITS
from prepare_data.raw import CleanToken, weibo_character

# Numbers of sentences, tokens and entities; None where no exact number was published.
Size = tuple[int | None, int | None, int | None]


@dataclass(frozen=True)
class Edition:
    """Published sizes of one edition of a corpus."""

    name: str
    sizes: dict[str, Size]


@dataclass(frozen=True)
class Recipe:
    """How to read a corpus.

    Attributes:
        file_name: the ending that the experiments expect, `word.bmes` for `train.word.bmes`.
        editions: published sizes; the first edition is probably the paper's.
        names: file names of the splits, where no part of the name tells the split.
        first_names: file names of an earlier edition, likewise.
        bracket_language: language of the CoNLL-2012 files of this corpus; None for a corpus without such files.
        clean: repairs a token.
        characters: whether to split tokens into characters.
        cuts_dev: whether the corpus has no dev split.
    """

    file_name: str
    editions: tuple[Edition, ...]
    names: dict[str, str] | None = None
    first_names: dict[str, str] | None = None
    bracket_language: str | None = None
    clean: CleanToken | None = None
    characters: bool = False
    cuts_dev: bool = False


def _sizes(train: Size, dev: Size, test: Size) -> dict[str, Size]:
    return dict(zip(SPLITS, (train, dev, test), strict=True))


RECIPES = {
    "weibo": Recipe(
        "all.bmes",
        (
            # He and Sun 2016, named and nominal mentions.
            Edition(
                "second edition of the labels",
                _sizes((1350, 73778, 1895), (270, 14509, 389), (270, 14842, 418)),
            ),
        ),
        names={split: f"weiboNER_2nd_conll.{split}" for split in SPLITS},
        first_names={split: f"weiboNER.conll.{split}" for split in SPLITS},
        clean=weibo_character,
    ),
    "wnut17": Recipe(
        "word.bmes",
        (
            # Derczynski et al. 2017.
            Edition(
                "shared task",
                _sizes((3394, 62730, 1975), (1009, 15733, 836), (1287, 23394, 1079)),
            ),
        ),
        # emerging.test.conll has the labels of several annotators and is not what is scored.
        names={
            "train": "wnut17train.conll",
            "dev": "emerging.dev.conll",
            "test": "emerging.test.annotated",
        },
    ),
    "conll2003": Recipe(
        "word.bmes",
        (
            # Tjong Kim Sang and De Meulder 2003, who count a sentence more for each document.
            Edition(
                "shared task, English",
                _sizes((14041, 203621, 23499), (3250, 51362, 5942), (3453, 46435, 5648)),
            ),
        ),
    ),
    "msra": Recipe(
        "ner.bmes",
        (
            # Levow 2006.
            Edition("SIGHAN 2006", _sizes((46364, None, 74703), (None,) * 3, (4365, None, 6181))),
            # The readme of the BIO files in OYE93/Chinese-NLP-Corpus.
            Edition(
                "45,000 sentences",
                _sizes((45000, 2171573, 75059), (None,) * 3, (3442, 172601, 6190)),
            ),
            # Li et al. 2020 (BERT-MRC).
            Edition(
                "SIGHAN 2006, a tenth cut off as dev",
                _sizes((41728, None, None), (4636, None, None), (4365, None, 6181)),
            ),
        ),
        characters=True,
        cuts_dev=True,
    ),
    "resume": Recipe(
        "word.bmes",
        (
            # Zhang and Yang 2018, who give the characters in thousands only.
            Edition(
                "Sina Finance", _sizes((3821, None, 13440), (463, None, 1497), (477, None, 1630))
            ),
        ),
        characters=True,
    ),
    "ontonotes4": Recipe(
        "char.bmes",
        (
            # Che et al. 2013's split, as Glyce (Meng et al. 2019) made it.
            Edition(
                "Glyce",
                _sizes((15724, 491903, 13372), (4301, 200505, 6950), (4346, 208066, 7684)),
            ),
        ),
        characters=True,
        bracket_language="chinese",
    ),
    "ontonotes5": Recipe(
        "word.bmes",
        (
            # Pradhan et al. 2013; Chiu and Nichols 2016.
            Edition(
                "CoNLL-2012 split, English",
                _sizes((59924, 1088503, 81828), (8528, 147724, 11066), (8262, 152728, 11257)),
            ),
        ),
        bracket_language="english",
    ),
    "cluener": Recipe(
        "char.bmes",
        (
            # Xu et al. 2020; the labels of the test split are not published, so its published dev split is test here.
            Edition("CLUENER 2020", _sizes((10748, None, None), (None,) * 3, (1343, None, None))),
        ),
        names={"train": "train.json", "dev": "", "test": "dev.json"},
        characters=True,
        cuts_dev=True,
    ),
}
