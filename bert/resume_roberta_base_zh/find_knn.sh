#!/usr/bin/env bash
# Chinese Resume, RoBERTa-Base: build the datastore of the tagger.
source "$(dirname "$0")/../../scripts/experiment.sh"
corpus resume word.bmes
build_datastore --max_length 512 --units words "$@"
