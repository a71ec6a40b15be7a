"""--tier production reads and changes nothing: what would is refused, with the task that does it."""

from __future__ import annotations

import base64
import inspect
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest

from infra import catalog, settings, shell, stack, tier_choice
from infra.console import Answer, Console
from infra.context import Context
from infra.errors import PlatformError
from infra.prod import connect
from infra.tasks import collection, production, production_site, production_train
from tests.unit.prod.played import Played


def _context(tmp_path: Path, **values: str) -> Context:
    given = {"PLATFORM_TIER": "production", "PLATFORM_STATE_DIR": str(tmp_path), **values}
    loaded = settings.load(tmp_path, {}, given)
    return Context(loaded, stack.of(loaded), Console(command="status"))


def _refused(name: str) -> PlatformError:
    with pytest.raises(PlatformError) as refused:
        production.reading(name, lambda context: None)
    return refused.value


@pytest.mark.parametrize(
    ("name", "task"),
    [("up", "prod.deploy"), ("db.restore", "prod.restore"), ("db.backup", "prod.backup"), ("minio.restore", "prod.")],
)
def test_what_changes_something_is_refused_and_the_task_is_named(name: str, task: str) -> None:
    assert _refused(name).code == "USAGE"
    assert task in " ".join(_refused(name).steps)


@pytest.mark.parametrize("name", sorted(production.NEVER))
def test_nothing_stops_or_removes_production(name: str) -> None:
    assert "no task stops or removes production" in _refused(name).why


def test_every_task_named_here_exists() -> None:
    there = set(collection.collect().task_names)
    named = {*production.READS, *production.CONNECTED, *production.INSTEAD, *production.NEVER}
    assert named - there == set()
    tasks = {step.split()[0] for step in production.INSTEAD.values()}
    assert tasks <= there


def test_production_is_never_chosen_by_itself() -> None:
    assert catalog.PRODUCTION not in tier_choice.TIERS
    assert catalog.PRODUCTION not in catalog.TIERS


def test_without_a_site_nothing_is_asked(tmp_path: Path) -> None:
    with pytest.raises(PlatformError) as refused:
        production.reading("status", lambda context: None)(_context(tmp_path))
    assert "PLATFORM_SITE" in refused.value.steps[0]


def _there(monkeypatch: pytest.MonkeyPatch, cluster: Played) -> None:
    monkeypatch.setattr(production_site, "cluster", lambda context, name: cluster)


@pytest.fixture
def cluster() -> Played:
    found = Played()
    about: Any = {"namespace": "platform", "name": connect.CONFIG}
    found.put({"apiVersion": "v1", "kind": "ConfigMap", "metadata": about, "data": {"TEMPORAL_HOST": "temporal:7233"}})
    secret = {
        "DATABASE_URL": base64.b64encode(b"postgresql://platform:word@postgresql.platform:5432/platform").decode()
    }
    about = {"namespace": "platform", "name": connect.SECRET}
    found.put({"apiVersion": "v1", "kind": "Secret", "metadata": about, "data": secret})
    return found


def test_env_is_the_contract_as_pods_have_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cluster: Played) -> None:
    _there(monkeypatch, cluster)
    answer = production.READS["env"](_context(tmp_path, PLATFORM_SITE="example"))
    assert answer is not None
    values: Any = answer.data
    assert values["DATABASE_URL"] == "postgresql://platform:word@postgresql.platform:5432/platform"
    assert cluster.log == []
    with pytest.raises(PlatformError) as refused:
        production.READS["env"](_context(tmp_path, PLATFORM_SITE="example"), write="x")
    assert "prod.connect example" in refused.value.steps[0]


class Talking(Played):
    """A cluster whose pods have said something."""

    def _logs(self, words: Any, things: Any) -> shell.Result:
        self.log.append(" ".join(words))
        return shell.Result(0, "[pod/a] started\n[pod/a] ERROR: no room\n", "")


def test_logs_are_those_of_the_pods(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    there = Talking()
    _there(monkeypatch, there)
    context = _context(tmp_path, PLATFORM_SITE="example")
    production.READS["logs"](context, ["backend"], tail=5, grep="error", since="10m")
    out = capsys.readouterr().out
    assert "no room" in out
    assert "started" not in out
    (asked,) = there.log
    assert "-n platform -l app.kubernetes.io/name=platform,app.kubernetes.io/component=backend" in asked
    assert "--tail=5" in asked
    assert "--since-time=" in asked
    with pytest.raises(PlatformError, match="no service 'bakend'"):
        production.READS["logs"](context, ["bakend"])


def test_a_task_that_reads_gets_the_contract_of_the_site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    @contextmanager
    def opened(context: Context) -> Iterator[str]:
        yield "the contract"

    monkeypatch.setattr(production_site, "contract", opened)
    body = production.reading("train.list", lambda context: Answer(production_site.CONTRACT.get()))
    answer = body(_context(tmp_path))
    assert answer is not None
    assert answer.data == "the contract"
    assert production_site.CONTRACT.get() is None


class Application(BaseHTTPRequestHandler):
    """The application's server, which takes one training and refuses the next."""

    asked: ClassVar[list[Any]] = []

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.asked.append((self.path, body))
        first = len(self.asked) == 1
        said = {"job": "digits-1"} if first else {"error": {"code": "USAGE", "message": "this backend has no key"}}
        self.send_response(201 if first else 400)
        self.end_headers()
        self.wfile.write(json.dumps(said).encode())

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@pytest.fixture
def application(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Any]]:
    Application.asked = []
    server = HTTPServer(("127.0.0.1", 0), Application)
    threading.Thread(target=server.serve_forever, daemon=True).start()

    @contextmanager
    def there(context: Context) -> Iterator[str]:
        yield f"http://127.0.0.1:{server.server_port}"

    monkeypatch.setattr(production_train, "_application", there)
    yield Application.asked
    server.shutdown()
    server.server_close()


def test_a_training_is_ordered_from_the_application(tmp_path: Path, application: list[Any]) -> None:
    run = production.READS["train.run"]
    answer = run(_context(tmp_path), epochs=3, experiment="first", detach=True, command="", env=[], workers=1)
    assert answer is not None
    assert answer.data == {"job": "digits-1", "state": "queued"}
    assert application == [("/trainings", {"epochs": 3, "experiment": "first"})]
    with pytest.raises(PlatformError) as failed:
        run(_context(tmp_path), detach=True)
    assert (failed.value.code, failed.value.why) == ("SERVICE_FAILED", "this backend has no key")


@pytest.mark.parametrize("given", [{"command": "python x.py"}, {"env": ["A=1"]}, {"as_": "job"}, {"workers": 2}])
def test_what_only_this_machine_has_is_refused(tmp_path: Path, application: list[Any], given: dict[str, Any]) -> None:
    with pytest.raises(PlatformError) as refused:
        production.READS["train.run"](_context(tmp_path), **given)
    assert refused.value.code == "USAGE"
    assert f"--{next(iter(given)).rstrip('_')}" in refused.value.what
    assert application == []


def test_every_option_of_a_training_is_taken_or_refused() -> None:
    mine = set(inspect.signature(production_train.run).parameters) | set(production_train.HERE_ONLY)
    task = collection.collect()["train.run"]
    options = {a.name.replace("-", "_") for a in task.get_arguments()}
    known = {name.rstrip("_") for name in mine}
    assert options - known - {"tier", "output", "json", "no_color", "debug"} == set()
