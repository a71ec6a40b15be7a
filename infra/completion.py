"""Completion of command lines: the words that may come next, and the scripts that ask for them.

It uses the standard library alone and no other module of the platform, since it answers at every press of a key. The
tasks with their options are kept in `.venv`, and asked for again when a file of the tasks is newer.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

KEPT = ".platform-words.json"
"""File in `.venv`."""
_ASK = "from infra.tasks.completion import table; from infra.tasks.collection import collect; print(table(collect()))"
LATEST = "latest"
_NEWEST = 50


def candidates(home: Path, words: Sequence[str], table: Mapping[str, Any] | None = None) -> list[str]:
    """Return what may stand in the place of the last word.

    Args:
        home: the state directory of the stack.
        words: the words of the command line behind the program, up to the one that is being typed.
        table: the tasks and values; default: those of this checkout.
    """
    table = table or words_of(Path(__file__).resolve().parents[1])
    *before, typed = [word for word in words if word != "="] or [""]
    found = sorted(set(_wanted(home, before, typed, table)))
    return [word for word in found if word.startswith(typed)]


def words_of(root: Path) -> dict[str, Any]:
    """Return the tasks and values of a checkout: after a change they are asked for, else read from a file."""
    kept = root / ".venv" / KEPT
    with contextlib.suppress(OSError, ValueError):
        if kept.stat().st_mtime > max(p.stat().st_mtime for p in (root / "infra").glob("**/*.py")):
            return dict(json.loads(kept.read_text(encoding="utf-8")))
    own = root / ".venv" / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
    argv = [str(own) if own.exists() else sys.executable, "-c", _ASK]
    env = {**os.environ, "PYTHONPATH": str(root)}
    done = subprocess.run(argv, cwd=root, env=env, capture_output=True, encoding="utf-8", check=True, timeout=30)
    new = kept.with_name(f"{KEPT}.{os.getpid()}")
    with contextlib.suppress(OSError):
        new.write_text(done.stdout, encoding="utf-8")
        new.replace(kept)
    return dict(json.loads(done.stdout))


def _wanted(home: Path, before: Sequence[str], typed: str, table: Mapping[str, Any]) -> Iterator[str]:
    tasks, values = table["tasks"], table["values"]
    name = next((tasks_name(w, table) for w in reversed(before) if tasks_name(w, table)), "")
    if not name:
        yield from (*tasks, *table["aliases"])
        return
    task = tasks[name]
    option, equals, _ = typed.partition("=")
    kind = task["options"].get(option if equals else before[-1], "")
    if kind:
        lead = f"{option}=" if equals else ""
        yield from (f"{lead}{value}" for value in _values(home, kind, values))
    elif typed.startswith("-"):
        yield from (*task["options"], "--help")
    else:
        for place in task["places"]:
            yield from _values(home, place, values)


def tasks_name(word: str, table: Mapping[str, Any]) -> str:
    """Return the task that a word names, also by another word for it; '' where it is none."""
    return word if word in table["tasks"] else str(table["aliases"].get(word, ""))


def _values(home: Path, kind: str, values: Mapping[str, Sequence[str]]) -> Iterator[str]:
    yield from values.get(kind, ())
    if kind in _LOOK:
        yield from _LOOK[kind](home)


def _names(home: Path, pattern: str, suffix: str = "") -> list[str]:
    """Return names of the newest files below the state directory."""
    found = [path for path in home.glob(pattern) if not path.name.startswith(".")]
    newest = sorted(found, key=lambda path: path.stat().st_mtime, reverse=True)[:_NEWEST]
    return [path.name.removesuffix(suffix) for path in newest]


def _jobs(home: Path) -> list[str]:
    return [LATEST, *(name for name in _names(home, "training/jobs/*.log", ".log") if ".rank" not in name)]


def _snapshots(home: Path) -> list[str]:
    return _names(home, "snapshots/*")


def _backups(home: Path) -> list[str]:
    return _names(home, "backups/*")


_LOOK: Mapping[str, Callable[[Path], list[str]]] = {"job": _jobs, "snapshot": _snapshots, "backup": _backups}

SCRIPTS: Mapping[str, str] = {
    "bash": """_platform_complete() {
    local IFS=$'\\n' words=("${COMP_WORDS[@]:1:COMP_CWORD}")
    local last=$((${#words[@]} - 1))
    words[last]="+${words[last]}"
    COMPREPLY=($(command "${COMP_WORDS[0]}" --complete-words "${words[@]}" 2>/dev/null))
}
complete -o default -F _platform_complete platform
""",
    "zsh": """_platform() {
    local -a found
    found=("${(@f)$(command platform --complete-words "${(@)words[2,CURRENT-1]}" "+${words[CURRENT]}" 2>/dev/null)}")
    compadd -a found
}
autoload -Uz compinit
(( $+functions[compdef] )) || compinit
compdef _platform platform
""",
    "fish": """function __platform_words
    set -l before (commandline -opc)
    command platform --complete-words $before[2..-1] "+"(commandline -ct) 2>/dev/null
end
complete -c platform -a '(__platform_words)'
""",
    "powershell": """Register-ArgumentCompleter -Native -CommandName platform -ScriptBlock {
    param($word, $ast, $cursor)
    $before = @($ast.CommandElements | Select-Object -Skip 1 | ForEach-Object { "$_" })
    if ($word -and $before.Count) { $before = @($before | Select-Object -SkipLast 1) }
    platform --complete-words @before "+$word" 2>$null | ForEach-Object {
        [System.Management.Automation.CompletionResult]::new($_, $_, 'ParameterValue', $_)
    }
}
""",
}
"""Shell -> what makes it ask; the word that is being typed has a + before it, since an empty one would get lost."""
