"""The settings that were tuned on dev, kept with the datastore that they were tuned for.

They lie beside the manifest and are no part of it: tuning changes nothing that is stored.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from knn_ner.cli import say
from knn_ner.errors import UserError
from knn_ner.files import read_json, write_json
from knn_ner.retrieval.datastore import Datastore
from knn_ner.retrieval.interpolation import KnnSettings
from knn_ner.retrieval.manifest import Manifest
from knn_ner.retrieval.similarity import check_similarity

TUNED_FILE = "tuned.json"


@dataclass(frozen=True)
class Tuned:
    """The best settings of a tuning.

    similarity: `cosine` or `l2`. f1: percent, on dev. content_id: what the datastore held then.
    """

    settings: KnnSettings
    similarity: str
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


def save_tuned(store: Datastore, settings: KnnSettings, similarity: str, f1: float) -> None:
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
        settings = KnnSettings(content["k"], content["temperature"], content["knn_weight"])
        tuned = Tuned(settings, content["similarity"], content["f1"], content["content_id"])
        check_similarity(tuned.similarity)
    except (KeyError, TypeError, UserError) as error:
        raise UserError(
            f"{file}: not as knn_ner.tune writes it ({error}); tune again, or remove the file"
        ) from None
    return tuned


def choose_settings(
    path: str | Path,
    k: int | None,
    temperature: float | None,
    knn_weight: float | None,
    similarity: str | None,
) -> tuple[KnnSettings, str, str]:
    """The settings to use with the store in `path`: what is given, and for the rest what was tuned.

    Returns: settings, similarity (`cosine` if neither says), and the source: `tuned` if any of k,
    temperature and knn_weight is, else `given`. What is taken from the tuning is said.

    Raises `UserError` when a setting is given nowhere or out of range, or the similarity is not the one
    that the others were tuned for.
    """
    given = {"k": k, "temperature": temperature, "knn_weight": knn_weight}
    missing = [name for name, value in given.items() if value is None]
    if not missing:
        return KnnSettings(**given), similarity or "cosine", "given"
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
    say(tuned.describe(path, missing))
    best = asdict(tuned.settings)
    settings = KnnSettings(**given | {name: best[name] for name in missing})
    return settings, tuned.similarity, "tuned"
