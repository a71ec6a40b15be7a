"""A private stack: random passwords from end to end, switched on and off and changed without loss."""

from __future__ import annotations

import json
import stat
import sys
from collections.abc import Mapping
from urllib.parse import urlsplit

import psycopg
import pytest
import requests

from tests.faults.conftest import Victim
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
    works(after)
    refused(before, after)
    filled.invoke("train.run", "--command", f"{PYTHON} -c pass", check=True)


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
