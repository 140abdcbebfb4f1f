#!/usr/bin/env bash
# Chinese Resume, BERT-Base: tag the test split with tagger and datastore.
source "$(dirname "$0")/../../scripts/experiment.sh"
corpus resume word.bmes
swept "temperatures 0.05 to 0.15 and knn_weights 0.75 to 0.85 (k -1)"
tag_test --max_length 512 --units words "$@"
