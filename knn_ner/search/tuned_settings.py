"""The settings that were tuned on dev, kept in the folder of the datastore that they were tuned for.

The manifest does not name them: tuning changes nothing that is stored.
"""

import logging
from dataclasses import asdict
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


def save_tuned(store: Datastore, settings: VoteSettings, similarity: str, f1: float) -> None:
    """Keep the best settings in a datastore's folder, in place of earlier ones.

    Args:
        store: the datastore.
        settings: k, temperature and knn_weight.
        similarity: `cosine` or `l2`.
        f1: in percent, on dev.

    Raises:
        UserError: if the folder cannot be written.
    """
    content = asdict(settings) | {"similarity": similarity, "f1": f1}
    write_json(store.path / TUNED_FILE, content | {"content_id": store.content_id})


def choose_vote(
    path: str | Path,
    given: VoteFlags,
    similarity: Similarity | None,
    tuning: str | Path | None = None,
) -> tuple[VoteSettings, Similarity, str]:
    """The settings to use with the datastore in `path`: those given, and for the rest those tuned.

    Tuned settings from the datastore's folder are logged.

    Args:
        path: the datastore's folder.
        given: k, temperature and knn_weight, as far as they are given.
        similarity: `cosine` or `l2`, if given.
        tuning: a `tuning.json` for the settings that are not given, in place of those tuned for the datastore.

    Returns:
        The settings, the similarity (`cosine` if none is given or tuned), and their source: `tuned` if a setting was
        tuned or a tuning file is given, else `given`.

    Raises:
        UserError: if a setting is neither given nor tuned, or out of range, or if the others were tuned for another
            similarity.
    """
    values = {name: getattr(given, name) for name in ("k", "temperature", "knn_weight")}
    missing = [name for name, value in values.items() if value is None]
    if not missing and not tuning:
        return VoteSettings(**values), similarity or "cosine", "given"
    if tuning:
        best = _best_of(tuning, similarity)
    else:
        best = _tuned_for(Path(path), missing, similarity)
    settings = VoteSettings(**values | {name: best[name] for name in missing})
    return settings, similarity or best["similarity"], "tuned"


def _best_of(tuning: str | Path, similarity: str | None) -> dict[str, Any]:
    """The best settings in a `tuning.json`, with their similarity."""
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


def read_tuned(file: Path) -> tuple[dict[str, Any], str]:
    """The settings in a `tuned.json`, with their similarity, and the content that they were tuned for.

    Raises:
        UserError: for a file that `save_tuned` did not write.
    """
    content = read_json(file)
    try:
        best = asdict(VoteSettings(content["k"], content["temperature"], content["knn_weight"]))
        best["similarity"] = content["similarity"]
        check_similarity(best["similarity"])
        return best, content["content_id"]
    except (KeyError, TypeError, UserError) as error:
        raise UserError(
            f"{file}: not as knn_ner.tune writes it ({error}); tune again, or remove the file"
        ) from None


def _tuned_for(path: Path, missing: list[str], similarity: str | None) -> dict[str, Any]:
    """The settings tuned for the datastore in folder `path`, with their similarity; logs the missing ones."""
    file = path / TUNED_FILE
    if not file.is_file():
        raise UserError(
            f"{missing[0]} not given, and nothing was tuned for {path}; give k, temperature and "
            "knn_weight, or run knn_ner.tune with this datastore"
        )
    best, content_id = read_tuned(file)
    if similarity not in (None, best["similarity"]):
        raise UserError(
            f"{file}: tuned for similarity {best['similarity']}, but {similarity} is "
            f"asked for; take the same, or give k, temperature and knn_weight"
        )
    used = ", ".join(
        f"{name} {best[name] if name == 'k' else format(best[name], 'g')}" for name in missing
    )
    changed = Manifest.read(path).content_id != content_id
    logger.info(
        f"{path}: {used}, {best['similarity']} similarity, as tuned on dev"
        + (" before the datastore was changed" if changed else "")
    )
    return best
