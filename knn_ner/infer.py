"""Tag a split with the mix of tagger and nearest neighbours, and score both.

    python -m knn_ner.infer --data_dir D --file_name F --model_path S/model --datastore_path P \\
        --save_path O --k 512 --temperature 0.05 --knn_weight 0.3

writes `O/knn_results.json`, `O/predictions.txt` (word, gold, base, knn) and what comparisons need:
`O/sentences.csv` (entities right, predicted and gold of each sentence) and, with `--votes`, `O/votes.csv` (how
the neighbours of each searched word voted).
"""

import dataclasses
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from knn_ner.parallel.launch import processes
from knn_ner.settings import (
    CorpusSettings,
    ProcessSettings,
    SeededRunSettings,
    SplitName,
    TaggerSettings,
    TunedIndexSettings,
    UnitsSettings,
    VoteFlags,
    VoteSettings,
)
from knn_ner.utils.arguments import flag, output_folder
from knn_ner.utils.command import read_command, run_main
from knn_ner.utils.tables import scores_table

if TYPE_CHECKING:
    from knn_ner.data.corpus import Corpus
    from knn_ner.datastore.reader import Datastore
    from knn_ner.parallel.process_group import ProcessGroup
    from knn_ner.tagging.trained_tagger import TrainedTagger


@dataclass(frozen=True, kw_only=True)
class InferSettings(
    CorpusSettings,
    TaggerSettings,
    VoteFlags,
    TunedIndexSettings,
    UnitsSettings,
    SeededRunSettings,
    ProcessSettings,
):
    """The settings of `python -m knn_ner.infer`."""

    save_path: str = flag(metavar="O", parse=output_folder)
    """folder for the results"""
    split: SplitName = flag("test")
    """the split to tag"""
    tuning: str | None = flag(None, metavar="FILE")
    """tuning.json of knn_ner.tune, whose best settings are used"""
    exhaustive: bool = flag(False)
    """search for every token, even where no vote can change the tag"""
    votes: bool = flag(False)
    """look up the neighbours of each token that a vote can change, and write how they voted to votes.csv; without
    it, search stops as soon as the tag is certain"""


def parse_arguments(argv: list[str] | None = None) -> InferSettings:
    """Read the command line of `python -m knn_ner.infer`."""
    return read_command(
        InferSettings,
        argv,
        "Tag a split with the tagger mixed with its nearest neighbours, and score both.",
        "python -m knn_ner.infer",
    )


def infer(settings: InferSettings, group: "ProcessGroup | None" = None) -> dict[str, Any]:
    """Tag and score a split.

    Args:
        settings: the settings.
        group: the processes that share the work, each of which calls this; one process if None.

    Returns:
        What `knn_results.json` holds; empty in all processes but the first.

    Raises:
        UserError: for bad input.
    """
    # Imported here, as torch takes seconds that `--help` need not wait.
    from knn_ner.data.corpus import read_corpus
    from knn_ner.parallel.process_group import ProcessGroup, SharedProgress
    from knn_ner.search.index_choice import shared_searcher
    from knn_ner.search.interpolation import searched_share
    from knn_ner.search.tuned_settings import choose_vote
    from knn_ner.tagging.predictions import write_predictions
    from knn_ner.tagging.split import load_with_split
    from knn_ner.tagging.tag import Scope, gather_taggings, tag
    from knn_ner.utils.device import choose_device
    from knn_ner.utils.files import write_json

    group = group or ProcessGroup()
    vote, similarity, source = choose_vote(
        settings.datastore_path, settings, settings.similarity, settings.tuning
    )
    settings = dataclasses.replace(settings, similarity=similarity, **dataclasses.asdict(vote))
    corpus = read_corpus(
        settings.data_dir, settings.file_name, splits=(settings.split,), comments=settings.comments
    )
    corpus.report()
    tagger, store, split = load_with_split(
        settings, settings, corpus, settings.split, settings.units
    )
    group.check_same(
        "corpus, tagger, datastore or setting", _digest(settings, corpus, tagger, store)
    )
    scope = Scope.ALL if settings.exhaustive else Scope.VOTES if settings.votes else Scope.TAGS
    device = choose_device(settings.device)
    with (
        shared_searcher(store, settings, device, vote.k, group) as searcher,
        tqdm(total=len(split.gold), unit="piece", unit_scale=True, desc="infer") as progress,
    ):
        tagging = tag(
            tagger,
            split,
            searcher,
            vote,
            settings,
            scope=scope,
            share=(group.rank, group.size),
            progress=SharedProgress(progress, group),
        )
    tagging = gather_taggings(tagging, group)
    if group.rank:
        return {}
    results = {
        "base": split.score(tagging.base),
        "knn": split.score(tagging.knn),
        "k": vote.k,
        "temperature": vote.temperature,
        "knn_weight": vote.knn_weight,
        "similarity": similarity,
        "index": searcher.index_name,
        "settings_source": source,
        "split": settings.split,
        "tokens": tagging.tokens,
        "searched_tokens": tagging.searched,
        "settled_by": tagging.settled,
        "searched_share": searched_share(tagging.margin[split.scored]),
        "changed_tokens": int((tagging.base != tagging.knn)[split.scored].sum()),
        "seed": settings.seed,
        "datastore_entries": store.entries,
        "seconds": {name: round(value, 3) for name, value in tagging.seconds.items()},
    }
    save_path = Path(settings.save_path)
    write_predictions(save_path, split, tagging, votes=scope is not Scope.TAGS)
    write_json(save_path / "knn_results.json", results)
    return results


def _digest(
    settings: InferSettings, corpus: "Corpus", tagger: "TrainedTagger", store: "Datastore"
) -> str:
    """Hash of what the tags depend on, paths aside: it has to be the same in all processes."""
    names = "split k temperature knn_weight similarity exhaustive batch_size precision".split()
    words = [sentence.words for sentence in corpus.splits[settings.split]]
    content = [store.content_id, tagger.provenance, tagger.max_length, words]
    content += [getattr(settings, name) for name in names]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def table(results: dict[str, Any]) -> str:
    """Tagger and kNN side by side, as the terminal shows them."""
    encode, search = results["seconds"]["encode"], results["seconds"]["search"]
    scores = scores_table(
        {"base": results["base"], "kNN": results["knn"]},
        seconds={"base": encode, "kNN": encode + search},
    )
    vote = VoteSettings(results["k"], results["temperature"], results["knn_weight"])
    return (
        f"{scores}\n{results['split']}: k {vote.k}, temperature {vote.temperature:g}, "
        f"knn_weight {vote.knn_weight:g}; {results['tokens']} tokens, "
        f"{results['searched_tokens']} searched, {results['changed_tokens']} changed"
    )


def main(argv: list[str] | None = None) -> None:
    """Run the command line."""
    with processes(parse_arguments, argv) as (settings, group):
        results = infer(settings, group)
        if group.rank == 0:
            print(table(results))


if __name__ == "__main__":
    run_main(main)
