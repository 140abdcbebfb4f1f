#!/usr/bin/env bash
# Chinese Weibo, RoBERTa-Large: build the datastore of the tagger.
source "$(dirname "$0")/../../scripts/experiment.sh"
corpus weibo all.bmes
build_datastore --max_length 512 --units words "$@"
