#!/bin/sh
# Create a virtual environment with ionctl and its exact dependencies: sh scripts/make_venv.sh FOLDER
# $PYTHON names the interpreter; without it the first of python3.11, 3.12, 3.13, python3 that is 3.11 to 3.13.
set -eu
venv=$1

fits() {
    "$1" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' >/dev/null 2>&1
}

if [ -x "$venv/bin/python" ] && fits "$venv/bin/python"; then
    :  # made before: only what changed is installed
else
    found=
    for candidate in ${PYTHON:-python3.11 python3.12 python3.13 python3}; do
        if fits "$candidate"; then
            found=$candidate
            break
        fi
    done
    if [ -z "$found" ]; then
        echo "ionctl needs Python 3.11, 3.12 or 3.13, none found (looked for: ${PYTHON:-python3.11 python3.12 python3.13 python3})." >&2
        echo "Install one, or name it: make venv PYTHON=/path/to/python3.11" >&2
        exit 1
    fi
    echo "creating $venv with $("$found" --version) ..."
    rm -rf "$venv"
    if ! "$found" -m venv "$venv"; then
        rm -rf "$venv"
        echo "$found cannot create environments: install its venv module (on Debian and Ubuntu: python3-venv)." >&2
        exit 1
    fi
fi

echo "installing ionctl and its dependencies (about a minute the first time) ..."
# The build of ionctl itself takes its pinned build tools too.
PIP_CONSTRAINT="$PWD/constraints.txt" "$venv/bin/python" -m pip install --quiet --disable-pip-version-check \
    --only-binary :all: -e ".[dev,plot]"
