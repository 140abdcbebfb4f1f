#!/usr/bin/env bash
# Chinese Weibo, RoBERTa-Large: train the tagger.
source "$(dirname "$0")/../../scripts/experiment.sh"
corpus weibo all.bmes
train_tagger hfl/chinese-roberta-wwm-ext-large --max_length 512 \
    --lr 2e-5 --max_epochs 15 --train_batch_size 8 --accumulate_grad_batches 2 \
    --weight_decay 0.001 --hidden_dropout_prob 0.1 --warmup_proportion 0.1 \
    --val_check_interval 0.25 --units words --precision 32 --no-lowercase "$@"
