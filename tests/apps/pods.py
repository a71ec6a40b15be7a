"""Pods that are processes of this machine: what Kubernetes does with a Job, behind an API server of our own.

So the whole way of a training as a Job runs for real (Temporal, worker, database, stores, trainer) where there is
no cluster. What Kubernetes itself does is tested on the tier kind.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from infra.settings import ROOT
from tests.unit.training.api_server import State, serving

RETRIED = (75, 137, 143)


@dataclass
class Kubelet:
    """Runs the pods of every Job; another one when a pod was killed."""

    state: State
    env: Mapping[str, str]
    running: dict[str, subprocess.Popen[str]] = field(default_factory=dict)
    made: int = 0
    out_of_memory: bool = False
    ended: bool = False

    def run(self) -> None:
        """Look at the Jobs until told to end."""
        while not self.ended:
            for child in self._without_job():
                self._kill(child)
            with self.state.lock:
                for name, job in list(self.state.jobs.items()):
                    if "status" not in job and name not in self.running:
                        self._start(name, job)
            time.sleep(0.05)
        with self.state.lock:
            left, self.running = list(self.running.values()), {}
        for child in left:
            child.terminate()
        for child in left:
            self._kill(child)

    def _without_job(self) -> list[subprocess.Popen[str]]:
        with self.state.lock:
            return [self.running.pop(name) for name in list(self.running) if name not in self.state.jobs]

    def _kill(self, child: subprocess.Popen[str]) -> None:
        child.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(timeout=15)
        child.kill()
        child.wait()

    def _start(self, job: str, manifest: Mapping[str, Any]) -> None:
        container = manifest["spec"]["template"]["spec"]["containers"][0]
        own = {entry["name"]: entry["value"] for entry in container["env"] if entry["name"] != "HOME"}
        argv = [sys.executable if word == "python3" else word for word in container["command"]]
        self.made += 1
        pod = f"{job}-{self.made}"
        self.state.logs[pod] = []
        self.state.pod(pod, job, phase="Running")
        self.running[job] = subprocess.Popen(
            argv,
            env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), **self.env, **own},
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        threading.Thread(target=self._watch, args=(job, pod, self.running[job]), daemon=True).start()

    def _watch(self, job: str, pod: str, child: subprocess.Popen[str]) -> None:
        with child:
            for line in child.stdout or ():
                stamp = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
                self.state.logs[pod].append(f"{stamp} {line.rstrip()}")
        code = child.wait()
        code = 128 - code if code < 0 else code
        with self.state.lock:
            if self.running.get(job) is child:
                self._note_end(job, pod, code)

    def _note_end(self, job: str, pod: str, code: int) -> None:
        reason = "OOMKilled" if self.out_of_memory and code == 137 else "Error" if code else "Completed"
        ended = {"terminated": {"exitCode": code, "reason": reason}}
        self.state.pod(pod, job, phase="Failed" if code else "Succeeded", containerStatuses=[{"state": ended}])
        if code == 0:
            self.state.end(job)
        elif code not in RETRIED or reason == "OOMKilled":
            self.state.end(job, "Failed", reason="BackoffLimitExceeded")
        del self.running[job]


@contextlib.contextmanager
def cluster(env: Mapping[str, str], directory: Path) -> Iterator[tuple[Kubelet, Path]]:
    """A cluster of one node, and its kubeconfig; nothing runs afterwards."""
    with serving() as (state, _):
        kubelet = Kubelet(state, env)
        thread = threading.Thread(target=kubelet.run, daemon=True)
        thread.start()
        name, server = "here", f"http://127.0.0.1:{state.port}"
        config = {
            "current-context": name,
            "contexts": [{"name": name, "context": {"cluster": name, "user": name}}],
            "clusters": [{"name": name, "cluster": {"server": server}}],
            "users": [{"name": name, "user": {"token": "t"}}],
        }
        (directory / "kubeconfig").write_text(json.dumps(config))
        try:
            yield kubelet, directory / "kubeconfig"
        finally:
            kubelet.ended = True
            thread.join(30)
