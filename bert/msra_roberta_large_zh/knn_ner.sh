#!/usr/bin/env bash
# Chinese MSRA, RoBERTa-Large: tag the test split with tagger and datastore.
source "$(dirname "$0")/../../scripts/experiment.sh"
corpus msra ner.bmes
published --k 2048 --temperature 0.09 --knn_weight 0.68
tag_test --max_length 512 --units words "$@"
