#!/usr/bin/env bash
# Chinese MSRA, BERT-Base: train the tagger.
source "$(dirname "$0")/../../scripts/experiment.sh"
corpus msra ner.bmes
train_tagger google-bert/bert-base-chinese --max_length 512 \
    --lr 3e-5 --max_epochs 5 --train_batch_size 16 --accumulate_grad_batches 2 \
    --weight_decay 0.01 --hidden_dropout_prob 0.2 --warmup_proportion 0.01 \
    --val_check_interval 0.25 --units characters --precision 16 "$@"
