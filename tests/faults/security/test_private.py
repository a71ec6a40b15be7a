"""A private stack: random passwords from end to end, switched on and off and changed without loss."""

from __future__ import annotations

import contextlib
import json
import stat
import sys
import threading
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import psycopg
import pytest
import requests

from tests.faults.conftest import Victim
from tests.faults.data.db_tools import wait_for
from tests.smoke.logins import fill, refused, works
from tests.smoke.platform import PYTHON


@pytest.fixture(scope="module")
def filled(platform: Victim) -> Victim:
    fill(platform.contract)
    platform.invoke("train.run", "--command", f"{PYTHON} -c pass", check=True)
    return platform


def test_on_and_off_without_loss(filled: Victim) -> None:
    public = filled.contract
    said = filled.up("--private")
    hidden = filled.contract
    works(hidden)
    refused(public, hidden)
    passwords = [urlsplit(hidden[name]).password or "" for name in ("DATABASE_URL", "REDIS_URL")]
    assert all(len(p) == 32 and p not in said.stdout + said.stderr for p in passwords)
    assert not filled.stage.data("up")["changed"]
    filled.invoke("train.run", "--command", f"{PYTHON} -c pass", check=True)
    filled.invoke("db.backup", check=True)
    filled.invoke("db.verify", check=True)
    filled.invoke("doctor", check=True)
    filled.invoke("down", check=True)
    filled.up()
    assert filled.contract == hidden
    works(hidden)
    filled.up("--no-private")
    assert filled.contract == public
    works(public)
    refused(hidden, public)


def test_mlflow_wants_a_login_and_trainings_have_it(filled: Victim) -> None:
    def status(contract: Mapping[str, str]) -> int:
        login = (contract.get("MLFLOW_TRACKING_USERNAME", ""), contract.get("MLFLOW_TRACKING_PASSWORD", ""))
        url = f"{contract['MLFLOW_TRACKING_URI']}/api/2.0/mlflow/experiments/search?max_results=1"
        return requests.get(url, auth=login if login[1] else None, timeout=30).status_code

    def tracked() -> str:
        done = filled.stage.data("train.run", "--epochs", "1")
        return str(done["tracking"]["mlflow"]["state"])

    filled.up("--no-private", "--obs")
    public = filled.contract
    assert (status(public), tracked()) == (200, "ok")
    filled.up("--private")
    hidden = filled.contract
    assert (status(public), status(hidden), tracked()) == (401, 200, "ok")
    filled.invoke("secrets.rotate", "-s", "mlflow", check=True)
    rotated = filled.contract
    assert (status(hidden), status(rotated), tracked()) == (401, 200, "ok")
    filled.up("--no-private", "--no-obs")
    assert "MLFLOW_TRACKING_PASSWORD" not in filled.contract


@pytest.mark.skipif(sys.platform == "win32", reason="modes of POSIX")
def test_the_passwords_are_in_one_private_file(filled: Victim) -> None:
    filled.up("--private")
    file = filled.stack_home / "logins.json"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert json.loads(file.read_text())["next"] is None


def test_rotation_tells_no_login_before_it_works(filled: Victim) -> None:
    filled.up("--private")
    before = filled.contract
    with psycopg.connect(before["DATABASE_URL"], autocommit=True) as open_session:
        filled.invoke("secrets.rotate", check=True)
        assert open_session.execute("select n from kept").fetchone() == (7,)
    after = filled.contract
    assert after != before
    works(after)
    refused(before, after)
    filled.invoke("train.run", "--command", f"{PYTHON} -c pass", check=True)


@dataclass
class Client:
    """A program that asks all services again and again, each time with the logins of that moment."""

    contract: Mapping[str, str]
    file: Path
    done: threading.Event = field(default_factory=threading.Event)
    failed: dict[str, list[str]] = field(default_factory=dict)
    asked: Counter[str] = field(default_factory=Counter)

    def run(self) -> None:
        while not self.done.is_set():
            now = json.loads(self.file.read_text())["now"]
            mark = now["POSTGRES_PASSWORD"]
            self.asked[mark] += 1
            try:
                works(with_logins(self.contract, now))
            except Exception as error:
                self.failed.setdefault(mark, []).append(repr(error))


def with_logins(contract: Mapping[str, str], now: Mapping[str, str]) -> dict[str, str]:
    """The contract with the logins of the file."""
    changed = dict(contract)
    for name, setting in (("DATABASE_URL", "POSTGRES_PASSWORD"), ("REDIS_URL", "REDIS_PASSWORD")):
        password = urlsplit(contract[name]).password or ""
        changed[name] = contract[name].replace(f":{password}@", f":{now[setting]}@")
    keys = dict.fromkeys(("EXTERNAL_STORAGE_SECRET_KEY", "INTERNAL_STORAGE_SECRET_KEY"), now["MINIO_ROOT_PASSWORD"])
    return changed | keys


def test_under_load_no_request_with_the_new_login_fails(filled: Victim) -> None:
    filled.up("--private")
    client = Client(filled.contract, filled.stack_home / "logins.json")
    thread = threading.Thread(target=client.run)
    thread.start()
    try:
        filled.invoke("secrets.rotate", check=True)
        new = json.loads(client.file.read_text())["now"]["POSTGRES_PASSWORD"]
        wait_for("requests with the new login", lambda: client.asked[new] > 20)
    finally:
        client.done.set()
        thread.join()
    assert len(client.asked) == 2
    assert client.failed.get(new, []) == []


def test_a_stack_can_be_private_from_the_start_and_its_trash_learns_later_passwords(fresh_platform: Victim) -> None:
    fresh_platform.up("--private")
    fill(fresh_platform.contract)
    fresh_platform.invoke("reset", "-s", "postgres", "--yes", check=True)
    fresh_platform.up()
    fresh_platform.invoke("secrets.rotate", check=True)
    fresh_platform.invoke("trash.restore", "postgres", "--yes", check=True)
    fresh_platform.up()
    works(fresh_platform.contract)


def test_the_application_gets_the_new_logins_by_itself(filled: Victim) -> None:
    def ready() -> bool:
        with contextlib.suppress(requests.RequestException):
            return requests.get(f"{url}/ready", timeout=30).status_code == 200
        return False

    filled.up("--private")
    url = filled.stage.data("app.run")["urls"]["backend"]
    wait_for("the application", ready)
    filled.invoke("secrets.rotate", check=True)
    wait_for("the application with the new logins", ready)
    filled.invoke("app.stop", check=True)


def test_a_change_that_was_cut_off_is_finished(filled: Victim) -> None:
    filled.up("--private")
    file = filled.stack_home / "logins.json"
    before = json.loads(file.read_text())
    filled.invoke("secrets.rotate", "-s", "postgres", check=True)
    # As after a kill between PostgreSQL and the others: it has the new one, which is noted as coming.
    after = json.loads(file.read_text())
    file.write_text(json.dumps({**before, "next": after["now"]}))
    filled.up()
    assert json.loads(file.read_text())["now"] == after["now"]
    works(filled.contract)
