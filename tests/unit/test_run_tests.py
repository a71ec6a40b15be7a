"""The runner of the test sessions: what it counts, what it demands, how it ends."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from infra import catalog, docker_engine
from scripts import run_tests
from scripts.run_tests import Outcome
from tests.unit.helpers import script

CASES = """<?xml version="1.0"?><testsuites><testsuite>
<testcase classname="a" name="good"/>
<testcase classname="a" name="bad"><failure message="no"/></testcase>
<testcase classname="a" name="broken"><error message="no"/></testcase>
<testcase classname="a" name="away1"><skipped message="no git"/></testcase>
<testcase classname="a" name="away2"><skipped message="no git"/></testcase>
</testsuite></testsuites>"""
GOOD = '<testsuites><testsuite><testcase classname="a" name="good"/></testsuite></testsuites>'


def junit(directory: Path, text: str) -> Path:
    """A result file."""
    path = directory / "result.xml"
    path.write_text(text, encoding="utf-8")
    return path


def test_counts_and_reasons(tmp_path: Path) -> None:
    found = run_tests.from_junit("tests", junit(tmp_path, CASES), 1)
    assert (found.passed, found.failed, found.skipped) == (1, 2, 2)
    assert found.why == ("failed: a::bad", "failed: a::broken", "skipped: no git (x2)")


def test_only_the_first_failures_are_named(tmp_path: Path) -> None:
    case = '<testcase classname="a" name="t{}"><failure/></testcase>'
    cases = "".join(case.format(i) for i in range(run_tests.SHOWN_FAILURES + 3))
    skipped = '<testcase classname="a" name="s"><skipped message="no git"/></testcase>'
    path = junit(tmp_path, f"<testsuites><testsuite>{cases}{skipped}</testsuite></testsuites>")
    found = run_tests.from_junit("tests", path, 1)
    assert found.failed == run_tests.SHOWN_FAILURES + 3
    assert found.why[-3:] == (f"failed: a::t{run_tests.SHOWN_FAILURES - 1}", "failed: 3 more", "skipped: no git")


@pytest.mark.parametrize("text", ["", "<testsuites><testsuite>"])
def test_a_missing_or_cut_file_is_a_failure(tmp_path: Path, text: str) -> None:
    path = junit(tmp_path, text) if text else tmp_path / "absent.xml"
    assert run_tests.from_junit("tests", path, 0).failed == 1


def test_an_exit_code_without_failed_test_is_a_failure(tmp_path: Path) -> None:
    assert run_tests.from_junit("tests", junit(tmp_path, GOOD), 0) == Outcome("tests", passed=1)
    assert run_tests.from_junit("tests", junit(tmp_path, GOOD), 3).failed == 1


@pytest.mark.parametrize("tier", run_tests.PLANNED_TIERS)
def test_tiers_that_the_catalogue_lacks_are_skipped_with_the_reason(tier: str) -> None:
    assert (run_tests.unavailable(f"smoke-{tier}") == run_tests.NOT_YET) == (tier not in catalog.TIERS)


def test_sessions_with_containers_are_skipped_with_what_docker_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", "unix:///nowhere/docker.sock")
    run_tests.without_containers.cache_clear()
    try:
        for session in ("smoke-compose", "faults-compose"):
            assert "/nowhere/docker.sock" in run_tests.unavailable(session)
        assert run_tests.unavailable("smoke-native") == ""
    finally:
        run_tests.without_containers.cache_clear()


def test_a_docker_without_compose_is_told_as_such(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script(tmp_path / "docker", "echo Run docker --help >&2; exit 125")
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setattr(docker_engine, "find", lambda: None)
    run_tests.without_containers.cache_clear()
    try:
        assert "Docker Compose is not installed" in run_tests.unavailable("smoke-compose")
    finally:
        run_tests.without_containers.cache_clear()


def test_kind_is_skipped_where_its_programs_are_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("PLATFORM_KIND_BIN", raising=False)
    assert run_tests.unavailable("smoke-kind") == "not installed: kind, kubectl, helm, docker"
    (tmp_path / "own").mkdir()
    for name in ("kind", "kubectl", "helm"):
        script(tmp_path / "own" / name, "true")
    script(tmp_path / "docker", "true")
    monkeypatch.setenv("PLATFORM_KIND_BIN", str(tmp_path / "own"))
    assert run_tests.unavailable("smoke-kind") == ""


def test_a_required_tier_that_is_skipped_is_a_failure() -> None:
    skipped = Outcome("smoke-kind", skipped=1, why=("skipped: not part of this version",))
    (found,) = run_tests.demand([skipped], ["kind"])
    assert (found.failed, found.skipped) == (1, 0)
    assert found.why == ("failed: --require kind", "skipped: not part of this version")


def test_a_required_tier_that_is_absent_is_a_failure() -> None:
    lint = Outcome("lint", passed=1)
    assert [(o.session, o.failed) for o in run_tests.demand([lint], ["compose"])] == [("lint", 0), ("smoke-compose", 1)]


def test_a_required_tier_that_passed_is_left_alone() -> None:
    passed = Outcome("smoke-native", passed=60, skipped=5)
    assert run_tests.demand([passed], ["native"]) == [passed]


def test_required_tiers_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLATFORM_REQUIRE", "compose, kind")
    assert run_tests.parse([]).require == ["compose", "kind"]
    assert run_tests.parse(["--require", "native"]).require == ["native"]


@pytest.mark.parametrize("wrong", [["--require", "docker"], ["--only", "smoke"], ["--all"]])
def test_wrong_usage_ends_with_2(wrong: list[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        run_tests.parse(wrong)
    assert ended.value.code == 2


@pytest.mark.parametrize(
    ("outcomes", "code", "last"),
    [
        ([Outcome("lint", passed=1), Outcome("smoke-kind", skipped=1)], 0, "1 passed, 0 failed, 1 skipped"),
        ([Outcome("lint", failed=1), Outcome("tests", passed=40)], 1, "40 passed, 1 failed, 0 skipped"),
    ],
)
def test_the_last_line_has_the_sums(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    outcomes: list[Outcome],
    code: int,
    last: str,
) -> None:
    monkeypatch.setattr(run_tests, "RESULTS", tmp_path / "results")
    assert run_tests.finish(outcomes) == code
    assert capsys.readouterr().out.splitlines()[-1] == last
    written = json.loads((tmp_path / "results" / "results.json").read_text())
    assert [s["session"] for s in written["sessions"]] == [o.session for o in outcomes]
    assert f"{written['passed']} passed, {written['failed']} failed, {written['skipped']} skipped" == last


def test_every_session_is_in_the_noxfile_or_of_a_planned_tier() -> None:
    text = (run_tests.ROOT / "noxfile.py").read_text(encoding="utf-8")
    known = [s for s in run_tests.SESSIONS if f'name="{s}"' in text or f"def {s}(" in text]
    assert all(f"def {s}(" in text for s in run_tests.OPT_IN)
    absent = set(run_tests.SESSIONS) - set(known)
    assert absent == {f"smoke-{t}" for t in run_tests.PLANNED_TIERS if t not in catalog.TIERS}


@pytest.mark.skipif(os.name == "nt", reason="no shell there ignores Ctrl-C for what it starts")
def test_programs_of_a_run_in_the_background_can_be_interrupted() -> None:
    asks = "import signal; print(signal.getsignal(signal.SIGINT) is signal.default_int_handler)"
    code = f"""
import signal, subprocess, sys
signal.signal(signal.SIGINT, signal.SIG_IGN)
from tests.conftest import pytest_configure
pytest_configure()
subprocess.run([sys.executable, "-c", {asks!r}], check=True)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=run_tests.ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "True\n"
