"""What the commands that retrieve share: their flags, and the index that these ask for."""

import argparse
from typing import Any

from knn_ner.cli import positive_int
from knn_ner.inference.tagger import KnnTagger
from knn_ner.model.representations import choose_device
from knn_ner.retrieval.datastore import Datastore
from knn_ner.retrieval.opening import EXACT, open_searcher
from knn_ner.retrieval.search import Searcher
from knn_ner.retrieval.similarity import SIMILARITIES


def add_retrieval_arguments(
    parser: argparse.ArgumentParser, similarity: str | None = "cosine", required: bool = True
) -> None:
    """What to search, for commands that retrieve; `similarity` is the default.

    required: whether there has to be a datastore.
    """
    parser.add_argument(
        "--model_path", required=True, metavar="S/model", help="the tagger: a folder or a hub name"
    )
    parser.add_argument(
        "--datastore_path",
        required=required,
        metavar="P",
        help="the datastore" + ("" if required else "; without one, the tagger alone answers"),
    )
    parser.add_argument(
        "--similarity",
        choices=SIMILARITIES,
        default=similarity,
        help="of two hidden states; l2 is minus the squared Euclidean distance"
        + ("" if similarity else " (if not given: as tuned, else cosine)"),
    )
    group = parser.add_argument_group("the index")
    group.add_argument(
        "--index",
        default=EXACT,
        metavar="NAME",
        help="exact; the name of an index that knn_ner.build_index built, such as IVF1024,SQfp16; or auto: "
        "picked from the size of the store, k and the device, which is said",
    )
    group.add_argument(
        "--nprobe",
        type=positive_int,
        help="lists of an IVF index to visit (if not given: 1/32, at least 8, and as many as hold 8 k entries)",
    )
    group.add_argument(
        "--ef_search",
        type=positive_int,
        help="candidates that an HNSW index keeps on its way (if not given: 64 more than it has to find)",
    )


def add_vote_arguments(
    parser: argparse.ArgumentParser, elsewhere: str = "or tuned for the datastore"
) -> argparse._ArgumentGroup:
    """The paper's three settings; `elsewhere` says where they come from if they are not given."""
    vote = parser.add_argument_group(f"the vote (each of the three here, {elsewhere})")
    vote.add_argument("--k", "--topk", type=int, help="neighbours; -1: every stored token votes")
    vote.add_argument(
        "--temperature", "--link_temperature", type=float, help="T of exp(similarity / T)"
    )
    vote.add_argument(
        "--knn_weight", "--link_ratio", type=float, help="of the neighbours' vote, from 0 to 1"
    )
    return vote


def searcher_for(store: Datastore, settings: argparse.Namespace) -> Searcher:
    """The index over a datastore that the flags of `add_retrieval_arguments` ask for.

    Raises `UserError` as `open_searcher`.
    """
    return open_searcher(
        store,
        settings.similarity,
        choose_device(settings.device),
        k=most_neighbours(settings),
        **index_settings(settings),
    )


def tagger_for(settings: argparse.Namespace) -> KnnTagger:
    """The tagger that the flags of this module, `add_run_arguments` and `--max_length` ask for.

    Raises `UserError` as `KnnTagger.from_pretrained`.
    """
    names = ("k", "temperature", "knn_weight", "similarity", "device", "max_length", "batch_size")
    return KnnTagger.from_pretrained(
        settings.model_path,
        settings.datastore_path,
        **{name: getattr(settings, name) for name in (*names, "precision", "workers")},
        **index_settings(settings),
    )


def index_settings(settings: argparse.Namespace) -> dict[str, Any]:
    """What the flags say of the index, by name."""
    return {name: getattr(settings, name) for name in ("index", "nprobe", "ef_search")}


def most_neighbours(settings: argparse.Namespace) -> int | None:
    """The largest k that the flags ask for; -1 if it is every stored token alone, None if unknown."""
    ks = getattr(settings, "grid_k", None) or [getattr(settings, "k", None)]
    return None if None in ks else max(ks)
