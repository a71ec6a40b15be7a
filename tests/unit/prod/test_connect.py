"""Port-forwards of a site: addresses that lead here, forwards that come back, passwords that nobody sees."""

from __future__ import annotations

import base64
import os
import signal
import stat
import sys
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from dotenv import dotenv_values

from infra.errors import PlatformError
from infra.prod import connect
from infra.prod.connect import ServicePort
from infra.tasks.prod_connect import connected
from tests.unit.helpers import context_of
from tests.unit.prod import things as t
from tests.unit.prod.played import SITE, Played

SECRET = "p@ss/word"
URL = "postgresql://platform:p%40ss%2Fword@postgresql.platform:5432/platform"
CHECK = "?sslmode=verify-full&sslrootcert=/etc/postgresql-ca/ca.crt"
OPEN = {
    "TEMPORAL_HOST": "temporal-frontend.temporal:7233",
    "EXTERNAL_STORAGE_ENDPOINT": "https://s3.eu-central-1.amazonaws.com",
    "MLFLOW_TRACKING_URI": "http://mlflow.platform.svc.cluster.local:5000",
}
HIDDEN = {
    "DATABASE_URL": f"{URL}{CHECK}",
    "REDIS_URL": "rediss://:other@cache.internal:6379/0",
    "EXTERNAL_STORAGE_ACCESS_KEY": "",
}
POSTGRES, TEMPORAL = ServicePort("platform", "postgresql", 5432), ServicePort("temporal", "temporal-frontend", 7233)
MLFLOW, GONE = ServicePort("platform", "mlflow", 5000), ServicePort("platform", "gone", 80)
KUBECTL = """
import sys, time
if "service/gone" in sys.argv:
    sys.exit("error: no pods are running")
local = sys.argv[-1].partition(":")[0] or "40123"
print(f"Forwarding from 127.0.0.1:{local} -> 1", flush=True)
time.sleep(600)
"""


@dataclass(frozen=True)
class Forwarding(Played):
    """A cluster whose kubectl says that it forwards, and stays."""

    def argv(self, *words: str) -> list[str]:
        return [sys.executable, "-c", KUBECTL, *words]


def deployed(*services: ServicePort) -> Forwarding:
    cluster = Forwarding()
    encoded = {name: base64.b64encode(text.encode()).decode() for name, text in HIDDEN.items()}
    cluster.put({**t.thing("ConfigMap", name=connect.CONFIG), "data": OPEN})
    cluster.put({**t.thing("Secret", name=connect.SECRET), "data": encoded})
    for one in services:
        cluster.put(t.thing("Service", name=one.service, namespace=one.namespace))
    return cluster


def test_the_contract_is_read_with_what_must_be_hidden() -> None:
    values, hidden = connect.variables(deployed())
    assert values == {**OPEN, **HIDDEN}
    assert {SECRET, "other"} <= hidden
    assert "" not in hidden


def test_an_application_that_is_not_deployed_is_said() -> None:
    with pytest.raises(PlatformError) as caught:
        connect.variables(Played())
    assert caught.value.code == "NOT_FOUND"


def test_services_of_the_cluster_are_forwarded_to_and_others_are_not() -> None:
    cluster = deployed(POSTGRES, TEMPORAL, MLFLOW)
    assert connect.targets(cluster, [*OPEN.values(), *HIDDEN.values()]) == [TEMPORAL, MLFLOW, POSTGRES]


def test_addresses_lead_here_and_a_name_that_cannot_fit_is_not_checked(tmp_path: Path) -> None:
    ca = tmp_path / "with space" / "ca.crt"
    cluster = deployed(POSTGRES)
    forwards = [connect.Forward(target, 40000 + n, None) for n, target in enumerate((POSTGRES, TEMPORAL, MLFLOW))]  # type: ignore[arg-type]
    found = connect.here(connect.variables(cluster)[0], forwards, ca)
    where, local = ca.as_posix().replace(" ", "%20"), URL.replace("postgresql.platform:5432", "127.0.0.1:40000")
    assert found == {
        "TEMPORAL_HOST": "127.0.0.1:40001",
        "EXTERNAL_STORAGE_ENDPOINT": OPEN["EXTERNAL_STORAGE_ENDPOINT"],
        "MLFLOW_TRACKING_URI": "http://127.0.0.1:40002",
        "DATABASE_URL": f"{local}?sslmode=verify-ca&sslrootcert={where}",
        "REDIS_URL": HIDDEN["REDIS_URL"],
        "EXTERNAL_STORAGE_ACCESS_KEY": "",
    }


def test_a_server_that_is_not_forwarded_to_keeps_its_full_check(tmp_path: Path) -> None:
    found = connect.here(connect.variables(deployed())[0], [], tmp_path / "ca.crt")
    assert "sslmode=verify-full" in found["DATABASE_URL"]
    assert "postgresql.platform:5432" in found["DATABASE_URL"]


def test_forwards_listen_in_the_block_and_end_with_it() -> None:
    with connect.opened(deployed(), [POSTGRES, TEMPORAL]) as forwards:
        assert [(f.target, f.local, f.running.code()) for f in forwards] == [
            (POSTGRES, 40123, None),
            (TEMPORAL, 40123, None),
        ]
    assert all(f.running.code() is not None for f in forwards)


def test_one_that_cannot_be_forwarded_to_is_said_and_leaves_none_open(monkeypatch: pytest.MonkeyPatch) -> None:
    begun: list[connect.Forward] = []
    real = connect.forward

    def noted(*words: Any) -> connect.Forward:
        begun.append(real(*words))
        return begun[-1]

    monkeypatch.setattr(connect, "forward", noted)
    with pytest.raises(PlatformError) as caught, connect.opened(deployed(), [POSTGRES, GONE]):
        pass
    assert (caught.value.code, caught.value.why) == ("UNREACHABLE", "error: no pods are running")
    assert [f.running.code() is not None for f in begun] == [True]


def test_a_forward_that_ends_comes_back_at_its_port() -> None:
    said: list[str] = []
    rounds = iter(range(3))

    def paused(_: float) -> None:
        if next(rounds) == 2:
            raise KeyboardInterrupt

    cluster = deployed()
    with connect.opened(cluster, [POSTGRES]) as forwards:
        first, forwards[0].local = forwards[0].running, 40999  # not the one that kubectl would take by itself
        os.kill(first.process.pid, signal.SIGTERM)
        first.process.wait()
        with pytest.raises(KeyboardInterrupt):
            connect.keep(cluster, forwards, said.append, paused)
        assert forwards[0].local == 40999
        assert forwards[0].running is not first
        assert any(":40999 " in line for line in forwards[0].running.lines)
        assert forwards[0].running.code() is None
    assert said == ["postgresql: connected again"]


def test_a_forward_that_breaks_while_a_task_needs_it_is_made_again() -> None:
    cluster, again = deployed(), threading.Event()
    with connect.kept(cluster, [POSTGRES], lambda text: again.set()) as forwards:
        first, local = forwards[0].running, forwards[0].local
        first.process.terminate()
        assert again.wait(60)
        second = forwards[0].running
        assert second is not first
        assert forwards[0].local == local
        assert second.code() is None
    assert second.code() is not None, "nothing is left of it"


def test_a_forward_that_stays_away_is_told_once() -> None:
    said: list[str] = []
    rounds = iter(range(3))

    def paused(_: float) -> None:
        if next(rounds) == 2:
            raise KeyboardInterrupt

    cluster = deployed()
    with connect.opened(cluster, [POSTGRES]) as forwards:
        forwards[0].running.stop()
        forwards[0].target = GONE
        with pytest.raises(KeyboardInterrupt):
            connect.keep(cluster, forwards, said.append, paused)
    assert said == ["gone: error: no pods are running; trying again"]


def test_the_authority_is_that_of_the_site() -> None:
    cluster = deployed()
    cluster.put({**t.thing("ConfigMap", name="postgresql-ca"), "data": {"ca.crt": "PUBLIC"}})
    assert connect.authority(SITE, cluster) == "PUBLIC"


def test_the_variables_are_in_a_private_file_while_it_lasts_and_passwords_nowhere_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster, context, target = deployed(POSTGRES), context_of(tmp_path), tmp_path / "app.env"
    cluster.put({**t.thing("ConfigMap", name="postgresql-ca"), "data": {"ca.crt": "PUBLIC"}})
    seen: list[Any] = []

    def looked(*_: Any) -> None:
        seen.append((dotenv_values(target), stat.S_IMODE(target.stat().st_mode), sorted(tmp_path.glob("app.env*"))))
        raise KeyboardInterrupt

    monkeypatch.setattr(connect, "keep", looked)
    with pytest.raises(KeyboardInterrupt):
        connected(context, SITE, cluster, target, False)
    values, mode, files = seen[0]
    assert values["DATABASE_URL"].startswith("postgresql://platform:p%40ss%2Fword@127.0.0.1:40123/platform")
    assert (mode, len(files)) == (0o600 if os.name == "posix" else mode, 2)
    assert list(tmp_path.glob("app.env*")) == []
    said = context.console.out + context.console.err  # type: ignore[attr-defined]
    assert "127.0.0.1:40123" in said
    for word in (SECRET, "p%40ss%2Fword", "other"):
        assert word not in said


def test_a_file_of_somebody_else_stays(tmp_path: Path) -> None:
    target = tmp_path / ".env.production"
    target.write_text("MINE=1\n", encoding="utf-8")
    cluster = deployed()
    cluster.put({**t.thing("ConfigMap", name="postgresql-ca"), "data": {"ca.crt": "PUBLIC"}})
    with pytest.raises(PlatformError) as caught:
        connected(context_of(tmp_path), SITE, cluster, target, False)
    assert caught.value.code == "CONFIRMATION_NEEDED"
    assert target.read_text(encoding="utf-8") == "MINE=1\n"
