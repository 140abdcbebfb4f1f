#!/usr/bin/env bash
# Chinese OntoNotes 4.0, RoBERTa-Large: tag the test split with tagger and datastore.
source "$(dirname "$0")/../../scripts/experiment.sh"
corpus ontonotes4 char.bmes
published --k 2048 --temperature 0.063 --knn_weight 0.14
tag_test --max_length 512 --units words "$@"
