"""What no file may contain, and what every module must have."""

from __future__ import annotations

import ast
import re
import subprocess
from pathlib import Path

import pytest

from infra.settings import ROOT
from tests.drift.repo import modules, read, text_files, tracked

# Put together from parts, so that this file does not contain what it looks for.
INDEXES = ("pypi" + ".org", "python" + "hosted", "npm" + "js", "proxy." + "golang", "registry." + "yarn")
MACHINES = re.compile(r"(?<![\w.$}~])/(?:work|tmp|root|home/\w+|Users/\w+)/[\w.]")
IN_CONTAINERS = re.compile(r"compose/\S+:\d+: .*/tmp/[\w.-]+")
"""A container has a /tmp of its own, in memory."""


def found(pattern: re.Pattern[str]) -> list[str]:
    """`file:line: text` of every match in a file of the project."""
    lines = ((path, i, line) for path in text_files() for i, line in enumerate(read(path).splitlines(), 1))
    return [f"{path}:{i}: {line.strip()[:100]}" for path, i, line in lines if pattern.search(line)]


def test_no_address_of_a_package_index() -> None:
    assert found(re.compile("|".join(map(re.escape, INDEXES)), re.IGNORECASE)) == []


def test_no_path_of_a_machine() -> None:
    assert [hit for hit in found(MACHINES) if not IN_CONTAINERS.match(hit)] == []


@pytest.mark.parametrize("sample", ["/work" + "/main", "in /tmp" + "/x", "'/home" + "/me/x'", "(/root" + "/.config)"])
def test_paths_of_machines_are_recognised(sample: str) -> None:
    assert MACHINES.search(sample)


@pytest.mark.parametrize("sample", ["/var/tmp/platform-infra", "../" + "work/main", "https://x.org/work/y", "~/tmp/x"])
def test_other_paths_are_not(sample: str) -> None:
    assert not MACHINES.search(sample)


def test_text_has_unix_line_ends_except_for_powershell() -> None:
    # git writes *.ps1 with CRLF (.gitattributes); everything else is LF on every system.
    assert [path for path in text_files() if "\r" in read(path) and not path.endswith(".ps1")] == []


def test_a_file_that_nobody_has_added_is_not_of_the_project(tmp_path: Path) -> None:
    assert tracked(tmp_path) is None, "no checkout"
    for argv in (["init", "-q"], ["add", "mine.txt"]):
        (tmp_path / "mine.txt").write_text("text\n")
        (tmp_path / "stray.log").write_text("ends without a line end, names /work" + "/x")
        subprocess.run(["git", "-C", str(tmp_path), *argv], check=True)
    assert tracked(tmp_path) == {"mine.txt"}


def test_every_file_ends_with_a_line_end() -> None:
    assert [path for path in text_files() if (text := read(path)) and not text.endswith("\n")] == []


def test_no_unresolved_conflict() -> None:
    assert found(re.compile("^(<{7} |={7}$|>{7} )")) == []


@pytest.mark.parametrize("name", modules())
def test_module_has_a_docstring(name: str) -> None:
    text = ast.get_docstring(ast.parse(modules()[name].read_text(encoding="utf-8")))
    assert text
    assert text[0].isupper()


def test_public_functions_of_infra_have_docstrings() -> None:
    without = []
    for name, path in modules().items():
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            public = isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_")
            if public and not ast.get_docstring(node):  # type: ignore[arg-type]
                without.append(f"{name}.{node.name}")  # type: ignore[attr-defined]
    assert without == []


def test_generated_files_are_not_ignored_by_git() -> None:
    ignored = read(".gitignore").splitlines()
    assert ".env" in ignored
    assert not {".env.example", "docs/", "requirements/"} & set(ignored)
    assert (ROOT / ".env.example").exists()


def named_in(text: str) -> set[str]:
    """What a test's programs import or patch in strings: `infra.x.name`, of import lines and of points of faults."""
    lines = re.findall(r"^from (infra[\w.]*) import (\w+)", text, re.MULTILINE)
    points = re.findall(r'"(infra(?:\.\w+)+) (?:before|after)', text)
    return {f"{module}.{name}" for module, name in lines} | set(points)


def there(dotted: str) -> bool:
    """Whether a module, or a name in a module, exists."""
    module, _, name = dotted.rpartition(".")
    if dotted in modules():
        return True
    return module in modules() and re.search(rf"\b{name}\b", modules()[module].read_text(encoding="utf-8")) is not None


@pytest.mark.parametrize("path", [path for path in text_files() if path.startswith("tests/") and path.endswith(".py")])
def test_code_inside_strings_of_the_tests_names_what_is_there(path: str) -> None:
    assert sorted(name for name in named_in(read(path)) if not there(name)) == []
