#!/usr/bin/env bash
# A tagger trained on one corpus meets others: alone, with their datastores added, and trained anew.
#
#   DATA=data SOURCE=politics TARGETS="science literature" BERT_PATH=B bash scripts/domain.sh [flags of knn_ner.train]
#
# reads DATA/<corpus>/{train,dev,test}.FILE_NAME (default word.bmes) and writes everything below SAVE_PATH
# (default outputs/domain), at the end domain.md and domain.csv. What is finished is not done again, also
# when a corpus is added to TARGETS; an interrupted training goes on after its last epoch. RETRAIN names
# what to train anew: "both" (source and target together), "alone" (the target), or "" (nothing).
source "$(dirname "$0")/environment.sh"
make_environment "$REQUIREMENTS"

for name in SOURCE TARGETS BERT_PATH; do
    if [ -z "${!name:-}" ]; then
        echo "error: $name not given, expected SOURCE, TARGETS and BERT_PATH; see scripts/domain.sh" >&2
        exit 2
    fi
done
read -ra targets <<< "$TARGETS"
read -ra retrain <<< "${RETRAIN-both alone}"
exec .venv/bin/python scripts/studies/domain.py --data "${DATA:-data}" --source "$SOURCE" --targets "${targets[@]}" \
    --retrain "${retrain[@]}" --file_name "${FILE_NAME:-word.bmes}" --bert_path "$BERT_PATH" \
    --save_path "${SAVE_PATH:-outputs/domain}" -- "$@"
