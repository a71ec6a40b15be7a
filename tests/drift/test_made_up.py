"""A made-up service in a copy of the checkout: the drift tests name each file that lacks it, and nothing else fails."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

from infra.settings import ROOT
from tests.drift.repo import present_files

ROW = """\
    Service(
        "made-up",
        "Made up",
        OVERLAY_CORE,
        (Port("api", "MADE_UP_PORT", 6333, "http"),),
        question=Question("made-up"),
        program="made-up",
        parts=(Part("made-up", "MADE_UP_IMAGE", "", volume=True),),
        release="made-up",
        values=(("auth.password", "MADE_UP_PASSWORD"),),
        contract=(Variable("MADE_UP_URL", "api"),),
        secrets=("MADE_UP_PASSWORD",),
    ),
"""
TESTS = (
    *(
        f"tests/drift/test_{n}.py"
        for n in ("places", "generated", "contract", "compose", "charts_agree", "k8s", "images")
    ),
    *(f"tests/unit/test_{name}.py" for name in ("catalog", "endpoints", "images", "health")),
    *("tests/unit/kube/test_releases.py", "tests/unit/tiers/native/test_services.py"),
)
"""What reads the services of the catalogue."""
NAME_FILES = {"test_places", "test_generated", "test_contract"}
LACKING = {
    *("infra/catalog.py", "infra/health.py", "infra/probes.py", "infra/korean.py"),
    *("infra/tiers/providers.py", "infra/tiers/native/services.py"),
    *("README.md", "README.ko.md", ".env.example", "compose/.env.example", "compose/docker-compose.yml"),
    *(f"helm/made-up/{name}" for name in ("Chart.yaml", "values.yaml", "values-kind.yaml", "values-production.yaml")),
    *("helm/made-up/values.schema.json", "helm/platform/templates/_helpers.tpl", "k8s/platform/configmap-backend.yaml"),
    *("tests/rig/recipes.py", "tests/smoke", "tests/drift/test_contract.py"),
}


@pytest.fixture(scope="module")
def failures(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Failed tests of the copy, as file::test, with what they say."""
    copy = tmp_path_factory.mktemp("copy") / "checkout"
    for name in present_files():
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, copy / name)
    catalogue = copy / "infra" / "catalog.py"
    head, tail = catalogue.read_text(encoding="utf-8").split(")\n\nOBSERVABILITY", 1)
    catalogue.write_text(f"{head}{ROW})\n\nOBSERVABILITY{tail}", encoding="utf-8")
    return _failures(copy)


def _failures(copy: Path) -> dict[str, str]:
    result = copy.parent / "result.xml"
    argv = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--junit-xml={result}", *TESTS]
    env = {k: v for k, v in os.environ.items() if not k.startswith("PYTEST")}
    done = subprocess.run(argv, cwd=copy, env=env, capture_output=True, check=False, timeout=300)
    assert result.exists(), done.stdout.decode() + done.stderr.decode()
    found = {}
    for case in ElementTree.parse(result).getroot().iter("testcase"):
        for wrong in (*case.iter("failure"), *case.iter("error")):
            name = f"{(case.get('classname') or case.get('name') or '').rsplit('.', 1)[-1]}::{case.get('name')}"
            found[name] = wrong.text or ""
    return found


def test_each_file_that_lacks_it_is_named(failures: dict[str, str]) -> None:
    said = failures["test_places::test_no_file_lacks_a_service[made-up]"]
    named = set(re.findall(r"^([\w./-]+): ", said, re.MULTILINE))
    assert named == LACKING


def test_nothing_else_fails(failures: dict[str, str]) -> None:
    assert [name for name in failures if name.partition("::")[0] not in NAME_FILES] == []
