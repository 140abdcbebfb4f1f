#!/usr/bin/env bash
# Chinese Weibo, RoBERTa-Base: tag the test split with tagger and datastore.
source "$(dirname "$0")/../../scripts/experiment.sh"
corpus weibo all.bmes
published --k -1 --temperature 0.041 --knn_weight 0.41
tag_test --max_length 512 --units words "$@"
