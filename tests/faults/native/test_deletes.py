"""A guard over the source: nothing that `up` can reach deletes anything, but for the exceptions listed here."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from infra.settings import ROOT

DELETING = {"rmtree", "unlink", "rmdir", "removedirs", "remove", "truncate", "TemporaryDirectory", "end_containers"}
MOVING = {"rename", "renames", "replace", "move"}
"""What moves data away loses it as well. Only as `os.rename(...)`, `shutil.move(...)`, `path.rename(...)`."""

START = (
    "tasks.verbs.up",
    "tasks.command._execute",
    "tiers.native.tier.Native.preflight",
    "tiers.native.tier.Native.start",
    "tiers.compose.tier.Compose.preflight",
    "tiers.compose.tier.Compose.start",
    "tiers.kind.tier.Kind.preflight",
    "tiers.kind.tier.Kind.start",
    "supervision.supervisor.main",
)
"""Where the search begins: the task, what runs it, the methods of the tier, the supervisor's program."""

# What `up` can reach and may delete or move, each with its reason.
ALLOWED = {
    "console.Console.open_log": "keeps the newest 20 logs of task runs; they are no data",
    "stack.ensure_home": "its own file, by which it tried whether the directory can be written",
    "stack.write_atomic": "its own temporary file; and puts the new text in place of the old",
    "stack.make_way": "moves a directory aside that is where a file of this tool belongs; deletes nothing",
    "private._keeps_modes": "its own empty directory, by which it tried whether the file system keeps modes",
    "private._rename": "its own temporary file, in place of the old one",
    "private.put": "its own temporary file",
    "private.key": "its own copy, where another run was first",
    # The backup of MLflow's tables before another version of MLflow starts:
    "data.postgres.backup._dump": "files of the backup that it is making, when that fails; moves others into place",
    "data.postgres.dump.dump": "a file of its own dump, once it is packed",
    "data.store.locked": "the text in its own lock file",
    "data.store.publishing": "the backup that it is making, when that fails; moves the finished one into place",
    "data.store.sweep": "unfinished backups of runs that died",
    "training.orders.Orders.close": "the order of a training that has ended; reached by its name alone",
    "shell.spawn": "the files that hold what a program says",
    "shell.Child.result": "the same",
    "kube.kubeconfig._show": "its own private file with a certificate's key",
    "kube.trouble.describe": "its own note",
    "tiers.compose.tier.Compose.stop": "what was asked for of a stopped platform; reached by its name alone",
    "tiers.kind.create.create": "the node of a cluster that was not finished; data lies on the host",
    "tiers.kind.repair._mend": "the same, and its login",
    "supervision.client.forget": "the state file of a platform that was stopped in order",
    "supervision.supervisor.rotate": "logs of services that grow over a limit: the oldest lines go",
    "supervision.supervisor.Supervisor._known": "moves a damaged state file aside",
    "tiers.native.postgres._initialise": "the directory of the password file; moves the new data directory into place",
    "tiers.native.postgres.install": "moves the copied programs into place, or drops its copy where another is there",
}
MAY_SAY_DELETE = {
    "probes._s3_write": "S3: the object that it has put a moment before",
    "training.cluster.JobCluster.delete": "the Job of a training that was cancelled; reached by its name alone",
    "kube.kubectl_cli.Kubectl.delete": "a broken pod that its StatefulSet waits for and makes anew",
}
DELETES_DATA = "tiers.native.tier.Native.remove"

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


def _outside_functions(module: str) -> ast.Module:
    body = [n for n in _tree(module).body if not isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)]
    return ast.Module(body, type_ignores=[])


def _imports(tree: ast.AST) -> dict[str, str]:
    """Name -> what of infra it stands for, as `stack` or `stack.write_atomic`."""
    found: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "infra":
            for alias in node.names:
                found[alias.asname or alias.name] = f"{node.module}.{alias.name}".removeprefix("infra.")
    return found


@dataclass
class Search:
    """Follows calls: of functions exactly, of methods by their names alone, so rather too many than too few."""

    modules: set[str] = field(default_factory=set)
    meant: set[str] = field(default_factory=set)
    methods: set[str] = field(default_factory=set)
    reached: dict[str, ast.AST] = field(default_factory=dict)

    def run(self) -> Functions:
        """Everything that can be reached from START."""
        self.meant |= set(START)
        for start in START:
            self._load(start)
        while fresh := self._fresh():
            self.reached |= fresh
            for name, node in fresh.items():
                self._read(next(m for m in self.modules if name.startswith(f"{m}.") and _defines(m, name)), node)
        return self.reached

    def _fresh(self) -> dict[str, ast.AST]:
        functions = {n: (m, f) for m in self.modules for n, f in _functions(_tree(m), m)}
        return {n: f for n, (m, f) in functions.items() if n not in self.reached and self._is_meant(n, m)}

    def _is_meant(self, function: str, module: str) -> bool:
        inside = function.removeprefix(f"{module}.")
        simple = inside.rsplit(".", 1)[-1]
        return function in self.meant or ("." in inside and (simple in self.methods or simple.startswith("__")))

    def _load(self, dotted: str) -> None:
        """Note the module that a name is of; what stands outside its functions is run with it."""
        parts = dotted.split(".")
        module = next((m for n in range(len(parts), 0, -1) if _module(m := ".".join(parts[:n]))), "")
        if not module or module in self.modules:
            return
        self.modules.add(module)
        for imported in _imports(_outside_functions(module)).values():
            self._load(imported)
        if module != "tasks.verbs":  # that lists all tasks
            self._read(module, _outside_functions(module))

    def _read(self, module: str, node: ast.AST) -> None:
        local = _imports(node)
        names = _imports(_outside_functions(module)) | local
        for dotted in local.values():
            self._load(dotted)
        for child in ast.walk(node):
            if isinstance(child, ast.Name):
                self.meant.add(names.get(child.id, f"{module}.{child.id}"))
            elif isinstance(child, ast.Attribute) and isinstance(child.value, ast.Name) and child.value.id in names:
                self.meant.add(f"{names[child.value.id]}.{child.attr}")
                self.methods |= set() if _module(names[child.value.id]) else {child.attr}
            elif isinstance(child, ast.Attribute):
                self.methods.add(child.attr)


def _defines(module: str, function: str) -> bool:
    return any(name == function for name, _ in _functions(_tree(module), module))


@cache
def _reachable() -> Functions:
    """Every function that `up` may come to."""
    return Search().run()


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
    expected = {
        "tiers.native.postgres._initialise",
        "stack.write_atomic",
        "provision.ensure.databases",
        "probes._s3_write",
    }
    assert expected <= set(_reachable())
    assert "supervision.supervisor.Runner.run" in _reachable()


def test_nothing_that_up_reaches_deletes_or_moves_files_without_a_listed_reason() -> None:
    found = {name: calls for name, node in _reachable().items() if (calls := _deletes(node))}
    assert {name: sorted(calls) for name, calls in found.items() if name not in ALLOWED} == {}
    assert set(ALLOWED) - set(found) == set()  # no dead entries


def test_up_does_not_reach_the_function_that_removes_data() -> None:
    assert "remove" in DELETES_DATA
    assert DELETES_DATA in {name for name, _ in _functions(_tree("tiers.native.tier"), "tiers.native.tier")}
    assert DELETES_DATA not in _reachable()
    assert _deletes(dict(_functions(_tree("tiers.native.tier"), "tiers.native.tier"))[DELETES_DATA])


def test_data_is_removed_by_the_task_reset_only() -> None:
    functions = _functions(_tree("tasks.verbs"), "tasks.verbs")
    users = {n for n, f in functions for c in ast.walk(f) if isinstance(c, ast.Attribute) and c.attr == "remove"}
    assert users == {"tasks.verbs.removed"}


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
    migrations = [p.read_text(encoding="utf-8") for p in (ROOT / "infra" / "provision" / "migrations").glob("*.sql")]
    assert migrations
    assert not [m for m in migrations if re.search(r"^\s*(drop|truncate|delete)\b", m, re.IGNORECASE | re.MULTILINE)]


def _docstring(node: ast.AST) -> str | None:
    if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
        return ast.get_docstring(node, clean=False)
    return None
