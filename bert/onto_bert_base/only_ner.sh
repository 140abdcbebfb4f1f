#!/usr/bin/env bash
# English OntoNotes 5.0, BERT-Base: train the tagger.
source "$(dirname "$0")/../../scripts/experiment.sh"
corpus ontonotes5 word.bmes
train_tagger google-bert/bert-base-cased --max_length 512 \
    --lr 2e-5 --max_epochs 10 --train_batch_size 32 --accumulate_grad_batches 1 \
    --weight_decay 0.001 --hidden_dropout_prob 0.2 --warmup_proportion 0.1 \
    --val_check_interval 0.25 --units words --precision 16 "$@"
