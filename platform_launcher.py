"""The command `platform`: runs the tasks of a checkout from any directory, with the checkout's own Python and packages.

It needs nothing but Python's standard library, so that `pipx install .` and `uv tool install .` bring this file alone.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from runpy import run_module
from urllib.parse import unquote, urlsplit

HERE = "--here"
"""First word of a call that has found its checkout and its Python."""
COMPLETE = "--complete-words"
"""First word of a shell that asks what may stand in the place of the last word."""
HOME = "PLATFORM_HOME"
"""Variable that names a checkout."""
USAGE, MISSING = 2, 5
"""Exit codes, as in infra/errors.py."""


class NoCheckout(Exception):
    """No checkout was found or it cannot be used: what, next steps, and the exit code."""

    def __init__(self, what: str, *steps: str, code: int = USAGE) -> None:
        super().__init__(what)
        self.steps, self.code = steps, code


def registry(environ: Mapping[str, str] = os.environ) -> Path:
    """Return the directory in which every stack of this user has a file `NAME.json`."""
    if sys.platform == "win32":
        return Path(environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local") / "vision-platform" / "stacks"
    return Path(environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state") / "vision-platform" / "stacks"


def known_stacks(directory: Path) -> list[dict[str, str]]:
    """Return the stacks of this user whose directories are still there.

    Of each name, root, home, tier, running (yes or no), and as JSON the settings that the shell had (`given`).
    """
    found = []
    for path in sorted(directory.glob("*.json")):
        try:
            entry = json.loads(path.read_text(encoding="utf-8"))
            stack = {key: str(entry[key]) for key in ("name", "root", "home", "tier", "running")}
            stack["given"] = str(entry.get("given", ""))
        except (OSError, ValueError, KeyError, TypeError):
            continue
        if Path(stack["home"]).is_dir() and is_checkout(Path(stack["root"])):
            found.append(stack)
    return found


def is_checkout(directory: Path) -> bool:
    """Return whether a directory is a checkout of the platform that this command can use."""
    return all((directory / name).is_file() for name in ("tasks.py", Path(__file__).name, "infra/tasks/command.py"))


def around(directory: Path) -> Path | None:
    """Return the nearest checkout: the directory itself or one above it."""
    return next((d for d in (directory, *directory.parents) if is_checkout(d)), None)


def own() -> Path | None:
    """Return the checkout that this file is part of, or from which it was installed (PEP 610)."""
    beside = Path(__file__).resolve().parent
    if is_checkout(beside):
        return beside
    from importlib.metadata import PackageNotFoundError, distribution

    try:
        origin = json.loads(distribution("vision-platform-infra").read_text("direct_url.json") or "{}")
    except (PackageNotFoundError, ValueError):
        return None
    path = unquote(urlsplit(str(origin.get("url", ""))).path)
    directory = Path(path.lstrip("/") if sys.platform == "win32" else path)
    return directory if path and is_checkout(directory) else None


def choose(asked: str, cwd: Path, environ: Mapping[str, str]) -> tuple[Path, str]:
    """Return the checkout to use, and its stack's state directory where that is not the usual one.

    In this order: `--stack`, PLATFORM_HOME, the checkout around the current directory, the one that runs (its own
    before others), the one that this command belongs to.

    Raises:
        NoCheckout: none was found, or several run.
    """
    stacks = known_stacks(registry(environ))
    if asked:
        return _asked(asked, cwd, stacks)
    if environ.get(HOME):
        return _directory(environ[HOME], cwd, HOME), ""
    if nearest := around(cwd):
        return nearest, ""
    mine = own()
    running = [s for s in stacks if s["running"] == "yes"]
    preferred = [s for s in running if mine and Path(s["root"]) == mine] or running
    if len(preferred) == 1:
        return _place(preferred[0])
    if mine:
        return mine, ""
    if preferred:
        names = ", ".join(s["name"] for s in preferred)
        raise NoCheckout(f"several stacks run: {names}", "choose one with --stack NAME", "platform list --stack NAME")
    raise NoCheckout(
        f"there is no checkout of the platform around {cwd}",
        "change to its directory, or name it: --stack DIRECTORY",
        f"or set {HOME} to it",
    )


def _asked(asked: str, cwd: Path, stacks: list[dict[str, str]]) -> tuple[Path, str]:
    named = [s for s in stacks if s["name"] == asked]
    return _place(named[0]) if named else (_directory(asked, cwd, "--stack", stacks), "")


def _place(stack: Mapping[str, str]) -> tuple[Path, str]:
    root, home = Path(stack["root"]), Path(stack["home"])
    return root, "" if home == root / ".platform" else str(home)


def _directory(text: str, cwd: Path, origin: str, stacks: Sequence[Mapping[str, str]] = ()) -> Path:
    place = (cwd / Path(text).expanduser()).resolve()
    found = around(place) if place.is_dir() else None  # a mistyped name must not mean the checkout around it
    if found is None:
        names = f"the stacks are: {', '.join(s['name'] for s in stacks)}" if stacks else "name a checkout's directory"
        raise NoCheckout(f"{origin}: {text} is no checkout of the platform and no stack", names)
    return found


def take_option(words: Sequence[str], name: str = "--stack") -> tuple[str, list[str]]:
    """Return the value of an option, '' without it, and the other words.

    Raises:
        NoCheckout: it has no value.
    """
    for index, word in enumerate(words):
        if word.startswith(f"{name}=") and word != f"{name}=":
            return word.partition("=")[2], [*words[:index], *words[index + 1 :]]
        if word == name and index + 1 < len(words):
            return words[index + 1], [*words[:index], *words[index + 2 :]]
        if word in (name, f"{name}="):
            raise NoCheckout(f"the option {name} needs a value", "a stack's name, or a checkout's directory")
    return "", list(words)


def python_of(root: Path) -> Path:
    """Return the interpreter of a checkout.

    Raises:
        NoCheckout: it has none yet.
    """
    python = root / ".venv" / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
    if not python.exists():
        start = root / "scripts" / ("start-infra.ps1" if sys.platform == "win32" else "start-infra.sh")
        raise NoCheckout(f"{root} has no Python environment yet", f"{start}", code=MISSING)
    return python


def is_complete() -> bool:
    """Return whether this interpreter has the packages that tasks need."""
    return all(find_spec(name) for name in ("dotenv", "invoke", "psutil"))


def main() -> int:
    """Find the checkout and run a task of it; returns the exit code."""
    words = sys.argv[1:]
    if words[:1] == [HERE]:
        return _run(words[1:])
    if words[:1] == [COMPLETE]:
        return _complete(words[1:])
    try:
        asked, words = take_option(words)
        root, home = choose(asked, Path.cwd(), os.environ)
        if home:
            os.environ["PLATFORM_STATE_DIR"] = home
        if root == Path(__file__).resolve().parent and is_complete():
            return _run(words)
        argv = [str(python_of(root)), str(root / Path(__file__).name), HERE, *words]
    except NoCheckout as problem:
        return _refused(problem)
    if sys.platform != "win32":
        os.execv(argv[0], argv)
    return _wait_for(argv)


def _complete(words: list[str]) -> int:
    """Print what may come next, of the checkout that would be taken; nothing where that is not clear."""
    from importlib.util import module_from_spec, spec_from_file_location

    try:
        asked, words = take_option([*words[:-1], words[-1].removeprefix("+")] if words else [""])
        root, home = choose(asked, Path.cwd(), os.environ)
        spec = spec_from_file_location("platform_completion", root / "infra" / "completion.py")
        if spec is None or spec.loader is None:
            return 0
        module = module_from_spec(spec)
        spec.loader.exec_module(module)
        state = Path(home or os.environ.get("PLATFORM_STATE_DIR") or root / ".platform")
        sys.stdout.write("".join(f"{word}\n" for word in module.candidates(root / state, words)))
    except Exception:  # a shell shows what is printed in the middle of the line that is being typed
        return 1
    return 0


def _refused(problem: NoCheckout) -> int:
    steps = "".join(f"\n  next: {step}" for step in problem.steps)
    sys.stderr.write(f"error: {problem}{steps}\n  exit: {problem.code}\n")
    return problem.code


def _wait_for(argv: list[str]) -> int:
    """Run a program where none can take this one's place; Ctrl-C reaches both, and the other one answers it."""
    with subprocess.Popen(argv) as process:
        while True:
            try:
                return process.wait()
            except KeyboardInterrupt:
                continue


def _run(words: list[str]) -> int:
    """Run the tasks' program in this process; named and not imported, since its own parts import this file."""
    root = str(Path(__file__).resolve().parent)
    sys.path[:] = [root, *(place for place in sys.path[1:] if place != root)]
    sys.argv[1:] = words
    run_module("infra.tasks.program", run_name="__main__", alter_sys=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
