"""The application of the rehearsal as people reach it: requests without a pause, and trainings."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import requests

from tests.faults.kind.cluster import until
from tests.rehearsal import postgresql
from tests.rehearsal.stage import Stage

PORT, HOST = 30580, "platform-frontend.platform"
"""Port of the nodes, and the name by which the frontend may be called."""
PATHS = ("/", "/api/health")
PAUSE, LIMIT = 0.05, 10.0
"""Seconds between two requests of a path; seconds for an answer."""


def address(stage: Stage) -> str:
    """The address of the frontend, by a port of the control plane."""
    selector = {"app.kubernetes.io/name": "platform", "app.kubernetes.io/component": "frontend"}
    about = {"name": "rehearsal-frontend", "namespace": "platform"}
    spec = {"type": "NodePort", "selector": selector, "ports": [{"port": 8080, "nodePort": PORT}]}
    stage.cluster.apply({"apiVersion": "v1", "kind": "Service", "metadata": about, "spec": spec})
    base = f"http://{postgresql.address(stage)}:{PORT}"
    until("the frontend answers", lambda: ask(f"{base}/api/health").status_code == 200, 60)
    return base


def ask(url: str, method: str = "GET", body: Any = None) -> requests.Response:
    """One request, on a connection of its own."""
    return requests.request(method, url, json=body, headers={"Host": HOST, "Connection": "close"}, timeout=LIMIT)


@dataclass
class Requests:
    """Requests at work; how many there were, and what went wrong with which."""

    base: str
    done: int = 0
    failed: list[str] = field(default_factory=list)

    def one(self, path: str) -> None:
        """Ask once, and note what went wrong."""
        try:
            answer = ask(f"{self.base}{path}")
            if answer.status_code != 200:
                self.failed.append(f"{path}: HTTP {answer.status_code}")
        except requests.RequestException as error:
            self.failed.append(f"{path}: {' '.join(str(error).split())[:150]}")
        self.done += 1


@contextlib.contextmanager
def under_load(base: str) -> Iterator[Requests]:
    """Ask for every path, again and again, for as long as the block lasts."""
    made, end = Requests(base), threading.Event()

    def work(path: str) -> None:
        while not end.wait(PAUSE):
            made.one(path)

    threads = [threading.Thread(target=work, args=(path,), daemon=True) for path in PATHS]
    for thread in threads:
        thread.start()
    try:
        yield made
    finally:
        end.set()
        for thread in threads:
            thread.join(2 * LIMIT)


def start_training(base: str) -> str:
    """Start a training of a few epochs; its id."""
    answer = ask(f"{base}/api/trainings", "POST", {"epochs": 2, "experiment": "rehearsal"})
    assert answer.status_code == 201, answer.text
    return str(answer.json()["job"])


def ended(base: str, job: str, seconds: float = 300) -> str:
    """The state in which a training ends."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        with contextlib.suppress(requests.RequestException):
            answer = ask(f"{base}/api/trainings/{job}")
            if answer.status_code == 200 and answer.json()["finished_at"]:
                return str(answer.json()["state"])
        time.sleep(1)
    return f"not ended after {seconds:.0f} s"
