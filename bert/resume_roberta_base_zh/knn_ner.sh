#!/usr/bin/env bash
# Chinese Resume, RoBERTa-Base: tag the test split with tagger and datastore.
source "$(dirname "$0")/../../scripts/experiment.sh"
corpus resume word.bmes
swept "temperatures 0.001 to 0.091 and knn_weights 0.01 to 0.91 (k -1)"
tag_test --max_length 512 --units words "$@"
