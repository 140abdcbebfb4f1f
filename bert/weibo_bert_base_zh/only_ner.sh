#!/usr/bin/env bash
# Chinese Weibo, BERT-Base: train the tagger.
source "$(dirname "$0")/../../scripts/experiment.sh"
corpus weibo all.bmes
train_tagger google-bert/bert-base-chinese --max_length 512 \
    --lr 3e-5 --max_epochs 20 --train_batch_size 8 --accumulate_grad_batches 1 \
    --weight_decay 0.001 --hidden_dropout_prob 0.1 --warmup_proportion 0.1 \
    --val_check_interval 0.25 --units characters --precision 32 "$@"
