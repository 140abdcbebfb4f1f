#!/usr/bin/env bash
# Measures how much training data kNN saves: taggers of 5 to 100 percent of the sentences, alone and with datastores.
#
#   DATA_DIR=D FILE_NAME=F BERT_PATH=B bash scripts/low_resource.sh [flags of scripts/studies/low_resource.py]
#
# writes everything below SAVE_PATH (default outputs/low_resource): low_resource.md, .csv and .json, and the plot
# low_resource.png and .svg. Finished steps are not repeated. SEEDS lists the random seeds (default "0 1 2"). The
# script takes the flags of knn_ner.experiment for training, keys and grid, and --shares, --min_steps, --taggers.
source "$(dirname "$0")/environment.sh"
make_environment "$REQUIREMENTS"

for name in DATA_DIR FILE_NAME BERT_PATH; do
    if [ -z "${!name:-}" ]; then
        echo "error: $name not given, expected DATA_DIR, FILE_NAME and BERT_PATH; see scripts/low_resource.sh" >&2
        exit 2
    fi
done
read -ra seeds <<< "${SEEDS:-0 1 2}"
[ -f "$DATA_DIR/ner_labels.txt" ] || .venv/bin/python get_labels.py --data-dir "$DATA_DIR" --file-name "$FILE_NAME"
exec .venv/bin/python scripts/studies/low_resource.py --data_dir "$DATA_DIR" --file_name "$FILE_NAME" \
    --bert_path "$BERT_PATH" --save_path "${SAVE_PATH:-outputs/low_resource}" --seeds "${seeds[@]}" "$@"
