#!/usr/bin/env bash
# English OntoNotes 5.0, BERT-Large: tag the test split with tagger and datastore.
source "$(dirname "$0")/../../scripts/experiment.sh"
corpus ontonotes5 word.bmes
published --k -1 --temperature 0.013 --knn_weight 0.32
tag_test --max_length 512 "$@"
