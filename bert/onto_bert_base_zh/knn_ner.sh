#!/usr/bin/env bash
# Chinese OntoNotes 4.0, BERT-Base: tag the test split with tagger and datastore.
source "$(dirname "$0")/../../scripts/experiment.sh"
corpus ontonotes4 char.bmes
published --k 256 --temperature 0.031 --knn_weight 0.81
tag_test --max_length 512 --precision 16 --units words "$@"
