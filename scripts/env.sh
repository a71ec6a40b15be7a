# Read by start-infra.sh and run-tests.sh, which set `here` to this directory first.
# Goes to the checkout's root; finds Python 3.11 or newer; makes .venv.

# These would lead Python to other packages than those of .venv.
unset PYTHONHOME PYTHONPATH PYTHONSTARTUP PYTHONSAFEPATH VIRTUAL_ENV __PYVENV_LAUNCHER__
CDPATH='' cd -- "$here/.." || exit 4

venv_python=.venv/bin/python

is_new_enough() {
    "$1" -I -c 'import sys; sys.exit(sys.version_info < (3, 11))' </dev/null >/dev/null 2>&1
}

# Prints the first Python that runs and is new enough; PLATFORM_PYTHON, where set, is the only candidate.
find_python() {
    if [ -n "${PLATFORM_PYTHON:-}" ]; then
        is_new_enough "$PLATFORM_PYTHON" && printf '%s\n' "$PLATFORM_PYTHON" && return
        printf 'error: PLATFORM_PYTHON=%s is no Python 3.11 or newer\n' "$PLATFORM_PYTHON" >&2
        printf '  next: set it to another one, or unset it\n  exit: 5\n' >&2
        return 5
    fi
    for candidate in python3.14 python3.13 python3.12 python3.11 python3 python; do
        is_new_enough "$candidate" && printf '%s\n' "$candidate" && return
    done
    printf 'error: no Python 3.11 or newer on PATH\n' >&2
    printf '  next: install one (Debian 12, Ubuntu 24.04: apt install python3 python3-venv; macOS: brew install python)\n' >&2
    printf '  next: or set PLATFORM_PYTHON to its path\n  exit: 5\n' >&2
    return 5
}

# make_env platform|dev
make_env() {
    if [ -z "${PLATFORM_PYTHON:-}" ] && "$venv_python" -m scripts.make_env --check "$1" 2>/dev/null; then
        return
    fi
    python=$(find_python) || exit
    "$python" -m scripts.make_env "$1" || exit
}
