#!/usr/bin/env bash
# Chinese MSRA, ChineseBERT-Base: train the tagger.
source "$(dirname "$0")/../../../scripts/experiment.sh"
corpus msra ner.bmes
train_tagger ShannonAI/ChineseBERT-base --classifier linear --max_length 512 \
    --lr 2e-5 --max_epochs 40 --train_batch_size 26 --accumulate_grad_batches 1 \
    --weight_decay 0.01 --hidden_dropout_prob 0.2 --warmup_proportion 0.001 \
    --val_check_interval 0.25 --units characters --precision 16 "$@"
