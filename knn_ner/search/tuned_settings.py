"""The settings that were tuned on dev, kept with the datastore that they were tuned for.

They lie beside the manifest and are no part of it: tuning changes nothing that is stored.
"""

import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from knn_ner.datastore.manifest import Manifest
from knn_ner.datastore.reader import Datastore
from knn_ner.search.similarity import check_similarity
from knn_ner.settings import Similarity, VoteFlags, VoteSettings
from knn_ner.utils.errors import UserError
from knn_ner.utils.files import read_json, write_json

logger = logging.getLogger(__name__)

TUNED_FILE = "tuned.json"


@dataclass(frozen=True)
class Tuned:
    """The best settings of a tuning.

    similarity: `cosine` or `l2`. f1: percent, on dev. content_id: what the datastore held then.
    """

    settings: VoteSettings
    similarity: Similarity
    f1: float
    content_id: str

    def describe(self, path: str | Path, used: Sequence[str]) -> str:
        """What a user should know of the settings `used` with the store in `path`, in one line."""
        changed = Manifest.read(Path(path)).content_id != self.content_id
        shown = {
            name: value if name == "k" else f"{value:g}"
            for name, value in asdict(self.settings).items()
        }
        values = ", ".join(f"{name} {shown[name]}" for name in used)
        return f"{path}: {values}, {self.similarity} similarity, as tuned on dev" + (
            " before the datastore was changed" if changed else ""
        )


def save_tuned(store: Datastore, settings: VoteSettings, similarity: str, f1: float) -> None:
    """Keep the best settings with a datastore, in place of earlier ones.

    Raises `UserError` when its folder cannot be written.
    """
    content = asdict(settings) | {"similarity": similarity, "f1": f1}
    write_json(store.path / TUNED_FILE, content | {"content_id": store.content_id})


def read_tuned(path: str | Path) -> Tuned | None:
    """The settings kept with the datastore in folder `path`; None if it was never tuned.

    Raises `UserError` for a file that is not as `save_tuned` writes it.
    """
    file = Path(path) / TUNED_FILE
    if not file.is_file():
        return None
    content = read_json(file)
    try:
        settings = VoteSettings(content["k"], content["temperature"], content["knn_weight"])
        tuned = Tuned(settings, content["similarity"], content["f1"], content["content_id"])
        check_similarity(tuned.similarity)
    except (KeyError, TypeError, UserError) as error:
        raise UserError(
            f"{file}: not as knn_ner.tune writes it ({error}); tune again, or remove the file"
        ) from None
    return tuned


def choose_vote(
    path: str | Path,
    given: VoteFlags,
    similarity: Similarity | None,
    tuning: str | Path | None = None,
) -> tuple[VoteSettings, Similarity, str]:
    """The settings to use with the store in `path`: what is given, and for the rest what was tuned.

    Args:
        path: the datastore's folder.
        given: k, temperature and knn_weight, as far as they are given.
        similarity: `cosine` or `l2`, if given.
        tuning: a `tuning.json` to take the rest from, in place of what was tuned for the datastore.

    Returns:
        The settings, the similarity (`cosine` if nothing tells it), and the source: `tuned` if any of k,
        temperature and knn_weight is or a tuning file is given, else `given`. What is taken from the store's own
        tuning is logged.

    Raises:
        UserError: if a setting is given nowhere or is out of range, or the others were tuned for another
            similarity.
    """
    values = {name: getattr(given, name) for name in ("k", "temperature", "knn_weight")}
    if tuning:
        best = _best_of(tuning, similarity)
        values = {name: best[name] if value is None else value for name, value in values.items()}
        return VoteSettings(**values), similarity or best["similarity"], "tuned"
    missing = [name for name, value in values.items() if value is None]
    if not missing:
        return VoteSettings(**values), similarity or "cosine", "given"
    tuned = read_tuned(path)
    if tuned is None:
        raise UserError(
            f"{missing[0]} not given, and nothing was tuned for {path}; give k, temperature and "
            "knn_weight, or run knn_ner.tune with this datastore"
        )
    if similarity not in (None, tuned.similarity):
        raise UserError(
            f"{Path(path) / TUNED_FILE}: tuned for similarity {tuned.similarity}, but {similarity} is "
            f"asked for; take the same, or give k, temperature and knn_weight"
        )
    logger.info(tuned.describe(path, missing))
    best = asdict(tuned.settings)
    settings = VoteSettings(**values | {name: best[name] for name in missing})
    return settings, tuned.similarity, "tuned"


def _best_of(tuning: str | Path, similarity: str | None) -> dict[str, Any]:
    """The best setting in a `tuning.json`."""
    content = read_json(tuning)
    best = content.get("best") if isinstance(content, dict) else None
    best = best if isinstance(best, dict) else {}
    for name in ("k", "temperature", "knn_weight", "similarity"):
        if name not in best:
            raise UserError(f"{tuning}: no best {name}; expected a file of knn_ner.tune")
    if similarity not in (None, best["similarity"]):
        raise UserError(
            f"{tuning}: tuned for similarity {best['similarity']}, but --similarity is "
            f"{similarity}; give the same"
        )
    return best
