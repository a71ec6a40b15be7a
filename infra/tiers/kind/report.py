"""Everything about a cluster for a bug report, in one directory, with secrets masked; each part may fail alone."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from infra import shell, stack
from infra.context import Context
from infra.errors import PlatformError
from infra.tiers.kind import cli

if TYPE_CHECKING:
    from infra.tiers.kind.tier import Kind

LIMIT = 180.0
"""Seconds for each program."""


def write(tier: Kind, to: str) -> tuple[Path, list[tuple[str, str]]]:
    """Write the report; where it is, and for each part `written` or why not.

    Raises:
        PlatformError: USAGE when `to` cannot be written, STATE_UNWRITABLE.
    """
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    path = Path(to).expanduser().absolute() if to else tier.home / f"report-{stamp}"
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        if not to:
            raise stack.unwritable(path, error) from error
        steps = ("give a directory, or omit --to",)
        raise PlatformError("USAGE", f"{path} cannot be written", why=error.strerror or "", steps=steps) from error
    parts: dict[str, Callable[[], None]] = {
        "checks": lambda: _checks(tier, path),
        "cluster": lambda: _cluster(tier, path),
        "nodes": lambda: _nodes(tier, path),
        "objects": lambda: _objects(tier, path),
        "releases": lambda: _releases(tier, path),
        "status": lambda: _status(tier, path),
        "trouble": lambda: _trouble(tier, path),
    }
    done = [(name, _part(work)) for name, work in parts.items()]
    mask(tier.context, path)
    return path, done


def _part(work: Callable[[], None]) -> str:
    try:
        work()
    except PlatformError as error:
        return f"not available: {error.what}{f'; {error.why}' if error.why else ''}"
    except OSError as error:
        return f"not written: {error}"
    return "written"


def _checks(tier: Kind, path: Path) -> None:
    found = tier.preflight(tier.selection(True, ()))
    _text(path / "checks.txt", "\n".join(f"{c.status:<5} {c.id:<24} {c.text}" for c in found))


def _cluster(tier: Kind, path: Path) -> None:
    cluster = tier.cluster
    body = {"record": cluster.record, "nodes": [vars(n) for n in cluster.nodes()], "changed": cluster.outdated()}
    _text(path / "cluster.json", json.dumps(body, indent=1, default=dict))
    made_from = cluster.home / "cluster.yaml"
    if made_from.exists():
        _text(path / "cluster.yaml", made_from.read_text(encoding="utf-8"))


def _nodes(tier: Kind, path: Path) -> None:
    cluster, found = tier.cluster, tier.tools
    nodes = cluster.nodes()
    if not nodes:
        raise PlatformError("NOT_RUNNING", "there is no cluster")
    argv = cli.export_logs(found.kind.path, nodes[0].cluster, path / "nodes")
    shell.run(argv, env=found.kind_environment(cluster.kubeconfig), limit=LIMIT)


def _objects(tier: Kind, path: Path) -> None:
    tier.require()
    shell.run(tier.kubectl.cluster_dump(path / "objects"), limit=LIMIT)


def _releases(tier: Kind, path: Path) -> None:
    tier.require()
    helm = tier.helm
    listed = shell.run(helm.releases(), limit=LIMIT).out
    _text(path / "releases.json", listed)
    for release in json.loads(listed or "[]"):
        said = shell.run(helm.history(release["name"], release["namespace"]), limit=LIMIT, check=False).out
        _text(path / f"history-{release['name']}.json", said)


def _status(tier: Kind, path: Path) -> None:
    tier.require()
    _text(path / "status.json", json.dumps([vars(s) for s in tier.status()], indent=1))


def _trouble(tier: Kind, path: Path) -> None:
    for note in sorted((tier.home / "trouble").glob("*.txt")):
        _text(path / f"trouble-{note.name}", note.read_text(encoding="utf-8"))


def _text(path: Path, text: str) -> None:
    stack.write_atomic(path, text + "\n", mode=0o600, sync=False)


def mask(context: Context, path: Path) -> None:
    """Hide the passwords of the settings wherever they stand in the report."""
    for file in path.rglob("*"):
        if file.is_file() and not file.is_symlink():
            text = file.read_bytes().decode("utf-8", "replace")
            hidden = context.console.mask(text)
            if hidden != text:
                file.write_text(hidden, encoding="utf-8")


def size(path: Path) -> int:
    """Return the bytes of the report."""
    return sum(f.stat().st_size for f in path.rglob("*") if f.is_file() and not f.is_symlink())
