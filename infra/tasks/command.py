"""The frame of every task: common options, one error block, the right exit code, nothing but the answer on stdout."""

from __future__ import annotations

import ast
import inspect
import keyword
import signal
import sys
import textwrap
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any, cast

import invoke

from infra.console import FORMATS, Answer, Console, spoken
from infra.context import Context
from infra.errors import ExitCode, PlatformError


def directory(chosen: str, default: Path) -> Path:
    """Return the directory that an option names, `~` and relative ones too, as an absolute path; else the default."""
    return Path(chosen).expanduser().absolute() if chosen else default


def named(path: Path, default: Path, label: str = "") -> str:
    """Name what lies in a directory as an option does: by label or name in the default one, else by path."""
    return (label or path.name) if path.parent == default else str(path)


COMMON: Mapping[str, tuple[Any, str]] = {
    "output": ("table", f"output format: {', '.join(FORMATS)}"),
    "json": (False, "short for --output json"),
    "no_color": (False, "disable colours (same as NO_COLOR=1)"),
    "debug": (False, "show the traceback when a task fails"),
}
TIER = ("tier", "tier to use")
"""The option that names a tier, and its help unless a task has a better one."""
SHORT: Mapping[str, str] = {
    "detach": "d",
    "env": "e",
    "follow": "f",
    "output": "o",
    "service": "s",
    "tail": "n",
    "tier": "t",
    "yes": "y",
}
"""Option -> its letter, which means nothing else in any task; the others have none."""
ANY = "any"
"""For tasks on any tier: the option --tier chooses it."""


class _Task(invoke.Task[Any]):
    """A task that Invoke does not copy when it loads the tasks: for all of them that is a third of their loading."""

    full_name = ""
    """Its name with the namespace, as users type it; set where the task is put into one."""

    def __deepcopy__(self, memo: object) -> _Task:
        return self

    def arg_opts(self, name: str, default: str, taken_names: set[str]) -> dict[str, Any]:
        """Return how an option is parsed; its letter, if any, is that of SHORT and not the first that is free."""
        options = super().arg_opts(name, default, taken_names)
        options["names"] += SHORT.get(name, "")
        return options


def command(
    name: str = "",
    *,
    log: bool = True,
    help: Mapping[str, str] | None = None,
    iterable: tuple[str, ...] = (),
    tier: str = "",
) -> Callable[[Callable[..., Answer | None]], invoke.Task[Any]]:
    """Make an Invoke task of a function `body(context, *options) -> Answer | None`.

    The first line of its docstring is the help. It gains the options of `COMMON`. A parameter such as `as_` is the
    option --as, whose name is a word of Python.

    Args:
        name: the task's name where it is not the function's.
        log: whether the run is logged to the state directory (not for quick questions).
        help: one line for each option of the body.
        iterable: options that may be given several times.
        tier: the tier that it is about, ANY for the option --tier, '' where a tier means nothing. The body finds the
            choice among the settings, as PLATFORM_TIER.
    """

    def decorate(body: Callable[..., Answer | None]) -> invoke.Task[Any]:
        def task(_: invoke.Context, **options: Any) -> None:
            common = {key: options.pop(key) for key in COMMON}
            common["tier"] = options.pop(TIER[0], "") if tier == ANY else tier
            options = {f"{key}_" if keyword.iskeyword(key) else key: value for key, value in options.items()}
            does = _of_production(made.full_name or name or body.__name__, body) if tier == ANY else body
            code = _execute(made.full_name or name or body.__name__, does, options, common, log)
            if code:
                raise invoke.Exit(code=code)

        task.__name__, task.__doc__ = body.__name__, spoken(documentation(body))
        signature = _signature(body, iterable, tier == ANY)
        task.__signature__ = signature  # type: ignore[attr-defined]
        texts = {
            **dict([TIER]),
            **{_flag(key): text for key, text in (help or {}).items()},
            **{key: text for key, (_, text) in COMMON.items()},
        }
        offered = {k: t for k, t in texts.items() if k in signature.parameters}
        made = cast(
            "_Task",
            invoke.task(
                task, klass=_Task, name=name or None, help=offered, iterable=list(iterable), auto_shortflags=False
            ),
        )
        return made

    return decorate


def _signature(body: Callable[..., Any], iterable: tuple[str, ...], any_tier: bool) -> inspect.Signature:
    own = list(inspect.signature(body).parameters.values())[1:]
    kind = inspect.Parameter.POSITIONAL_ONLY  # only so may a name be a word of Python; options are keywords anyway
    context = inspect.Parameter("context", kind)
    plain = [inspect.Parameter(_flag(p.name), kind, default=p.default) for p in own]
    required = [p for p in plain if p.default is p.empty and p.name not in iterable]
    repeated = [p.replace(default=None) for p in plain if p.default is p.empty and p.name in iterable]
    optional = [p for p in plain if p.default is not p.empty]
    optional += [inspect.Parameter(TIER[0], kind, default="")] if any_tier else []
    common = [inspect.Parameter(key, kind, default=default) for key, (default, _) in COMMON.items()]
    return inspect.Signature([context, *required, *common[:2], *repeated, *optional, *common[2:]])


def documentation(what: Callable[..., Any] | ModuleType) -> str:
    """Return a docstring, which is the help of a task; from the source where PYTHONOPTIMIZE=2 leaves it out."""
    if what.__doc__ or sys.flags.optimize < 2:
        return what.__doc__ or ""
    tree = ast.parse(textwrap.dedent(inspect.getsource(what)))
    node = tree if isinstance(what, ModuleType) else tree.body[0]
    assert isinstance(node, ast.Module | ast.FunctionDef)
    return ast.get_docstring(node) or ""


def _flag(name: str) -> str:
    return name[:-1] if name.endswith("_") and keyword.iskeyword(name[:-1]) else name


def _execute(
    name: str, body: Callable[..., Answer | None], options: dict[str, Any], common: Mapping[str, Any], log: bool
) -> int:
    console = Console(output="json" if common["json"] else common["output"], command=name)
    console.no_color = common["no_color"]
    try:
        with _signals():
            return _answered(console, body, options, common["tier"], log)
    except PlatformError as error:
        if common["debug"]:
            _traceback(console)
        console.fail(error)
        return int(error.exit)
    except KeyboardInterrupt:
        console.fail(_interrupted())
        return int(ExitCode.INTERRUPTED)
    except Exception as error:  # the last resort: a defect still gets one block and exit 1
        if common["debug"]:
            _traceback(console)
        from infra.tasks.foreign import recognized

        failure = recognized(error) or _internal(error)
        console.fail(failure)
        return int(failure.exit)
    finally:
        console.close()


def _answered(
    console: Console, body: Callable[..., Answer | None], options: dict[str, Any], tier: str, log: bool
) -> int:
    from infra import logins, private, settings, stack
    from infra.data import maker

    if console.output not in FORMATS:
        wrong, console.output = console.output, "table"
        raise PlatformError("USAGE", f"unknown output format {wrong!r}", steps=(f"use one of {', '.join(FORMATS)}",))
    _refuse_unusable(options)
    loaded = settings.load(flags={"PLATFORM_TIER": tier or ""})
    home = stack.of(loaded)
    private.check_tree(home.home)  # it says which programs are run
    loaded = settings.with_remembered(loaded, stack.remembered_settings(home), str(home.memory))
    loaded = logins.applied(loaded, home)
    console.secrets = tuple(s for s in loaded.secrets() if not _public(s))
    console.stack = home.name
    if log:
        console.open_log(home.logs)
    with maker.signing(home.home):
        answer = body(Context(loaded, home, console), **options)
    if answer is None:
        return 0
    console.answer(answer)
    return answer.exit


def _of_production(name: str, body: Callable[..., Answer | None]) -> Callable[..., Answer | None]:
    """Return a body that only reads where the tier is production, and is the given one elsewhere."""

    def run(context: Context, **options: Any) -> Answer | None:
        from infra import catalog

        if context.settings.text("PLATFORM_TIER") != catalog.PRODUCTION:
            return body(context, **options)
        from infra.tasks import production

        return production.reading(name, body)(context, **options)

    return run


MOST_SECONDS = 7 * 24 * 3600.0
"""The longest wait that can be asked for: what is far longer overflows in the clocks of sockets and programs."""


def _refuse_unusable(options: Mapping[str, Any]) -> None:
    """Refuse values that no task can use, in options that many have.

    A name that is empty, as of a variable of a shell that is not set, must not be taken for "all".
    """
    for name, value in options.items():
        flag = f"--{_flag(name).replace('_', '-')}"
        if isinstance(value, list) and not all(words([str(entry)]) for entry in value):
            raise PlatformError("USAGE", f"{flag} is empty", steps=(f"give {flag} a value, or omit it",))
        if name == "timeout" and not 0 <= value <= MOST_SECONDS:
            steps = ("0 uses each service's own time limit",)
            raise PlatformError("USAGE", f"{flag} {value:g} is not between 0 and {MOST_SECONDS:.0f}", steps=steps)


def _public(secret: str) -> bool:
    """Return whether a secret is a documented development password; hiding those would garble logs."""
    from infra import catalog

    return any(s.kind == "secret" and s.default == secret for s in catalog.SETTINGS.values())


AGAIN = 2.0
"""Seconds after a signal in which another one changes nothing: what was begun is being cleared away."""


@contextmanager
def _signals() -> Iterator[None]:
    """End a run on SIGTERM as on Ctrl-C, with its own exit code; further signals do not cut the clearing up short."""
    last, came, hook = -AGAIN, BaseException(), sys.unraisablehook

    def handle(number: int, _: object) -> None:
        nonlocal last, came
        if time.monotonic() - last < AGAIN:
            return
        last, came = time.monotonic(), _reason(number)
        # A thread that was just beginning, or a finalizer, is cut off: nobody can do anything about that.
        sys.unraisablehook = lambda _: None
        raise came

    before = {number: signal.signal(number, handle) for number in _caught()}
    try:
        yield
    except Exception as error:
        # What clearing away stumbles over, e.g. a connection in the middle of a question, is no reason of its own.
        if time.monotonic() - last >= AGAIN or _of_a_signal(error):
            raise
        raise came from error
    finally:
        sys.unraisablehook = hook
        for number, handler in before.items():
            # Once a signal has come, the exit code is on its way, and one more must not take its place.
            signal.signal(number, handler if last < 0 else signal.SIG_IGN)


def _of_a_signal(error: Exception) -> bool:
    """Return whether it says in its own words that a signal came, e.g. what continues in the background."""
    return isinstance(error, PlatformError) and error.code in ("INTERRUPTED", "TERMINATED")


def _reason(number: int) -> BaseException:
    if number == signal.SIGINT:
        return KeyboardInterrupt()
    return PlatformError("TERMINATED", "terminated", steps=("run the same command again; it continues from there",))


def _caught() -> list[signal.Signals]:
    """Return SIGTERM, and SIGINT unless the parent process has it ignored."""
    interrupts = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    return [signal.SIGTERM, *([signal.SIGINT] if interrupts else [])]


def _interrupted() -> PlatformError:
    return PlatformError("INTERRUPTED", "interrupted", steps=("run the same command again; it continues from there",))


def _internal(error: Exception) -> PlatformError:
    return PlatformError(
        "INTERNAL",
        f"unexpected failure: {type(error).__name__}",
        why=str(error).splitlines()[0] if str(error) else "",
        steps=("run it again with --debug and report the output",),
    )


def _traceback(console: Console) -> None:
    import traceback

    for line in traceback.format_exc().splitlines():
        console.say(line)


def confirm(context: Context, plan: list[str], yes: bool) -> None:
    """Show what will be deleted or overwritten and go on only with consent; ENTER means no.

    Raises:
        PlatformError: CONFIRMATION_NEEDED, at once where nobody can be asked.
    """
    for line in plan:
        context.console.say(line)
    if yes:
        return
    if context.console.live and _asked("Go on? [y/N] "):
        return
    raise PlatformError(
        "CONFIRMATION_NEEDED", "confirmation required; nothing was changed", steps=("run the same command with --yes",)
    )


def _asked(question: str) -> bool:
    sys.stderr.write(question)
    sys.stderr.flush()
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def words(values: list[str]) -> tuple[str, ...]:
    """Return the names from a repeatable option, each of which may hold several with commas between."""
    from infra import setting_rules

    return tuple(word for value in values for word in setting_rules.words(value))
