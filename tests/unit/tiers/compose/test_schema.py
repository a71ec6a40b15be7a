"""The script of the job that makes Temporal's tables, run with programs that answer as the real ones do."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from infra.settings import ROOT

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the script runs in a container, by sh")
RECOVERING = "errors: [pq: the database system is not yet accepting connections (57P03)]"
REFUSED = 'pq: password authentication failed for user "admin"'


def script() -> list[str]:
    compose = yaml.safe_load((ROOT / "compose/docker-compose.yml").read_text(encoding="utf-8"))
    job = compose["services"]["temporal-schema"]
    return [*job["entrypoint"], *(part.replace("$$", "$") for part in job["command"])]


def run(place: Path, failures: int, said: str) -> tuple[int, list[str], str]:
    """Exit code, calls and output of the script when the first `failures` tries to make a database fail."""
    calls = place / "calls"
    tool = f"""#!/bin/sh
echo "$SQL_DATABASE $*" >> '{calls}'
[ "$1" != create-database ] || [ "$(grep -c create-database '{calls}')" -gt {failures} ] || {{ echo '{said}'; exit 1; }}
"""
    for name, text in {"temporal-sql-tool": tool, "nc": "#!/bin/sh\n", "sleep": "#!/bin/sh\n"}.items():
        (place / name).write_text(text, encoding="utf-8")
        (place / name).chmod(0o700)
    path = os.pathsep.join((str(place), os.environ["PATH"]))
    done = subprocess.run(script(), env={"PATH": path}, capture_output=True, text=True, timeout=60, check=False)
    return done.returncode, calls.read_text(encoding="utf-8").splitlines(), done.stdout + done.stderr


def test_a_database_that_recovers_is_waited_for(tmp_path: Path) -> None:
    code, calls, said = run(tmp_path, 9, RECOVERING)
    assert (code, calls[:10]) == (0, ["temporal create-database"] * 10)
    assert said.count("not yet accepting") == 9
    assert calls[-1] == "temporal_visibility update-schema --schema-name postgresql/v12/visibility"


def test_it_is_not_waited_for_without_end(tmp_path: Path) -> None:
    code, calls, _ = run(tmp_path, 1000, RECOVERING)
    assert (code, len(calls)) == (1, 240)


def test_another_failure_ends_it_at_once_and_is_told(tmp_path: Path) -> None:
    code, calls, said = run(tmp_path, 1, REFUSED)
    assert (code, len(calls)) == (1, 1)
    assert REFUSED in said
