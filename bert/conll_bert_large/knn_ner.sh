#!/usr/bin/env bash
# English CoNLL-2003, BERT-Large: tag the test split with tagger and datastore.
source "$(dirname "$0")/../../scripts/experiment.sh"
corpus conll2003 new.bmes word.bmes
published --k 512 --temperature 0.001 --knn_weight 0.24
tag_test --max_length 512 "$@"
