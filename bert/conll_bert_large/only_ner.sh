#!/usr/bin/env bash
# English CoNLL-2003, BERT-Large: train the tagger.
source "$(dirname "$0")/../../scripts/experiment.sh"
corpus conll2003 new.bmes word.bmes
train_tagger google-bert/bert-large-cased --max_length 512 \
    --lr 5e-5 --max_epochs 40 --train_batch_size 16 --accumulate_grad_batches 2 \
    --weight_decay 0.01 --hidden_dropout_prob 0.1 --warmup_proportion 0.001 \
    --val_check_interval 0.25 --units words --precision 32 "$@"
