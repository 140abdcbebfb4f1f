"""Write the hidden states of labelled sentences, with their labels, into a datastore.

    python -m knn_ner.build_datastore --data_dir D --file_name F --model_path S/model --datastore_path P

Several processes (`--devices`, `--num_nodes`) write shards of one store. When a build was interrupted, the same
command continues it from its finished shards, with any number of processes.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from knn_ner.parallel.launch import processes
from knn_ner.settings import (
    CorpusSettings,
    KeySettings,
    ProcessSettings,
    SeededRunSettings,
    SplitName,
    TaggerSettings,
    UnitsSettings,
)
from knn_ner.utils.arguments import flag, output_folder, positive_int
from knn_ner.utils.command import read_command, run_main

if TYPE_CHECKING:
    from knn_ner.parallel.process_group import ProcessGroup


@dataclass(frozen=True, kw_only=True)
class BuildSettings(
    CorpusSettings,
    TaggerSettings,
    KeySettings,
    UnitsSettings,
    SeededRunSettings,
    ProcessSettings,
):
    """The settings of `python -m knn_ner.build_datastore`."""

    datastore_path: str = flag(metavar="P", parse=output_folder)
    """folder for the datastore; several machines have to share it"""
    split: SplitName = flag("train")
    """the split to store"""
    shard_words: int = flag(1 << 14, parse=positive_int)
    """words in a shard, at most"""
    replace_edited: bool = flag(False)
    """replace even a datastore that was edited since it was built (knn_ner.datastore)"""


def parse_arguments(argv: list[str] | None = None) -> BuildSettings:
    """Read the command line of `python -m knn_ner.build_datastore`."""
    return read_command(
        BuildSettings,
        argv,
        "Store the hidden state and the label of every word piece of a split.",
        "python -m knn_ner.build_datastore",
    )


def build_datastore(settings: BuildSettings, group: "ProcessGroup | None" = None) -> dict[str, Any]:
    """Build a datastore from a split of a corpus.

    Args:
        settings: the settings.
        group: the processes that share the work, each of which calls this; one process if None.

    Returns:
        Counts, bytes and seconds; empty in all processes but the first.

    Raises:
        UserError: for bad input.
    """
    # Imported here, as torch takes seconds that `--help` need not wait.
    from knn_ner.data.corpus import read_corpus
    from knn_ner.parallel.process_group import ProcessGroup
    from knn_ner.tagging.store_keys import store_sentences
    from knn_ner.tagging.trained_tagger import load

    corpus = read_corpus(
        settings.data_dir, settings.file_name, splits=(settings.split,), comments=settings.comments
    )
    corpus.report()
    tagger = load(settings.model_path, settings.max_length, corpus, units=settings.units)
    return store_sentences(
        settings.datastore_path,
        tagger,
        corpus.splits[settings.split],
        settings,
        settings,
        shard_words=settings.shard_words,
        replace_edited=settings.replace_edited,
        group=group or ProcessGroup(),
    )


def main(argv: list[str] | None = None) -> None:
    """Run the command line."""
    with processes(parse_arguments, argv) as (settings, group):
        built = build_datastore(settings, group)
        if group.rank == 0:
            print(
                f"{settings.datastore_path}: {built['entries']} entries of {built['sentences']} "
                f"sentences, {built['dim']} x {built['dtype']}, {built['bytes'] / 1e6:.1f} MB, "
                f"{built['seconds']:.1f} s"
            )


if __name__ == "__main__":
    run_main(main)
