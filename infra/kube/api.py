"""Questions to the Kubernetes API over one connection: reading only; changes go through kubectl and helm.

A start of kubectl costs some 0.1 s of a core, a question here some milliseconds, and waiting asks several a second.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import ssl
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import quote, urlencode

from infra.errors import PlatformError
from infra.kube import kubeconfig

Object = Mapping[str, Any]


class NoAnswer(Exception):
    """The API server did not answer, or with an error; `status` is the HTTP status, 0 when there was none."""

    def __init__(self, text: str, status: int = 0) -> None:
        super().__init__(text)
        self.status = status


class Reader(Protocol):
    """The source of answers about a cluster; each method raises NoAnswer."""

    def get(self, path: str, **query: str) -> dict[str, Any]:
        """Return the object or list at a path."""
        ...

    def items(self, path: str, **query: str) -> list[dict[str, Any]]:
        """Return the items of a list."""
        ...

    def text(self, path: str, **query: str) -> str:
        """Return the text at a path."""
        ...


@dataclass
class Api:
    """One cluster's API."""

    access: kubeconfig.Access
    limit: float = 10.0
    _link: http.client.HTTPSConnection | None = field(default=None, repr=False)
    _tls: ssl.SSLContext | None = field(default=None, repr=False)

    def get(self, path: str, **query: str) -> dict[str, Any]:
        """Return the object or list at a path, e.g. `/api/v1/pods`. Raises NoAnswer."""
        body = json.loads(self._ask(path, query))
        return body if isinstance(body, dict) else {}

    def items(self, path: str, **query: str) -> list[dict[str, Any]]:
        """Return the items of a list. Raises NoAnswer."""
        return list(self.get(path, **query).get("items") or [])

    def text(self, path: str, **query: str) -> str:
        """Return the text at a path, e.g. a pod's log. Raises NoAnswer."""
        return self._ask(path, query).decode("utf-8", "replace")

    def ready(self) -> bool:
        """Return whether the API server says that it is ready."""
        with contextlib.suppress(NoAnswer):
            return self.text("/readyz").strip() == "ok"
        return False

    def lines(self, path: str, **query: str) -> Iterator[str]:
        """Yield the lines of an answer that goes on, over a connection of its own. Raises NoAnswer."""
        link = self._connect(None)
        try:
            answer = _send(link, path, query)
            if answer.status != 200:
                raise NoAnswer(answer.read().decode("utf-8", "replace")[:300], answer.status)
            for line in answer:
                yield line.decode("utf-8", "replace").rstrip("\r\n")
        except (OSError, http.client.HTTPException) as error:
            raise NoAnswer(str(error)) from error
        finally:
            link.close()

    def close(self) -> None:
        """End the connection."""
        if self._link is not None:
            self._link.close()
            self._link = None

    def _ask(self, path: str, query: Mapping[str, str]) -> bytes:
        for attempt in (1, 2):
            fresh = self._link is None
            try:
                self._link = self._link or self._connect(self.limit)
                answer = _send(self._link, path, query)
                body = answer.read()
                break
            except (OSError, http.client.HTTPException) as error:
                self.close()
                if fresh or attempt == 2:  # a connection that was kept may just have been too old
                    raise NoAnswer(f"the API server at {self.access.host}:{self.access.port}: {error}") from error
        if answer.status >= 400:
            raise NoAnswer(_message(body), answer.status)
        return body

    def _connect(self, limit: float | None) -> http.client.HTTPSConnection:
        self._tls = self._tls or _tls(self.access)
        return http.client.HTTPSConnection(self.access.host, self.access.port, timeout=limit, context=self._tls)


def _send(link: http.client.HTTPSConnection, path: str, query: Mapping[str, str]) -> http.client.HTTPResponse:
    words = f"?{urlencode(query, quote_via=quote)}" if query else ""
    link.request("GET", f"{path}{words}", headers={"Accept": "application/json, */*"})
    return link.getresponse()


def _message(body: bytes) -> str:
    with contextlib.suppress(ValueError, AttributeError):
        return str(json.loads(body).get("message", ""))
    return body[:300].decode("utf-8", "replace")


def _tls(access: kubeconfig.Access) -> ssl.SSLContext:
    """Trust the cluster's authority only, and show our certificate; the ssl module wants key pairs as files."""
    made = ssl.create_default_context(cadata=access.authority)
    descriptor, name = tempfile.mkstemp(prefix="platform-", suffix=".pem")  # private: mode 0600
    try:
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            file.write(access.certificate + access.key)
        made.load_cert_chain(name)
    finally:
        Path(name).unlink(missing_ok=True)
    return made


def connect(path: Path, steps: tuple[str, ...] = ()) -> Api:
    """Return the API that a kubeconfig leads to.

    Args:
        path: the kubeconfig.
        steps: what writes it, for errors.

    Raises:
        PlatformError: NOT_RUNNING, CONTEXT_REFUSED.
    """
    return Api(kubeconfig.read(path, steps))


def unreachable(error: NoAnswer, steps: tuple[str, ...]) -> PlatformError:
    """Return the error for people when the API server does not answer."""
    return PlatformError("UNREACHABLE", "the cluster does not answer", why=str(error), steps=steps)
