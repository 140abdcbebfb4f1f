"""What the page of `explain` shows of a split: its cases, and the facts at its head."""

from knn_ner.data.corpus import Corpus
from knn_ner.data.tags import scheme_of_labels
from knn_ner.explain.cases import CaseWriter, extents_of
from knn_ner.tagging.knn_tagger import KnnTagger

# Entries of the datastore that a map shows.
ON_THE_MAP = 32


def collect(tagger: KnnTagger, corpus: Corpus, split: str, neighbours: int) -> CaseWriter:
    """The rows of the page, with its counts."""
    sentences = corpus.splits[split]
    scheme = corpus.scheme.name
    writer = CaseWriter(
        tagger.store,
        scheme,
        scheme_of_labels(tagger.labels).name,
        cosine=tagger.similarity == "cosine",
    )
    gold_words = (
        [
            word
            for _, first, stop in extents_of(sentence.tags, scheme)
            for word in range(first, stop)
        ]
        for sentence in sentences
    )
    explained = tagger.explain_texts(
        (sentence.words for sentence in sentences),
        len(sentences),
        neighbours=neighbours,
        also=gold_words,
        around=max(ON_THE_MAP, neighbours),
    )
    for sentence, text in zip(sentences, explained, strict=True):
        writer.add(sentence, text)
    return writer


def facts(tagger: KnnTagger, corpus: Corpus, split: str, f1: dict) -> list[list[str]]:
    """What the head of the page says, as (name, value)."""
    settings, store = tagger.settings, tagger.store
    return [
        ["split", f"{corpus.files[split].name}, {len(corpus.splits[split])} sentences"],
        ["F1", f"{f1['base_f1']:.2f} tagger alone, {f1['knn_f1']:.2f} with neighbours"],
        ["datastore", f"{store.entries} tokens of {store.manifest.sentences} sentences"],
        [
            "vote",
            f"k {settings.k}, temperature {settings.temperature:g}, knn_weight "
            f"{settings.knn_weight:g}, {tagger.similarity} similarity",
        ],
    ]
