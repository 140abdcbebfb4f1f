#!/usr/bin/env bash
# Chinese Weibo, ChineseBERT-Base: train the tagger.
source "$(dirname "$0")/../../../scripts/experiment.sh"
corpus weibo all.bmes
train_tagger ShannonAI/ChineseBERT-base --classifier mlp --max_length 150 \
    --lr 4e-5 --max_epochs 10 --train_batch_size 2 --accumulate_grad_batches 1 \
    --weight_decay 0.01 --hidden_dropout_prob 0.2 --warmup_proportion 0.02 \
    --val_check_interval 0.25 --units characters --precision 32 "$@"
