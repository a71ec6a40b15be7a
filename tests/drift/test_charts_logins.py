"""What waits for a database ends where its login is refused for long: the next container has the present password."""

from __future__ import annotations

import runpy
import shutil
import subprocess
import sys
import types
from pathlib import Path
from typing import Any

import pytest

from infra.settings import ROOT
from tests.drift import manifests as m

REFUSED = 'pq: password authentication failed for user "admin"'
ABSENT = "dial tcp 10.96.0.7:5432: connect: connection refused"
TOOL = """#!/bin/sh
echo "$*" >> "$HOME/asked"
count=$(wc -l < "$HOME/asked")
if [ "$count" -le {failures} ]; then echo '{said}' >&2; exit 1; fi
"""


def scripts(objects: Any, kind: str) -> list[str]:
    """The shell scripts of the containers that look after Temporal's schema."""
    pods = [pod for owner, pod in m.pods(objects) if owner["kind"] == kind]
    every = [c for pod in pods for c in (*(pod["spec"].get("initContainers") or []), *pod["spec"]["containers"])]
    return [c["args"][0] for c in every if c["name"] == "schema"]


def run(script: str, home: Path, failures: int, said: str) -> subprocess.CompletedProcess[str]:
    """Run one with a program that fails some times; nobody waits here."""
    programs = home / "programs"
    programs.mkdir()
    for name, text in (("temporal-sql-tool", TOOL.format(failures=failures, said=said)), ("sleep", "#!/bin/sh\n")):
        (programs / name).write_text(text, encoding="utf-8")
        (programs / name).chmod(0o755)
    env = {"PATH": f"{programs}:/usr/bin:/bin", "HOME": str(home)}
    return subprocess.run(["sh", "-ec", script], env=env, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.skipif(shutil.which("sh") is None or sys.platform == "win32", reason="a POSIX shell runs these scripts")
@pytest.mark.parametrize("kind", ["Deployment", "Job"])
@pytest.mark.parametrize(("failures", "said", "code"), [(1000, REFUSED, 1), (15, REFUSED, 0), (60, ABSENT, 0)])
def test_temporal(tmp_path: Path, kind: str, failures: int, said: str, code: int) -> None:
    (script,) = scripts(m.rendered("temporal"), kind)
    done = run(script, tmp_path, failures, said)
    assert (done.returncode, done.stderr.count(REFUSED)) == (code, 1 if code else 0), done.stdout


@pytest.mark.parametrize(("failures", "said", "ends"), [(1000, REFUSED, True), (60, ABSENT, False)])
def test_mlflow(monkeypatch: pytest.MonkeyPatch, failures: int, said: str, ends: bool) -> None:
    asked: list[int] = []

    class OperationalError(Exception):
        pass

    def connect(*_: Any, **__: Any) -> str:
        asked.append(1)
        if len(asked) <= failures:
            raise OperationalError(said)
        return "a connection"

    script = types.ModuleType("alembic.script")
    script.ScriptDirectory = object  # type: ignore[attr-defined]
    util = types.ModuleType("alembic.util")
    util.CommandError = ValueError  # type: ignore[attr-defined]
    driver = types.ModuleType("psycopg2")
    driver.connect, driver.OperationalError = connect, OperationalError  # type: ignore[attr-defined]
    for module in (types.ModuleType("alembic"), script, util, driver):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setenv("MLFLOW_SCHEMA", "mlflow")
    found = runpy.run_path(str(ROOT / "helm/mlflow/files/database.py"))
    monkeypatch.setattr(found["time"], "sleep", lambda _: None)
    if not ends:
        assert found["connect"]() == "a connection"
        return
    with pytest.raises(SystemExit, match="refused"):
        found["connect"]()
    assert len(asked) == found["REFUSALS"]


def test_a_checksum_is_text_even_where_it_has_digits_only() -> None:
    """One in a thousand would be a number for YAML, as 2663942680876018 or 12e4567890123456, and be refused."""
    lines = [
        line
        for path in (*(ROOT / "helm").glob("*/templates/*.yaml"), *(ROOT / "helm").glob("*/templates/*.tpl"))
        for line in path.read_text(encoding="utf-8").splitlines()
        if line.strip().startswith("checksum/")
    ]
    assert len(lines) > 10
    assert [line for line in lines if not line.endswith("| quote }}")] == []
