#!/usr/bin/env bash
# Chinese MSRA, BERT-Base: tag the test split with tagger and datastore.
source "$(dirname "$0")/../../scripts/experiment.sh"
corpus msra ner.bmes
published --k 1024 --temperature 0.17 --knn_weight 0.8
tag_test --max_length 512 --units words "$@"
