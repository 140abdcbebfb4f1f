"""The settings of all commands, in groups. Flags, the Python interface and result files are made from them.

The settings class of a command inherits the groups that it needs. A function below the commands takes only the group
that it needs, such as `RunSettings` or `KeySettings`. This module does not import torch, so `--help` is fast.
"""

import dataclasses
from typing import Any, ClassVar, Literal, TypeVar

from knn_ner.utils.arguments import (
    flag,
    non_negative_int,
    output_folder,
    positive_float,
    positive_int,
    proportion,
    random_seed,
    scoring_interval,
    window_length,
)
from knn_ner.utils.errors import UserError

S = TypeVar("S")

SplitName = Literal["test", "dev", "train"]
Similarity = Literal["cosine", "l2"]
Device = Literal["auto", "cpu", "cuda"]
Precision = Literal["32", "16", "bf16"]
PieceLabels = Literal["published", "first"]
Units = Literal["words", "characters"]

EXACT = "exact"
GRID_K = (8, 16, 32, 64, 128, 256, 512, 1024)
GRID_TEMPERATURE = (0.005, 0.01, 0.02, 0.03, 0.05, 0.07, 0.1, 0.15, 0.2, 0.3, 0.5, 0.7, 1.0)


def check_k(k: int) -> None:
    """Raise `UserError` unless k is at least 1, or -1."""
    if k < 1 and k != -1:
        raise UserError(f"k {k}: expected at least 1, or -1 for every entry of the datastore")


def check_temperature(temperature: float) -> None:
    """Raise `UserError` unless the temperature is above 0."""
    if not temperature > 0:
        raise UserError(f"temperature {temperature}: expected a number above 0")


def check_knn_weight(knn_weight: float) -> None:
    """Raise `UserError` unless the weight is in 0 to 1."""
    if not 0 <= knn_weight <= 1:
        raise UserError(f"knn_weight {knn_weight}: expected a number from 0 to 1")


@dataclasses.dataclass(frozen=True)
class VoteSettings:
    """The three settings of the paper (arXiv 2203.17103, section 3.2).

    Attributes:
        k: number of neighbours that vote; -1: every entry of the datastore.
        temperature: T, above 0; at a lower T the nearest neighbours have more weight.
        knn_weight: lambda, 0 to 1: weight of the neighbours' vote in the mix.

    Raises:
        UserError: if a setting is out of range.
    """

    k: int
    temperature: float
    knn_weight: float

    def __post_init__(self) -> None:
        check_k(self.k)
        check_temperature(self.temperature)
        check_knn_weight(self.knn_weight)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ColumnSettings:
    """How column files are read."""

    title: ClassVar[str] = "data"

    comments: str | None = flag(None, metavar="PREFIX")
    """skip lines of column files that begin with this, such as '#' for CoNLL-U (if not given: no line is a comment)"""


@dataclasses.dataclass(frozen=True, kw_only=True)
class CorpusSettings(ColumnSettings):
    """The corpus that a command reads."""

    title: ClassVar[str] = "data"

    data_dir: str = flag(metavar="D")
    """folder with {train,dev,test}.FILE_NAME and ner_labels.txt"""
    file_name: str = flag(metavar="F")
    """ending of the corpus files: `word.bmes` for train.word.bmes"""


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunSettings:
    """How the encoder runs. Results do not depend on batch size or workers."""

    title: ClassVar[str] = "run"

    max_length: int = flag(512, parse=window_length)
    """longest input of the encoder in word pieces, special tokens included; a longer sentence goes through
    overlapping windows"""
    batch_size: int = flag(32, parse=positive_int)
    """windows in a batch"""
    device: Device = flag("auto")
    """where to compute; auto: CUDA if there is any"""
    precision: Precision = flag("32")
    """precision of the encoder's matrix products: 16 and bf16 are mixed precision; 16 needs a GPU (a CPU runs
    bf16 in its place)"""
    workers: int = flag(0, parse=non_negative_int)
    """data loading processes"""


@dataclasses.dataclass(frozen=True, kw_only=True)
class SeededRunSettings(RunSettings):
    """How the encoder runs, with the random seed."""

    title: ClassVar[str] = "run"

    seed: int = flag(0, parse=random_seed)
    """random seed"""


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainingSettings:
    """The settings of a training."""

    title: ClassVar[str] = "training"

    lr: float = flag(3e-5, parse=positive_float)
    """highest learning rate"""
    max_epochs: int = flag(10, parse=positive_int)
    """epochs"""
    weight_decay: float = flag(0.01)
    """weight decay of AdamW; biases and layer norms have none"""
    warmup_proportion: float = flag(0.1, parse=proportion)
    """share of the steps in which the learning rate rises from 0; it then decays to 0"""
    hidden_dropout_prob: float = flag(0.1, parse=proportion)
    """dropout of the encoder"""
    train_batch_size: int | None = flag(None, parse=positive_int)
    """windows in a training batch (if not given: --batch_size)"""
    eval_batch_size: int | None = flag(None, parse=positive_int)
    """windows in a batch for scoring dev and test (if not given: --batch_size)"""
    accumulate_grad_batches: int = flag(1, parse=positive_int)
    """batches whose gradients are added before a step of the optimiser"""
    gradient_clip_val: float = flag(1.0)
    """largest norm of a step's gradient; 0: no clipping"""
    batching: Literal["length", "random"] = flag("length")
    """length: a batch holds windows of similar length, which is quicker; random: batches as the published trainers make
    them"""
    select_by: Literal["f1", "piece_f1"] = flag("f1")
    """dev score that chooses the checkpoint; f1: word level; piece_f1: the published protocol, and the last of equal
    scores"""
    val_check_interval: float = flag(1.0, parse=scoring_interval)
    """interval in epochs (a part of one, or whole ones) after which the dev split is scored"""
    save_topk: int = flag(1, parse=positive_int)
    """best checkpoints to keep"""
    patience: int = flag(0, parse=non_negative_int)
    """stop when the dev F1 has not risen for this many scorings; 0: never"""
    piece_labels: PieceLabels = flag("published")
    """published: every word piece carries a label; first: only the first piece of a word does"""
    classifier: Literal["linear", "mlp"] = flag("linear")
    """classifier over each word piece; only ChineseBERT has mlp (dense, tanh, dense)"""
    units: Literal["auto", "words", "characters"] = flag("auto")
    """what a token is: characters are joined without spaces; auto: found from the training split"""
    lowercase: bool | None = flag(None)
    """put text in lower case, or not (if not given: as the encoder's tokeniser does)"""


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainSettings(CorpusSettings, SeededRunSettings, TrainingSettings):
    """The settings of `python -m knn_ner.train`."""

    bert_path: str = flag(metavar="B")
    """the encoder: a hub name or a folder"""
    save_path: str = flag(metavar="S", parse=output_folder)
    """folder for the model, results and logs"""
    resume: bool = flag(False)
    """continue after the last finished epoch in --save_path, if there is one"""


@dataclasses.dataclass(frozen=True, kw_only=True)
class KeySettings:
    """The keys of a datastore."""

    title: ClassVar[str] = "keys"

    key_layer: str = flag("last", metavar="LAYER")
    """the hidden state that becomes a key: last, -N (the N-th layer from the end; penultimate is -2), ffn_input
    (the input of the last layer's feed-forward block), or lastN (the last N layers, each normalised, side by
    side)"""
    key_transform: str = flag("none", metavar="TRANSFORM")
    """transform that is fitted on the keys and kept with them: none; whiten (all directions get the same
    variance); whiten:D or svd:D (keep only the D largest directions, for a smaller store)"""
    key_dtype: Literal["float16", "float32"] = flag("float16")
    """type of the stored keys"""


@dataclasses.dataclass(frozen=True, kw_only=True)
class TaggerSettings:
    """A tagger and the datastore that it made."""

    model_path: str = flag(metavar="S/model")
    """the tagger: a folder or a hub name"""
    datastore_path: str = flag(metavar="P")
    """the datastore"""


@dataclasses.dataclass(frozen=True, kw_only=True)
class UnitsSettings:
    """How words are joined before they are split into word pieces, if differently than in training."""

    units: Literal["auto", "words", "characters"] = flag("auto")
    """what a token is: characters are joined without spaces; auto: as in the datastore, else as in
    training (the published scripts store and tag the Chinese corpora of bert/ as words)"""


@dataclasses.dataclass(frozen=True, kw_only=True)
class IndexSettings:
    """How the datastore is searched."""

    title: ClassVar[str] = "search"

    similarity: Similarity = flag("cosine")
    """similarity of two hidden states; l2 is minus the squared Euclidean distance"""
    index: str = flag(EXACT, metavar="NAME")
    """exact; the name of an index that knn_ner.build_index built, such as IVF1024,SQfp16; or auto: chosen from
    the size of the store, k and the device, and reported"""
    nprobe: int | None = flag(None, parse=positive_int)
    """lists of an IVF index to visit (if not given: 1/32 of them, at least 8, and as many as hold 8 k
    entries)"""
    ef_search: int | None = flag(None, parse=positive_int)
    """candidates that an HNSW index keeps (if not given: 64 more than it has to find)"""


@dataclasses.dataclass(frozen=True, kw_only=True)
class TunedIndexSettings(IndexSettings):
    """How the datastore is searched, with the similarity of a tuning unless one is given."""

    similarity: Similarity | None = flag(None)  # type: ignore[assignment]
    """similarity of two hidden states; l2 is minus the squared Euclidean distance (if not given: as tuned, else
    cosine)"""


@dataclasses.dataclass(frozen=True, kw_only=True)
class VoteFlags:
    """The paper's three settings, each given here or taken from a tuning."""

    title: ClassVar[str] = "vote"
    about: ClassVar[str] = (
        "What is not given is taken from --tuning or from what was tuned for the datastore."
    )

    k: int | None = flag(None, also=["--topk"])
    """neighbours that vote; -1: every stored token"""
    temperature: float | None = flag(None, also=["--link_temperature"])
    """T of exp(similarity / T)"""
    knn_weight: float | None = flag(None, also=["--link_ratio"])
    """weight of the neighbours' vote in the mix, from 0 to 1"""


@dataclasses.dataclass(frozen=True, kw_only=True)
class GridSettings:
    """The settings that tuning tries."""

    title: ClassVar[str] = "tuning"

    grid_k: tuple[int, ...] = flag(GRID_K)
    """numbers of neighbours to try; -1 (every stored token) needs an additional search"""
    grid_temperature: tuple[float, ...] = flag(GRID_TEMPERATURE, parse=positive_float)
    """temperatures to try"""
    unseen: bool = flag(False)
    """leave out dev sentences that are in the datastore word for word: their tags could simply be copied"""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ProcessSettings:
    """The number of processes that share the work."""

    title: ClassVar[str] = "processes"
    about: ClassVar[str] = (
        "Several processes share the work; results equal those of a single process. With --num_nodes, give the "
        "same command on each machine, with MASTER_ADDR and MASTER_PORT (of the first machine) and NODE_RANK "
        "(0, 1, ...) in the environment; or start it with torchrun, without these flags."
    )

    devices: int | None = flag(None, parse=positive_int, metavar="N")
    """number of processes on this machine, each with a GPU or a share of the CPU's cores (OMP_NUM_THREADS changes
    that share; default: 1, or the number that torchrun started)"""
    num_nodes: int | None = flag(None, parse=positive_int, metavar="M")
    """number of machines (default: 1, or the number that torchrun started)"""


@dataclasses.dataclass(frozen=True, kw_only=True)
class SeedSettings(CorpusSettings, RunSettings, TrainingSettings, KeySettings, GridSettings):
    """The settings of training, building, tuning and inference, for commands that run all of these steps."""

    title: ClassVar[str] = "experiment"

    bert_path: str = flag(metavar="B")
    """the encoder: a hub name or a folder"""
    save_path: str = flag(metavar="S", parse=output_folder)
    """folder for all output"""
    similarity: Similarity = flag("cosine")
    """similarity of two hidden states; l2 is minus the squared Euclidean distance"""
    taggers: str | None = flag(None, metavar="S0")
    """folder of another experiment; its taggers S0/seed-N/model are used, and no tagger is trained"""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ImportSettings:
    """The settings of `python -m knn_ner.import_checkpoint`."""

    checkpoint: str = flag(metavar="X.ckpt")
    """checkpoint with the tagger's weights under `model.`"""
    bert_path: str = flag(metavar="B")
    """the encoder that it was trained from: a hub name or a folder"""
    labels: str = flag(metavar="L")
    """the ner_labels.txt of its training, in the same order"""
    save_path: str = flag(metavar="S", parse=output_folder)
    """folder for `model`"""
    units: Literal["auto", "words", "characters"] = flag("auto")
    """what a token is: characters are joined without spaces; auto: characters for ChineseBERT, else by the language
    in the checkpoint's hyper-parameters (`language`, or the flag `chinese`)"""
    piece_labels: PieceLabels = flag("published")
    """published: in its training every word piece carried a label; first: only the first piece of a word did"""
    lowercase: bool | None = flag(None)
    """put text in lower case, or not (if not given: as the checkpoint's hyper-parameters say, else as the encoder's
    tokeniser does)"""


def group_of(group: type[S], settings: Any, **changes: Any) -> S:
    """Make a group of settings from settings that have its fields.

    Args:
        group: the group's class.
        settings: settings with these fields; fields that they lack keep the group's default.
        changes: fields that get another value.
    """
    values = {
        field.name: getattr(settings, field.name)
        for field in dataclasses.fields(group)  # type: ignore[arg-type]
        if hasattr(settings, field.name)
    }
    return group(**values | changes)
