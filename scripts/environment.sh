# Sourced by the other scripts: changes to the repository's root and makes its virtual environment.
#
#   REQUIREMENTS=requirements-gpu.txt   for a machine with CUDA (default: requirements.txt)
#   PYTHON=python3.12                   the interpreter of the environment (default: python3)

set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# make_environment FILE...: install these requirement files into .venv, unless their present content is installed.
make_environment() {
    local stamp=.venv/.installed wanted
    wanted=$(cat "$@" | cksum)
    if [ ! -x .venv/bin/python ]; then
        local python=${PYTHON:-python3}
        "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
            echo "error: $("$python" --version) found, expected Python 3.11 or later; set PYTHON" >&2
            exit 2
        }
        echo "making .venv" >&2
        "$python" -m venv .venv
    fi
    case " $(cat $stamp 2>/dev/null | tr '\n' ' ') " in *" ${wanted% *} "*) return ;; esac
    echo "installing $*" >&2
    local file arguments=()
    for file in "$@"; do arguments+=(-r "$file"); done
    .venv/bin/python -m pip install --quiet --disable-pip-version-check "${arguments[@]}"
    echo "${wanted% *}" >> $stamp
}

REQUIREMENTS=${REQUIREMENTS:-requirements.txt}
# Waiting threads must not spin: on a busy machine, spinning makes everything up to ten times slower.
export OMP_WAIT_POLICY=${OMP_WAIT_POLICY:-PASSIVE}
export TOKENIZERS_PARALLELISM=${TOKENIZERS_PARALLELISM:-false}
