"""What the language tests read: texts for users, docs, docstrings; and phrases that a native speaker does not use."""

from __future__ import annotations

import ast
import re
import tokenize
from collections.abc import Iterator, Mapping
from functools import cache
from itertools import pairwise
from pathlib import Path

from infra.settings import ROOT
from tests.drift import repo

BETTER: Mapping[str, str] = {
    r"(cannot|could|can|not to|to) be had": "is (not) available",
    r"anew": "again; recreate",
    r"for ever": "permanently",
    r"mend(s|ed|ing)?": "fix, repair, recover",
    r"(of|than|none of|are|is|not) ours": "our own, the platform's, external",
    r"half[- ]made": "incomplete",
    r"shall": "should, must, is to",
    r"(is|are|was|were|be) told(?! to\b)": "is reported",
    r"who(so)?ever": "the one that, anyone who",
    r"nobody knows": "is unknown",
    r"(put|goes|moved) into the trash": "is moved to the trash",
    r"the ways? back": "to undo",
    r"all there is to know": "a diagnostic report",
    r"do not ask": "skip the confirmation prompt",
    r"several times or with commas": "repeatable, or comma-separated",
    r"killed for memory": "killed: out of memory",
    r"(leave|leaves) (it |the choice )?to us": "choose automatically",
    r"needs your consent": "confirmation required",
    r"(?<!there )is no (plain|whole|valid|kubeconfig|directory|file|port)": "is not a ...",
    r"is at work on": "is in progress on",
    r"there any more": "no longer exists",
}
"""Pattern of a phrase -> what to write instead."""
_BANNED = re.compile(rf"\b(?:{'|'.join(BETTER)})\b", re.IGNORECASE)
_CODE = r"\b(?:[A-Z]{2,}(?:_[A-Z]+)+|[A-Z]{4,})\b"
QUESTIONS = ("What", "Whatever", "Whether", "Where", "How", "Who", "Whose", "Which", "Why", "When", "While")
"""Words with which no docstring begins: it states, it does not ask."""
_VERBS = """
Accept Add Allow Answer Apply Ask Back Begin Block Bring Build Call Cancel Carry Change Check Choose Close
Collect Compare Compress Compute Connect Copy Count Create Decide Decompress Delete Deploy Derive Describe
Digest Do Drop Dump Employ Empty End Evaluate Execute Explain Fetch Fill Find Fingerprint Finish Fold Follow
Forget Format Free Fuzz Get Give Go Group Hash Have Hide Hold Identify Ignore Import Install Iterate Judge Keep
Kill Leave Let Lint List Load Lock Log Look Make Mark Measure Merge Move Name Normalise Note Open Pack Parse
Pass Pick Plan Prepare Print Probe Prove Pull Put Quote Raise Read Record Recreate Refuse Release Remember
Remove Rename Render Renew Repair Replace Report Request Reset Restart Restore Resume Return Roll Run Say Select
Send Serve Set Show Shut Sign Signal Snapshot Specify Split Start State Stop Store Sum Supervise Switch Take
Tell Test Train Trust Try Turn Uninstall Unpack Upgrade Verify Wait Warn Work Write Yield
"""
VERBS = frozenset(_VERBS.split())
"""Verbs with which docstrings of functions begin (PEP 257). Add yours; the test is against phrases without one."""
KEPT = frozenset(["half made"])
"""Values in JSON that scripts may compare: what people read says it in better words."""
CODE_DIRECTORIES = ("infra", "apps", "scripts")
FOR_PEOPLE = (".md", ".yaml", ".yml", ".tpl", ".txt", ".sh", ".ps1", ".example", ".alloy", ".html", ".toml", ".in")
PLACES = (
    "compose/",
    "helm/",
    "k8s/",
    "kind/",
    "docs/",
    "scripts/",
    "apps/",
    "sites/",
    ".github/",
    ".ci/",
    "requirements/",
)


def banned(text: str) -> list[str]:
    """Return the phrases in a text that a native speaker would not use; line breaks and `code` do not hide them."""
    prose = re.sub(r"`[^`]*`", "`", " ".join(re.sub(r"^\s*#", " ", text, flags=re.MULTILINE).split()))
    return [found[0] for found in _BANNED.finditer(prose)]


@cache
def sources() -> tuple[Path, ...]:
    """Return the Python files whose texts and docstrings are read."""
    below = [path for name in CODE_DIRECTORIES for path in sorted((ROOT / name).rglob("*.py"))]
    return (*below, ROOT / "tasks.py", ROOT / "noxfile.py")


def files_for_people() -> list[str]:
    """Return the other files that people read: documents, settings, charts, Compose files, scripts."""
    top = [name for name in repo.text_files() if "/" not in name and name != "LICENSE"]
    below = [name for name in repo.text_files() if name.startswith(PLACES)]
    return [
        name
        for name in (*top, *below)
        if name.endswith(FOR_PEOPLE) and not name.startswith("requirements/") and ".ko." not in name
    ]


def texts(path: Path) -> Iterator[str]:
    """Yield the texts of a module that a user may read: literals with more than one word, docstrings left out."""
    for parts in repo.literals(path):
        text = "".join(part.replace("\0", "…") for part in parts)
        if " " in text.strip() and text not in KEPT:
            yield text


def docstrings(path: Path) -> Iterator[tuple[str, str]]:
    """Yield name and text of every docstring: of modules, classes, functions, and those below a constant or field."""
    for name, text, _ in _documented(path):
        yield name, text


def openings(path: Path) -> Iterator[tuple[str, str, bool]]:
    """Yield name and first word of every docstring, and whether it has to be a verb (of functions, not properties)."""
    for name, text, is_function in _documented(path):
        if text:
            yield name, text.split()[0].rstrip(".,:;"), is_function


def _documented(path: Path) -> Iterator[tuple[str, str, bool]]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    yield path.stem, ast.get_docstring(tree) or "", False
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            is_property = any("property" in ast.unparse(decorator) for decorator in node.decorator_list)
            yield node.name, ast.get_docstring(node) or "", not isinstance(node, ast.ClassDef) and not is_property
        for name, text in _below_constants(node):
            yield name, text, False


def comments(path: Path) -> str:
    """Return the comments of a Python file, those of adjacent lines together."""
    with path.open("rb") as file:
        return "\n".join(token.string for token in tokenize.tokenize(file.readline) if token.type == tokenize.COMMENT)


def _below_constants(node: ast.AST) -> Iterator[tuple[str, str]]:
    body = getattr(node, "body", None)
    for before, after in pairwise(body if isinstance(body, list) else ()):
        text = after.value.value if isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant) else None
        if isinstance(before, ast.Assign | ast.AnnAssign) and isinstance(text, str):
            yield ast.unparse(before).split("=")[0].strip(), text


def codes_raised(docstring: str) -> set[str]:
    """Return the error codes that a docstring names behind `PlatformError`: `X`, `X or Y`, `X when ..., Y when ...`."""
    found = re.findall(rf"PlatformError:? +({_CODE}(?:(?:, | or |, or | and ){_CODE})*)", docstring)
    section = re.search(r"Raises:\n((?:[ \t]+\S.*(?:\n|$))+)", docstring)
    later = re.findall(rf"[,;] (?:or )?({_CODE}) (?:when|where|for|if|while|at)\b", section[1] if section else "")
    return {code for text in (*found, *later) for code in re.findall(_CODE, text)}
