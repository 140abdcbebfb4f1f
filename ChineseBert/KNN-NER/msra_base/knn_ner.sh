#!/usr/bin/env bash
# Chinese MSRA, ChineseBERT-Base: tag the test split with tagger and datastore.
source "$(dirname "$0")/../../../scripts/experiment.sh"
corpus msra ner.bmes
published --k 1024 --temperature 0.04 --knn_weight 0.63
tag_test --max_length 512 "$@"
