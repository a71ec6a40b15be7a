"""Random databases come back from a backup, and pg_dump says the same of both; HYPOTHESIS_EXAMPLES: how many."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from infra.data.postgres import backup, clients, restore, restore_plan, roles, scratch, verify
from infra.data.postgres.clients import Server
from infra.data.store import Backup
from infra.errors import PlatformError
from infra.settings import load
from tests.faults.conftest import Victim
from tests.faults.data import grammar
from tests.faults.data.db_tools import Site
from tests.unit.helpers import console

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX modes and owners")

EXAMPLES = int(os.environ.get("HYPOTHESIS_EXAMPLES", "4"))
"""So few by default, always the same ones: each is a backup, a verification, a restore and three dumps."""
NAME = "prop erty"


@pytest.fixture(scope="module")
def site(platform: Victim, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    made = Site(platform, tmp_path_factory.mktemp("property"))
    yield made
    _cleared(made, _server(made))


def _server(site: Site) -> Server:
    return clients.find_server(site.ends, load(environ=site.victim.env))


@settings(
    max_examples=EXAMPLES,
    derandomize="HYPOTHESIS_EXAMPLES" not in os.environ,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    database=None,
)
@given(schema=grammar.schemas(), again=st.booleans())
def test_a_restored_database_is_the_one_that_was_backed_up(site: Site, schema: grammar.Schema, again: bool) -> None:
    server, target = _server(site), site.target / os.urandom(4).hex()
    _cleared(site, server)
    _make(site, schema)
    before, had = _dumped(server), _roles(site)
    target.mkdir(mode=0o700)
    made = backup.backup(server, console(), backup.BackupOrder(target, (NAME,)))
    if not again:
        _cleared(site, server)
    assert not verify.verify(server, made, target / "space").failed
    assert _as_guest(server, made, target / "space") in ("verified", "TRUST_NEEDED")  # of untrusted extensions
    done = restore.restore(server, restore_plan.plan(server, made), target / "space")
    assert done.whole
    assert _dumped(server) == before
    assert _roles(site) == had


def _as_guest(server: Server, made: Backup, space: Path) -> str:
    """How the same backup is judged where it was made elsewhere: never as damaged."""
    try:
        done = verify.verify(server, made, space, trusted=False)
    except PlatformError as error:
        return error.code
    assert done.guest
    return "verified" if not done.failed else str(done.failed)


def _make(site: Site, schema: grammar.Schema) -> None:
    with site.link() as link:
        link.execute(f'create database "{NAME}"'.encode())
        for text in grammar.ROLES:
            for statement in text.format(*schema.roles).split("; "):
                link.execute(statement.encode())
    with site.link(NAME) as link:
        for statement in schema.statements:
            link.execute(statement.encode())


def _cleared(site: Site, server: Server) -> None:
    with site.link() as link:
        for name in site.databases():
            if name.startswith(NAME):
                scratch.drop(server, link, name)
        roles.drop(link, [name for (name,) in link.execute("select rolname from pg_roles where rolname like 'prop %'")])


def _roles(site: Site) -> dict[str, dict[str, Any]]:
    with site.link() as link:
        return {r["name"]: r for r in roles.read(link, True) if r["name"].startswith("prop ")}


def _dumped(server: Server) -> tuple[str, list[str]]:
    """The schema as text, and the rows of all tables without their order and partition."""
    texts = []
    for part in ("--schema-only", "--data-only"):
        argv = [server.clients.program("pg_dump"), part, "--no-password", f"--dbname=dbname='{NAME}'"]
        done = subprocess.run(argv, env=clients.login(server), capture_output=True, text=True, check=True)
        texts.append(re.sub(r"^\\(un)?restrict .*$", "", done.stdout, flags=re.MULTILINE))
    return texts[0], sorted(line for line in texts[1].splitlines() if not line.startswith("--"))
