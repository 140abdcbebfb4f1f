# shellcheck shell=bash
# Sourced by the scripts of the published experiments, which hold nothing but settings.
#
# Environment variables, each with a default (docs/experiments.md):
#   DATA_DIR FILE_NAME BERT_PATH    the corpus and the encoder
#   SEED OUTPUTS                    SAVE_PATH is OUTPUTS/<folder of the script>/seed_SEED if not given
#   SAVE_PATH DATASTORE_PATH        the tagger and its results; the datastore
#   SETTINGS=published|tuned        source of k, temperature and knn_weight: the paper, or knn_ner.tune on dev
#   DRY_RUN=1                       print the commands without running them
# A flag after the script's name overrides the script's own flag.

set -euo pipefail
flags=("$@")
here=$PWD
script_dir=$(cd "$(dirname "$0")" && pwd -P)
# shellcheck source=scripts/environment.sh
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
root=$PWD
script_dir=${script_dir#"$(pwd -P)/"}
# Given paths are relative to the user's folder, default paths to the repository.
cd "$here"
base=$root/
[ "$here" = "$root" ] && base=

# given NAME DEFAULT: the value of --NAME among the flags, or else the default.
given() {
    local value=$2 place
    for ((place = 0; place < ${#flags[@]}; place++)); do
        case ${flags[place]} in
            "--$1") value=${flags[place + 1]-} ;;
            "--$1="*) value=${flags[place]#*=} ;;
        esac
    done
    printf '%s\n' "$value"
}

# The seed of the published trainers.
SEED=$(given seed "${SEED:-2333}")
OUTPUTS=${OUTPUTS:-${base}outputs}
SAVE_PATH=${SAVE_PATH:-$OUTPUTS/$script_dir/seed_$SEED}
DATASTORE_PATH=$(given datastore_path "${DATASTORE_PATH:-$SAVE_PATH/datastore}")
SETTINGS=${SETTINGS:-published}
vote=()

fail() {
    echo "error: $*" >&2
    exit 2
}

# run ARGUMENT...: run Python with these arguments; with DRY_RUN print the command line instead.
run() {
    if [ -n "${DRY_RUN:-}" ]; then
        printf 'python'
        printf ' %q' "$@"
        printf '\n'
    else
        # Without the safe path Python would import a folder `knn_ner` in the user's folder.
        PYTHONSAFEPATH=1 PYTHONPATH=$root${PYTHONPATH:+:$PYTHONPATH} "$root/.venv/bin/python" "$@"
    fi
}

# corpus NAME FILE_NAME [OTHER]: set the corpus, by its name in scripts/prepare_data.py, and the ending of its files:
# the published one or, if there is no such file, OTHER, which has the same content; make the environment.
corpus() {
    DATA_DIR=$(given data_dir "${DATA_DIR:-${base}data/$1}")
    local ending=$2
    [ -f "$DATA_DIR/train.$2" ] || [ ! -f "$DATA_DIR/train.${3:-$2}" ] || ending=${3:-$2}
    FILE_NAME=$(given file_name "${FILE_NAME:-$ending}")
    [ -z "${DRY_RUN:-}" ] || return 0
    [ -d "$DATA_DIR" ] || fail "$DATA_DIR: no such folder; set DATA_DIR, or make it with:" \
        "python ${base}scripts/prepare_data.py $1 --raw DOWNLOADED --out $DATA_DIR"
    (cd "$root" && make_environment "$REQUIREMENTS")
}

# published --k K --temperature T --knn_weight W: set the settings of the published script.
published() { vote=("$@"); }

# swept TEXT: the published script tries many settings on the test set and chooses none; tune on dev instead.
swept() {
    [ "$SETTINGS" != published ] ||
        echo "no published choice of temperature and knn_weight exists: the published script sweeps $1 on the test" \
            "set; they are chosen on dev instead" >&2
    SETTINGS=tuned
}

# train_tagger ENCODER FLAG...: train a tagger, SAVE_PATH/model.
train_tagger() {
    local encoder=${BERT_PATH:-$1}
    shift
    [ -f "$DATA_DIR/ner_labels.txt" ] ||
        run "${base}get_labels.py" --data-dir "$DATA_DIR" --file-name "$FILE_NAME"
    # As the published trainers: no gradient clipping, random batches, the checkpoint chosen by piece-level F1.
    run -m knn_ner.train --data_dir "$DATA_DIR" --file_name "$FILE_NAME" --bert_path "$encoder" \
        --save_path "$SAVE_PATH" --seed "$SEED" --gradient_clip_val 0 --batching random --select_by piece_f1 "$@"
}

need_tagger() {
    [ -n "$(given model_path "${DRY_RUN:-}")" ] || [ -d "$SAVE_PATH/model" ] ||
        fail "$SAVE_PATH/model: no tagger found; run only_ner.sh first, or give --model_path"
}

# build_datastore FLAG...: store the hidden states of the training split.
build_datastore() {
    need_tagger
    run -m knn_ner.build_datastore --data_dir "$DATA_DIR" --file_name "$FILE_NAME" \
        --model_path "$SAVE_PATH/model" --datastore_path "$DATASTORE_PATH" --key_dtype float32 "$@"
}

# tag_test FLAG...: write knn_results.json and predictions.txt to SAVE_PATH or, if tuned, to SAVE_PATH/tuned.
tag_test() {
    need_tagger
    local stored=(--data_dir "$DATA_DIR" --file_name "$FILE_NAME"
        --model_path "$SAVE_PATH/model" --datastore_path "$DATASTORE_PATH")
    case $SETTINGS in
        published)
            run -m knn_ner.infer "${stored[@]}" --save_path "$SAVE_PATH" --seed "$SEED" "${vote[@]}" "$@"
            ;;
        tuned)
            local results
            results=$(given save_path "$SAVE_PATH/tuned")
            # Tuning searches the dev split; its result is valid as long as the datastore does not change.
            if [ "$results/tuning.json" -nt "$DATASTORE_PATH/manifest.json" ]; then
                echo "$results/tuning.json: tuned already; remove it to tune anew" >&2
            else
                tune "$results" "${stored[@]}" "$@"
            fi
            run -m knn_ner.infer "${stored[@]}" --save_path "$results" --seed "$SEED" \
                --tuning "$results/tuning.json" "$@"
            ;;
        *) fail "SETTINGS=$SETTINGS found, expected published or tuned" ;;
    esac
}

# tune SAVE_PATH FLAG...: tune on dev; the flags that only inference has are dropped.
tune() {
    local arguments=(--save_path "$1")
    shift
    while [ $# -gt 0 ]; do
        case $1 in
            --exhaustive | --split=*) ;;
            --split) shift ;;
            *) arguments+=("$1") ;;
        esac
        shift
    done
    run -m knn_ner.tune "${arguments[@]}"
}
