#!/usr/bin/env bash
# English OntoNotes 5.0, BERT-Large: build the datastore of the tagger.
source "$(dirname "$0")/../../scripts/experiment.sh"
corpus ontonotes5 word.bmes
build_datastore --max_length 512 "$@"
