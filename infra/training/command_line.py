"""The user's own training program, as one string on our command line."""

from __future__ import annotations

import shlex
import sys

from infra import shell
from infra.errors import PlatformError


def split(text: str, windows: bool = sys.platform == "win32") -> list[str]:
    """Split a command into program and arguments; it is never interpreted by a shell.

    Args:
        text: quoted as in a POSIX shell; on Windows backslashes are plain characters and quotes go around words.

    Raises:
        PlatformError: USAGE for an empty command or a quote that is not closed.
    """
    try:
        words = shlex.split(text, posix=not windows)
    except ValueError as error:
        raise _unusable(text, str(error).lower()) from error
    words = [_unquoted(word) for word in words] if windows else words
    if not words or not words[0]:
        raise _unusable(text, "it is empty")
    return words


def _unquoted(word: str) -> str:
    return word[1:-1] if len(word) >= 2 and word[0] == word[-1] and word[0] in "\"'" else word


def located(words: list[str]) -> list[str]:
    """Return the same command with the absolute path of its program, since the worker may have another PATH.

    Raises:
        PlatformError: PROGRAM_MISSING.
    """
    found = shell.find(words[0])
    if found is None:
        python = "python" if shell.find("python") else "python3"
        raise PlatformError(
            "PROGRAM_MISSING",
            f"the program {words[0]} was not found",
            why="it is neither on PATH nor an executable file",
            steps=(f"give its path, or run it with its interpreter: --command '{python} train.py'",),
        )
    return [found, *words[1:]]


def _unusable(text: str, why: str) -> PlatformError:
    return PlatformError(
        "USAGE", f"--command {text!r} cannot be used", why=why, steps=("--command 'python train.py --rate 0.1'",)
    )
