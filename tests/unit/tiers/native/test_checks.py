from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from infra import catalog
from infra.ports import Claim, Conflict, Holder
from infra.tiers import port_checks
from infra.tiers.native import checks as native_checks
from infra.tiers.native.postgres import PostgresPlace
from infra.tiers.native.services import Programs
from infra.tiers.providers import Program

CLAIM = Claim("redis", "REDIS_PORT", 6379)


def port(holder: Holder, reason: str = "", own: Path = Path("/own")) -> tuple[str, str]:
    (check,) = port_checks.ports([Conflict(CLAIM, holder, reason)], own)
    assert (check.id, check.status, check.code) == ("port.6379", "fail", "PORT_TAKEN")
    assert "port 6379 (redis)" in check.text
    assert "REDIS_PORT" in check.remedy
    return check.text, check.remedy


def test_a_port_taken_by_a_stranger_names_it() -> None:
    text, remedy = port(Holder(4711, "nginx"))
    assert "is taken by nginx, pid 4711" in text
    assert remedy.startswith("end that process")


def test_a_port_taken_by_another_stack_of_ours_says_how_to_stop_that() -> None:
    text, remedy = port(Holder(4711, "valkey-server", Path("/other/.platform")))
    assert "/other/.platform" in text
    assert "invoke down" in remedy


def test_a_port_taken_by_this_very_stack_is_not_called_another_one() -> None:
    text, remedy = port(Holder(4711, "valkey-server", Path("/own")))
    assert "another stack" not in text + remedy
    assert "pid 4711" in text


def test_a_holder_that_the_system_does_not_tell() -> None:
    text, remedy = port(Holder())
    assert "a process this user cannot see" in text
    assert remedy == "set REDIS_PORT to another port, or use invoke up --auto-ports"


def test_a_port_that_is_not_allowed() -> None:
    assert "not allowed" in port(Holder(), "not allowed for this user")[0]


def test_free_ports_are_one_line() -> None:
    (check,) = port_checks.ports([], Path("/own"))
    assert check.status == "ok"


@pytest.mark.parametrize(
    ("free", "status"), [(499_999_999, "fail"), (500_000_000, "warn"), (1_999_999_999, "warn"), (2_000_000_000, "ok")]
)
def test_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free: int, status: str) -> None:
    asked: list[Path] = []

    def usage(path: Path) -> SimpleNamespace:
        asked.append(path)
        return SimpleNamespace(free=free)

    monkeypatch.setattr(shutil, "disk_usage", usage)
    check = native_checks.disk(tmp_path / "not" / "there" / "yet")
    assert (check.status, asked) == (status, [tmp_path])
    assert ("PLATFORM_STATE_DIR" in check.remedy) == (status == "fail")


@pytest.mark.parametrize(
    ("free", "obs", "status"), [(600_000_000, False, "ok"), (600_000_000, True, "warn"), (1, False, "warn")]
)
def test_memory_is_only_a_warning(monkeypatch: pytest.MonkeyPatch, free: float, obs: bool, status: str) -> None:
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=free))
    assert native_checks.memory(obs).status == status


@pytest.mark.parametrize("engine", ["rclone", "minio"])
def test_what_the_engine_cannot_do_is_a_warning_with_a_way_out(engine: str) -> None:
    program = Program(Path("/x/y"), engine, "PATH")
    place = PostgresPlace(Path("/pg"), Path("/d"), None, "postgresql", "bundled")
    checks = native_checks.programs(
        Programs(place, dict.fromkeys(("postgres", "redis", "temporal", "object store"), program))
    )
    gaps = [c for c in checks if c.status == "warn"]
    assert [c.text for c in gaps] == [g.reason for g in catalog.gaps(engine)]
    assert all(c.remedy for c in gaps)
    assert any("/x/y" in c.text and engine in c.text for c in checks if c.status == "ok")
