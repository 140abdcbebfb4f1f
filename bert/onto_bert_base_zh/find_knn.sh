#!/usr/bin/env bash
# Chinese OntoNotes 4.0, BERT-Base: build the datastore of the tagger.
source "$(dirname "$0")/../../scripts/experiment.sh"
corpus ontonotes4 char.bmes
build_datastore --max_length 512 --units words "$@"
