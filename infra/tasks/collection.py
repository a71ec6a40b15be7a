"""The tree of tasks, and the errors of a command line that does not fit it."""

from __future__ import annotations

import inspect
import itertools
import re
import signal
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import invoke
from invoke.parser import Parser, ParserContext

from infra.console import PROGRAM, Console
from infra.errors import PlatformError, nearest
from infra.tasks.command import documentation
from infra.tasks.shorthand import Meant, former, meant, real_name

_CREATE = "snapshot.create"


def check_command_line(tasks: invoke.Collection) -> None:
    """Answer a wrong command line as every other error: a block, an envelope where asked for, and exit 2.

    Invoke itself would end with 1. It parses the tasks after it has loaded them, so the command line is parsed
    here once before, with Invoke's own parser.

    Raises:
        invoke.Exit: with code 2.
    """
    if not _is_command_line():
        return
    try:
        found = _parse(_contexts(tasks), sys.argv[1:])
    except PlatformError as error:
        Console(output=_format(sys.argv), command="invoke").fail(error)
        raise invoke.Exit(code=int(error.exit)) from error
    if program := _program():
        program.core.unparsed[:] = found.words
        if found.help:
            program.core[0].args.help.value = found.help


def _program() -> invoke.Program | None:
    """Return the program that is loading the tasks, between its parsing of its own options and of theirs."""
    frame = inspect.currentframe()
    while frame is not None:
        caller = frame.f_locals.get("self")
        if isinstance(caller, invoke.Program):
            return caller
        frame = frame.f_back
    return None


def _is_command_line() -> bool:
    """Tell whether this process runs the tasks that `sys.argv` names; other programs load them, too."""
    program = Path(sys.argv[0] if sys.argv else "")
    called = program.name.removesuffix(".exe") if program.name != "__main__.py" else program.parent.name
    return called in ("invoke", "inv", PROGRAM) and "--complete" not in sys.argv


def _end_with_the_reader(words: list[str]) -> None:
    """Let `--list | head` end quietly: Invoke prints its lists without looking whether somebody still reads."""
    if hasattr(signal, "SIGPIPE") and any(w.startswith(("--list", "-l", "--help", "-h")) for w in words[:2]):
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)


def without_options(tasks: invoke.Collection, words: list[str]) -> None:
    """Take the options from the tasks that a command line does not name.

    Invoke copies each option of each task several times; for all of them that takes as long as the rest of `--list`.
    """
    nothing = inspect.Signature([inspect.Parameter("context", inspect.Parameter.POSITIONAL_ONLY)])
    spelled = [*words, *(real_name(word.removeprefix("--help="), tasks.task_names) for word in words)]
    named = {id(tasks[name]) for name in tasks.task_names if any(name in word for word in spelled)}
    for task in (tasks[name] for name in tasks.task_names):
        if id(task) not in named:
            task.body.__signature__ = nothing
            task.help, task.positional = {}, ()


def _contexts(tasks: invoke.Collection) -> list[ParserContext]:
    """Return Invoke's contexts for parsing; making them takes the help out of the tasks, so it is put back."""
    kept = [(task, dict(task.help)) for task in (tasks[name] for name in tasks.task_names)]
    contexts = tasks.to_contexts()
    for task, texts in kept:
        task.help = texts
    return list(contexts)


def _format(words: list[str]) -> str:
    """Return the format that a command line asks for, although it could not be parsed."""
    if "--json" in words:
        return "json"
    pairs = [f"{a} {b}" for a, b in itertools.pairwise(words)]
    found = re.search(r"(?:^|\n)(?:--output[= ]|-o[= ]?)(json|yaml)(?:\n|$)", "\n".join([*words, *pairs]))
    return found[1] if found else "table"


def _parse(contexts: list[ParserContext], words: list[str]) -> Meant:
    """Return what a command line means. Raises PlatformError USAGE where it fits no task."""
    initial = invoke.Program().initial_context
    try:  # in two steps, as Invoke does it: `--help up` must not be taken for a call of up
        core = Parser(initial=initial, ignore_unknown=True).parse_argv(list(words))
        understood = meant(core.unparsed, contexts)
        named = [c for c in contexts if {c.name, *c.aliases} & set(understood.words)]  # a parser copies all it gets
        Parser(initial=initial, contexts=named).parse_argv(list(understood.words))
    except invoke.ParseError as error:
        raise _usage(str(error), error, contexts, words) from error
    except ValueError as error:  # a word where an option wants a number
        raise _no_number(str(error), words) from error
    asked, known = core[0].args.help.value, _names(contexts)
    name = real_name(asked, known) if isinstance(asked, str) else ""
    if name and name not in known:
        raise PlatformError("USAGE", f"there is no task {name!r}", steps=(*nearest(name, known, 0.6), "invoke --list"))
    return replace(understood, help=name) if name else understood


def _names(contexts: list[ParserContext]) -> list[str]:
    return [str(name) for c in contexts for name in (c.name, *c.aliases)]


def _no_number(text: str, words: list[str]) -> PlatformError:
    """Return the error for a word where an option wants a number; Python's text names only the word."""
    value = text.rpartition(": ")[2].strip("'\"")
    kind = "a whole number" if "int()" in text else "a number"
    pairs = [*(word.partition("=")[::2] for word in words), *itertools.pairwise(words)]
    option = next((a for a, b in pairs if a.startswith("-") and b == value), "")
    shown = f"{value!r} is not {kind}"
    return PlatformError("USAGE", f"{option}: {shown}" if option else shown, steps=("invoke --help TASK",))


def _usage(text: str, error: Any, contexts: list[ParserContext], words: list[str]) -> PlatformError:
    if missing := re.search(r"'(.+)' did not receive required positional arguments: (.+)", text):
        names = ", ".join(name.strip("'").upper() for name in missing[2].split(", "))
        steps = (f"invoke {missing[1]} {names.replace(', ', ' ')}", f"invoke --help {missing[1]}")
        return PlatformError("USAGE", f"{missing[1]} needs {names}", steps=steps)
    unknown = next((w for word in words for w in (word, word.split("=")[0], word[:2]) if repr(w) in text), "")
    current = getattr(error, "context", None)
    task = current.name if current is not None else None
    if unknown.startswith("-") and current is not None and task:
        flags = [f for f in current.flags if f.startswith("--")]
        return PlatformError(
            "USAGE",
            f"{task} has no option {unknown}",
            steps=(*_former(current, unknown), *nearest(unknown.split("=")[0], flags, 0.6), f"invoke --help {task}"),
        )
    if unknown:
        hint = _service_hint(unknown, current) or nearest(unknown, _names(contexts), 0.6)
        options = (f"if it is a value for {task}: invoke --help {task}",) if task else ()
        return PlatformError("USAGE", f"there is no task {unknown!r}", steps=(*hint, *options, "invoke --list"))
    return PlatformError("USAGE", _plain(text), steps=("invoke --list, invoke --help TASK",))


def _former(current: Any, word: str) -> tuple[str, ...]:
    """Return the option that a letter stood for in version 0.1."""
    name = "" if word.startswith("--") else former(current, word[1:2])
    return (f"use --{name.replace('_', '-')}: -{word[1]} is not short for it any more",) if name else ()


def _plain(text: str) -> str:
    """Return Invoke's own words for what is missing, without its names for its objects."""
    flag = re.search(r"Flag <Argument: (\w+).*needed value", text)
    if flag:
        return f"the option --{flag[1].replace('_', '-')} needs a value"
    return text.strip().rstrip(".")


def _service_hint(word: str, current: Any) -> tuple[str, ...]:
    from infra import catalog

    if current is None or not current.name or word not in {s.name for s in catalog.SERVICES}:
        return ()
    return (f"{current.name} does not take a bare service name",)


def collect() -> invoke.Collection:
    """Return all tasks of this version; ends the program when the command line does not fit them."""
    from infra.tasks import (
        app,
        compose,
        db,
        helm,
        images,
        k8s,
        kind,
        minio,
        native,
        obs,
        prod,
        root,
        secrets,
        snapshot,
        train,
        trash,
    )

    tasks = invoke.Collection(*root.TASKS)
    for module in (app, compose, db, images, native, minio, obs, secrets, train, trash, helm, k8s, kind, prod):
        tasks.add_collection(_namespace(module))
    tasks.add_collection(_namespace(snapshot, snapshot.tasks(_named_snapshot(sys.argv))))
    if _is_command_line():
        _end_with_the_reader(sys.argv[1:])
        without_options(tasks, sys.argv[1:])
    check_command_line(tasks)
    return tasks


def _named_snapshot(words: list[str]) -> bool:
    """Return whether a word follows on `snapshot.create`: its name, which may be left out."""
    rest = words[words.index(_CREATE) + 1 :] if _CREATE in words else []
    return bool(rest) and not rest[0].startswith("-")


def _namespace(module: ModuleType, tasks: tuple[invoke.Task[Any], ...] = ()) -> invoke.Collection:
    name = module.__name__.rsplit(".", 1)[-1]
    collection = invoke.Collection(name, *(tasks or module.TASKS))
    for task in collection.tasks.values():
        task.full_name = f"{name}.{task.name}"
    collection.__doc__ = documentation(module).strip().splitlines()[0]
    return collection
