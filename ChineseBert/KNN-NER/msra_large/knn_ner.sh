#!/usr/bin/env bash
# Chinese MSRA, ChineseBERT-Large: tag the test split with tagger and datastore.
source "$(dirname "$0")/../../../scripts/experiment.sh"
corpus msra ner.bmes
published --k 2048 --temperature 0.053 --knn_weight 0.48
tag_test --max_length 512 "$@"
