#!/usr/bin/env bash
# Chinese OntoNotes 4.0, BERT-Base: train the tagger.
source "$(dirname "$0")/../../scripts/experiment.sh"
corpus ontonotes4 char.bmes
train_tagger google-bert/bert-base-chinese --max_length 275 \
    --lr 2e-5 --max_epochs 10 --train_batch_size 16 --accumulate_grad_batches 2 \
    --weight_decay 0.001 --hidden_dropout_prob 0.1 --warmup_proportion 0.1 \
    --val_check_interval 0.25 --units characters --precision 16 "$@"
