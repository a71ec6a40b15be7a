"""A training's record, taken when it is ordered: the state of the code, the packages of its Python, the machine.

What cannot be found out is left out; a record never keeps a training from starting.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from infra import shell
from infra.errors import PlatformError
from infra.training import gang

LARGEST_DIFF = 1 << 18
"""Characters of a diff that are kept; its digest is that of the whole."""
_LIMIT = 10.0
_PACKAGES = """
import importlib.metadata, json, platform
found = {d.metadata["Name"]: d.version for d in importlib.metadata.distributions() if d.metadata["Name"]}
print(json.dumps({"python": platform.python_version(), "packages": found}))
"""


def taken(argv: Sequence[str], cwd: Path, environ: Mapping[str, str]) -> dict[str, Any]:
    """Return the record of a program that is about to run here; of our own training with an empty `argv`."""
    program = list(argv[:1]) or [sys.executable]
    found = {"git": state_of(cwd), **packages_of(program[0], environ), **machine(environ)}
    return {name: value for name, value in found.items() if value}


def state_of(cwd: Path) -> dict[str, Any]:
    """Return commit, branch and what is not committed; {} outside a Git repository."""
    commit = _git(cwd, "rev-parse", "HEAD").strip()
    if not commit:
        return {}
    diff = _git(cwd, "diff", "HEAD", "--no-ext-diff", "--no-color").replace("\0", "")
    untracked = _git(cwd, "ls-files", "--others", "--exclude-standard").splitlines()
    found: dict[str, Any] = {"commit": commit, "branch": _git(cwd, "branch", "--show-current").strip()}
    if diff:
        found |= {"diff": diff[:LARGEST_DIFF], "diff_sha256": hashlib.sha256(diff.encode()).hexdigest()}
    return found | ({"untracked": untracked[:100]} if untracked else {})


def _git(cwd: Path, *words: str) -> str:
    try:
        done = shell.run(["git", "-C", str(cwd), *words], env={"GIT_OPTIONAL_LOCKS": "0"}, limit=_LIMIT, check=False)
    except PlatformError:
        return ""
    return done.out if done.code == 0 else ""


def packages_of(program: str, environ: Mapping[str, str]) -> dict[str, Any]:
    """Return version and packages of a Python; {} for another program."""
    if not Path(program).stem.lower().startswith(("python", "pypy")):
        return {}
    lead = {name: environ[name] for name in ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV") if name in environ}
    try:
        done = shell.run([program, "-c", _PACKAGES], env=lead, cwd=Path(os.sep), limit=_LIMIT, check=False)
        return dict(json.loads(done.out)) if done.code == 0 else {}
    except (PlatformError, ValueError):
        return {}


def machine(environ: Mapping[str, str]) -> dict[str, Any]:
    """Return name, system and processors of this machine, and the GPUs that a program may use."""
    try:
        gpus = gang.devices(environ)
    except PlatformError:
        gpus = []
    system = f"{platform.system()} {platform.release()} {platform.machine()}"
    return {"host": platform.node(), "system": system, "cpus": os.cpu_count(), "gpus": gpus}


def summary(record: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return the record for people, as rows of name and value."""
    git = record.get("git", {})
    changed = "with changes that are not committed" if git.get("diff") else ""
    commit = " ".join(part for part in (git.get("commit", "")[:12], git.get("branch", ""), changed) if part)
    packages = record.get("packages", {})
    python = f"{record['python']}, {len(packages)} packages" if record.get("python") else ""
    host = ", ".join(str(record[name]) for name in ("host", "system") if record.get(name))
    rows = [
        ("commit", commit),
        ("image", record.get("image", "")),
        ("python", python),
        ("host", host),
        ("gpus", ", ".join(record.get("gpus", []))),
    ]
    return [row for row in rows if row[1]]


def differences(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """Return what differs between two records: name, the value of the one, that of the other."""
    flat = [_flat(one), _flat(other)]
    names = sorted({*flat[0], *flat[1]})
    return [(n, flat[0].get(n, ""), flat[1].get(n, "")) for n in names if flat[0].get(n) != flat[1].get(n)]


def _flat(record: Mapping[str, Any]) -> dict[str, str]:
    git = record.get("git", {})
    found = {f"package {name}": version for name, version in record.get("packages", {}).items()}
    found |= {name: str(git[name]) for name in ("commit", "branch") if git.get(name)}
    found |= {"uncommitted changes": git["diff_sha256"][:12]} if git.get("diff_sha256") else {}
    found |= {name: str(record[name]) for name in ("image", "python", "host", "system", "cpus") if record.get(name)}
    return found | ({"gpus": ", ".join(record["gpus"])} if record.get("gpus") else {})
