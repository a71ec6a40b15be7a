"""The upgrade by image, on a tier whose images are two sets of programs on this machine: real servers, real data."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import cast

import psycopg
import pytest

from infra import endpoints, settings, stack
from infra.console import Console
from infra.context import Context
from infra.data import store, trash
from infra.data.postgres import restore as postgres_restore
from infra.data.postgres import volume_upgrade
from infra.endpoints import Endpoints
from infra.errors import PlatformError
from infra.settings import Settings, Value
from infra.tiers import providers
from infra.tiers.base import Removal, Tier
from infra.tiers.native import postgres as native_postgres
from infra.tiers.native.tier import Native
from tests.smoke.stage import clean_environment, free_ports

OLD = Path("/usr/lib/postgresql/15/bin")

pytestmark = [
    pytest.mark.skipif(not (OLD / "postgres").is_file(), reason="needs PostgreSQL 15 of Debian"),
    pytest.mark.filterwarnings("ignore:subprocess .* is still running:ResourceWarning"),  # the supervisors
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


class ByImage:
    """PostgreSQL alone; its image is a directory of programs, its volume a directory of data."""

    name = "images"

    def __init__(self, context: Context) -> None:
        image = context.settings.text("POSTGRES_IMAGE")
        self.context = context
        self.native = Native(context.with_values({"PLATFORM_POSTGRES_BIN": image}, "the test"))

    def with_context(self, context: Context) -> ByImage:
        return ByImage(context)

    def start(self, names: Sequence[str], timeout: float | None) -> None:
        """The entry point of an image makes the data directory, and refuses one of another version."""
        found = providers.postgres_bin(self.native.context.settings)
        native_postgres.check_version(self.native.builder.programs.postgres, found)
        self.native.start(names, timeout)

    def stop(self) -> bool:
        return self.native.stop()

    def endpoints(self) -> Endpoints:
        return endpoints.build(self.context.settings, ("postgres",))

    def removals(self, services: Sequence[str]) -> list[Removal]:
        return self.native.removals(services)

    def stash(self, removal: Removal, into: Path) -> None:
        self.native.stash(removal, into)

    def unstash(self, removal: Removal, kept: Path) -> None:
        self.native.unstash(removal, kept)


@pytest.fixture
def home() -> Iterator[Path]:
    """A directory that the server's own user can reach: below pytest's own, another run may close the way to it."""
    made = Path(tempfile.mkdtemp(prefix="platform-test-")).resolve()
    os.chmod(made, 0o755)
    yield made
    shutil.rmtree(made, ignore_errors=True)


@pytest.fixture
def context(home: Path) -> Iterator[Context]:
    """A stack whose PostgreSQL 15 holds rows, stopped; the setting names the bundled version."""
    env = clean_environment() | free_ports() | {"PLATFORM_STATE_DIR": str(home)}
    read = settings.load(environ=env)
    bundled = str(providers.postgres_bin(read).path)
    made = Context(_image(read, bundled), stack.of(read), Console(environ={}))
    former = ByImage(replace(made, settings=_image(read, str(OLD))))
    former.start(("postgres",), None)
    with _link(made, "platform") as link:
        link.execute("create table kept as select n from generate_series(1, 500) n")
    former.stop()
    yield made
    ByImage(made).stop()
    for log in sorted(home.rglob("postgres.log")):
        print(log.read_text(encoding="utf-8", errors="replace")[-4000:])  # seen where the test has failed


def _image(read: Settings, image: str) -> Settings:
    return replace(read, values={**read.values, "POSTGRES_IMAGE": Value(image, "the test")})


def _link(context: Context, database: str) -> psycopg.Connection[tuple[object, ...]]:
    ends = endpoints.build(context.settings, ("postgres",))
    return psycopg.connect(ends.database_url(database), autocommit=True)


def _rows(context: Context) -> tuple[int, int]:
    """Rows, and the server's major version."""
    with _link(context, "platform") as link:
        count = link.execute("select count(*) from kept").fetchone()
        return int(str((count or (0,))[0])), link.info.server_version // 10000


def _tier(context: Context) -> Tier:
    return cast("Tier", ByImage(context))  # the part of a tier that an upgrade needs


def test_the_databases_move_and_the_old_storage_brings_them_back(context: Context) -> None:
    done = volume_upgrade.upgrade(_tier(context), str(OLD))
    assert (done.old, done.new) == (15, 18)
    assert _rows(context) == (500, 18)
    with _link(context, "postgres") as link:
        names = [str(row[0]) for row in link.execute("select datname from pg_database")]
    assert not [name for name in names if "_old_" in name]
    store.check_files(store.load(done.backup))
    _tier(context).stop()
    (entry,) = trash.entries(context.stack)
    trash.bring_back(_tier(context), entry)
    former = replace(context, settings=_image(context.settings, str(OLD)))
    _tier(former).start(("postgres",), None)
    assert _rows(context) == (500, 15)
    _tier(former).stop()


def test_an_upgrade_that_fails_leaves_the_old_storage_in_its_place(
    context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*given: object) -> None:
        raise PlatformError("BACKUP_FAILED", "cut short")

    monkeypatch.setattr(postgres_restore, "restore", fail)
    with pytest.raises(PlatformError):
        volume_upgrade.upgrade(_tier(context), str(OLD))
    former = replace(context, settings=_image(context.settings, str(OLD)))
    _tier(former).start(("postgres",), None)
    assert _rows(context) == (500, 15)
    _tier(former).stop()


def test_an_image_that_is_not_newer_is_refused(context: Context) -> None:
    same = replace(context, settings=_image(context.settings, str(OLD)))
    with pytest.raises(PlatformError) as caught:
        volume_upgrade.upgrade(_tier(same), str(OLD))
    assert caught.value.code == "DATA_INCOMPATIBLE", caught.value.why
    _tier(same).start(("postgres",), None)
    assert _rows(same) == (500, 15)
    _tier(same).stop()


def test_without_the_old_image_nothing_is_planned(context: Context) -> None:
    with pytest.raises(PlatformError) as caught:
        volume_upgrade.plan(_tier(context), "")
    assert caught.value.code == "USAGE"
    assert "--old-image" in caught.value.steps[0]
