"""The notification at the end of a training: a real program, a real server, and every way to fail."""

from __future__ import annotations

import json
import shlex
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from infra import catalog, settings
from infra.errors import PlatformError
from infra.training import activities, notify, runners
from tests.unit.training.test_train_task import job

START, END = datetime(2026, 11, 30, 10, 0, tzinfo=UTC), datetime(2026, 11, 30, 10, 5, tzinfo=UTC)
WRITES = """
import json, os, sys
found = {"stdin": json.load(sys.stdin), "env": dict(os.environ), "argv": sys.argv[1:]}
open("told.json", "w").write(json.dumps(found))
"""


class Hook:
    """A webhook: what it received, and what it answers."""

    def __init__(self) -> None:
        self.received: list[tuple[str, Any]] = []
        self.status, self.url = 204, ""


@pytest.fixture
def hook() -> Iterator[Hook]:
    made = Hook()

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:
            pass

        def do_POST(self) -> None:
            made.received.append((self.path, json.loads(self.rfile.read(int(self.headers["Content-Length"])))))
            self.send_response(made.status)
            self.send_header("Location", "/elsewhere")
            self.end_headers()

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    made.url = f"http://127.0.0.1:{server.server_address[1]}/services/hidden-token"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield made
    server.shutdown()
    thread.join()
    server.server_close()


def command(*words: str) -> str:
    """How it is written in the setting."""
    return subprocess.list2cmdline(words) if sys.platform == "win32" else shlex.join(words)


def program(tmp_path: Path, text: str, *words: str) -> str:
    """The setting of a Python program, in a directory whose name has a space."""
    path = tmp_path / "my scripts" / "told.py"
    path.parent.mkdir()
    path.write_text(text)
    return command(sys.executable, str(path), *words)


def warning(tmp_path: Path, name: str) -> str:
    """What the log of the job says; '' where nothing."""
    path = tmp_path / f"{name}.log"
    return path.read_text() if path.exists() else ""


@pytest.mark.parametrize("state", ["succeeded", "failed", "cancelled"])
def test_a_webhook_gets_the_end(hook: Hook, tmp_path: Path, state: str) -> None:
    mine = job(state=state, started_at=START, finished_at=END, error="boom")
    activities.deliver(hook.url, mine, tmp_path)
    ((path, told),) = hook.received
    assert path == "/services/hidden-token"
    assert (told["job"], told["state"], told["seconds"], told["error"]) == (mine.id, state, 300.0, "boom")
    assert told["finished_at"] == "2026-11-30T10:05:00+00:00"
    assert warning(tmp_path, mine.id) == ""


def test_a_program_gets_the_end_and_no_login(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgresql://admin:secret@h/p")
    for name in ("TRAINING_KEY", *catalog.MLFLOW_LOGIN):
        monkeypatch.setenv(name, "k")
    monkeypatch.setenv("MINE", "kept")
    mine = job(state="failed", error="it's $(not) a shell", started_at=None, finished_at=None)
    activities.deliver(program(tmp_path, WRITES, "a b", "$HOME; ls"), mine, tmp_path)
    found = json.loads((tmp_path / "told.json").read_text())
    assert found["argv"] == ["a b", "$HOME; ls"]
    assert found["stdin"] == json.loads(json.dumps(notify.body(mine)))
    env = found["env"]
    assert {name: env[name] for name in ("TRAINING_JOB_ID", "TRAINING_STATE", "TRAINING_ERROR", "MINE")} == {
        **{"TRAINING_JOB_ID": mine.id, "TRAINING_STATE": "failed", "TRAINING_ERROR": "it's $(not) a shell"},
        "MINE": "kept",
    }
    assert env["TRAINING_SECONDS"] == ""
    assert {"DATABASE_URL", "TRAINING_KEY", notify.NOTIFY, *catalog.MLFLOW_LOGIN}.isdisjoint(env)


@pytest.mark.parametrize("status", [302, 404, 500])
def test_a_refusal_is_a_warning_without_the_address(hook: Hook, tmp_path: Path, status: int) -> None:
    hook.status, mine = status, job()
    activities.deliver(hook.url, mine, tmp_path)
    said = warning(tmp_path, mine.id)
    assert said == f"warning: the notification of the end failed: 127.0.0.1 answered {status}\n"
    assert len(hook.received) == 1


@pytest.mark.parametrize(
    ("target", "says"),
    [
        ("http://127.0.0.1:1/services/hidden-token", "127.0.0.1 does not answer (ConnectionError)"),
        ("./nothing-there --token hidden-token", "nothing-there cannot be started"),
        (
            command(sys.executable, "-c", "import sys; print('no desktop', file=sys.stderr); sys.exit(3)"),
            "3: no desktop",
        ),
    ],
)
def test_a_failure_is_a_warning(tmp_path: Path, target: str, says: str) -> None:
    mine = job()
    activities.deliver(target, mine, tmp_path)
    said = warning(tmp_path, mine.id)
    assert says in said
    assert "hidden-token" not in said


def test_one_that_hangs_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notify, "LIMIT", 0.2)
    mine = job()
    activities.deliver(command(sys.executable, "-c", "import time; time.sleep(600)"), mine, tmp_path)
    assert "did not finish within" in warning(tmp_path, mine.id)


def test_a_webhook_that_never_answers_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notify, "LIMIT", 0.2)
    mine = job()
    with socket.create_server(("127.0.0.1", 0)) as silent:  # it takes the connection, and says nothing
        activities.deliver(f"http://127.0.0.1:{silent.getsockname()[1]}/x", mine, tmp_path)
    assert "127.0.0.1 does not answer (ReadTimeout)" in warning(tmp_path, mine.id)


@pytest.mark.parametrize("value", ["https://", "http://h:0/x", "ftp://host/x", "https://host/a b", "say 'open", " "])
def test_what_is_neither_program_nor_webhook(value: str) -> None:
    with pytest.raises(PlatformError) as caught:
        settings.load(environ={notify.NOTIFY: value})
    assert caught.value.code == "SETTING_INVALID"
    assert caught.value.what.startswith("PLATFORM_NOTIFY: its value ")


@pytest.mark.parametrize("value", ["https://hooks.example/services/T0?x=1", "notify-send 'a training ended'"])
def test_the_worker_gets_the_setting(value: str) -> None:
    found = settings.load(environ={notify.NOTIFY: value})
    assert runners.environment(found, None) == {notify.NOTIFY: value}
    assert notify.NOTIFY not in runners.environment(settings.load(environ={}), None)
    assert value in found.secrets()
