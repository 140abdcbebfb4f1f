#!/usr/bin/env bash
# Chinese Resume, RoBERTa-Base: tag the test split with tagger and datastore.
source "$(dirname "$0")/../../scripts/experiment.sh"
corpus resume word.bmes
published --k -1 --temperature 0.1 --knn_weight 0.1
tag_test --max_length 512 "$@"
