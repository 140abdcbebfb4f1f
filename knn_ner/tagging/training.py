"""Train a tagger, resume a training, and score the best checkpoint."""

import dataclasses
import logging
import shutil
import sys
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback, EarlyStopping, ModelCheckpoint, TQDMProgressBar
from pytorch_lightning.loggers import CSVLogger, TensorBoardLogger

from knn_ner.data.corpus import Corpus, read_corpus, read_labels
from knn_ner.data.datamodule import TaggingDataModule
from knn_ner.data.encoding import Encoding, complete_labels, detect_units
from knn_ner.data.word_splitting import detect_word_rule
from knn_ner.evaluation.metrics import word_f1
from knn_ner.model.backbone import CONFIG_KEY, load_encoder, load_tokenizer, save_tagger
from knn_ner.model.lightning_module import Tagger
from knn_ner.settings import RunSettings, TrainSettings
from knn_ner.tagging.split import Split, make_split
from knn_ner.tagging.trained_tagger import TrainedTagger, fitting_length
from knn_ner.utils.device import choose_device, full_precision
from knn_ner.utils.errors import UserError
from knn_ner.utils.files import read_json, write_json

logger = logging.getLogger(__name__)

RESULTS_FILE = "train_results.json"
SETTINGS_FILE = "settings.json"
LIGHTNING_PRECISION = {"32": "32-true", "16": "16-mixed", "bf16": "bf16-mixed"}
# Largest share of training words with the unknown word piece that causes no warning.
UNKNOWN_SHARE = 0.2
# Settings that a resumed run may change, as the trained weights do not depend on them.
FREE_TO_CHANGE = {"save_path", "resume", "workers", "device", "eval_batch_size", "batch_size"}


class ScoreLog(Callback):
    """Logs a line whenever the dev split is scored."""

    def __init__(self) -> None:
        self.best = -1.0

    def on_validation_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        metrics = trainer.callback_metrics
        f1 = float(metrics["dev_f1"])
        self.best = max(self.best, f1)
        loss = float(metrics.get("train_loss", torch.nan))
        logger.info(
            f"epoch {trainer.current_epoch + 1}/{trainer.max_epochs}, step {trainer.global_step}: "
            f"loss {loss:.4f}, dev F1 {f1:.2f} (best {self.best:.2f})"
        )


def train_tagger(settings: TrainSettings) -> dict[str, Any]:
    """Train a tagger and score its best checkpoint on dev and test.

    Returns:
        The content of `train_results.json`: scores, epochs, steps, seconds, settings.

    Raises:
        UserError: for bad input.
    """
    save_path = Path(settings.save_path)
    settings = with_batch_sizes(settings)
    if settings.val_check_interval > settings.max_epochs:
        raise UserError(
            f"--val_check_interval {settings.val_check_interval:g}: expected at most --max_epochs, "
            f"{settings.max_epochs}, or the dev split is never scored"
        )
    corpus_labels = read_labels(Path(settings.data_dir) / "ner_labels.txt")
    corpus = read_corpus(
        settings.data_dir, settings.file_name, labels=corpus_labels, comments=settings.comments
    )
    corpus.report()
    checkpoint = _prepare_folder(save_path, settings)
    if checkpoint is None and settings.resume and (save_path / RESULTS_FILE).is_file():
        logger.info(f"{save_path}: this training is finished; nothing is left to do")
        return read_json(save_path / RESULTS_FILE)

    device = choose_device(settings.device)
    pl.seed_everything(settings.seed, workers=True, verbose=False)
    tagger = _new_tagger(settings, corpus, corpus_labels)
    splits = {split: make_split(corpus, split, tagger.encoding) for split in corpus.splits}
    _warn_of_unknown_words(tagger, splits["train"])
    trainer, best, seconds = _fit(settings, tagger, splits, device, checkpoint)
    results = {
        "dev": None,
        "test": None,
        "best_epoch_dev_f1": float(best.best_model_score or 0),
        "epochs": trainer.current_epoch,
        "steps": trainer.global_step,
        "seconds": round(seconds, 2),
        "settings": recorded(settings),
    }
    scoring = RunSettings(
        max_length=settings.max_length,
        batch_size=settings.eval_batch_size or settings.batch_size,
        device=settings.device,
    )
    for split in ("dev", "test"):
        rows = tagger.predict(splits[split].encoded, scoring)
        results[split] = splits[split].score(rows)
    write_json(save_path / RESULTS_FILE, results)
    shutil.rmtree(save_path / "checkpoints" / "resume", ignore_errors=True)
    return results


def with_batch_sizes(settings: TrainSettings) -> TrainSettings:
    """Return the settings with batch sizes of training and scoring that are not None."""
    return dataclasses.replace(
        settings,
        train_batch_size=settings.train_batch_size or settings.batch_size,
        eval_batch_size=settings.eval_batch_size or settings.batch_size,
    )


def recorded(settings: TrainSettings) -> dict[str, Any]:
    """Return the settings as result files record them."""
    return {name: value for name, value in dataclasses.asdict(settings).items() if name != "resume"}


def changed_setting(before: Mapping[str, Any], settings: TrainSettings) -> tuple[str, Any] | None:
    """Return name and earlier value of the first setting that changes the trained weights, or None.

    Args:
        before: the recorded settings of the earlier run.
        settings: the settings of this run, from `with_batch_sizes`.
    """
    for name, value in recorded(settings).items():
        if name not in FREE_TO_CHANGE and before.get(name, value) != value:
            return name, before[name]
    return None


def _new_tagger(settings: TrainSettings, corpus: Corpus, corpus_labels: list[str]) -> TrainedTagger:
    """Make a tagger with a new classifier; its config.json records how words are joined and labelled."""
    labels = (
        complete_labels(corpus_labels) if settings.piece_labels == "published" else corpus_labels
    )
    units = detect_units(corpus.splits["train"]) if settings.units == "auto" else settings.units
    logger.info(f"tokens are {units}; {len(labels)} labels")
    tokenizer = load_tokenizer(settings.bert_path, settings.lowercase)
    encoding = Encoding(tokenizer, labels, settings.piece_labels, units)
    model = load_encoder(
        settings.bert_path,
        labels,
        settings.classifier,
        settings.hidden_dropout_prob,
    )
    max_length = fitting_length(model, tokenizer, settings.max_length)
    recorded_settings = {
        "units": units,
        "piece_labels": settings.piece_labels,
        "scheme": corpus.scheme.name,
        "word_rule": detect_word_rule((s.words for s in corpus.splits["train"]), units),
        "max_length": max_length,
    }
    setattr(model.config, CONFIG_KEY, recorded_settings)
    return TrainedTagger(model, tokenizer, encoding, max_length)


class _LastOfTies(ModelCheckpoint):
    """Keeps the last of equally good checkpoints, as the published trainers do."""

    def check_monitor_top_k(self, trainer: pl.Trainer, current: torch.Tensor | None = None) -> bool:
        """Whether a checkpoint is to be kept."""
        if super().check_monitor_top_k(trainer, current) or current is None:
            return current is not None
        return bool(current >= self.best_k_models[self.kth_best_model_path])


def _dev_scores(dev: Split, select_by: str, rows: np.ndarray) -> dict[str, float]:
    """The scores of the dev split that training logs: the word-level F1 and the one that chooses a checkpoint."""
    scores = {"dev_f1": word_f1(dev.word_tags, dev.decoder.sentences(rows))}
    if select_by == "piece_f1":
        scores["dev_piece_f1"] = dev.score(rows)["piece_f1"]
    return scores


def _warn_of_unknown_words(tagger: TrainedTagger, train: Split) -> None:
    """Warn if many words give the unknown word piece: tokeniser and corpus do not fit then."""
    words = unknown = 0
    for sentence in train.encoded:
        pieces = sentence.input_ids[1:-1] == tagger.tokenizer.unk_token_id
        unknown += len(np.unique(sentence.word_of_piece[1:-1][pieces]))
        words += len(sentence.first_piece)
    if unknown > UNKNOWN_SHARE * words:
        logger.warning(
            f"{unknown / words:.0%} of the training words give the unknown word piece {tagger.tokenizer.unk_token}; "
            "check that the encoder is for this language and letter case (--lowercase, --no-lowercase)"
        )


def _fit(
    settings: TrainSettings,
    tagger: TrainedTagger,
    splits: Mapping[str, Split],
    device: torch.device,
    checkpoint: Path | None,
) -> tuple[pl.Trainer, ModelCheckpoint, float]:
    """Train, load the best checkpoint and write `S/model/`; returns the seconds of training too."""
    save_path, model, dev = Path(settings.save_path), tagger.model, splits["dev"]
    batch_sizes = with_batch_sizes(settings)
    assert batch_sizes.train_batch_size and batch_sizes.eval_batch_size
    data = TaggingDataModule(
        splits["train"].encoded,
        dev.encoded,
        pad_id=tagger.tokenizer.pad_token_id,
        max_length=tagger.max_length,
        train_batch_size=batch_sizes.train_batch_size,
        eval_batch_size=batch_sizes.eval_batch_size,
        seed=settings.seed,
        workers=settings.workers,
        by_length=settings.batching == "length",
    )
    module = Tagger(
        model,
        len(dev.gold),
        partial(_dev_scores, dev, settings.select_by),
        lr=settings.lr,
        weight_decay=settings.weight_decay,
        warmup_proportion=settings.warmup_proportion,
        seed=settings.seed,
    )
    trainer, best = _make_trainer(settings, save_path, device)
    start = time.perf_counter()
    try:
        with full_precision(device):
            trainer.fit(module, data, ckpt_path=checkpoint, weights_only=True)
    except SystemExit:
        # Lightning exits after an interrupt.
        logger.info(f"{save_path}: --resume continues after the last finished epoch")
        raise KeyboardInterrupt from None
    seconds = time.perf_counter() - start
    state = torch.load(best.best_model_path, map_location="cpu", weights_only=True)["state_dict"]
    module.load_state_dict(state)
    save_tagger(save_path / "model", model, tagger.tokenizer)
    return trainer, best, seconds


def _prepare_folder(save_path: Path, settings: TrainSettings) -> Path | None:
    """Prepare `--save_path`; returns the checkpoint from which to resume, if there is one.

    Raises:
        UserError: if a resumed run had other settings.
    """
    last = save_path / "checkpoints" / "resume" / "last.ckpt"
    record = save_path / SETTINGS_FILE
    if settings.resume and record.is_file():
        changed = changed_setting(read_json(record), settings)
        if changed:
            name, before = changed
            raise UserError(
                f"{save_path}: --{name} {getattr(settings, name)} found, expected {before} as when this run "
                "began; give the same settings, or leave out --resume to begin anew"
            )
        if last.is_file() or (save_path / RESULTS_FILE).is_file():
            return last if last.is_file() else None
    if settings.resume:
        logger.info(f"{save_path}: no unfinished run found, training begins anew")
    for stale in ("checkpoints", "logs", "model"):
        shutil.rmtree(save_path / stale, ignore_errors=True)
    (save_path / RESULTS_FILE).unlink(missing_ok=True)
    write_json(record, recorded(settings))
    return None


def _make_trainer(
    settings: TrainSettings, save_path: Path, device: torch.device
) -> tuple[pl.Trainer, ModelCheckpoint]:
    """Make the trainer, and the callback that saves the best checkpoint."""
    for name in ("pytorch_lightning", "lightning.pytorch", "lightning_fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)
    precision: str = settings.precision
    if device.type == "cpu" and precision == "16":
        logger.info("--precision 16: a CPU has no float16 training, bf16 is used")
        precision = "bf16"
    best = (_LastOfTies if settings.select_by == "piece_f1" else ModelCheckpoint)(
        dirpath=save_path / "checkpoints",
        filename="{epoch}-{step}-{dev_f1:.2f}",
        monitor=f"dev_{settings.select_by}",
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
    callbacks: list[Callback] = [best, last, ScoreLog()]
    if settings.patience:
        callbacks.append(
            EarlyStopping(f"dev_{settings.select_by}", mode="max", patience=settings.patience)
        )
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
        precision=LIGHTNING_PRECISION[precision],  # type: ignore[arg-type]
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
