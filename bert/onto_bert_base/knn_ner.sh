#!/usr/bin/env bash
# English OntoNotes 5.0, BERT-Base: tag the test split with tagger and datastore.
source "$(dirname "$0")/../../scripts/experiment.sh"
corpus ontonotes5 word.bmes
published --k -1 --temperature 0.04 --knn_weight 0.43
tag_test --max_length 512 "$@"
