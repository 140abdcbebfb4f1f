#!/usr/bin/env bash
# Reproduces rows of the paper's tables: trains, builds the datastore, tags the test split, and prints the tables.
#
#   bash scripts/reproduce.sh weibo_zh bert/conll_bert_large      rows: all, a dataset, a folder of scripts
#   SEEDS="0 1 2" bash scripts/reproduce.sh all
#   bash scripts/reproduce.sh weibo_zh -- --device cuda           flags that all three scripts take
#   TRAIN_FLAGS="--max_epochs 3" bash scripts/reproduce.sh all    flags of the training alone
#
# Finished rows are skipped, and after an interruption the same command continues. A row that fails is reported at
# the end, with exit code 1. Everything is written below OUTPUTS (default outputs); for SETTINGS and the other
# variables see scripts/experiment.sh.
if [ -n "${SAVE_PATH:-}${DATASTORE_PATH:-}" ]; then
    echo "error: SAVE_PATH or DATASTORE_PATH found, but every row has its own; set OUTPUTS" >&2
    exit 2
fi
# shellcheck source=scripts/experiment.sh
source "$(dirname "$0")/experiment.sh"
rows=()
while [ $# -gt 0 ] && [ "$1" != -- ]; do
    rows+=("$1")
    shift
done
[ $# -eq 0 ] || shift
[ ${#rows[@]} -gt 0 ] || fail "no row given, expected all, a dataset or a folder of scripts"
[ -z "$(given seed "")" ] || fail "--seed found; every seed has a folder of its own: set SEEDS"
(cd "$root" && make_environment "$REQUIREMENTS")
folders=$(DRY_RUN="" run -m knn_ner.experiment.rows "${rows[@]}")
for name in DATA_DIR BERT_PATH; do
    [ -z "${!name:-}" ] || echo "warning: $name=${!name}: every row is run with it" >&2
done
export OUTPUTS SETTINGS
subfolder=
[ "$SETTINGS" = published ] || subfolder=/$SETTINGS

# steps FOLDER SAVE_PATH FLAG...: run the three scripts of a row; each of them skips what is finished.
steps() {
    local folder=$1 save_path=$2
    shift 2
    if [ -d "$save_path/model" ] && [ ! -f "$save_path/settings.json" ]; then
        echo "$save_path/model: no training of this folder, used as it is" >&2
    else
        # shellcheck disable=SC2086  # several words
        bash "$root/$folder/only_ner.sh" --resume ${TRAIN_FLAGS:-} "$@" || return
    fi
    bash "$root/$folder/find_knn.sh" "$@" && bash "$root/$folder/knn_ner.sh" "$@"
}

# Without these traps an interrupt would end Python alone, and the next row would start.
stop() {
    echo "interrupted; the same command continues from here" >&2
    exit "$1"
}
trap 'stop 130' INT
trap 'stop 143' TERM

failed=()
for folder in $folders; do
    for SEED in ${SEEDS:-2333}; do
        export SEED
        save_path=$OUTPUTS/$folder/seed_$SEED
        # A process of an interrupted run may still be writing; it holds this lock.
        mkdir -p "$OUTPUTS/.locks"
        exec 9> "$OUTPUTS/.locks/${save_path//\//-}"
        if command -v flock > /dev/null && ! flock -n 9; then
            echo "$save_path: another process writes there; waiting for it to end" >&2
            flock 9
        fi
        results=$save_path$subfolder
        # A row without a published vote is tuned in any case.
        ! grep -q "^swept " "$root/$folder/knn_ner.sh" || results=$save_path/tuned
        if [ "$results/knn_results.json" -nt "$save_path/model/config.json" ]; then
            echo "$results: finished already" >&2
            continue
        fi
        printf '\n== %s, seed %s\n' "$folder" "$SEED" >&2
        code=0
        # Only the tables go to stdout.
        steps "$folder" "$save_path" "$@" >&2 || code=$?
        [ $code -ne 130 ] || stop 130
        [ $code -eq 0 ] || failed+=("$folder, seed $SEED (exit code $code)")
    done
done
exec 9>&-

run -m knn_ner.tables --runs "$OUTPUTS"
if [ ${#failed[@]} -gt 0 ]; then
    printf 'failed: %s\n' "${failed[@]}" >&2
    exit 1
fi
