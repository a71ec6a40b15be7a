"""Which module may import which: no arrow points upwards, nothing heavy is imported before it is needed."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from functools import cache
from graphlib import CycleError, TopologicalSorter

import pytest

from infra.settings import ROOT
from tests.drift.repo import imports, modules

LAYERS = (
    *("errors", "terminal", "columns", "loglines", "locks", "sigv4", "certificate", "ports", "private", "sqlstate"),
    *("readers", "database"),
    "completion",
    *("rows", "catalog", "setting_rules", "settings", "shell", "pipes", "stack", "machine"),
    *("logins", "docker_engine", "dashboards"),
    *("references", "images", "registry", "image_archive"),
    *("endpoints", "console", "context", "waiting", "pull"),
    *("probes", "health", "grafana"),
    "supervision",
    "kube",
    "provision",
    *("tiers", "training", "data"),
    "prod",
    "app",
    *("tier_choice", "proof", "status_report", "outdated"),
    *(
        "postgres_checks",
        "gpu_checks",
        "mlflow_tables",
        "lifecycle",
        "doctor",
        "auto_ports",
        "observability",
        "store_engine",
    ),
    *("korean", "documents"),
    "tasks",
)
"""Modules and packages of `infra` from the bottom to the top; each may import from those before it."""

ROOMS: Mapping[str, tuple[tuple[str, ...], ...]] = {
    "supervision": (("process",), ("client",), ("age", "supervisor")),
    "tiers": (
        ("base", "providers", "answering", "temporal_login", "port_checks"),
        ("native", "compose", "cluster"),
        ("kind",),
    ),
    "data": (
        ("maker",),
        ("store", "page_cache", "redis_dump", "temporal_file", "trash"),
        ("postgres", "objects"),
        ("snapshot",),
    ),
}
"""Package -> its modules and packages from the bottom to the top; packages on one floor do not import each other."""

ANY_CLUSTER = "infra.tiers.cluster"
"""What works on any Kubernetes cluster: it reaches nothing of kind or Docker, by whatever way."""
NEVER = ("infra.tiers.kind", "infra.docker_engine", "docker")

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

STANDARD_LIBRARY_ONLY = ("platform_launcher", "scripts.make_env", "scripts.run_tests")
"""Run before there is an environment."""

ALLOWED = {
    "infra.supervision.supervisor": {"psutil"},
    "tasks": {"yaml"},  # by Invoke itself
    "infra.lifecycle": set[str](),
    "infra.tier_choice": set[str](),
    "infra.status_report": set[str](),
    "infra.health": set[str](),
}
"""Module -> heavy packages that importing it may load: what runs on every command, or all the time."""


def layer(name: str) -> int:
    """The place of a module of `infra` in LAYERS: its own, else that of its package."""
    inner = name.removeprefix("infra.")
    return LAYERS.index(inner if inner in LAYERS else inner.split(".")[0])


@cache
def imported() -> Mapping[str, set[str]]:
    """What each module of `infra` imports, wherever it stands."""
    return {name: imports(path) for name, path in modules().items()}


def arrows() -> set[tuple[str, str]]:
    """Imports between modules of `infra`, wherever they stand."""
    known = modules()
    found = set()
    for name, targets in imported().items():
        for target in targets:
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


def floor(package: str, name: str) -> tuple[int, str]:
    """The floor of a module of a package in ROOMS, and its room."""
    room = name.removeprefix(f"infra.{package}.").split(".")[0]
    return next(n for n, rooms in enumerate(ROOMS[package]) if room in rooms), room


def within(package: str) -> list[tuple[str, str]]:
    """The imports between modules of one package."""
    prefix = f"infra.{package}."
    return [(a, b) for a, b in sorted(arrows()) if a.startswith(prefix) and b.startswith(prefix)]


@pytest.mark.parametrize("package", ROOMS)
def test_every_room_has_its_floor(package: str) -> None:
    known = {name.split(".")[2] for name in modules() if name.startswith(f"infra.{package}.")}
    assert known == {room for rooms in ROOMS[package] for room in rooms}


@pytest.mark.parametrize("package", ROOMS)
def test_no_import_points_upwards_inside_a_package(package: str) -> None:
    assert [(a, b) for a, b in within(package) if floor(package, b)[0] > floor(package, a)[0]] == []


@pytest.mark.parametrize("package", ROOMS)
def test_packages_on_one_floor_do_not_import_each_other(package: str) -> None:
    packages = {name for name in modules() if modules()[name].name == "__init__.py"}
    beside = [(floor(package, a), floor(package, b), a, b) for a, b in within(package)]
    walls = [(a, b) for (n, x), (m, y), a, b in beside if n == m and x != y and f"infra.{package}.{y}" in packages]
    assert walls == []


def reached(start: str) -> dict[str, str]:
    """Everything that the modules of a package import, directly or not: the name -> who imports it."""
    found = {name: "" for name in imported() if name.startswith(f"{start}.")}
    todo = list(found)
    while todo:
        name = todo.pop()
        for target in imported().get(name, ()):
            for outer in _outer(target):
                if outer not in found:
                    found[outer] = name
                    todo.append(outer)
    return found


def _outer(name: str) -> list[str]:
    """A dotted name and the packages around it: importing it loads all of them."""
    words = name.split(".")
    return [".".join(words[: n + 1]) for n in range(len(words))]


def test_what_works_on_any_cluster_knows_nothing_of_kind_or_docker() -> None:
    found = reached(ANY_CLUSTER)
    assert {name: by for name, by in found.items() if set(_outer(name)) & set(NEVER)} == {}
    assert "infra.kube.api" in found, "the search finds nothing any more"


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


def test_the_launcher_names_the_program_of_the_tasks_and_imports_none_of_it() -> None:
    """Machine.py reads the register of stacks with the launcher: an import of `infra` there would run back up."""
    assert not {name for name in imports(ROOT / "platform_launcher.py") if name.split(".")[0] == "infra"}


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
