"""What the drift tests read: files of the checkout, Markdown, task names, imports between modules."""

from __future__ import annotations

import ast
import json
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from unittest.mock import patch

import invoke
from invoke.parser import Parser, ParserContext

from infra.settings import ROOT
from infra.tasks.shorthand import meant

READMES = ("README.md", "README.ko.md")
GUIDES = ("CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md")
DOCS = (*READMES, *GUIDES, *sorted(p.relative_to(ROOT).as_posix() for p in (ROOT / "docs").glob("*.md")))
_NOT_OURS = re.compile(r"^(__pycache__|\.(?!ci$|github$).*)$")


def read(path: str) -> str:
    """A text file of the checkout, with its line ends as they are."""
    return (ROOT / path).read_bytes().decode("utf-8")


@cache
def text_files() -> tuple[str, ...]:
    """Every text file of the project, as a path with slashes; what nobody has committed or added is not of it."""
    of_git = tracked(ROOT)
    found = [name for name in present_files() if of_git is None or name in of_git]
    assert len(found) > 50, "this is no checkout of the project"
    return tuple(name for name in found if b"\0" not in (ROOT / name).read_bytes()[:8192])


def present_files() -> tuple[str, ...]:
    """Every file that is there, as a path with slashes; caches, environments and state are left out."""
    return tuple(sorted(p.relative_to(ROOT).as_posix() for p in _walk(ROOT)))


def tracked(root: Path) -> set[str] | None:
    """The files of a checkout that Git knows; None where it is none, e.g. an unpacked archive."""
    argv = ["git", "-C", str(root), "ls-files", "-z"]
    try:
        done = subprocess.run(argv, capture_output=True, encoding="utf-8", check=False)
    except FileNotFoundError:
        return None
    return set(done.stdout.split("\0")) - {""} if done.returncode == 0 else None


def _walk(directory: Path) -> Iterator[Path]:
    for path in directory.iterdir():
        if path.is_dir() and not path.is_symlink() and not _NOT_OURS.match(path.name):
            yield from _walk(path)
        elif path.is_file() and path.name not in (".env", ".git") and path.suffix != ".pyc":
            yield path


def modules() -> dict[str, Path]:
    """Modules of `infra` by dotted name, packages included."""
    found = {}
    for path in sorted((ROOT / "infra").rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports(path: Path, *, top_level: bool = False) -> set[str]:
    """Dotted names that a module imports; with `top_level` only those that run when it is imported itself."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    found: set[str] = set()
    for node in _at_import(tree) if top_level else ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}: a relative import hides where it leads"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def _at_import(tree: ast.AST) -> Iterator[ast.AST]:
    """Statements that run at import: not those inside functions, nor those for the type checker only."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        yield node
        yield from _at_import(node)


def blocks(text: str) -> list[str]:
    """The contents of the fenced code blocks of a Markdown text."""
    return re.findall(r"^```\w*\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def spans(text: str) -> list[str]:
    """The inline code of a Markdown text; a line break inside is a blank, as in Markdown."""
    paragraphs = re.split(r"\n(?:\s*\n|(?=[|#\d-]))", _prose(text))
    return [" ".join(span.split()) for part in paragraphs for span in re.findall(r"`([^`]+)`", part)]


def _prose(text: str) -> str:
    return re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)


def headings(text: str) -> list[str]:
    """The headings of a Markdown text with their #s, code blocks left out."""
    return re.findall(r"^#+ .+$", _prose(text), re.MULTILINE)


def commands(text: str) -> list[str]:
    """Every command line that a Markdown text shows: lines of code blocks without comments, and inline code."""
    lines = [line for block in blocks(text) for line in block.splitlines()]
    return [shown for line in [*lines, *spans(text)] if (shown := re.sub(r"\s#\s.*", "", f"{line} ").strip())]


def invoked(text: str) -> list[str]:
    """The words behind `invoke` in every command line of a Markdown text, also inside "$(...)"."""
    found = [re.search(r"(?:^|\$\()invoke\b([^)]*)", line) for line in commands(text)]
    return [match[1].strip() for match in found if match]


@cache
def namespace(words: tuple[str, ...] = ()) -> invoke.Collection:
    """The tasks as `tasks.py` has them, for a command line."""
    from infra.tasks.collection import collect

    with patch.object(sys, "argv", ["drift", *words]):  # it also looks at the command line, which is pytest's here
        return collect()


@cache
def task_names() -> tuple[str, ...]:
    """The names of `invoke --list`."""
    return tuple(sorted(namespace().task_names))


def parse(words: Sequence[str] | str) -> list[ParserContext]:
    """Parse a command line as Invoke does; the contexts of its tasks.

    Raises:
        invoke.ParseError: an unknown task or option.
    """
    words = shlex.split(words) if isinstance(words, str) else list(words)
    words = [word for word in words if word not in ("--help", "-h")]  # Invoke adds it to every task itself
    core = Parser(initial=invoke.Program().initial_context, ignore_unknown=True).parse_argv(words)
    tasks = namespace(tuple(words)) if "snapshot.create" in words else namespace()  # its name may be left out
    contexts = tasks.to_contexts()
    return list(Parser(contexts=contexts).parse_argv(list(meant(core.unparsed, contexts).words)))


def examples() -> list[tuple[str, str]]:
    """Name and `Example:` line of every task; a task without one is a failure."""
    tasks = {name: namespace()[name] for name in task_names()}
    found = {name: re.search(r"^\s*Example: (.+)$", task.__doc__ or "", re.MULTILINE) for name, task in tasks.items()}
    assert [name for name, match in found.items() if match is None] == []
    # The namespace of a tier has the verbs of the root, with their texts.
    return [(n if n in m[1] else n.split(".")[-1], m[1]) for n, m in found.items() if m]


def listed_by_invoke() -> list[str]:
    """The names that `invoke --list` really prints."""
    argv = [sys.executable, "-m", "invoke", "--list-format=json", "--list"]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, encoding="utf-8", check=True, timeout=60)
    return sorted(_names(done.stdout))


def _names(listing: str) -> Iterator[str]:
    def walk(part: dict[str, object], prefix: str) -> Iterator[str]:
        for task in part["tasks"]:  # type: ignore[attr-defined]
            yield prefix + task["name"]
        for inner in part["collections"]:  # type: ignore[attr-defined]
            yield from walk(inner, f"{prefix}{inner['name']}.")

    yield from walk(json.loads(listing), "")


def literals(path: Path) -> list[tuple[str, ...]]:
    """The texts of a module: each plain or formatted string as its fixed parts, docstrings left out."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    documents = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    inner = {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in node.values}
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            parts = (p.value if isinstance(p, ast.Constant) else None for p in node.values)
            found.append(tuple(part if isinstance(part, str) else "\0" for part in parts))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and not {id(node)} & (documents | inner):
            found.append((node.value,))
    return found
