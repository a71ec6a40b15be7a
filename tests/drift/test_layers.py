"""Which module may import which: no arrow points upwards, nothing heavy is imported before it is needed."""

from __future__ import annotations

import subprocess
import sys
from graphlib import CycleError, TopologicalSorter

import pytest

from infra.settings import ROOT
from tests.drift.repo import imports, modules

LAYERS = (
    *("errors", "terminal", "columns", "loglines", "locks", "sigv4", "ports", "private", "sqlstate", "database"),
    *("catalog", "settings", "shell", "pipes", "stack", "docker_engine", "dashboards"),
    *("images", "registry", "image_archive"),
    *("endpoints", "console", "context", "waiting"),
    *("probes", "health"),
    "supervision",
    "kube",
    "provision",
    *("tiers", "training", "data"),
    "prod",
    "app",
    *("lifecycle", "doctor", "auto_ports", "observability", "store_engine"),
    *("korean", "documents"),
    "tasks",
)
"""Modules and packages of `infra` from the bottom to the top; each may import from those before it."""

HEAVY = {
    *("boto3", "botocore", "clearml", "docker", "dotenv", "mlflow", "numpy", "PIL", "psutil", "psycopg", "redis"),
    *("requests", "rich", "sklearn", "temporalio", "yaml"),
}
"""Packages that cost time or memory when imported."""

AT_ONCE = {
    "infra.supervision.process": {"psutil"},  # what it is about; everything else that needs psutil imports it
    "infra.tiers.native.mlflow_server": {"mlflow"},  # a program of its own, in MLflow's environment
}
"""Module -> heavy packages that it may import at its top all the same."""

STANDARD_LIBRARY_ONLY = ("scripts.make_env", "scripts.run_tests")
"""Run before there is an environment."""

ALLOWED = {
    "infra.supervision.supervisor": {"psutil"},
    "tasks": {"yaml"},  # by Invoke itself
    "infra.lifecycle": set[str](),
    "infra.health": set[str](),
}
"""Module -> heavy packages that importing it may load: what runs on every command, or all the time."""


def layer(name: str) -> int:
    """The place of a module of `infra` in LAYERS: its own, else that of its package."""
    inner = name.removeprefix("infra.")
    return LAYERS.index(inner if inner in LAYERS else inner.split(".")[0])


def arrows() -> set[tuple[str, str]]:
    """Imports between modules of `infra`, wherever they stand."""
    known = modules()
    found = set()
    for name, path in known.items():
        for target in imports(path):
            while target and target not in known:
                target = target.rpartition(".")[0]
            if target.startswith("infra.") and target != name:
                found.add((name, target))
    return found


def test_every_module_has_its_place() -> None:
    known = {name.removeprefix("infra.") for name in modules()} - {"infra"}
    assert set(LAYERS) <= known, "a layer that is no module any more"
    assert {name.split(".")[0] for name in known} <= set(LAYERS)


def test_no_import_points_upwards() -> None:
    # Imports inside functions count, too. An exception would have to be listed here with its reason.
    assert [(a, b) for a, b in sorted(arrows()) if layer(b) > layer(a)] == []


def test_no_circles() -> None:
    graph: dict[str, set[str]] = {}
    for source, target in arrows():
        graph.setdefault(source, set()).add(target)
    try:
        list(TopologicalSorter(graph).static_order())
    except CycleError as error:
        pytest.fail(f"these import each other: {' -> '.join(error.args[1])}")


def test_nothing_in_infra_imports_tests_or_scripts() -> None:
    above = ("tests", "scripts", "tasks", "noxfile")
    assert [(n, t) for n, path in modules().items() for t in imports(path) if t.split(".")[0] in above] == []


@pytest.mark.parametrize("module", [m for m in modules() if not m.startswith("infra.training")])
def test_heavy_packages_are_imported_where_they_are_used(module: str) -> None:
    found = {name.split(".")[0] for name in imports(modules()[module], top_level=True)} & HEAVY
    assert found - AT_ONCE.get(module, set()) == set()


@pytest.mark.parametrize("module", ALLOWED)
def test_importing_stays_light(module: str) -> None:
    loaded = {name.split(".")[0] for name in loaded_by(module)} & HEAVY
    assert loaded - ALLOWED[module] == set()


@pytest.mark.parametrize("module", STANDARD_LIBRARY_ONLY)
def test_runs_without_any_package(module: str) -> None:
    # -S leaves site-packages out: an import of a package would fail.
    assert module in loaded_by(module, "-S")


def loaded_by(module: str, *options: str) -> set[str]:
    """Names of all modules that a fresh Python has after importing one."""
    code = f"import sys; sys.path.insert(0, {str(ROOT)!r}); import {module}; print(*sys.modules)"
    argv = [sys.executable, "-I", *options, "-c", code]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, encoding="utf-8", check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


def test_only_one_module_opens_connections_to_postgresql() -> None:
    # The others would be led elsewhere by the caller's PG* variables, and would give their failures other names.
    opens = [name for name, path in modules().items() if "psycopg.connect(" in path.read_text(encoding="utf-8")]
    assert opens == ["infra.database"]
