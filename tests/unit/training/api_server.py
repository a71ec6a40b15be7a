"""As much of Kubernetes' API as a worker asks for: Jobs, pods, logs, over real HTTP. What pods do, tests say."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from infra.kube.kubeconfig import Access
from infra.training.cluster import JobCluster

PREFIX = "/apis/batch/v1/namespaces/training/jobs"


@dataclass
class State:
    """Jobs by name, their pods, the pods' logs; what was asked; an HTTP status to answer with instead."""

    jobs: dict[str, dict[str, Any]] = field(default_factory=dict)
    pods: list[dict[str, Any]] = field(default_factory=list)
    logs: dict[str, list[str]] = field(default_factory=dict)
    asked: list[tuple[str, str]] = field(default_factory=list)
    tokens: set[str] = field(default_factory=set)
    config_maps: set[str] = field(default_factory=set)
    secrets: dict[tuple[str, str], dict[str, Any]] = field(default_factory=dict)
    nodes: list[dict[str, Any]] = field(default_factory=list)
    broken: int = 0
    port: int = 0
    lock: threading.RLock = field(default_factory=threading.RLock, repr=False)

    def keep(self, namespace: str, name: str, **texts: bytes) -> None:
        """Add a Secret."""
        data = {key: base64.b64encode(value).decode() for key, value in texts.items()}
        self.secrets[(namespace, name)] = {"metadata": {"name": name}, "data": data}

    def end(self, name: str, kind: str = "Complete", **more: str) -> None:
        """End a Job, where it is still there."""
        with self.lock:
            if name in self.jobs:
                status = {"conditions": [{"type": kind, "status": "True", **more}]}
                self.jobs[name] = {**self.jobs[name], "status": status}

    def pod(self, name: str, job: str = "", **status: Any) -> None:
        """Add a pod, or change one; without a Job it belongs to each."""
        made = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        label = {"labels": {"job-name": job}} if job else {}
        with self.lock:
            others = [p for p in self.pods if p["metadata"]["name"] != name]
            self.pods = [*others, {"metadata": {"name": name, "creationTimestamp": made, **label}, "status": status}]

    def pods_of(self, job: str) -> list[dict[str, Any]]:
        """The pods of a Job."""
        with self.lock:
            return [p for p in self.pods if p["metadata"].get("labels", {}).get("job-name", job) == job]

    def drop(self, job: str) -> None:
        """Take a Job and its pods away."""
        with self.lock:
            gone = self.pods_of(job)
            self.pods = [p for p in self.pods if p not in gone]
            del self.jobs[job]


class Handler(BaseHTTPRequestHandler):
    """One request."""

    def do_GET(self) -> None:
        state: State = self.server.state  # type: ignore[attr-defined]
        where = urlsplit(self.path)
        query = {name: values[0] for name, values in parse_qs(where.query).items()}
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        state.asked.append((self.command, self.path))
        state.tokens.add(self.headers.get("Authorization", ""))
        if state.broken:
            self._say(state.broken, {"message": "etcdserver: leader changed"})
        elif where.path.endswith("/log"):
            self._log(state, where.path.split("/")[-2], query.get("sinceTime", ""))
        elif "/configmaps/" in where.path:
            name = where.path.rsplit("/", 1)[-1]
            there = {"metadata": {"name": name, "uid": f"uid-of-{name}"}}
            self._say(*(200, there) if name in state.config_maps else (404, {"message": "not found"}))
        elif "/secrets" in where.path:
            with state.lock:
                self._secret(state, where.path.removeprefix("/api/v1/namespaces/"), body)
        elif where.path == "/api/v1/nodes":
            self._say(200, {"items": state.nodes})
        elif "/pods" in where.path:
            self._say(200, {"items": state.pods_of(query["labelSelector"].removeprefix("job-name="))})
        else:
            with state.lock:
                self._job(state, where.path.removeprefix(PREFIX).strip("/"), body)

    do_POST = do_DELETE = do_GET  # noqa: N815

    def _job(self, state: State, name: str, body: bytes) -> None:
        if self.command == "POST":
            made = json.loads(body)
            name = made["metadata"]["name"]
            if name in state.jobs:
                self._say(409, {"message": "already exists"})
            elif "forbidden" in name:
                self._say(403, {"message": "jobs.batch is forbidden"})
            else:
                state.jobs[name] = made
                self._say(201, made)
        elif name not in state.jobs:
            self._say(404, {"message": "not found"})
        else:
            found = state.jobs[name]
            if self.command == "DELETE":
                state.drop(name)
            self._say(200, found)

    def _secret(self, state: State, path: str, body: bytes) -> None:
        namespace, _, name = path.replace("/secrets", "").partition("/")
        if self.command == "POST":
            made = json.loads(body)
            about = {"creationTimestamp": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"), **made["metadata"]}
            place = (about["namespace"], about["name"])
            assert place[0] == namespace
            known = place in state.secrets
            state.secrets.setdefault(place, {**made, "metadata": about})
            self._say(*(409, {"message": "already exists"}) if known else (201, made))
        elif not name:
            self._say(200, {"items": [found for place, found in state.secrets.items() if place[0] == namespace]})
        elif (namespace, name) not in state.secrets:
            self._say(404, {"message": "not found"})
        else:
            found = state.secrets[(namespace, name)]
            if self.command == "DELETE":
                del state.secrets[(namespace, name)]
            self._say(200, found)

    def _log(self, state: State, pod: str, since: str) -> None:
        if pod not in state.logs:
            self._say(400, {"message": "container is waiting to start"})
            return
        lines = [line for line in state.logs[pod] if line[:19] >= since[:19]]
        self._send(200, "".join(f"{line}\n" for line in lines).encode())

    def _say(self, status: int, body: dict[str, Any]) -> None:
        self._send(status, json.dumps(body).encode())

    def _send(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextmanager
def serving() -> Iterator[tuple[State, JobCluster]]:
    """A server that is empty, and a client of it."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.state = State(port=server.server_address[1])  # type: ignore[attr-defined]
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    access = Access("127.0.0.1", server.server_address[1], secure=False, token=lambda: "a-token")
    try:
        yield server.state, JobCluster(access, "training")  # type: ignore[attr-defined]
    finally:
        server.shutdown()
        server.server_close()
