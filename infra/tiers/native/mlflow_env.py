"""MLflow's own Python environment: it is larger than all the rest, and only --with-obs needs it."""

from __future__ import annotations

import hashlib
import os
import sys
from pathlib import Path

from infra import shell
from infra.console import Console
from infra.errors import PlatformError
from infra.stack import write_atomic

REQUIREMENTS = Path("requirements") / "mlflow.txt"
DIRECTORY = ".venv-mlflow"


def python_of(root: Path) -> Path:
    """Return the interpreter of the environment."""
    return root / DIRECTORY / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")


def stamp(root: Path) -> str:
    """Fingerprint what the environment must have been made from."""
    text = (root / REQUIREMENTS).read_bytes() + f"{sys.version_info[:2]} {root}".encode()
    return hashlib.sha256(text).hexdigest()


def ready(root: Path) -> bool:
    """Return whether the environment is there and up to date."""
    try:
        noted = (root / DIRECTORY / "stamp").read_text(encoding="ascii", errors="replace")
    except OSError:
        return False
    return noted == stamp(root) and python_of(root).exists()


def ensure(root: Path, console: Console) -> Path:
    """Make or refresh the environment and return its interpreter.

    Raises:
        PlatformError: PROGRAM_FAILED with what the installer said.
    """
    if ready(root):
        return python_of(root)
    console.say("  installing MLflow into .venv-mlflow (once; takes under a minute with a fast package index)")
    target = root / DIRECTORY
    uv = shell.find("uv")
    make = (
        [uv, "venv", "--quiet", "--clear", "--python", sys.executable]
        if uv
        else [sys.executable, "-m", "venv", "--clear"]
    )
    lock = ["--no-deps", "--only-binary", ":all:", "--require-hashes", "-r", str(root / REQUIREMENTS)]
    python = str(python_of(root))
    pip = (
        [uv, "pip", "install", "--quiet", "--compile-bytecode", "--python", python]
        if uv
        else [python, "-m", "pip", "install", "-q"]
    )
    try:
        shell.run([*make, str(target)], limit=300)
        shell.run([*pip, *lock], limit=1800, env={"PIP_DISABLE_PIP_VERSION_CHECK": "1"})
    except PlatformError as error:
        raise _cannot_install(error) from error
    write_atomic(target / "stamp", stamp(root))
    return Path(os.path.abspath(python))


def _cannot_install(error: PlatformError) -> PlatformError:
    return PlatformError(
        error.code,
        "MLflow could not be installed; the core services are not affected",
        why=error.why,
        steps=("check that the package index can be reached, then run the same command again", *error.steps),
        details=error.details,
    )
