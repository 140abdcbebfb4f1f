#!/usr/bin/env bash
# English CoNLL-2003, BERT-Base: build the datastore of the tagger.
source "$(dirname "$0")/../../scripts/experiment.sh"
corpus conll2003 word.bmes
build_datastore --max_length 512 "$@"
