"""Building the images of the reference application. All that needs a network happens here, not in the build.

A build has no proxy, no private certificate authority and no configuration of pip; this machine has. So the packages
are installed on this machine into .apps-packages, for the Python and the processor of the base image.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import shutil
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from infra import catalog, docker_engine, pull, shell
from infra.console import Console
from infra.errors import PlatformError
from infra.locks import try_lock
from infra.settings import Settings
from infra.stack import write_atomic

REQUIREMENTS, JAX = Path("requirements") / "backend.txt", Path("requirements") / "jax.txt"
PACKAGES = Path(".apps-packages")
LOCK = ".apps-packages.lock"
LOOK = 0.5
"""Seconds between two checks whether another build has ended."""
LIMIT = 1800
"""Seconds for one step: fetching the packages, one step of a build."""
_PRUNED = ("numpy", "scipy", "sklearn")
# What a wheel may ask of the C library of Debian 12 and newer (peps.python.org/pep-0600).
_GLIBC = ("2_28", "2_27", "2_26", "2_24", "2_17")
_QUESTION = "import platform; print(platform.python_version(), platform.machine())"


@dataclass(frozen=True)
class AppImage:
    """An image that was built: its reference, id and size in bytes."""

    name: str
    reference: str
    id: str
    size: int


@dataclass(frozen=True)
class Base:
    """The image to build on: its Python, e.g. 3.12.1, and its processor, e.g. x86_64."""

    reference: str
    python: str
    machine: str


def references(settings: Settings) -> dict[str, str]:
    """Return the names of the images."""
    return {
        "backend": settings.text("BACKEND_IMAGE") or catalog.BACKEND_IMAGE,
        "frontend": settings.text("FRONTEND_IMAGE") or catalog.FRONTEND_IMAGE,
    }


def build(settings: Settings, console: Console, jax: bool = False) -> list[AppImage]:
    """Build both images.

    Args:
        settings: the names of the images, and the base.
        console: shows the steps.
        jax: also with JAX, with which the built-in training runs as several workers.

    Raises:
        PlatformError: no engine; no base image (IMAGE_UNAVAILABLE, REGISTRY_UNREACHABLE); no packages
            (PROGRAM_MISSING); a base that cannot be used, or a build that failed (PROGRAM_FAILED).
    """
    engine = docker_engine.find()
    client = docker_engine.client(engine, LIMIT)
    with alone(settings.root, console):
        base = _base(client, settings.text("PYTHON_IMAGE") or catalog.PYTHON_IMAGE, settings, console)
        packages(settings.root, base, console, jax)
        return [_built(client, settings.root, name, tag, base, console) for name, tag in references(settings).items()]


@contextlib.contextmanager
def alone(root: Path, console: Console) -> Iterator[None]:
    """Hold a lock for one build of a checkout at a time: another would remove the packages that this one copies."""
    with open(root / LOCK, "a+", encoding="utf-8") as file:
        if not try_lock(file):
            console.say("  waiting for another build of this checkout")
            while not try_lock(file):
                time.sleep(LOOK)
        yield


def _base(client: Any, reference: str, settings: Settings, console: Console) -> Base:
    """Fetch the base image where it is not there, and ask it which Python it has."""
    import docker

    try:
        if not client.images(name=reference):
            mirrors = settings.words("PLATFORM_IMAGE_MIRRORS")
            pull.pull(lambda: client, [reference], mirrors, console, settings={reference: "PYTHON_IMAGE"})
        python, machine = _said(client, reference, ["python3", "-c", _QUESTION]).split()
    except (docker.errors.APIError, ValueError) as error:
        raise PlatformError(
            "PROGRAM_FAILED",
            f"image {reference} cannot be used as a base",
            why=str(getattr(error, "explanation", "") or error),
            steps=("set PYTHON_IMAGE to an image with python3 that this Docker has or can pull",),
        ) from error
    return Base(reference, python, machine)


def _said(client: Any, reference: str, command: list[str]) -> str:
    made = client.create_container(reference, command, entrypoint=[], network_disabled=True)
    try:
        client.start(made)
        code = client.wait(made)["StatusCode"]
        said = client.logs(made).decode("utf-8", "replace").strip()
    finally:
        client.remove_container(made, force=True)
    if code:
        raise ValueError(said or f"python3 in it ended with {code}")
    return str(said)


def packages(root: Path, base: Base, console: Console, jax: bool = False) -> Path:
    """Return the packages of the backend for the base image, installed unless they are there already.

    Raises:
        PlatformError: PROGRAM_FAILED with what the installer said; PROGRAM_MISSING without uv and pip.
    """
    lock = (root / REQUIREMENTS).read_text(encoding="utf-8")
    lock = merged(lock, (root / JAX).read_text(encoding="utf-8")) if jax else lock
    target, wanted = root / PACKAGES, _stamp(lock, base)
    if _noted(target) == wanted:
        return target
    console.say(f"  fetching packages for Python {base.python} on {base.machine} (once; takes about half a minute)")
    shutil.rmtree(target, ignore_errors=True)
    with tempfile.TemporaryDirectory() as passage:
        wanted_here = Path(passage) / REQUIREMENTS.name
        wanted_here.write_text(for_base(lock, base), encoding="utf-8")
        shell.run(_installer(wanted_here, target, base), limit=LIMIT)
    for name in _PRUNED:
        for tests in list((target / name).rglob("tests")):
            shutil.rmtree(tests, ignore_errors=True)
    write_atomic(target / "stamp", wanted)
    return target


def merged(lock: str, other: str) -> str:
    """Return a lock file with what another one has besides; both are locked to the same versions."""
    there, lines, wanted = {_package(line) for line in lock.splitlines()}, lock.splitlines(), True
    for line in other.splitlines():
        wanted = _package(line) not in there if line[:1].isalnum() else wanted
        lines += [line] if wanted else []
    return "\n".join(lines) + "\n"


def _package(line: str) -> str:
    return line.partition("==")[0].partition("[")[0] if line[:1].isalnum() else ""


def for_base(lock: str, base: Base) -> str:
    """Return a lock file without what the base image does not want, and without markers.

    pip evaluates them for the Python that runs it, whichever it installs for.
    """
    from packaging.markers import Marker

    there = {
        **{"python_full_version": base.python, "python_version": ".".join(base.python.split(".")[:2])},
        **{"os_name": "posix", "sys_platform": "linux", "platform_system": "Linux"},
        **{"implementation_name": "cpython", "platform_python_implementation": "CPython"},
        **{"implementation_version": base.python, "platform_machine": base.machine},
    }
    lines, wanted = [], True
    for line in lock.splitlines():
        named = line[:1].isalnum()
        requirement, _, marker = line.rstrip("\\ ").partition(" ; ") if named else (line, "", "")
        wanted = (not marker or Marker(marker).evaluate(there)) if named else wanted
        if wanted:
            lines.append(f"{requirement} \\" if marker and line.endswith("\\") else requirement if marker else line)
    return "\n".join(lines) + "\n"


def _stamp(lock: str, base: Base) -> str:
    return hashlib.sha256(f"{lock}{base.python} {base.machine}".encode()).hexdigest()


def _noted(target: Path) -> str:
    try:
        return (target / "stamp").read_text(encoding="ascii", errors="replace")
    except OSError:
        return ""


def _installer(requirements: Path, target: Path, base: Base) -> list[str]:
    same = ["--no-deps", "--require-hashes", "--only-binary=:all:", "--target", str(target), "-r", str(requirements)]
    uv = [sys.executable, "-m", "uv"] if importlib.util.find_spec("uv") else [shell.find("uv") or ""]
    if uv[0]:
        platform = f"{base.machine}-manylinux_{_GLIBC[0]}"
        python = ["--python-version", base.python, "--python-platform", platform]
        return [*uv, "pip", "install", "--quiet", *python, *same]
    if importlib.util.find_spec("pip"):
        tags = [f"--platform=manylinux_{glibc}_{base.machine}" for glibc in _GLIBC]
        python = [*tags, "--python-version", base.python, "--implementation", "cp"]
        return [sys.executable, "-m", "pip", "install", "--quiet", "--no-compile", *python, *same]
    raise PlatformError(
        "PROGRAM_MISSING", "neither uv nor pip is available to download packages", steps=("install uv",)
    )


def _built(client: Any, root: Path, name: str, tag: str, base: Base, console: Console) -> AppImage:
    console.say(f"  building {tag}")
    told = client.build(
        path=str(root),
        dockerfile=f"apps/{name}/Dockerfile",
        tag=tag,
        buildargs={"PYTHON_IMAGE": base.reference},
        rm=True,
        forcerm=True,
        decode=True,
        network_mode="none",
    )
    _raise_on_failure(tag, told)
    found = client.inspect_image(tag)
    return AppImage(name, tag, str(found["Id"]), int(found["Size"]))


def _raise_on_failure(tag: str, told: Iterable[Mapping[str, Any]]) -> None:
    lines: list[str] = []
    for part in told:
        lines += [line for line in str(part.get("stream", "")).splitlines() if line.strip()]
        if "error" in part:
            raise PlatformError(
                "PROGRAM_FAILED",
                f"{tag} could not be built",
                why=str(part["error"]).strip().splitlines()[-1],
                steps=("fix the cause, then run: invoke app.build",),
                details={"log": lines[-20:]},
            )
