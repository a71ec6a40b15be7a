"""Backups from another stack, another machine or another hand: restored whole, or refused with a reason."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.faults.conftest import Victim
from tests.faults.data.db_tools import NAMES, Site, refused, rewritten

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX modes and owners")


@pytest.fixture
def site(platform: Victim, tmp_path: Path) -> Site:
    made = Site(platform, tmp_path / "backups")
    made.drop_kept()
    made.fill()
    return made


def test_a_copy_with_another_owner_other_modes_and_another_name_is_restored(site: Site, tmp_path: Path) -> None:
    before = site.state()
    copy = shutil.copytree(site.backup(), tmp_path / "from ünother machine")
    for place in (copy, *copy.rglob("*")):
        if os.geteuid() == 0:
            os.chown(place, 65534, 65534)
        place.chmod(0o777 if place.is_dir() else 0o666)
    site.change()
    done = site.invoke("db.restore", "--from", str(copy), "--yes")
    assert done.returncode == 0, done.stderr
    assert site.state() == before
    site.drop_kept()


def test_what_the_server_refuses_at_the_swap_leaves_all_as_before(site: Site) -> None:
    path = site.backup()
    rewritten(path, lambda body: body["facts"]["databases"]["users"].update(owner="nobody here"))
    before = (site.state(), site.databases())
    done = site.invoke("db.restore", "--from", str(path), "--yes", "--trust")
    refused(done, 10, "BACKUP_FAILED", "unchanged", "nobody here")
    assert (site.state(), site.databases()) == before


def test_a_setting_that_the_server_refuses_is_named_and_the_rest_is_restored(site: Site) -> None:
    path = site.backup()
    rewritten(path, lambda body: body["facts"]["databases"]["users"].update(settings=[["", ["nonsense=1"]]]))
    before = site.state()
    site.change()
    done = site.invoke("db.restore", "--from", str(path), "--yes", "--trust")
    refused(done, 11, 'alter database "users" set "nonsense"')
    assert site.state() == before


def test_an_encoding_that_the_server_lacks_is_said(site: Site) -> None:
    path = site.backup("--database", "users")
    rewritten(path, lambda body: body["facts"]["databases"]["users"].update({"encoding": "NOPE"}))
    before = (site.state(), site.databases())
    refused(site.invoke("db.restore", "--from", str(path), "--yes", "--trust"), 8, "DATA_INCOMPATIBLE", "NOPE")
    assert (site.state(), site.databases()) == before


def test_a_directory_outside_is_never_written_to(site: Site, tmp_path: Path) -> None:
    path, evil = site.backup(), tmp_path / "evil"
    evil.parent.chmod(0o755)
    rewritten(path, lambda body: body["facts"]["databases"]["users"].update({"directory": str(evil)}))
    for words in (["db.verify"], ["db.restore", "--yes", "--trust"]):
        refused(site.invoke(*words, "--from", str(path)), 10, "BACKUP_DAMAGED", "not written by this tool", "evil")
    listed = json.loads(site.invoke("db.list", "--to", str(site.target), "--json").stdout)["data"]
    assert "evil" in listed[-1]["problem"]
    assert not evil.exists()


def test_roles_that_are_none_are_refused_and_superusers_are_named(site: Site) -> None:
    with site.link() as link:
        link.execute("create role boss superuser")
    path = site.backup("--database", "users")
    with site.link() as link:
        link.execute("drop role boss")
    done = site.invoke("db.restore", "--from", str(path), "--dry-run")
    assert "boss (superuser)" in done.stdout + done.stderr
    _with_roles(path, '[{"name": "boss"}]')
    refused(site.invoke("db.restore", "--from", str(path), "--yes"), 10, "BACKUP_DAMAGED", "contains no roles")


def _with_roles(path: Path, text: str) -> None:
    (path / "roles.json").write_text(text)

    def change(body: dict[str, Any]) -> None:
        entry = next(f for f in body["files"] if f["path"] == "roles.json")
        entry |= {"size": len(text), "sha256": hashlib.sha256(text.encode()).hexdigest()}

    rewritten(path, change)


def test_a_name_with_a_line_break_and_a_colour_is_shown_escaped_and_comes_back(site: Site) -> None:
    with site.link() as link:
        link.execute('create database "line\nbreak\x1b[31m"')
    try:
        path = site.backup()
        listed = site.invoke("db.list", "--to", str(site.target))
        assert "line\\nbreak\\x1b[31m" in listed.stdout
        done = site.invoke("db.restore", "--from", str(path), "--yes")
        assert done.returncode == 0, done.stderr
        assert "\x1b" not in listed.stdout + done.stdout + done.stderr
        assert {*NAMES, "line\nbreak\x1b[31m"} <= set(site.databases())
    finally:
        site.drop_kept()
        with site.link() as link:
            link.execute('drop database "line\nbreak\x1b[31m"')
