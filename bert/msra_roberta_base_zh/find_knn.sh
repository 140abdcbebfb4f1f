#!/usr/bin/env bash
# Chinese MSRA, RoBERTa-Base: build the datastore of the tagger.
source "$(dirname "$0")/../../scripts/experiment.sh"
corpus msra ner.bmes
build_datastore --max_length 512 --units words "$@"
