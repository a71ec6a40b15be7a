"""A guard over the source: nothing that `up` can reach deletes anything, but for the exceptions listed here."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path

from infra.settings import ROOT

DELETING = {"rmtree", "unlink", "rmdir", "removedirs", "remove", "truncate", "TemporaryDirectory"}
MOVING = {"rename", "renames", "replace", "move"}
"""What moves data away loses it as well. Only as `os.rename(...)`, `shutil.move(...)`, `path.rename(...)`."""

START = ("tasks.verbs.up", "tiers.native.Native.preflight", "tiers.native.Native.start", "tiers.supervisor.main")
"""Where the search begins: the task, the methods of the tier (called over a protocol), the supervisor's program."""

# What `up` can reach and may delete or move, each with its reason.
ALLOWED = {
    "console.Console.open_log": "keeps the newest 20 logs of task runs; they are no data",
    "stack.ensure_home": "its own file, by which it tried whether the directory can be written",
    "stack.write_atomic": "its own temporary file; and puts the new text in place of the old",
    "stack.make_way": "moves a directory aside that is where a file of this tool belongs; deletes nothing",
    "stack._sign": "empties the lock file, whose text is only a message",
    "tiers.supervise.forget": "the state file of a platform that was stopped in order",
    "tiers.supervisor.rotate": "logs of services that grow over a limit: the oldest lines go",
    "tiers.supervisor.Supervisor._known": "moves a damaged state file aside",
    "tiers.native_postgres._initialise": "the directory of the password file; moves the new data directory into place",
    "tiers.native_postgres.forget_recycled_pid": "puts a lock file with another pid in place of the old one",
    "tiers.native_postgres.install": "moves the copied programs into place",
    "tasks.show._keep_aside": "this is `env --write --yes`, which keeps the user's file beside the new one",
}
MAY_SAY_DELETE = {"probes._s3_write": "S3: the object that it has put a moment before"}
DELETES_DATA = "tiers.native.Native.remove"

Functions = Mapping[str, ast.AST]


def _module(name: str) -> Path | None:
    path = (ROOT / "infra").joinpath(*name.split("."))
    candidates = (path.with_suffix(".py"), path / "__init__.py")
    return next((c for c in candidates if name and c.is_file()), None)


@cache
def _tree(module: str) -> ast.Module:
    path = _module(module)
    assert path is not None, module
    return ast.parse(path.read_text(encoding="utf-8"))


def _functions(tree: ast.AST, prefix: str) -> Iterator[tuple[str, ast.AST]]:
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.ClassDef):
            yield from _functions(node, f"{prefix}.{node.name}")
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield f"{prefix}.{node.name}", node


def _imported(tree: ast.AST) -> set[str]:
    """Modules of infra that are imported, without the prefix `infra.`."""
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    ours = {name.removeprefix("infra.") for name in found if name.startswith("infra.")}
    return {name for name in ours if _module(name)}


def _used(node: ast.AST) -> set[str]:
    """Every name that is called or handed on, whatever it is an attribute of."""
    names = {child.attr for child in ast.walk(node) if isinstance(child, ast.Attribute)}
    return names | {child.id for child in ast.walk(node) if isinstance(child, ast.Name)}


def _outside_functions(module: str) -> ast.Module:
    body = [n for n in _tree(module).body if not isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)]
    return ast.Module(body, type_ignores=[])


@cache
def _reachable() -> Functions:
    """Every function that `up` may come to: by name, so rather too many than too few."""
    modules: set[str] = set()
    reached: dict[str, ast.AST] = {}
    names = {name.rsplit(".", 1)[-1] for name in START}
    found = {name.rpartition(".")[0].removesuffix(".Native") for name in START}
    while found:
        modules |= found
        outside = [_outside_functions(m) for m in found]
        names |= set().union(*(_used(tree) for m, tree in zip(found, outside, strict=True) if m != "tasks.verbs"))
        universe = {n: f for m in modules for n, f in _functions(_tree(m), m)}
        while fresh := {n: f for n, f in universe.items() if n not in reached and _is_meant(n, names)}:
            reached |= fresh
            names |= set().union(*map(_used, fresh.values()))
        found = set().union(*map(_imported, (*outside, *reached.values()))) - modules
    return reached


def _is_meant(function: str, names: set[str]) -> bool:
    """Whether that function may be meant by one of the names; the other tasks are no helpers of `up`."""
    simple = function.rsplit(".", 1)[-1]
    if function.startswith("tasks.verbs."):
        return function in ("tasks.verbs.up", "tasks.verbs.choose")
    return simple in names or simple.startswith("__")


def _deletes(node: ast.AST) -> set[str]:
    found = set()
    for child in ast.walk(node):
        if isinstance(child, ast.Attribute):
            owner = ast.unparse(child.value)
            # `replace` and `move` are also methods of things that are no files.
            sure = child.attr.startswith("rename") or owner in ("os", "shutil") or "path" in owner.lower()
            moves = child.attr in MOVING and sure
            if child.attr in DELETING or moves:
                found.add(f"{owner}.{child.attr}")
    return found


def test_the_search_reaches_what_up_calls() -> None:
    expected = {"tiers.native_postgres._initialise", "stack.write_atomic", "data.ensure.databases", "probes._s3_write"}
    assert expected <= set(_reachable())
    assert "tiers.supervisor.Runner.run" in _reachable()


def test_nothing_that_up_reaches_deletes_or_moves_files_without_a_listed_reason() -> None:
    found = {name: calls for name, node in _reachable().items() if (calls := _deletes(node))}
    assert {name: sorted(calls) for name, calls in found.items() if name not in ALLOWED} == {}
    assert set(ALLOWED) - set(found) == set()  # no dead entries


def test_up_does_not_reach_the_function_that_removes_data() -> None:
    assert "remove" in DELETES_DATA
    assert DELETES_DATA in {name for name, _ in _functions(_tree("tiers.native"), "tiers.native")}
    assert DELETES_DATA not in _reachable()
    assert _deletes(dict(_functions(_tree("tiers.native"), "tiers.native"))[DELETES_DATA])


def test_data_is_removed_by_the_task_reset_only() -> None:
    users = {name for name, node in _functions(_tree("tasks.verbs"), "tasks.verbs") if "remove" in _used(node)}
    assert users == {"tasks.verbs.reset"}


def test_what_up_says_to_the_servers_deletes_nothing() -> None:
    """No SQL that drops or empties, no S3 DELETE but that of the probe's own object."""
    pattern = re.compile(r"\b(drop|truncate|delete\s+from|delete)\b", re.IGNORECASE)
    found = {}
    for name, node in _reachable().items():
        documentation = set(map(_docstring, ast.walk(node)))
        words = [n.value for n in ast.walk(node) if isinstance(n, ast.Constant) and isinstance(n.value, str)]
        if hits := [w for w in words if w not in documentation and pattern.match(w.strip())]:
            found[name] = hits
    assert set(found) == set(MAY_SAY_DELETE)
    migrations = [p.read_text(encoding="utf-8") for p in (ROOT / "infra" / "data" / "migrations").glob("*.sql")]
    assert migrations
    assert not [m for m in migrations if re.search(r"^\s*(drop|truncate|delete)\b", m, re.IGNORECASE | re.MULTILINE)]


def _docstring(node: ast.AST) -> str | None:
    if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
        return ast.get_docstring(node, clean=False)
    return None
