"""Train a tagger.

    python -m knn_ner.train --data_dir D --file_name F --bert_path B --save_path S

writes `S/model/` (a Hugging Face folder), `S/train_results.json`, and logs under `S/logs/`.
"""

import argparse
import logging
import shutil
import sys
import time
from pathlib import Path

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback, EarlyStopping, ModelCheckpoint, TQDMProgressBar
from pytorch_lightning.loggers import CSVLogger, TensorBoardLogger

from knn_ner.cli import (
    Parser,
    add_data_arguments,
    add_run_arguments,
    non_negative_int,
    positive_float,
    positive_int,
    proportion,
    run_main,
    say,
)
from knn_ner.data.corpus import read_corpus
from knn_ner.data.encoding import PIECE_LABELS, UNITS, Encoding, complete_labels, detect_units
from knn_ner.data.module import TaggingData
from knn_ner.data.tags import read_labels
from knn_ner.data.text import detect_word_rule
from knn_ner.errors import UserError
from knn_ner.evaluation.metrics import word_f1
from knn_ner.files import read_json, write_json
from knn_ner.model.backbone import load_encoder, load_tokenizer, save_tagger
from knn_ner.model.representations import choose_device, predict
from knn_ner.model.tagger import Tagger
from knn_ner.pipeline import CONFIG_KEY, LoadedTagger, fitting_length, make_split, show_corpus
from knn_ner.products import full_precision

LIGHTNING_PRECISION = {"32": "32-true", "16": "16-mixed", "bf16": "bf16-mixed"}
# What may differ between a run and its resumption without changing what is trained.
FREE_TO_CHANGE = {"save_path", "resume", "workers", "device", "eval_batch_size", "batch_size"}


def scoring_interval(text: str) -> float:
    """An argparse type: a part of an epoch, above 0, or a whole number of epochs."""
    value = positive_float(text)
    if value > 1 and value != int(value):
        raise argparse.ArgumentTypeError(
            f"{text} found, a number above 0 and at most 1 or a whole number of epochs expected"
        )
    return value


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """The command line of `python -m knn_ner.train`."""
    parser = Parser(
        "Train a tagger: an encoder with a linear layer over each word piece.",
        prog="python -m knn_ner.train",
    )
    add_data_arguments(parser)
    parser.add_argument(
        "--bert_path", required=True, metavar="B", help="the encoder: a hub name or a folder"
    )
    parser.add_argument(
        "--save_path", required=True, metavar="S", help="folder for the model, results and logs"
    )
    add_run_arguments(parser)
    add_training_arguments(parser)
    parser.add_argument(
        "--resume",
        action="store_true",
        help="go on after the last finished epoch in --save_path, if there is one",
    )
    return parser.parse_args(argv)


def add_training_arguments(parser: argparse.ArgumentParser) -> None:
    """What shapes a training, for commands that train."""
    group = parser.add_argument_group("training")
    group.add_argument("--lr", type=positive_float, default=3e-5, help="highest learning rate")
    group.add_argument("--max_epochs", type=positive_int, default=10, help="epochs")
    group.add_argument(
        "--weight_decay", type=float, default=0.01, help="of AdamW, not on biases and layer norms"
    )
    group.add_argument(
        "--warmup_proportion", type=proportion, default=0.1, help="of the steps, before the decay"
    )
    group.add_argument(
        "--hidden_dropout_prob", type=proportion, default=0.1, help="dropout of the encoder"
    )
    group.add_argument("--train_batch_size", type=positive_int, help="--batch_size if not given")
    group.add_argument("--eval_batch_size", type=positive_int, help="--batch_size if not given")
    group.add_argument(
        "--accumulate_grad_batches", type=positive_int, default=1, help="batches to a step"
    )
    group.add_argument(
        "--gradient_clip_val", type=float, default=1.0, help="highest norm of a step's gradient"
    )
    group.add_argument(
        "--val_check_interval",
        type=scoring_interval,
        default=1.0,
        help="part of an epoch, or whole epochs, after which the dev split is scored",
    )
    group.add_argument("--save_topk", type=positive_int, default=1, help="best checkpoints to keep")
    group.add_argument(
        "--patience",
        type=non_negative_int,
        default=0,
        help="stop when the dev F1 has not risen for that many scorings; 0: never",
    )
    group.add_argument(
        "--piece_labels",
        choices=PIECE_LABELS,
        default="published",
        help="published: every word piece carries a label; first: the first piece of a word alone",
    )
    group.add_argument(
        "--classifier",
        choices=("linear", "mlp"),
        default="linear",
        help="over each piece; mlp (dense, tanh, dense) with ChineseBERT alone",
    )
    group.add_argument(
        "--units",
        choices=("auto", *UNITS),
        default="auto",
        help="what a token is: characters are joined without spaces; auto: by the training split",
    )


class Report(Callback):
    """One line for each scoring of the dev split."""

    def __init__(self):
        self.best = -1.0

    def on_validation_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        metrics = trainer.callback_metrics
        f1 = float(metrics["dev_f1"])
        self.best = max(self.best, f1)
        say(
            f"epoch {trainer.current_epoch + 1}/{trainer.max_epochs}, step {trainer.global_step}: "
            f"loss {float(metrics.get('train_loss', torch.nan)):.4f}, dev F1 {f1:.2f} "
            f"(best {self.best:.2f})"
        )


def train(settings: argparse.Namespace) -> dict:
    """Train a tagger and score its best checkpoint on dev and test.

    Returns what `train_results.json` holds: scores, epochs, seconds, the settings.

    Raises `UserError` for bad input.
    """
    save_path = Path(settings.save_path)
    settings.train_batch_size = settings.train_batch_size or settings.batch_size
    settings.eval_batch_size = settings.eval_batch_size or settings.batch_size
    if settings.val_check_interval > settings.max_epochs:
        raise UserError(
            f"--val_check_interval {settings.val_check_interval:g}: expected at most --max_epochs, "
            f"{settings.max_epochs}, or the dev split is never scored"
        )
    corpus_labels = read_labels(Path(settings.data_dir) / "ner_labels.txt")
    corpus = read_corpus(settings.data_dir, settings.file_name, labels=corpus_labels)
    show_corpus(corpus)
    checkpoint = prepare_folder(save_path, settings)
    if checkpoint is None and settings.resume and (save_path / "train_results.json").is_file():
        say(f"{save_path}: this training is finished; nothing is left to do")
        return read_json(save_path / "train_results.json")

    device = choose_device(settings.device)
    pl.seed_everything(settings.seed, workers=True, verbose=False)
    labels = (
        complete_labels(corpus_labels) if settings.piece_labels == "published" else corpus_labels
    )
    units = detect_units(corpus.splits["train"]) if settings.units == "auto" else settings.units
    say(f"tokens are {units}; {len(labels)} labels")
    tokenizer = load_tokenizer(settings.bert_path)
    encoding = Encoding(tokenizer, labels, settings.piece_labels, units)
    model = load_encoder(
        settings.bert_path,
        labels,
        settings.classifier,
        hidden_dropout_prob=settings.hidden_dropout_prob,
    )
    made = {
        "units": units,
        "piece_labels": settings.piece_labels,
        "word_rule": detect_word_rule((s.words for s in corpus.splits["train"]), units),
        "max_length": fitting_length(model, settings.max_length),
    }
    setattr(model.config, CONFIG_KEY, made)
    tagger = LoadedTagger(model, tokenizer, encoding, made["max_length"])
    splits = {split: make_split(corpus, split, encoding) for split in corpus.splits}

    data = TaggingData(
        splits["train"].encoded,
        splits["dev"].encoded,
        pad_id=tokenizer.pad_token_id,
        max_length=tagger.max_length,
        train_batch_size=settings.train_batch_size,
        eval_batch_size=settings.eval_batch_size,
        seed=settings.seed,
        workers=settings.workers,
    )
    module = Tagger(
        model,
        splits["dev"].decoder,
        lambda words: word_f1(splits["dev"].word_tags, words, corpus.scheme.name),
        lr=settings.lr,
        weight_decay=settings.weight_decay,
        warmup_proportion=settings.warmup_proportion,
        seed=settings.seed,
    )
    trainer, best = make_trainer(settings, save_path, device)
    start = time.perf_counter()
    try:
        with full_precision(device, model.config.hidden_size):
            trainer.fit(module, data, ckpt_path=checkpoint, weights_only=True)
    except SystemExit:
        # Lightning's own answer to an interrupt.
        say(f"{save_path}: --resume goes on after the last finished epoch")
        raise KeyboardInterrupt from None
    seconds = time.perf_counter() - start

    state = torch.load(best.best_model_path, map_location="cpu", weights_only=True)["state_dict"]
    module.load_state_dict(state)
    save_tagger(save_path / "model", model, tokenizer)
    results = {
        "dev": None,
        "test": None,
        "best_epoch_dev_f1": float(best.best_model_score),
        "epochs": trainer.current_epoch,
        "steps": trainer.global_step,
        "seconds": round(seconds, 2),
        "settings": recorded(settings),
    }
    for split in ("dev", "test"):
        rows = predict(
            tagger.model,
            splits[split].encoded,
            pad_id=tokenizer.pad_token_id,
            max_length=tagger.max_length,
            batch_size=settings.eval_batch_size,
            device=device,
            precision="32",
        )
        results[split] = splits[split].score(rows)
    write_json(save_path / "train_results.json", results)
    shutil.rmtree(save_path / "checkpoints" / "resume", ignore_errors=True)
    return results


def recorded(settings: argparse.Namespace) -> dict:
    """The settings as a result file holds them."""
    return {name: value for name, value in vars(settings).items() if name != "resume"}


def prepare_folder(save_path: Path, settings: argparse.Namespace) -> Path | None:
    """Make the folder of a training ready; returns the checkpoint to go on from, if any.

    Raises `UserError` when a run is to be resumed with other settings than its own.
    """
    last = save_path / "checkpoints" / "resume" / "last.ckpt"
    record = save_path / "settings.json"
    now = recorded(settings)
    if settings.resume and record.is_file():
        before = read_json(record)
        for name, value in now.items():
            if name not in FREE_TO_CHANGE and before.get(name, value) != value:
                raise UserError(
                    f"{save_path}: --{name} {value} found, expected {before[name]} as when this run "
                    "began; give the same settings, or leave out --resume to begin anew"
                )
        if last.is_file() or (save_path / "train_results.json").is_file():
            return last if last.is_file() else None
    if settings.resume:
        say(f"{save_path}: no unfinished run found, training begins anew")
    for stale in ("checkpoints", "logs", "model"):
        shutil.rmtree(save_path / stale, ignore_errors=True)
    (save_path / "train_results.json").unlink(missing_ok=True)
    write_json(record, now)
    return None


def make_trainer(
    settings: argparse.Namespace, save_path: Path, device: torch.device
) -> tuple[pl.Trainer, ModelCheckpoint]:
    """The trainer, and the callback that knows the best checkpoint."""
    for name in ("pytorch_lightning", "lightning.pytorch", "lightning_fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)
    precision = settings.precision
    if device.type == "cpu" and precision == "16":
        say("--precision 16: a CPU has no float16 training, bf16 is used")
        precision = "bf16"
    best = ModelCheckpoint(
        dirpath=save_path / "checkpoints",
        filename="{epoch}-{step}-{dev_f1:.2f}",
        monitor="dev_f1",
        mode="max",
        save_top_k=settings.save_topk,
        save_weights_only=True,
    )
    last = ModelCheckpoint(
        dirpath=save_path / "checkpoints" / "resume",
        filename="last",
        save_on_train_epoch_end=True,
        enable_version_counter=False,
    )
    callbacks: list[Callback] = [best, last, Report()]
    if settings.patience:
        callbacks.append(EarlyStopping("dev_f1", mode="max", patience=settings.patience))
    if sys.stderr.isatty():
        callbacks.append(TQDMProgressBar())
    logs = save_path / "logs"
    trainer = pl.Trainer(
        accelerator="gpu" if device.type == "cuda" else "cpu",
        devices=1,
        max_epochs=settings.max_epochs,
        accumulate_grad_batches=settings.accumulate_grad_batches,
        gradient_clip_val=settings.gradient_clip_val or None,
        val_check_interval=min(settings.val_check_interval, 1.0),
        check_val_every_n_epoch=max(int(settings.val_check_interval), 1),
        precision=LIGHTNING_PRECISION[precision],
        deterministic="warn" if device.type == "cuda" else True,
        callbacks=callbacks,
        logger=[
            TensorBoardLogger(logs, name="tensorboard"),
            CSVLogger(logs, name="csv"),
        ],
        enable_progress_bar=sys.stderr.isatty(),
        enable_model_summary=False,
        num_sanity_val_steps=0,
        reload_dataloaders_every_n_epochs=1,
        log_every_n_steps=10,
    )
    return trainer, best


def main(argv: list[str] | None = None) -> None:
    """The command line."""
    settings = parse_arguments(argv)
    results = train(settings)
    print(f"{'split':<6}{'P':>8}{'R':>8}{'F1':>8}{'strict':>8}{'piece':>8}")
    for split in ("dev", "test"):
        m = results[split]
        numbers = (m["precision"], m["recall"], m["f1"], m["strict_f1"], m["piece_f1"])
        print(f"{split:<6}" + "".join(f"{number:>8.2f}" for number in numbers))
    print(f"{settings.save_path}/model: the tagger; {results['seconds']:.0f} s of training")


if __name__ == "__main__":
    run_main(main)
