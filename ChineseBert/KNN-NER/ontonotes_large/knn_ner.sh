#!/usr/bin/env bash
# Chinese OntoNotes 4.0, ChineseBERT-Large: tag the test split with tagger and datastore.
source "$(dirname "$0")/../../../scripts/experiment.sh"
corpus ontonotes4 char.bmes
published --k -1 --temperature 0.071 --knn_weight 0.71
tag_test --max_length 512 "$@"
