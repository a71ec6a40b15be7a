"""A tracking server in memory that answers like MLflow's REST API."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit


class Tracking:
    """What the server received."""

    def __init__(self) -> None:
        self.experiments: dict[str, str] = {}
        self.runs: dict[str, dict[str, Any]] = {}
        self.files: dict[str, bytes] = {}
        self.refuse = False
        self.uri = ""

    def answer(self, path: str, query: dict[str, str], body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        if self.refuse:
            return 500, {"error_code": "INTERNAL_ERROR", "message": "out of order\ntrace"}
        handler = getattr(self, path.removeprefix("/api/2.0/mlflow/").replace("/", "_").replace("-", "_"))
        found: tuple[int, dict[str, Any]] = handler(**query, **body)
        return found

    def _health(self) -> tuple[int, dict[str, Any]]:
        return 200, {}

    def experiments_get_by_name(self, experiment_name: str) -> tuple[int, dict[str, Any]]:
        if experiment_name not in self.experiments:
            return 404, {"error_code": "RESOURCE_DOES_NOT_EXIST", "message": "no such experiment"}
        return 200, {"experiment": {"experiment_id": self.experiments[experiment_name]}}

    def experiments_create(self, name: str) -> tuple[int, dict[str, Any]]:
        if name in self.experiments:
            return 400, {"error_code": "RESOURCE_ALREADY_EXISTS", "message": "exists"}
        self.experiments[name] = str(len(self.experiments) + 1)
        return 200, {"experiment_id": self.experiments[name]}

    def runs_search(self, experiment_ids: list[str], filter: str, max_results: int) -> tuple[int, dict[str, Any]]:
        found = [r for r in self.runs.values() if f"= '{r['tags']['training.job']}'" in filter]
        mine = [r for r in found if r["info"]["experiment_id"] in experiment_ids]
        return 200, {"runs": mine[:max_results]} if mine else {}

    def runs_create(
        self, experiment_id: str, run_name: str, start_time: int, tags: list[dict[str, str]]
    ) -> tuple[int, dict[str, Any]]:
        name = f"run{len(self.runs) + 1}"
        info = {"run_id": name, "experiment_id": experiment_id, "start_time": start_time, "status": "RUNNING"}
        info["artifact_uri"] = f"mlflow-artifacts:/{experiment_id}/{name}/artifacts"
        run = {"info": info, "tags": {t["key"]: t["value"] for t in tags}, "metrics": [], "params": {}}
        self.runs[name] = run
        return 200, {"run": run}

    def runs_update(self, run_id: str, status: str, end_time: int = 0) -> tuple[int, dict[str, Any]]:
        self.runs[run_id]["info"]["status"] = status
        return 200, {}

    def runs_log_batch(
        self, run_id: str, metrics: list[dict[str, Any]] | None = None, params: list[dict[str, str]] | None = None
    ) -> tuple[int, dict[str, Any]]:
        self.runs[run_id]["metrics"] += metrics or []
        self.runs[run_id]["params"].update({p["key"]: p["value"] for p in params or []})
        return 200, {}

    def metrics_get_history(self, run_id: str, metric_key: str) -> tuple[int, dict[str, Any]]:
        return 200, {"metrics": [m for m in self.runs[run_id]["metrics"] if m["key"] == metric_key]}


def _handler(tracking: Tracking) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:
            pass

        def do_GET(self) -> None:
            parts = urlsplit(self.path)
            self._send(*tracking.answer(parts.path, {k: v[0] for k, v in parse_qs(parts.query).items()}, {}))

        def do_POST(self) -> None:
            self._send(*tracking.answer(self.path, {}, json.loads(self._body())))

        def do_PUT(self) -> None:
            tracking.files[unquote(self.path)] = self._body()
            self._send(200, {})

        def _body(self) -> bytes:
            return self.rfile.read(int(self.headers["Content-Length"]))

        def _send(self, status: int, answer: dict[str, Any]) -> None:
            data = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

    return Handler


@contextmanager
def serving() -> Iterator[Tracking]:
    """A server on a free port of this machine."""
    tracking = Tracking()
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(tracking))
    tracking.uri = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield tracking
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
