#!/usr/bin/env bash
# English CoNLL-2003, BERT-Large: build the datastore of the tagger.
source "$(dirname "$0")/../../scripts/experiment.sh"
corpus conll2003 new.bmes word.bmes
build_datastore --max_length 512 "$@"
