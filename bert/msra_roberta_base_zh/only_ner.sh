#!/usr/bin/env bash
# Chinese MSRA, RoBERTa-Base: train the tagger.
source "$(dirname "$0")/../../scripts/experiment.sh"
corpus msra ner.bmes
train_tagger hfl/chinese-roberta-wwm-ext --max_length 512 \
    --lr 3e-5 --max_epochs 15 --train_batch_size 16 --accumulate_grad_batches 1 \
    --weight_decay 0.01 --hidden_dropout_prob 0.2 --warmup_proportion 0.001 \
    --val_check_interval 0.25 --units characters --precision 16 --no-lowercase "$@"
