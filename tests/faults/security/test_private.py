"""A private stack: random passwords from end to end, switched on and off and changed without loss."""

from __future__ import annotations

import json
import stat
import sys
from urllib.parse import urlsplit

import psycopg
import pytest

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
    refused(public)
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
    refused(hidden, open_redis=True)


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
    refused(before)
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
