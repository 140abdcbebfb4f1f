#!/usr/bin/env bash
# Chinese Weibo, ChineseBERT-Large: train the tagger.
source "$(dirname "$0")/../../../scripts/experiment.sh"
corpus weibo all.bmes
train_tagger ShannonAI/ChineseBERT-large --classifier linear --max_length 150 \
    --lr 2e-5 --max_epochs 5 --train_batch_size 1 --accumulate_grad_batches 1 \
    --weight_decay 0.001 --hidden_dropout_prob 0.1 --warmup_proportion 0.02 \
    --val_check_interval 0.25 --units characters --precision 16 "$@"
