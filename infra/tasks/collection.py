"""The tree of tasks, and the errors of a command line that does not fit it."""

from __future__ import annotations

import difflib
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import invoke
from invoke.parser import Parser, ParserContext

from infra.console import Console
from infra.errors import PlatformError


def check_command_line(tasks: invoke.Collection) -> None:
    """Answer a wrong command line as every other error: a block, an envelope where asked for, and exit 2.

    Invoke itself would end with 1. It parses the tasks after it has loaded them, so the command line is parsed
    here once before, with Invoke's own parser.

    Raises:
        invoke.Exit: with code 2.
    """
    program = Path(sys.argv[0]).name.removesuffix(".exe") if sys.argv else ""
    if program not in ("invoke", "inv", "__main__.py") or "--complete" in sys.argv:
        return
    try:
        _parse(tasks.to_contexts(), sys.argv[1:])
    except PlatformError as error:
        wants_json = any(a in ("--json", "--output=json", "-ojson") for a in sys.argv)
        Console(output="json" if wants_json else "table", command="invoke").fail(error)
        raise invoke.Exit(code=int(error.exit)) from error


def _parse(contexts: list[ParserContext], words: list[str]) -> None:
    program = invoke.Program()
    initial = program.initial_context
    parser = Parser(initial=initial, contexts=contexts)
    try:
        parser.parse_argv(list(words))
    except invoke.ParseError as error:
        raise _usage(str(error), error, contexts, words) from error


def _usage(text: str, error: Any, contexts: list[ParserContext], words: list[str]) -> PlatformError:
    known = [str(name) for c in contexts for name in (c.name, *c.aliases)]
    unknown = next((w for w in words if repr(w) in text), "")
    current = getattr(error, "context", None)
    if unknown.startswith("-") and current is not None and current.name:
        flags = [f for f in current.flags if f.startswith("--")]
        return PlatformError(
            "USAGE",
            f"{current.name} has no option {unknown}",
            steps=(*_near(unknown.split("=")[0], flags), f"invoke --help {current.name}"),
        )
    if unknown:
        hint = _near(unknown, known) or _service_hint(unknown, current)
        return PlatformError("USAGE", f"there is no task {unknown!r}", steps=(*hint, "invoke --list"))
    return PlatformError("USAGE", text.strip().rstrip("."), steps=("invoke --list",))


def _near(word: str, known: list[str]) -> tuple[str, ...]:
    close = difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    return (f"did you mean {close[0]}?",) if close else ()


def _service_hint(word: str, current: Any) -> tuple[str, ...]:
    from infra import catalog

    if current is not None and current.name and word in {s.name for s in catalog.SERVICES}:
        return (f"a service is named by an option: invoke {current.name} -s {word}",)
    return ()


def collect() -> invoke.Collection:
    """All tasks of this version; ends the program when the command line does not fit them."""
    from infra.tasks import native, root, train

    tasks = invoke.Collection(*root.TASKS)
    for module in (native, train):
        tasks.add_collection(_namespace(module))
    check_command_line(tasks)
    return tasks


def _namespace(module: ModuleType) -> invoke.Collection:
    name = module.__name__.rsplit(".", 1)[-1]
    collection = invoke.Collection(name, *module.TASKS)
    collection.__doc__ = (module.__doc__ or "").strip().splitlines()[0]
    return collection
