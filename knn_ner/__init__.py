"""kNN-NER: named entity recognition with nearest neighbour search (Wang et al. 2022, arXiv 2203.17103).

from knn_ner import KnnTagger
tagger = KnnTagger.from_pretrained("S/model", datastore="P")
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from knn_ner.tagging.knn_tagger import KnnTagger

__all__ = ["KnnTagger"]


def __getattr__(name: str) -> Any:
    # Loaded when it is asked for: it takes torch and transformers, which not every command needs.
    if name == "KnnTagger":
        from knn_ner.tagging.knn_tagger import KnnTagger

        return KnnTagger
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
