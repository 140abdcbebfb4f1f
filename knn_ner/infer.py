"""Tag a split with the mix of tagger and nearest neighbours, and score both.

    python -m knn_ner.infer --data_dir D --file_name F --model_path S/model --datastore_path P \\
        --save_path O --k 512 --temperature 0.05 --knn_weight 0.3

writes `O/knn_results.json`, `O/predictions.txt` (word, gold, base, knn) and what comparisons need:
`O/sentences.csv` (entities right, predicted and gold of each sentence) and, with `--votes`, `O/votes.csv` (how
the neighbours of a word voted).
"""

import argparse
import dataclasses
import hashlib
import json
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import numpy as np
from tqdm import tqdm

from knn_ner.cli import Parser, add_data_arguments, add_run_arguments, run_main
from knn_ner.data.corpus import SPLITS, Corpus, other_positions, read_corpus
from knn_ner.distributed import add_process_arguments, processes
from knn_ner.errors import UserError
from knn_ner.evaluation.records import (
    COUNTS_FILE,
    VOTES_FILE,
    sentence_counts,
    write_counts,
    write_votes,
)
from knn_ner.files import read_json, write_json, write_text
from knn_ner.group import Group, SharedProgress
from knn_ner.model.representations import choose_device
from knn_ner.pipeline import LoadedTagger, Split, load, make_split, show_corpus
from knn_ner.retrieval.datastore import Datastore
from knn_ner.retrieval.distributed import DistributedSearch
from knn_ner.retrieval.interpolation import SKIP_MARGIN, KnnSettings
from knn_ner.retrieval.manifest import Manifest
from knn_ner.retrieval.opening import EXACT, name_of
from knn_ner.retrieval.search import Searcher
from knn_ner.retrieval.tuned import choose_settings
from knn_ner.search_arguments import add_retrieval_arguments, add_vote_arguments, searcher_for
from knn_ner.tagging import Tagging, open_datastore, tag


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """The command line of `python -m knn_ner.infer`."""
    parser = Parser(
        "Tag a split with the tagger mixed with its nearest neighbours, and score both.",
        prog="python -m knn_ner.infer",
    )
    add_data_arguments(parser)
    add_retrieval_arguments(parser, similarity=None)
    parser.add_argument("--save_path", required=True, metavar="O", help="folder for the results")
    parser.add_argument("--split", choices=SPLITS, default="test", help="the split to tag")
    vote = add_vote_arguments(parser, "in --tuning, or tuned for the datastore")
    vote.add_argument(
        "--tuning", metavar="FILE", help="tuning.json of knn_ner.tune: its best settings"
    )
    parser.add_argument(
        "--exhaustive",
        action="store_true",
        help="search for every token, also where no vote could change the tag",
    )
    parser.add_argument(
        "--votes",
        action="store_true",
        help="find the neighbours of each token that a vote could change, and write how they voted to "
        "votes.csv; otherwise a token is done with as soon as its tag is certain",
    )
    add_run_arguments(parser)
    add_process_arguments(
        parser, "Each encodes its part of the sentences, and searches its part of P."
    )
    return parser.parse_args(argv)


def resolve_vote(settings: argparse.Namespace) -> str:
    """Fill k, temperature, knn_weight and similarity where the command line does not give them.

    They come from `--tuning`, or from what was tuned for the datastore; returns `tuned` if one does, and
    else `given`.

    Raises `UserError` when one of them is given nowhere or out of range.
    """
    names = ("k", "temperature", "knn_weight")
    if settings.tuning:
        best = read_json(settings.tuning).get("best", {})
        for name in (*names, "similarity"):
            if name not in best:
                raise UserError(
                    f"{settings.tuning}: no best {name}; expected a file of knn_ner.tune"
                )
        if settings.similarity not in (None, best["similarity"]):
            raise UserError(
                f"{settings.tuning}: tuned for similarity {best['similarity']}, but --similarity is "
                f"{settings.similarity}; give the same"
            )
        for name in (*names, "similarity"):
            if getattr(settings, name) is None:
                setattr(settings, name, best[name])
    given = {name: getattr(settings, name) for name in (*names, "similarity")}
    chosen, settings.similarity, source = choose_settings(settings.datastore_path, **given)
    for name in names:
        setattr(settings, name, getattr(chosen, name))
    return "tuned" if settings.tuning else source


def infer(settings: argparse.Namespace, group: Group | None = None) -> dict:
    """Run inference; returns what `knn_results.json` holds, nothing in all processes but the first.

    group: the processes that share the work, each of which calls this; by default one.

    Raises `UserError` for bad input.
    """
    group = group or Group()
    source = resolve_vote(settings)
    corpus = read_corpus(settings.data_dir, settings.file_name, splits=(settings.split,))
    show_corpus(corpus)
    labels = Manifest.read(Path(settings.datastore_path)).labels
    labels = [*labels, *other_positions(corpus.splits[settings.split], labels)]
    tagger = load(settings.model_path, settings.max_length, corpus, labels)
    store = open_datastore(settings.datastore_path, tagger)
    group.check_same(
        "corpus, tagger, datastore or setting", digest(settings, corpus, tagger, store)
    )
    split = make_split(corpus, settings.split, tagger.encoding_with([*store.labels, *labels]))
    with (
        shared_searcher(store, settings, group) as searcher,
        tqdm(total=len(split.gold), unit="piece", unit_scale=True, desc="infer") as progress,
    ):
        tagging = tag(
            tagger,
            split,
            searcher,
            KnnSettings(settings.k, settings.temperature, settings.knn_weight),
            search=searching(settings),
            device=choose_device(settings.device),
            batch_size=settings.batch_size,
            precision=settings.precision,
            workers=settings.workers,
            share=(group.rank, group.size),
            progress=SharedProgress(progress, group),
        )
    tagging = joined(tagging, group)
    if group.rank:
        return {}
    results = {
        "base": split.score(tagging.base),
        "knn": split.score(tagging.knn),
        "k": settings.k,
        "temperature": settings.temperature,
        "knn_weight": settings.knn_weight,
        "similarity": settings.similarity,
        "index": name_of(searcher),
        "settings_source": source,
        "split": settings.split,
        "tokens": tagging.tokens,
        "searched_tokens": tagging.searched,
        "settled_by": tagging.settled,
        "searched_share": searched_share(tagging.lead[split.scored]),
        "changed_tokens": int((tagging.base != tagging.knn)[split.scored].sum()),
        "seed": settings.seed,
        "datastore_entries": store.entries,
        "seconds": {name: round(value, 3) for name, value in tagging.seconds.items()},
    }
    write_predictions(Path(settings.save_path) / "predictions.txt", split, tagging)
    write_records(Path(settings.save_path), split, tagging, searching(settings) != "tags")
    write_json(Path(settings.save_path) / "knn_results.json", results)
    return results


def searching(settings: argparse.Namespace) -> str:
    """What to search, as `tag` has it."""
    if settings.exhaustive:
        return "all"
    return "needed" if settings.votes else "tags"


def shared_searcher(
    store: Datastore, settings: argparse.Namespace, group: Group
) -> AbstractContextManager[Searcher]:
    """The index that the flags ask for, over the parts of the store that the processes have.

    Raises `UserError` for one that cannot be shared.
    """
    if group.size == 1:
        return nullcontext(searcher_for(store, settings))
    if settings.index != EXACT:
        raise UserError(
            f"--index {settings.index}: {group.size} processes search exactly; leave it out, or use one "
            "process"
        )
    return DistributedSearch(store, settings.similarity, choose_device(settings.device), group)


def digest(
    settings: argparse.Namespace, corpus: Corpus, tagger: LoadedTagger, store: Datastore
) -> str:
    """Of what makes the tags, paths aside: processes share the work if they have it in common."""
    names = ("split", "k", "temperature", "knn_weight", "similarity", "exhaustive")
    names = (*names, "batch_size", "precision")
    words = [sentence.words for sentence in corpus.splits[settings.split]]
    content = [store.content_id, tagger.made_with, tagger.max_length, words]
    content += [getattr(settings, name) for name in names]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def joined(tagging: Tagging, group: Group) -> Tagging:
    """The tags of all rows, in every process, from those of each one's share; seconds are the slowest's."""
    if group.size == 1:
        return tagging
    arrays = {}
    for field in dataclasses.fields(tagging):
        array = getattr(tagging, field.name)
        if isinstance(array, np.ndarray):
            # Rows of others are 0 or unknown here; what no process knows stays so.
            largest = group.largest(np.nan_to_num(array, nan=-1))
            if array.dtype.kind == "f":
                largest[largest < 0] = np.nan
            arrays[field.name] = largest
    ways = ("cover", "product", "search")
    counts = [tagging.settled.get(way, 0) for way in ways]
    counts = group.exchange(tagging.tokens, tagging.searched, *counts)
    tokens, searched, *settled = (sum(column) for column in zip(*counts, strict=True))
    seconds = group.largest(np.array(list(tagging.seconds.values())))
    return dataclasses.replace(
        tagging,
        **arrays,
        tokens=tokens,
        searched=searched,
        settled={way: count for way, count in zip(ways, settled, strict=True) if count},
        seconds=dict(zip(tagging.seconds, seconds.tolist(), strict=True)),
    )


def searched_share(lead: np.ndarray) -> dict[str, float]:
    """The share of tokens to search at each of some knn_weights; from 0.5 on it is 1.

    lead: (tokens,) of the tagger's likeliest label (see `interpolation.needs_search`).
    """
    return {
        f"{weight:.2f}": round(float(((1 - weight) * lead <= weight + SKIP_MARGIN).mean()), 6)
        for weight in np.linspace(0.02, 0.5, 25)
    }


def write_predictions(path: Path, split: Split, tagging: Tagging) -> None:
    """Write word, gold, base and knn, tab-separated, with a blank line between sentences."""
    base, knn = (split.decoder.sentences(rows) for rows in (tagging.base, tagging.knn))
    blocks = (
        "".join(
            f"{word}\t{gold}\t{alone}\t{mixed}\n"
            for word, gold, alone, mixed in zip(sentence.words, sentence.tags, a, b, strict=True)
        )
        for sentence, a, b in zip(split.sentences, base, knn, strict=True)
    )
    write_text(path, "\n".join(blocks))


def write_records(folder: Path, split: Split, tagging: Tagging, votes: bool) -> None:
    """Write what comparisons of tagger and kNN need; if `votes` are known, those of words' first pieces."""
    gold = split.piece_tags(split.gold)
    base, knn = (
        sentence_counts(
            split.word_tags,
            split.decoder.sentences(rows),
            gold,
            split.piece_tags(rows),
            split.scheme,
        )
        for rows in (tagging.base, tagging.knn)
    )
    write_counts(folder / COUNTS_FILE, base, knn)
    if not votes:
        (folder / VOTES_FILE).unlink(missing_ok=True)
        return
    decoder = split.decoder
    sentence = np.repeat(np.arange(len(decoder.counts)), decoder.counts)
    word = np.arange(len(sentence)) - decoder.word_starts[sentence]
    row = split.first_rows[sentence] + decoder.first_piece
    searched = np.flatnonzero(~np.isnan(tagging.agreement[row]))
    row = row[searched]
    labels = [tagging.labels[label] for label in tagging.vote[row]]
    write_votes(
        folder / VOTES_FILE, sentence[searched], word[searched], labels, tagging.agreement[row]
    )


def table(results: dict) -> str:
    """Base and kNN side by side, as the terminal shows them."""
    columns = ("precision", "recall", "f1", "strict_f1", "piece_f1")
    lines = [" " * 6 + "".join(f"{name:>11}" for name in columns) + f"{'seconds':>10}"]
    encode, search = results["seconds"]["encode"], results["seconds"]["search"]
    for name, label, seconds in (("base", "base", encode), ("knn", "kNN", encode + search)):
        scores = "".join(f"{results[name][column]:>11.2f}" for column in columns)
        lines.append(f"{label:<6}{scores}{seconds:>10.2f}")
    lines.append(
        f"{results['split']}: k {results['k']}, temperature {results['temperature']:g}, "
        f"knn_weight {results['knn_weight']:g}; {results['tokens']} tokens, "
        f"{results['searched_tokens']} searched, {results['changed_tokens']} changed"
    )
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> None:
    """The command line."""
    with processes(parse_arguments, argv) as (settings, group):
        results = infer(settings, group)
        if group.rank == 0:
            print(table(results))


if __name__ == "__main__":
    run_main(main)
