"""Requests to the Kubernetes API over one connection: on the tiers for reading; kubectl and helm make the changes.

A start of kubectl costs some 0.1 s of a core, a question here some milliseconds, and waiting asks several a second.
The worker of trainings orders Jobs by it, too: it needs neither a client package nor a program in its image.
"""

from __future__ import annotations

import contextlib
import http.client
import json
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
    _link: http.client.HTTPConnection | None = field(default=None, repr=False)

    def get(self, path: str, **query: str) -> dict[str, Any]:
        """Return the object or list at a path, e.g. `/api/v1/pods`. Raises NoAnswer."""
        body = json.loads(self.send("GET", path, **query))
        return body if isinstance(body, dict) else {}

    def items(self, path: str, **query: str) -> list[dict[str, Any]]:
        """Return the items of a list. Raises NoAnswer."""
        return list(self.get(path, **query).get("items") or [])

    def text(self, path: str, **query: str) -> str:
        """Return the text at a path, e.g. a pod's log. Raises NoAnswer."""
        return self.send("GET", path, **query).decode("utf-8", "replace")

    def ready(self) -> bool:
        """Return whether the API server says that it is ready."""
        with contextlib.suppress(NoAnswer):
            return self.text("/readyz").strip() == "ok"
        return False

    def lines(self, path: str, **query: str) -> Iterator[str]:
        """Yield the lines of an answer that goes on, over a connection of its own. Raises NoAnswer."""
        link = self._connect(None)
        try:
            answer = self._answer(link, "GET", path, None, query)
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

    def send(self, method: str, path: str, body: str | None = None, **query: str) -> bytes:
        """Send a request and return the answer's body. Raises NoAnswer."""
        for attempt in (1, 2):
            fresh = self._link is None
            try:
                self._link = self._link or self._connect(self.limit)
                answer = self._answer(self._link, method, path, body, query)
                data = answer.read()
                break
            except (OSError, http.client.HTTPException) as error:
                self.close()
                if fresh or attempt == 2:  # a connection that was kept may just have been too old
                    where = f"the API server at {self.access.host}:{self.access.port}"
                    raise NoAnswer(f"{where} does not answer: {error}") from error
        if answer.status >= 400:
            raise NoAnswer(_message(data), answer.status)
        return data

    def _answer(
        self, link: http.client.HTTPConnection, method: str, path: str, body: str | None, query: Mapping[str, str]
    ) -> http.client.HTTPResponse:
        words = f"?{urlencode(query, quote_via=quote)}" if query else ""
        token = self.access.token()
        headers = {"Accept": "application/json, */*"} | ({"Authorization": f"Bearer {token}"} if token else {})
        link.request(method, f"{path}{words}", body, headers | ({"Content-Type": "application/json"} if body else {}))
        return link.getresponse()

    def _connect(self, limit: float | None) -> http.client.HTTPConnection:
        access = self.access
        if access.tls is None:
            return http.client.HTTPConnection(access.host, access.port, timeout=limit)
        return http.client.HTTPSConnection(access.host, access.port, timeout=limit, context=access.tls)


def _message(body: bytes) -> str:
    with contextlib.suppress(ValueError, AttributeError):
        return str(json.loads(body).get("message", ""))
    return body[:300].decode("utf-8", "replace").strip()


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
