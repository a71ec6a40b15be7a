"""Read what people type as words that Invoke takes: other names of verbs, services without `-s`, help at the end."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from invoke.parser import ParserContext

from infra.errors import PlatformError
from infra.tasks.command import SHORT

ALIASES: Mapping[str, str] = {"start": "up", "stop": "down", "ps": "status"}
"""Words of other tools -> the verb; also behind the name of a tier, e.g. native.start."""
FREE: Mapping[str, str] = {
    "completion": "shell",
    "db.backup": "database",
    "db.shell": "database",
    "minio.ls": "bucket",
}
"""Task -> the option that a word without one means, as `service` does wherever there is a --service."""
_HELP = ("--help", "-h")


@dataclass(frozen=True)
class Meant:
    """A command line in Invoke's words; `help` is the task whose help was asked for."""

    words: tuple[str, ...]
    help: str = ""


def real_name(word: str, known: Iterable[str]) -> str:
    """Return the name of the task that a word means; the word itself where it is none."""
    namespace, dot, verb = word.rpartition(".")
    other = f"{namespace}{dot}{ALIASES.get(verb, verb)}"
    return other if word not in known and other in known else word


def meant(words: Sequence[str], contexts: Iterable[ParserContext]) -> Meant:
    """Return what a command line means, less Invoke's own options.

    Raises:
        PlatformError: USAGE for a short option whose meaning has changed.
    """
    known = {str(name): context for context in contexts for name in (context.name, *context.aliases)}
    made: list[str] = []
    task, awaited, places = None, False, 0
    for index, word in enumerate(words):
        if awaited:
            awaited = False
        elif task is not None and word in _HELP:
            return Meant((), str(task.name))
        elif task is not None and word.startswith("-"):
            _refuse_former(task, word, words[index + 1 : index + 2])
            awaited = _awaits_value(task, word)
        elif places:
            places -= 1
        elif (name := real_name(word, known)) in known:
            word, task = name, known[name]
            places = len(task.positional_args)
        elif task is not None and (option := _option_of_free_words(task)):
            made.append(option)
        made.append(word)
    return Meant(tuple(made))


def _option_of_free_words(task: ParserContext) -> str:
    """Return the option that a word without one means; '' for none."""
    option = f"--{FREE.get(str(task.name), 'service')}"
    return option if option in task.flags else ""


def _awaits_value(task: ParserContext, word: str) -> bool:
    """Return whether the value of an option is the next word; short options may stand together, as in `-fs redis`."""
    if word.startswith("--"):
        return word in task.flags and task.flags[word].takes_value
    for place, letter in enumerate(word[1:], 2):
        flag = f"-{letter}"
        if flag in task.flags and task.flags[flag].takes_value:
            return place == len(word)
    return False


def former(task: ParserContext, letter: str) -> str:
    """Return the option for which a letter stood up to version 0.1, when the first free one was given; else ''."""
    taken = {str(name) for argument in task.args.values() for name in (argument.name, argument.attr_name) if name}
    for name in (str(argument.name) for argument in task.args.values()):
        free = next((c for c in name if c not in (name, "-") and c not in taken), "")
        if free == letter:
            return name
        taken.add(free)
    return ""


def _refuse_former(task: ParserContext, word: str, following: Sequence[str]) -> None:
    """Refuse a short option that has another meaning now, where its value shows that the former one is meant."""
    before = former(task, word[1:2]) if not word.startswith("--") else ""
    now = SHORT_OF.get(word[1:2], "")
    value = word[2:].lstrip("=") or "".join(following)
    if now == "tier" and before not in ("", now) and f"-{word[1]}" in task.flags:
        from infra import catalog

        if value not in catalog.TIERS:
            step = f"invoke {task.name} --{before} {value}"
            raise PlatformError("USAGE", f"-t is --tier in every task, and there is no tier {value!r}", steps=(step,))


SHORT_OF: Mapping[str, str] = {letter: name for name, letter in SHORT.items()}
