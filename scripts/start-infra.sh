#!/bin/sh
# One command on a fresh machine: makes .venv, then starts or stops the platform.
set -u

usage() {
    cat <<'TEXT'
usage: start-infra.sh [--with-obs] [--stop] [--help]

  (nothing)    start the platform; does nothing when it already runs
  --with-obs   with the observability services (MLflow, ...)
  --stop       stop it; data stays
TEXT
}

script=$0
while [ -L "$script" ]; do
    link=$(readlink "$script")
    case $link in
        /*) script=$link ;;
        *) script=$(dirname -- "$script")/$link ;;
    esac
done
here=$(CDPATH='' cd -- "$(dirname -- "$script")" && pwd -P) || exit 4

task=up obs=
for option in "$@"; do
    case $option in
        --with-obs) obs=--obs ;;
        --stop) task=down ;;
        -h | --help) usage; exit 0 ;;
        *)
            printf 'error: unknown option %s\n' "$option" >&2
            usage >&2
            exit 2
            ;;
    esac
done

. "$here/env.sh"
make_env platform
if [ "$task" = up ]; then
    exec "$venv_python" -m invoke up ${obs:+"$obs"}
fi
exec "$venv_python" -m invoke down
