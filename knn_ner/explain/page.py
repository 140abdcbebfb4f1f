"""The data of the page, and the page: one HTML file that loads nothing."""

from typing import Any

from knn_ner.data.corpus import Corpus
from knn_ner.explain.cases import CaseWriter, entity_ranges
from knn_ner.html.renderer import render
from knn_ner.tagging.knn_tagger import KnnTagger
from knn_ner.utils.errors import UserError

# Stored tokens on each map.
MAP_TOKENS = 32


def explain_split(
    tagger: KnnTagger, corpus: Corpus, split: str, neighbours: int
) -> tuple[CaseWriter, dict[str, Any]]:
    """Tag a split and collect the evidence for its entities; `neighbours` are shown for each word.

    Returns:
        The writer with the counts of all cases, and the data of the page.

    Raises:
        UserError: if the tagger has no datastore.
    """
    store, vote = tagger.store, tagger.settings
    if store is None or vote is None:
        raise UserError("no datastore: give one, as the page shows the neighbours stored in it")
    sentences = corpus.splits[split]
    writer = CaseWriter(store, cosine=tagger.similarity == "cosine")
    ranges = [entity_ranges(sentence.tags) for sentence in sentences]
    explained = tagger.explain_texts(
        (sentence.words for sentence in sentences),
        len(sentences),
        neighbours=neighbours,
        also=([word for _, *ends in each for word in range(*ends)] for each in ranges),
        around=max(MAP_TOKENS, neighbours),
    )
    for sentence, text in zip(sentences, explained, strict=True):
        writer.add(sentence, text)
    facts = {
        "split": f"{corpus.files[split].name}, {len(sentences)} sentences",
        "F1": f"{writer.f1('base'):.2f} tagger alone, {writer.f1('knn'):.2f} with neighbours",
        "datastore": f"{store.entries} tokens of {store.manifest.sentences} sentences",
        "vote": f"k {vote.k}, temperature {vote.temperature:g}, knn_weight {vote.knn_weight:g}, "
        f"{tagger.similarity} similarity",
    }
    data = {"facts": list(facts.items()), "joiner": tagger.tagger.encoding.joiner}
    return writer, writer.rows() | data


def build_page(subtitle: str, data: dict[str, Any]) -> str:
    """The page; all of `data` is shown as text."""
    title = f"What the neighbours changed: {subtitle}"
    return render("explain/page.html", kind="explain", title=title, subtitle=subtitle, data=data)
