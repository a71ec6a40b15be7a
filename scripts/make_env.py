"""Make `.venv` fit a lock file in requirements/: `python -m scripts.make_env [--check] platform|dev`.

Needs nothing but Python's standard library. A stamp inside `.venv` says which lock files it holds, so a second run
installs nothing. Exit codes are those of infra/errors.py.
"""

from __future__ import annotations

import ast
import contextlib
import hashlib
import importlib.util
import json
import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from infra.errors import ExitCode
from infra.locks import try_lock

LOCKS = {"platform": ("platform",), "dev": ("dev", "platform")}
"""Lock file -> the lock files that are satisfied once it is installed (dev.txt holds all of platform.txt)."""

OLDEST = (3, 11)
TAIL = 12
EVERY = 15.0
"""Seconds between lines of progress where there is no terminal."""
LOOK = 0.25
"""Seconds between two looks at what an installer has written."""
WHEELS = ("--only-binary", ":all:")
"""Options by which nothing is built here: a build runs the package's own code, with tools that are not locked."""

# Settings of pip that would put packages elsewhere, or add requirements without hashes.
_PIP_STRAYS = ("PIP_TARGET", "PIP_PREFIX", "PIP_ROOT", "PIP_USER", "PIP_CONSTRAINT", "PIP_REQUIREMENT", "PIP_EDITABLE")
_PIP_CALM = {"PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_ROOT_USER_ACTION": "ignore", "PIP_NO_INPUT": "1"}


_PACKAGE = re.compile(r"^[\w.-]+(?:\[[\w,-]+\])?==\S+(?: *; *(?P<marker>[^\\\n]+))?", re.M)


class EnvironmentProblem(Exception):
    """The reason why `.venv` cannot be made: what, last lines of a program, next steps, exit code."""

    def __init__(
        self, what: str, log: Sequence[str] = (), steps: Sequence[str] = (), code: ExitCode = ExitCode.DEPENDENCY
    ) -> None:
        super().__init__(what)
        self.log, self.steps, self.code = tuple(log), tuple(steps), code

    def lines(self) -> list[str]:
        """Return the message for people."""
        log = [f"    | {line}" for line in self.log]
        return [f"error: {self}", *log, *(f"  next: {step}" for step in self.steps), f"  exit: {int(self.code)}"]


@dataclass(frozen=True)
class Environment:
    """The virtual environment of a checkout."""

    root: Path

    @property
    def home(self) -> Path:
        """Its directory."""
        return self.root / ".venv"

    @property
    def python(self) -> Path:
        """Its interpreter."""
        return self.home / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")

    @property
    def stamp(self) -> Path:
        """The file that says what is installed: `{"python": version, lock file name: sha256}`."""
        return self.home / ".platform-stamp.json"

    @property
    def lock(self) -> Path:
        """The file that a run locks while it works (uv has a `.lock` of its own there)."""
        return self.home / ".platform-lock"

    @property
    def unfinished(self) -> Path:
        """There while something is being installed; left behind by a killed run."""
        return self.home / ".platform-unfinished"

    @property
    def command(self) -> Path:
        """The program `platform`, which runs the tasks from any directory."""
        return self.python.with_name("platform.cmd" if sys.platform == "win32" else "platform")

    def requirements(self, lock: str) -> Path:
        """Return the lock file of that name."""
        return self.root / "requirements" / f"{lock}.txt"

    def digest(self, lock: str) -> str:
        """Return the SHA-256 of a lock file."""
        return hashlib.sha256(self.requirements(lock).read_bytes()).hexdigest()


def is_good(env: Environment, lock: str, version: str) -> bool:
    """Return whether `.venv` needs no work: it holds what the lock file names, and the command `platform`."""
    return _holds(env, lock, version) and _command(env) == _read(env.command)


def _holds(env: Environment, lock: str, version: str) -> bool:
    """Return whether `.venv`, whose interpreter has that version, already holds what the lock file names."""
    stamp = _stamp(env)
    installed = stamp.get(lock) == env.digest(lock) and stamp.get("python") == version
    return installed and not env.unfinished.exists()


def _command(env: Environment) -> str:
    """Return the program `platform`, which finds its Python although the path may have blanks."""
    launcher = env.root / "platform_launcher.py"
    if sys.platform == "win32":
        return f'@"%~dp0python.exe" "{launcher}" %*\n'
    return f'#!/bin/sh\nexec {shlex.quote(str(env.python))} {shlex.quote(str(launcher))} "$@"\n'


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, ValueError):
        return ""


def _write_command(env: Environment) -> None:
    """Write the program `platform`; a new file takes the old one's place, which may have several names."""
    if _read(env.command) != _command(env):
        new = env.command.with_name(f".{env.command.name}.new")
        new.write_text(_command(env), encoding="utf-8")
        new.chmod(0o755)
        new.replace(env.command)


def _stamp(env: Environment) -> dict[str, str]:
    try:
        found = json.loads(env.stamp.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def make(env: Environment, lock: str, say: Callable[[str], None]) -> Path:
    """Make or repair `.venv` where that is needed.

    Args:
        env: the environment.
        lock: a key of `LOCKS`.
        say: takes a line of progress.

    Returns:
        Its interpreter.

    Raises:
        EnvironmentProblem: it cannot be made.
    """
    try:
        _refuse_foreign(env)
        env.home.mkdir(exist_ok=True)
        with _locked(env, say) as descriptor:
            if not _holds(env, lock, version_of(env.python)):
                _build(env, lock, say, descriptor)
            _write_command(env)
    except OSError as error:
        steps = (f"make {env.root} writable for this user and see that its disk is not full",)
        raise EnvironmentProblem(f".venv cannot be written: {error}", (), steps, ExitCode.PREFLIGHT) from error
    return env.python


def _refuse_foreign(env: Environment) -> None:
    """Refuse to clear anything that does not look like a virtual environment, complete or not."""
    known = {env.lock.name, ".gitignore", "bin", "lib", "lib64", "include", "share", "etc", "Scripts", "Lib", "Include"}
    found = {p.name for p in env.home.iterdir()} if env.home.is_dir() else set()
    ours = {"pyvenv.cfg", env.stamp.name, env.unfinished.name} & found
    if not ours and (found - known or (env.home.exists() and not env.home.is_dir())):
        raise EnvironmentProblem(
            f"{env.home} is no virtual environment", (), ("move it away, then run the same again",), ExitCode.PREFLIGHT
        )


@contextmanager
def _locked(env: Environment, say: Callable[[str], None]) -> Iterator[int]:
    """Hold the lock of `.venv`; yields its descriptor, which children inherit.

    A child that outlives a killed run so keeps the next run away until it has ended.
    """
    with open(env.lock, "a+b") as file:
        if not try_lock(file):
            say("another run is making .venv; waiting for it...")
            while not try_lock(file):
                time.sleep(0.2)
        yield file.fileno()


def _build(env: Environment, lock: str, say: Callable[[str], None], descriptor: int) -> None:
    version = version_of(env.python)
    fresh = env.unfinished.exists() or not _fits(version)
    if fresh:
        _clear(env)
    (env.home / ".gitignore").write_text("*\n")
    count = packages(env.requirements(lock).read_text(encoding="utf-8"))
    doing = "making .venv and installing" if fresh else "bringing .venv up to date:"
    say(f"{doing} {count} packages (about a minute, more on a slow network)...")
    env.unfinished.touch()
    _install(env, lock, descriptor, count)
    stamp = {"python": version_of(env.python)} | {name: env.digest(name) for name in LOCKS[lock]}
    env.stamp.write_text(json.dumps(stamp, indent=1) + "\n", encoding="utf-8")
    env.unfinished.unlink()


def packages(text: str) -> int:
    """Return how many packages of a lock file this Python and system get."""
    return sum(applies(found["marker"] or "") for found in _PACKAGE.finditer(text))


def applies(marker: str) -> bool:
    """Tell whether an environment marker of a lock file holds here; '' does (PEP 508, as far as uv writes it)."""
    return not marker or bool(_holds_here(ast.parse(marker.strip(), mode="eval").body))


def _holds_here(node: ast.expr) -> bool:
    if isinstance(node, ast.BoolOp):
        return (all if isinstance(node.op, ast.And) else any)(_holds_here(part) for part in node.values)
    if not isinstance(node, ast.Compare) or not isinstance(node.left, ast.Name):
        return True
    name, wanted = node.left.id, str(ast.literal_eval(node.comparators[0]))
    here = _FACTS.get(name, str)()
    older = _numbers(here) < _numbers(wanted)
    verdicts: dict[type[ast.cmpop], bool] = {ast.Eq: here == wanted, ast.NotEq: here != wanted}
    return (verdicts | {ast.Lt: older, ast.GtE: not older}).get(type(node.ops[0]), True)


_FACTS: dict[str, Callable[[], str]] = {
    "sys_platform": lambda: sys.platform,
    "platform_machine": platform.machine,
    "platform_python_implementation": platform.python_implementation,
    "implementation_name": lambda: sys.implementation.name,
    "python_full_version": platform.python_version,
    "python_version": platform.python_version,
}


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", version)[:3])


def _fits(version: str) -> bool:
    """Return whether an existing interpreter may stay: it runs, is new enough, and is the one that was asked for."""
    parts = tuple(int(n) for n in re.findall(r"\d+", version)[:2])
    asked_for = not os.environ.get("PLATFORM_PYTHON") or parts == sys.version_info[:2]
    return parts >= OLDEST and asked_for


def _clear(env: Environment) -> None:
    for path in env.home.iterdir():
        if path == env.lock:
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


def _install(env: Environment, lock: str, descriptor: int, count: int) -> None:
    problems: list[EnvironmentProblem] = []
    for method in _methods():
        try:
            for argv in method(env, lock):
                _run(argv, descriptor, count)
            return
        except EnvironmentProblem as problem:
            problems.append(problem)
    raise problems[-1]


def _methods() -> list[Callable[[Environment, str], Iterator[list[str]]]]:
    """Return uv where it is there; pip next, since its configuration may know an index or proxy that uv does not."""
    return [_with_uv, _with_pip] if shutil.which("uv") else [_with_pip]


def _with_uv(env: Environment, lock: str) -> Iterator[list[str]]:
    uv = str(shutil.which("uv"))
    if not version_of(env.python):
        yield [uv, "venv", "--quiet", "--allow-existing", "--python", _base_python(), str(env.home)]
    target = ["--python", str(env.python)]
    yield [uv, "pip", "install", "--require-hashes", *WHEELS, *target, "-r", str(env.requirements(lock))]


def _with_pip(env: Environment, lock: str) -> Iterator[list[str]]:
    if not _works([str(env.python), "-m", "pip", "--version"]):
        _need_ensurepip()
        yield [_base_python(), "-m", "venv", str(env.home)]
    pip = [str(env.python), "-m", "pip", "install", "--progress-bar", "off", "--require-hashes", *WHEELS]
    yield [*pip, "-r", str(env.requirements(lock))]


def _need_ensurepip() -> None:
    if importlib.util.find_spec("ensurepip") is None:
        python = f"python{sys.version_info[0]}.{sys.version_info[1]}"
        steps = (f"apt install python3-venv (or {python}-venv; Debian, Ubuntu)", "or install uv, then run this again")
        raise EnvironmentProblem(f"{sys.executable} cannot make environments: its ensurepip is missing", (), steps)


def _base_python() -> str:
    """Return the interpreter below a virtual environment that may be active, or even be the one to make."""
    return str(getattr(sys, "_base_executable", "") or sys.executable)


def version_of(python: Path) -> str:
    """Return the version of an interpreter; '' when it does not run."""
    code = "import sys; print('.'.join(map(str, sys.version_info[:3])))"
    try:
        done = subprocess.run([str(python), "-I", "-c", code], capture_output=True, text=True, check=False)
    except OSError:
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def _works(argv: list[str]) -> bool:
    try:
        return subprocess.run(argv, capture_output=True, check=False).returncode == 0
    except OSError:
        return False


def _run(argv: list[str], descriptor: int, count: int) -> None:
    """Run a step, tell how far it is, and say its last lines when it fails."""
    env = {k: v for k, v in os.environ.items() if k not in _PIP_STRAYS} | _PIP_CALM
    inherit = () if sys.platform == "win32" else (descriptor,)
    with tempfile.TemporaryDirectory() as place:
        log = Path(place) / "log"
        with open(log, "wb") as file:
            child = subprocess.Popen(
                argv, stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT, env=env, pass_fds=inherit
            )
        with _killed_with_us(child), Progress(log, count, _step(argv)) as progress:
            while (code := _ended(child)) is None:
                progress.tell()
        said = [line for line in log.read_text("utf-8", "replace").splitlines() if line.strip()]
    if code:
        steps = ("see whether the package index can be reached (proxy, pip config list)", "then run the same again")
        raise EnvironmentProblem(f"{_step(argv)} ended with {code}", said[-TAIL:], steps)


@contextmanager
def _killed_with_us(child: subprocess.Popen[bytes]) -> Iterator[None]:
    try:
        yield
    except BaseException:
        child.kill()
        child.wait()
        raise


def _ended(child: subprocess.Popen[bytes]) -> int | None:
    with contextlib.suppress(subprocess.TimeoutExpired):
        return child.wait(LOOK)
    return None


class Progress:
    """The progress of an installer: a line that is rewritten on a terminal, elsewhere a line now and then."""

    def __init__(self, log: Path, count: int, doing: str) -> None:
        self._log, self._count, self._began = log, count, time.monotonic()
        self._last, self._read, self._seen, self._doing = self._began, 0, 0, doing
        self._live = sys.stderr.isatty() and os.environ.get("TERM") != "dumb"

    def __enter__(self) -> Progress:
        """Begin."""
        return self

    def __exit__(self, *_: object) -> None:
        """Take the line away that was rewritten."""
        if self._live:
            sys.stderr.write("\r\033[K")
            sys.stderr.flush()

    def tell(self) -> None:
        """Look at the log, and tell what is new."""
        with open(self._log, "rb") as file:
            file.seek(self._read)
            *lines, _ = file.read().split(b"\n")
        self._read += sum(len(line) + 1 for line in lines)
        for line in lines:
            self._notice(line.decode("utf-8", "replace").split())
        now = time.monotonic()
        text = f"  {self._doing}, {now - self._began:.0f} s"
        if self._live:
            sys.stderr.write(f"\r\033[K{text[: shutil.get_terminal_size().columns - 1]}")
            sys.stderr.flush()
        elif now - self._last >= EVERY:
            self._last = now
            say(text)

    def _notice(self, words: Sequence[str]) -> None:
        first, name = (*words, "", "")[:2]
        if first == "Collecting":  # pip, for each package
            self._seen += 1
            self._doing = f"{min(self._seen, self._count)} of {self._count} packages: {name.partition('=')[0]}"
        elif first == "Downloading" and not self._seen:  # uv, for large ones
            self._doing = f"downloading {name}"
        elif first in ("Prepared", "Installing", "Installed"):
            self._doing = "writing files"


def _step(argv: list[str]) -> str:
    return f"installing {Path(argv[-1]).name}" if "install" in argv else "making .venv"


def main(argv: Sequence[str]) -> int:
    """Check or make the environment; see the module's docstring."""
    env = Environment(Path(__file__).resolve().parent.parent)
    if len(argv) == 2 and argv[0] == "--check" and argv[1] in LOCKS:
        return 0 if is_good(env, argv[1], ".".join(map(str, sys.version_info[:3]))) else int(ExitCode.FAILED)
    if len(argv) != 1 or argv[0] not in LOCKS:
        print(f"usage: python -m scripts.make_env [--check] {'|'.join(LOCKS)}", file=sys.stderr)
        return int(ExitCode.USAGE)
    return report(lambda: make(env, argv[0], say))


def say(text: str) -> None:
    """Print one line of progress for people."""
    print(text, file=sys.stderr, flush=True)


def report(work: Callable[[], object]) -> int:
    """Run `work` and turn its failure into lines on stderr and an exit code."""
    try:
        work()
    except EnvironmentProblem as problem:
        say("\n".join(problem.lines()))
        return int(problem.code)
    except KeyboardInterrupt:
        say("error: interrupted\n  next: run the same again: it starts afresh")
        return int(ExitCode.INTERRUPTED)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
