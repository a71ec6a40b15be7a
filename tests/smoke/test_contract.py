"""The `.env` contract: complete, nothing else on stdout, and usable as applications use it."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import psycopg
import pytest
from dotenv import dotenv_values

from infra import catalog
from tests.smoke.platform import Platform


def names(platform: Platform) -> tuple[str, ...]:
    """Those of the contract, without the services that do not run."""
    lacking = {n for s, found in catalog.OPTIONAL_NAMES.items() if platform.service(s) is None for n in found}
    return (*(n for n in catalog.CONTRACT_NAMES if n not in lacking), *catalog.FAMILIAR_NAMES)


def test_all_names_and_no_other(platform: Platform) -> None:
    assert tuple(platform.contract) == names(platform)
    empty = [name for name, value in platform.contract.items() if not value]
    assert not empty


def test_stdout_holds_variables_only(platform: Platform) -> None:
    done = platform.invoke("env")
    lines = [line for line in done.stdout.splitlines() if not line.startswith("# ")]
    found = [re.fullmatch(r"([A-Z_0-9]+)=(['\"]?).+\2", line) for line in lines]
    assert done.returncode == 0
    assert tuple(m and m[1] for m in found) == names(platform)


def test_json_is_one_object(platform: Platform) -> None:
    envelope = json.loads(platform.invoke("env", "--output", "json").stdout)
    assert (envelope["status"], envelope["error"], envelope["tier"]) == ("ok", None, platform.tier)
    assert envelope["data"] == platform.contract


@pytest.mark.skipif(shutil.which("sh") is None, reason="there is no sh on this machine")
def test_a_shell_reads_the_same_values(platform: Platform, tmp_path: Path) -> None:
    script = tmp_path / "contract.sh"
    script.write_text(platform.invoke("env", "--shell", "sh").stdout, encoding="utf-8")
    show = '. "$1"; shift; for name; do eval "printf \'%s\\n\' \\"\\$$name\\""; done'
    argv = ["sh", "-euc", show, "sh", str(script), *platform.contract]
    done = subprocess.run(argv, capture_output=True, encoding="utf-8", env={"PATH": os.environ["PATH"]}, check=True)
    assert done.stdout.splitlines() == list(platform.contract.values())


def test_a_written_file_serves_an_application(platform: Platform, tmp_path: Path) -> None:
    target = tmp_path / "my app" / ".env"
    target.parent.mkdir()
    done = platform.invoke("env", "--write", str(target))
    assert done.returncode == 0, done.stderr
    values = dotenv_values(target, interpolate=False)
    assert values == platform.contract
    with psycopg.connect(str(values["DATABASE_URL"])) as connection:
        assert connection.execute("select current_database()").fetchone() == ("platform",)


@pytest.mark.skipif(os.name == "nt", reason="Windows has no permission bits")
def test_a_written_file_is_private(platform: Platform, tmp_path: Path) -> None:
    platform.invoke("env", "--write", str(tmp_path / "env"))
    assert (tmp_path / "env").stat().st_mode & 0o077 == 0


def test_status_shows_no_password(platform: Platform) -> None:
    names = ("EXTERNAL_STORAGE_SECRET_KEY", "INTERNAL_STORAGE_SECRET_KEY")
    secrets = {platform.contract[n] for n in names} - {"minioadmin"}
    shown = [platform.invoke("status", *how).stdout for how in ((), ("--json",), ("--output", "yaml"))]
    assert all(shown)
    assert not [text for text in shown for secret in secrets if secret in text]


def test_core_services_are_ready(platform: Platform) -> None:
    core = {s.name for s in catalog.SERVICES if s.overlay == catalog.OVERLAY_CORE}
    states = {s["name"]: s["state"] for s in platform.status["services"] if s["name"] in core}
    assert states == dict.fromkeys(core, "ready")
