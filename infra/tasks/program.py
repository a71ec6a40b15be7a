"""The tasks as the program `platform`: Invoke with the checkout's tasks, wherever it is called."""

from __future__ import annotations

import sys
from pathlib import Path

import invoke

from infra.console import PROGRAM


def run(words: list[str]) -> int:
    """Run the tasks that the words name; returns the exit code."""
    root = str(Path(__file__).resolve().parents[2])
    sys.argv = [PROGRAM, *words]  # the tasks look at it, too
    program = invoke.Program(name=PROGRAM, binary=PROGRAM, binary_names=[PROGRAM])
    try:
        program.run([PROGRAM, "--search-root", root, *words])
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    return 0


if __name__ == "__main__":
    sys.exit(run(sys.argv[1:]))
