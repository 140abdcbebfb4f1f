#!/usr/bin/env bash
# Chinese OntoNotes 4.0, RoBERTa-Large: train the tagger.
source "$(dirname "$0")/../../scripts/experiment.sh"
corpus ontonotes4 char.bmes
train_tagger hfl/chinese-roberta-wwm-ext-large --max_length 275 \
    --lr 3e-5 --max_epochs 15 --train_batch_size 18 --accumulate_grad_batches 2 \
    --weight_decay 0.002 --hidden_dropout_prob 0.2 --warmup_proportion 0.1 \
    --val_check_interval 0.25 --units characters --precision 16 --no-lowercase "$@"
