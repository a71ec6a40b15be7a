from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from infra import doctor, health, outdated, proof, settings, stack
from infra.console import Console
from infra.context import Context
from infra.errors import PlatformError
from infra.probes import Finding
from infra.tiers.base import Check
from tests.unit.helpers import context_of
from tests.unit.test_lifecycle import FakeTier


def test_the_worst_finding_decides() -> None:
    ok, warn, fail = (Check("x", status, "") for status in ("ok", "warn", "fail"))
    assert [doctor.worst(c) for c in ([], [ok], [ok, warn], [warn, fail, ok])] == ["ok", "ok", "warn", "fail"]


def test_settings_that_were_changed_are_told_with_their_origin_but_not_their_value(tmp_path: Path) -> None:
    context = context_of(tmp_path, POSTGRES_PASSWORD="geheim")
    found = {c.id: c for c in doctor.checks(FakeTier().of(context), obs=False)}
    assert found["settings"].text == "POSTGRES_PASSWORD (the environment)"
    assert found["python"].status == "ok"


def test_an_old_python_is_a_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "version_info", (3, 10, 0))
    found = {c.id: c for c in doctor.checks(FakeTier().of(context_of(tmp_path)), obs=False)}
    assert found["python"].status == "fail"


def test_a_check_that_raises_is_a_finding_and_no_crash(tmp_path: Path) -> None:
    class Refusing(FakeTier):
        def preflight(self, names: Sequence[str]) -> list[Check]:
            raise PlatformError("DATA_INCOMPATIBLE", "data of 16, program 18", steps=("do this",))

    found = doctor.checks(Refusing().of(context_of(tmp_path)), obs=False)
    assert (found[-1].status, found[-1].text, found[-1].remedy) == ("fail", "data of 16, program 18", "do this")


def test_a_running_platform_is_asked_everything(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def ask(questions: dict[str, Any], limit: float = 5.0) -> dict[str, Finding]:
        return {name: Finding(name != "bucket model-weights", "HTTP 404") for name in questions}

    monkeypatch.setattr(health, "ask", ask)
    monkeypatch.setattr(proof, "psql", lambda settings: Path("/x/psql"))
    found = {c.id: c.status for c in doctor.checks(FakeTier(runs=True).of(context_of(tmp_path)), obs=False)}
    assert found["answer.redis"] == "ok"
    assert found["answer.bucket model-weights"] == "fail"


def test_what_a_tier_runs_of_its_own_is_asked_by_doctor_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Queued(FakeTier):
        def own_answers(self) -> list[Check]:
            return [Check("queue", "fail", "it is not there", "invoke kind.up --queue")]

    monkeypatch.setattr(health, "ask", lambda questions, limit=5.0: {})
    monkeypatch.setattr(proof, "psql", lambda settings: Path("/x/psql"))
    tier = Queued(runs=True).of(context_of(tmp_path))
    assert {c.id: c.status for c in doctor.checks(tier, obs=False)}["queue"] == "fail"


@pytest.mark.skipif(sys.platform == "win32", reason="modes mean nothing on Windows")
def test_files_that_others_can_read_are_named(tmp_path: Path) -> None:
    def found() -> Check:
        return {c.id: c for c in doctor.checks(FakeTier().of(context), obs=False)}["private"]

    (tmp_path / ".env").write_text("POSTGRES_PASSWORD=geheim\n")
    (tmp_path / ".env").chmod(0o600)
    context = Context(settings.load(root=tmp_path, environ={}), stack.of(settings.load(root=tmp_path)), Console())
    dump = context.stack.home / "backups" / "db" / "000001" / "dump"
    dump.parent.mkdir(parents=True)
    dump.write_text("x")
    for path in (dump, dump.parent, dump.parents[1]):
        path.chmod(0o700)
    assert found().status == "ok"
    for path in (dump, tmp_path / ".env", dump.parent):
        path.chmod(0o644)
        said = found()
        assert said.status == "warn"
        assert str(path) in said.text + said.remedy
        path.chmod(0o700)


def test_other_people_on_the_machine_are_a_reason_for_passwords_of_ones_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def found(**settings_: str) -> dict[str, str]:
        context = context_of(tmp_path, **settings_)
        return {c.id: c.text for c in doctor.checks(FakeTier().of(context), obs=False)}

    monkeypatch.setattr(doctor, "other_people", lambda: ["alice", "bob"])
    assert found()["shared"].startswith("alice and 1 more can use this machine")
    assert "shared" not in found(PLATFORM_PRIVATE="yes")
    monkeypatch.setattr(doctor, "other_people", list)
    assert "shared" not in found()


@pytest.mark.skipif(sys.platform == "win32", reason="accounts of POSIX")
def test_people_are_those_who_can_log_in(monkeypatch: pytest.MonkeyPatch) -> None:
    import pwd

    def account(name: str, number: int, shell: str) -> pwd.struct_passwd:
        return pwd.struct_passwd((name, "x", number, number, "", "/", shell))

    rows = [("root", 0, "/bin/sh"), ("daemon", 7, "/bin/sh"), ("nobody", 65534, "/bin/sh"), ("alice", 1001, "/bin/zsh")]
    rows += [("backup", 1002, "/usr/sbin/nologin"), ("me", 1003, "/bin/sh"), ("eve", 1004, "/bin/sh")]
    monkeypatch.setattr(pwd, "getpwall", lambda: [account(*row) for row in rows])
    monkeypatch.setattr("getpass.getuser", lambda: "me")
    monkeypatch.setattr("psutil.users", list)
    monkeypatch.setenv("SUDO_USER", "eve")
    assert doctor.other_people() == ["alice"]


def test_packages_older_than_the_checkout_are_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for folder in ("requirements", ".venv"):
        (tmp_path / folder).mkdir()
    locked = tmp_path / "requirements" / "platform.txt"
    locked.write_text("one==1\n")
    assert outdated.packages(tmp_path) == [], "another environment has its own ways"
    monkeypatch.setattr(sys, "prefix", str(tmp_path / ".venv"))
    assert outdated.packages(tmp_path) == [], "nor was it made by our script"
    stamp = {"platform": hashlib.sha256(locked.read_bytes()).hexdigest()}
    (tmp_path / ".venv" / ".platform-stamp.json").write_text(json.dumps(stamp))
    assert [c.status for c in outdated.packages(tmp_path)] == ["ok"]
    locked.write_text("one==2\n")
    (check,) = outdated.packages(tmp_path)
    assert (check.status, "start-infra" in check.remedy) == ("warn", True)
