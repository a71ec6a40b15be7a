"""Our own kubeconfig: read, checked, never the user's."""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from infra.errors import PlatformError


@dataclass(frozen=True)
class Access:
    """The way to a cluster: host, port and the PEM texts of authority, certificate and key."""

    context: str
    host: str
    port: int
    authority: str
    certificate: str
    key: str


def address(path: Path) -> tuple[str, int] | None:
    """Return host and port of the API server, found without a YAML parser; None when there is none."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return None
    found = re.search(r"^\s+server: https://\[?([0-9a-fA-F.:]+?)\]?:(\d+)\s*$", text, re.MULTILINE)
    return (found[1], int(found[2])) if found else None


def context(path: Path) -> str:
    """Return the current context of a kubeconfig, '' when it cannot be read."""
    try:
        found = re.search(r"^current-context:\s*[\"']?([^\s\"']*)", path.read_text(encoding="utf-8"), re.MULTILINE)
    except (OSError, UnicodeDecodeError):
        return ""
    return found[1] if found else ""


def read(path: Path, steps: tuple[str, ...] = ()) -> Access:
    """Read what is needed to speak to the cluster of the current context.

    Args:
        path: the file.
        steps: what writes it, for errors.

    Raises:
        PlatformError: NOT_RUNNING when there is no such file, CONTEXT_REFUSED when it cannot be used.
    """
    import yaml

    try:
        body = yaml.safe_load(path.read_text(encoding="utf-8"))
        return _access(body)
    except FileNotFoundError as error:
        raise PlatformError("NOT_RUNNING", "this stack has no cluster", steps=steps) from error
    except (OSError, ValueError, KeyError, TypeError, yaml.YAMLError, StopIteration) as error:
        steps = tuple(f"move that file away and run {step}, which writes it again" for step in steps)
        what = f"{path} is not a usable kubeconfig"
        raise PlatformError("CONTEXT_REFUSED", what, why=str(error), steps=steps) from error


def _access(body: Mapping[str, Any]) -> Access:
    named = body["current-context"]
    link = _named(body["contexts"], named)["context"]
    server = _named(body["clusters"], link["cluster"])["cluster"]
    user = _named(body["users"], link["user"])["user"]
    found = re.fullmatch(r"https://\[?([^\]/]+?)\]?:(\d+)/?", server["server"])
    if found is None:
        raise ValueError(f"the server {server['server']!r} is not an https address with a port")
    pem = (server["certificate-authority-data"], user["client-certificate-data"], user["client-key-data"])
    authority, certificate, key = (base64.b64decode(text).decode("ascii") for text in pem)
    return Access(named, found[1], int(found[2]), authority, certificate, key)


def _named(entries: list[dict[str, Any]], name: str) -> dict[str, Any]:
    return next(entry for entry in entries if entry["name"] == name)
