#!/usr/bin/env bash
# Chinese Weibo, ChineseBERT-Large: tag the test split with tagger and datastore.
source "$(dirname "$0")/../../../scripts/experiment.sh"
corpus weibo all.bmes
published --k -1 --temperature 0.21 --knn_weight 0.31
tag_test --max_length 512 "$@"
