#!/usr/bin/env bash
# Runs all steps once: train a tagger, build its datastore, tune on dev, tag the test split.
#
#   bash scripts/quickstart.sh
#       needs no download: it generates a corpus and a small encoder with random weights
#   DATA_DIR=D FILE_NAME=F BERT_PATH=B bash scripts/quickstart.sh [flags of knn_ner.train]
#       runs the steps on D/{train,dev,test}.F with the encoder B, a hub name or a folder
#
# The model and the results go to SAVE_PATH (default outputs/quickstart), the datastore to DATASTORE_PATH.
source "$(dirname "$0")/environment.sh"
make_environment "$REQUIREMENTS"
python=.venv/bin/python

SAVE_PATH=${SAVE_PATH:-outputs/quickstart}
DATASTORE_PATH=${DATASTORE_PATH:-$SAVE_PATH/datastore}
training=()
if [ -z "${DATA_DIR:-}" ]; then
    if [ -n "${BERT_PATH:-}${FILE_NAME:-}" ]; then
        echo "error: BERT_PATH or FILE_NAME given without DATA_DIR, expected all three or none" >&2
        exit 2
    fi
    DATA_DIR=$SAVE_PATH/corpus FILE_NAME=word.bmes BERT_PATH=$SAVE_PATH/encoder
    $python -m knn_ner.synthetic.corpus --out "$DATA_DIR"
    $python -m knn_ner.synthetic.encoder --kind bert --data_dir "$DATA_DIR" --file_name $FILE_NAME --out "$BERT_PATH"
    # Random weights need a higher learning rate and more steps than pretrained ones.
    training=(--lr 2e-3 --max_epochs 8 --train_batch_size 32)
fi
if [ -z "${FILE_NAME:-}" ] || [ -z "${BERT_PATH:-}" ]; then
    echo "error: DATA_DIR given without FILE_NAME or BERT_PATH, expected all three or none" >&2
    exit 2
fi

corpus=(--data_dir "$DATA_DIR" --file_name "$FILE_NAME")
stored=("${corpus[@]}" --model_path "$SAVE_PATH/model" --datastore_path "$DATASTORE_PATH")
step() { printf '\n== %s\n' "$1" >&2; }

step "label set"
[ -f "$DATA_DIR/ner_labels.txt" ] || $python get_labels.py --data-dir "$DATA_DIR" --file-name "$FILE_NAME"
step "train"
$python -m knn_ner.train "${corpus[@]}" --bert_path "$BERT_PATH" --save_path "$SAVE_PATH" "${training[@]}" "$@"
step "build the datastore"
$python -m knn_ner.build_datastore "${stored[@]}"
step "tune on dev"
$python -m knn_ner.tune "${stored[@]}" --save_path "$SAVE_PATH"
step "tag test"
$python -m knn_ner.infer "${stored[@]}" --save_path "$SAVE_PATH" --tuning "$SAVE_PATH/tuning.json"
