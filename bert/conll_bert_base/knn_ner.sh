#!/usr/bin/env bash
# English CoNLL-2003, BERT-Base: tag the test split with tagger and datastore.
# The paper has this row, but its authors published no scripts: vote of bert/conll_bert_large.
source "$(dirname "$0")/../../scripts/experiment.sh"
corpus conll2003 word.bmes
published --k 512 --temperature 0.001 --knn_weight 0.24
tag_test --max_length 512 "$@"
