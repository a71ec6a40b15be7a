"""Our own kubeconfig: read, checked, never the user's."""

from __future__ import annotations

import base64
import os
import re
import ssl
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from infra.errors import PlatformError


@dataclass(frozen=True)
class Access:
    """The way to a cluster: host and port, and the PEM texts of authority, certificate and key, or a token.

    Without `secure` it is plain HTTP. `token` is asked for each request, since that of a pod is renewed.
    """

    host: str
    port: int
    secure: bool = True
    authority: str = field(repr=False, default="")
    certificate: str = field(repr=False, default="")
    key: str = field(repr=False, default="")
    token: Callable[[], str] = field(repr=False, default=lambda: "")
    context: str = ""

    @cached_property
    def tls(self) -> ssl.SSLContext | None:
        """Trust the cluster's authority only, and show our certificate; None for plain HTTP."""
        if not self.secure:
            return None
        made = ssl.create_default_context(cadata=self.authority)
        if self.certificate:
            _show(made, self.certificate + self.key)
        return made


def _show(tls: ssl.SSLContext, pair: str) -> None:
    """Load certificate and key, which the ssl module takes from a file only."""
    descriptor, name = tempfile.mkstemp(prefix="platform-", suffix=".pem")  # private: mode 0600
    try:
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            file.write(pair)
        tls.load_cert_chain(name)
    finally:
        Path(name).unlink(missing_ok=True)


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
    """Read what is needed to speak to our own cluster, the current context's.

    Args:
        path: the file.
        steps: what writes it, for errors.

    Raises:
        PlatformError: NOT_RUNNING when there is no such file, CONTEXT_REFUSED when it cannot be used.
    """
    try:
        found = load(path)
        if not found.secure:
            raise ValueError(f"the server {found.host!r} is not an https address")
        return found
    except FileNotFoundError as error:
        raise PlatformError("NOT_RUNNING", "this stack has no cluster", steps=steps) from error
    except (OSError, ValueError) as error:
        steps = tuple(f"move that file away and run {step}, which writes it again" for step in steps)
        what = f"{path} is not a usable kubeconfig"
        raise PlatformError("CONTEXT_REFUSED", what, why=str(error), steps=steps) from error


def load(path: Path) -> Access:
    """Read the current context of a kubeconfig. Raises OSError, or ValueError when it cannot be used."""
    import yaml

    try:
        return _access(yaml.safe_load(path.read_text(encoding="utf-8")))
    except (LookupError, TypeError, AttributeError, yaml.YAMLError) as error:
        raise ValueError(str(error)) from error


def _access(body: Mapping[str, Any]) -> Access:
    named = body["current-context"]
    link = _named(body["contexts"], named)["context"]
    cluster, user = _named(body["clusters"], link["cluster"])["cluster"], _named(body["users"], link["user"])["user"]
    where = urlsplit(cluster["server"])
    if where.scheme not in ("http", "https") or not where.hostname:
        raise ValueError(f"the server {cluster['server']!r} is not an address")
    secure, token = where.scheme == "https", str(user.get("token", ""))
    authority = _pem(cluster, "certificate-authority-data") if secure else ""
    pair = ("client-certificate-data", "client-key-data") if secure and not token else ()
    certificate, key = (_pem(user, name) for name in pair) if pair else ("", "")
    port = where.port or (443 if secure else 80)
    return Access(where.hostname, port, secure, authority, certificate, key, lambda: token, named)


def _pem(entry: Mapping[str, Any], name: str) -> str:
    return base64.b64decode(entry[name]).decode("ascii")


def _named(entries: list[dict[str, Any]], name: str) -> dict[str, Any]:
    found = next((entry for entry in entries if entry["name"] == name), None)
    if found is None:
        raise ValueError(f"it has no entry {name!r}")
    return found
