#!/usr/bin/env bash
# English OntoNotes 5.0, BERT-Large: train the tagger.
source "$(dirname "$0")/../../scripts/experiment.sh"
corpus ontonotes5 word.bmes
train_tagger google-bert/bert-large-cased --max_length 512 \
    --lr 3e-5 --max_epochs 20 --train_batch_size 16 --accumulate_grad_batches 2 \
    --weight_decay 0.01 --hidden_dropout_prob 0.2 --warmup_proportion 0.001 \
    --val_check_interval 0.25 --units words --precision 32 "$@"
