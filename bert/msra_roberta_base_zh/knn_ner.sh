#!/usr/bin/env bash
# Chinese MSRA, RoBERTa-Base: tag the test split with tagger and datastore.
source "$(dirname "$0")/../../scripts/experiment.sh"
corpus msra ner.bmes
published --k 2048 --temperature 0.0103 --knn_weight 0.15
tag_test --max_length 512 --units words "$@"
