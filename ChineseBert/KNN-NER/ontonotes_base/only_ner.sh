#!/usr/bin/env bash
# Chinese OntoNotes 4.0, ChineseBERT-Base: train the tagger.
source "$(dirname "$0")/../../../scripts/experiment.sh"
corpus ontonotes4 char.bmes
train_tagger ShannonAI/ChineseBERT-base --classifier mlp --max_length 275 \
    --lr 3e-5 --max_epochs 5 --train_batch_size 26 --accumulate_grad_batches 1 \
    --weight_decay 0.001 --hidden_dropout_prob 0.2 --warmup_proportion 0.1 \
    --val_check_interval 0.25 --units characters --precision 16 "$@"
