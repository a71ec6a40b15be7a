#!/bin/sh
# Makes .venv and runs everything that this machine can run; run-tests.sh --help lists the options.
set -u

script=$0
while [ -L "$script" ]; do
    link=$(readlink "$script")
    case $link in
        /*) script=$link ;;
        *) script=$(dirname -- "$script")/$link ;;
    esac
done
here=$(CDPATH='' cd -- "$(dirname -- "$script")" && pwd -P) || exit 4

. "$here/env.sh"
python=$(find_python) || exit
exec "$python" -m scripts.run_tests "$@"
