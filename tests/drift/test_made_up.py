"""Made-up services in a copy of the checkout: the drift tests name each file that lacks one, and nothing else fails.

One is new in every way; the other is a second Redis, of which the catalogue has all that it should.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
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
TWIN = """\
    Service(
        "twin",
        "Twin",
        OVERLAY_CORE,
        (Port("redis", "TWIN_PORT", 6390, "redis"),),
        password="TWIN_PASSWORD",
        question=Question("redis"),
        program="redis",
        parts=(Part("twin", "REDIS_IMAGE", ""),),
        release="twin",
        values=(("auth.password", "TWIN_PASSWORD"),),
        contract=(Variable("TWIN_URL", "redis", secret=True),),
        secrets=("TWIN_PASSWORD",),
        generated=("TWIN_PASSWORD",),
    ),
"""
OTHER_ROWS = {
    'Setting("REDIS_PASSWORD"': 'Setting("TWIN_PASSWORD", "", "secret", "its password"),\n    ',
    'ClusterPort("REDIS_PORT"': 'ClusterPort("TWIN_PORT", "twin-master", "platform", 6379, 30680),\n    ',
    'Chart("redis"': 'Chart("twin", "platform", OVERLAY_CORE),\n    ',
}
"""What else of the catalogue names a second Redis: before which row, and the row."""
TESTS = (
    *(f"tests/drift/test_{n}.py" for n in ("places", "generated", "contract", "compose", "charts_agree", "images")),
    *(f"tests/unit/test_{name}.py" for name in ("catalog", "endpoints", "images", "health")),
    *("tests/unit/kube/test_releases.py", "tests/unit/tiers/native/test_services.py"),
)
"""What reads the services of the catalogue."""
RUN = """\
import json, sys
from pathlib import Path
from infra import endpoints, health, settings
from infra.kube import releases
from infra.tiers.native import postgres, services
from infra.tiers.providers import Program
told = settings.load(Path("nowhere"), environ={"TWIN_PASSWORD": "of-the-twin", "REDIS_PASSWORD": "of-redis"})
ends = endpoints.build(told, services.CORE)
place = postgres.PostgresPlace(Path("bin"), Path("data"), None, "postgresql", "bundled")
programs = services.Programs(place, {"redis": Program(Path("valkey"), "valkey", "bundled")})
builder = services.Builder(told, ends, Path("home"), programs)
json.dump({
    "asked": health.probe(ends, "twin", Path("psql")),
    "told": endpoints.contract(ends)["TWIN_URL"],
    "argv": builder.redis("twin").argv[1:],
    "files": {path.name: text for path, text in builder.configs().items()},
    "values": releases.values("twin", told),
}, sys.stdout)
"""
"""Run in the copy: what the code makes of the second Redis, without a line about it."""
NAME_FILES = {"test_places", "test_generated", "test_contract"}
LACKING = {
    *("infra/catalog.py", "infra/health.py", "infra/probes.py", "infra/korean.py"),
    *("infra/tiers/providers.py", "infra/tiers/native/services.py", "infra/data/snapshot/create.py"),
    *("infra/prod/values.py", "infra/prod/network.py"),
    *("README.md", "README.ko.md", ".env.example", "compose/.env.example", "compose/docker-compose.yml"),
    *(f"helm/made-up/{name}" for name in ("Chart.yaml", "values.yaml", "values-kind.yaml", "values-production.yaml")),
    *(
        "helm/made-up/values.schema.json",
        "helm/made-up/templates",
        "helm/platform/templates/_helpers.tpl",
        "k8s/platform/configmap-backend.yaml",
    ),
    *("tests/rig/recipes.py", "tests/smoke", "tests/drift/test_contract.py"),
}


LACKING_TWIN = {
    *("infra/catalog.py", "infra/korean.py", "infra/prod/values.py", "infra/prod/network.py", "infra/prod/logins.py"),
    *("README.md", "README.ko.md", ".env.example", "compose/.env.example", "compose/docker-compose.yml"),
    *(f"helm/twin/{name}" for name in ("Chart.yaml", "values.yaml", "values-kind.yaml", "values-production.yaml")),
    *("helm/twin/values.schema.json", "helm/twin/templates", "helm/platform/templates/_helpers.tpl"),
    *("k8s/platform/secret-backend.yaml", "k8s/platform/services", "kind/cluster.yaml"),
    *("tests/smoke", "tests/drift/test_contract.py"),
}


def _copy(folder: Path, row: str, others: Mapping[str, str]) -> Path:
    """Copy the checkout, with one more service in its catalogue."""
    for name in present_files():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, folder / name)
    catalogue = folder / "infra" / "catalog.py"
    head, tail = catalogue.read_text(encoding="utf-8").split(")\n\nOBSERVABILITY", 1)
    text = f"{head}{row})\n\nOBSERVABILITY{tail}"
    for before, more in others.items():
        assert text.count(before) == 1, before
        text = text.replace(before, f"{more}{before}")
    catalogue.write_text(text, encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def failures(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Failed tests of the copy with the first, as file::test, with what they say."""
    return _failures(_copy(tmp_path_factory.mktemp("copy") / "checkout", ROW, {}), TESTS)


@pytest.fixture(scope="module")
def twin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy with the second Redis."""
    return _copy(tmp_path_factory.mktemp("twin") / "checkout", TWIN, OTHER_ROWS)


def _run(copy: Path, *words: str) -> subprocess.CompletedProcess[bytes]:
    env = {k: v for k, v in os.environ.items() if not k.startswith("PYTEST")}
    argv = [sys.executable, *words]
    return subprocess.run(argv, cwd=copy, env=env, capture_output=True, check=False, timeout=900)


def _failures(copy: Path, tests: Sequence[str]) -> dict[str, str]:
    result = copy.parent / "result.xml"
    done = _run(copy, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--junit-xml={result}", *tests)
    assert result.exists(), done.stdout.decode() + done.stderr.decode()
    found = {}
    for case in ElementTree.parse(result).getroot().iter("testcase"):
        for wrong in (*case.iter("failure"), *case.iter("error")):
            name = f"{(case.get('classname') or case.get('name') or '').rsplit('.', 1)[-1]}::{case.get('name')}"
            found[name] = wrong.text or ""
    return found


def _named(failures: Mapping[str, str], service: str) -> set[str]:
    said = failures[f"test_places::test_no_file_lacks_a_service[{service}]"]
    return set(re.findall(r"^([\w./-]+): ", said, re.MULTILINE))


def test_each_file_that_lacks_it_is_named(failures: dict[str, str]) -> None:
    assert _named(failures, "made-up") == LACKING


def test_nothing_else_fails(failures: dict[str, str]) -> None:
    assert [name for name in failures if name.partition("::")[0] not in NAME_FILES] == []


def test_each_file_that_lacks_a_second_redis_is_named(twin: Path) -> None:
    assert _named(_failures(twin, ("tests/drift/test_places.py",)), "twin") == LACKING_TWIN


def test_a_second_redis_has_port_password_and_durability_of_its_own(twin: Path) -> None:
    done = _run(twin, "-c", RUN)
    assert done.returncode == 0, done.stderr.decode()
    found = json.loads(done.stdout)
    assert found["asked"] == {"kind": "redis", "host": "127.0.0.1", "port": 6390, "password": "of-the-twin"}
    assert found["told"] == "redis://:of-the-twin@localhost:6390/0"
    config, *flags = found["argv"]
    assert Path(config) == Path("home/twin.conf")
    assert flags[flags.index("--port") + 1] == "6390"
    assert flags[-4:] == ["--appendonly", "no", "--save", ""]
    assert found["files"] == {"redis.conf": 'requirepass "of-redis"\n', "twin.conf": 'requirepass "of-the-twin"\n'}
    assert found["values"]["auth"] == {"enabled": True, "password": "of-the-twin"}


def test_the_tables_of_a_second_redis_are_written_before_there_is_a_file_of_its_chart(twin: Path) -> None:
    done = _run(twin, "-m", "scripts.write_docs")
    assert done.returncode == 0, done.stderr.decode()
    common = (twin / "helm" / "_common.tpl").read_bytes()
    assert (twin / "helm" / "twin" / "templates" / "_common.tpl").read_bytes() == common
    assert ":6390" in (twin / "README.ko.md").read_text(encoding="utf-8")
    assert "prometheus, twin" in (twin / "docs" / "errors.md").read_text(encoding="utf-8")
