#!/usr/bin/env bash
# Measures a tagger on corpora that it was not trained on: alone, with their datastores, and after a new training.
#
#   DATA=data SOURCE=politics TARGETS="science literature" BERT_PATH=B bash scripts/domain.sh [flags of knn_ner.train]
#
# reads DATA/<corpus>/{train,dev,test}.FILE_NAME (default word.bmes) and writes everything below SAVE_PATH
# (default outputs/domain); domain.md and domain.csv come last. Finished steps are not repeated, even if TARGETS
# gets another corpus; an interrupted training continues after its last finished epoch. RETRAIN selects the new
# trainings: "both" (source and target together), "alone" (the target), or "" (none).
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
