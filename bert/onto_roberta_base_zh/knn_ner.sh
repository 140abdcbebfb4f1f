#!/usr/bin/env bash
# Chinese OntoNotes 4.0, RoBERTa-Base: tag the test split with tagger and datastore.
source "$(dirname "$0")/../../scripts/experiment.sh"
corpus ontonotes4 char.bmes
published --k -1 --temperature 0.031 --knn_weight 0.99
tag_test --max_length 512 --units words "$@"
