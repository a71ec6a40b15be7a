"""How every task runs: options, exit codes, one error block, one envelope."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import invoke
import pytest

from infra import settings
from infra.console import FORMATS, Answer
from infra.context import Context
from infra.errors import PlatformError
from infra.tasks.command import ANY, command, confirm, directory, named, words
from tests.unit.helpers import Stream, console, context_of

Body = Callable[..., Answer | None]


@pytest.fixture(autouse=True)
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Tasks run on an empty checkout instead of this one."""
    real = settings.load
    monkeypatch.setattr(settings, "load", lambda root=tmp_path, **more: real(root=root, **more))
    return tmp_path


def call(body: Body, **options: Any) -> int:
    """Run a task with this body; its exit code."""
    common = {"output": "table", "json": False, "no_color": False, "debug": False}
    try:
        command(**options.pop("make", {}))(body).body(invoke.Context(), **{**common, **options})
    except invoke.Exit as end:
        return end.code
    return 0


def raising(error: BaseException) -> Body:
    def body(context: Context) -> Answer:
        """Fail."""
        raise error

    return body


def answering(answer: Answer | None = None) -> Body:
    def body(context: Context) -> Answer | None:
        """Answer."""
        return answer

    return body


@pytest.mark.parametrize(
    ("error", "code", "name"),
    [
        (PlatformError("DATA_INCOMPATIBLE", "x"), 8, "DATA_INCOMPATIBLE"),
        (PlatformError("LOCKED", "x"), 12, "LOCKED"),
        (KeyboardInterrupt(), 130, "INTERRUPTED"),
        (ZeroDivisionError("by zero"), 1, "INTERNAL"),
    ],
)
@pytest.mark.parametrize("output", ["table", "json", "yaml"])
def test_however_a_task_fails_there_is_one_block_and_its_code(
    capsys: pytest.CaptureFixture[str],
    error: BaseException,
    code: int,
    name: str,
    output: str,
) -> None:
    before = signal.getsignal(signal.SIGINT)
    try:
        assert call(raising(error), output=output) == code
    finally:
        signal.signal(signal.SIGINT, before)
    out, err = capsys.readouterr()
    assert err.count("code: ") == 1
    assert f"code: {name} (exit {code})" in err
    assert "Traceback" not in err
    assert (out == "") == (output == "table")
    if output == "json":
        assert json.loads(out)["error"]["code"] == name


def test_an_unexpected_failure_says_how_to_see_more(capsys: pytest.CaptureFixture[str]) -> None:
    call(raising(ZeroDivisionError("by zero")))
    assert "--debug" in capsys.readouterr().err
    call(raising(ZeroDivisionError("by zero")), debug=True)
    assert "Traceback" in capsys.readouterr().err


@pytest.fixture
def handlers() -> Iterator[None]:
    """Signals are handled afterwards as before."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.usefixtures("handlers")
@pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_signals_end_a_task_with_their_own_code_and_more_of_them_change_nothing(
    capsys: pytest.CaptureFixture[str], number: signal.Signals, code: int
) -> None:
    cleared = []

    def body(context: Context) -> Answer:
        """Wait."""
        try:
            os.kill(os.getpid(), number)
            signal.pause()
        finally:
            os.kill(os.getpid(), number)
            cleared.append("all")
        raise AssertionError

    signal.signal(signal.SIGINT, signal.default_int_handler)
    assert call(body) == code
    assert f"(exit {code})" in capsys.readouterr().err
    assert cleared == ["all"]
    os.kill(os.getpid(), number)  # on the way out


class Finalized:
    """What fails where nobody can catch it, like a thread that is cut off while it begins."""

    def __del__(self) -> None:
        raise KeyError("limbo")


@pytest.mark.usefixtures("handlers")
@pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
@pytest.mark.parametrize("signalled", [True, False])
def test_what_a_signal_cuts_off_is_no_news_and_without_one_it_is(
    monkeypatch: pytest.MonkeyPatch, signalled: bool
) -> None:
    told: list[str] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda said: told.append(type(said.exc_value).__name__))
    hook = sys.unraisablehook

    def body(context: Context) -> Answer:
        """Wait."""
        try:
            if signalled:
                os.kill(os.getpid(), signal.SIGTERM)
                signal.pause()
            return Answer({})
        finally:
            Finalized()

    assert call(body) == (143 if signalled else 0)
    assert told == ([] if signalled else ["KeyError"])
    assert sys.unraisablehook is hook


@pytest.mark.usefixtures("handlers")
@pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_what_clearing_away_stumbles_over_takes_no_signals_place(
    capsys: pytest.CaptureFixture[str], number: signal.Signals, code: int
) -> None:
    def body(context: Context) -> Answer:
        """Wait."""
        try:
            os.kill(os.getpid(), number)
            signal.pause()
        finally:
            raise PlatformError("UNREACHABLE", "another command is already in progress")

    signal.signal(signal.SIGINT, signal.default_int_handler)
    assert call(body) == code
    assert f"(exit {code})" in capsys.readouterr().err


@pytest.mark.usefixtures("handlers")
@pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
def test_what_a_task_says_of_a_signal_itself_stays(capsys: pytest.CaptureFixture[str]) -> None:
    def body(context: Context) -> Answer:
        """Wait."""
        try:
            os.kill(os.getpid(), signal.SIGINT)
            signal.pause()
        except KeyboardInterrupt:
            raise PlatformError("INTERRUPTED", "the training continues", steps=("invoke train.cancel x",)) from None
        raise AssertionError

    signal.signal(signal.SIGINT, signal.default_int_handler)
    assert call(body) == 130
    assert "invoke train.cancel x" in capsys.readouterr().err


@pytest.mark.usefixtures("handlers")
def test_without_a_signal_they_are_handled_as_before() -> None:
    before = [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)]
    assert call(answering(Answer({}))) == 0
    assert [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)] == before


def test_an_answer_can_end_with_a_code_of_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    assert call(answering(Answer({"state": "stopped"}, lines=("stopped",), exit=9))) == 9
    assert capsys.readouterr() == ("stopped\n", "")


@pytest.mark.parametrize("output", FORMATS)
def test_every_format_is_known(capsys: pytest.CaptureFixture[str], output: str) -> None:
    answer = Answer({"a": 1}, lines=("text",), env={"A": "1"}, names=("name",))
    assert call(answering(answer), output=output) == 0
    wanted = {"table": "text\n", "env": "A=1\n", "name": "name\n"}
    out = capsys.readouterr().out
    assert out == wanted.get(output, out)
    assert out


def test_json_is_the_same_as_output_json(capsys: pytest.CaptureFixture[str]) -> None:
    call(answering(Answer({"a": 1})), json=True)
    assert json.loads(capsys.readouterr().out)["data"] == {"a": 1}


def test_an_unknown_format_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert call(answering(Answer({})), output="xml") == 2
    err = capsys.readouterr().err
    assert "'xml'" in err
    assert all(name in err for name in FORMATS)


def test_a_task_that_has_printed_by_itself_answers_nothing_more(capsys: pytest.CaptureFixture[str]) -> None:
    assert call(answering(None)) == 0
    assert capsys.readouterr().out == ""


# --- options


def made(**more: Any) -> invoke.Task[Any]:
    def body(context: Context, job: str, obs: bool = False, timeout: float = 0.0) -> Answer:
        """One line.

        Example: invoke body
        """
        return Answer({"job": job, "obs": obs, "tier": context.settings.text("PLATFORM_TIER")})

    return command(**{"tier": ANY, **more})(body)


def test_options_of_the_body_and_the_common_ones_are_offered() -> None:
    names = {a.name for a in made().get_arguments()}
    assert names == {"job", "obs", "timeout", "tier", "output", "json", "no_color", "debug"}


def test_the_output_has_the_same_short_option_everywhere() -> None:
    short = {n: a.name for a in made().get_arguments() for n in a.names if len(n) == 1}
    assert short["o"] == "output"


def test_a_fixed_tier_is_no_option_and_reaches_the_body(capsys: pytest.CaptureFixture[str]) -> None:
    fixed = made(tier="native")
    assert "tier" not in {a.name for a in fixed.get_arguments()}
    fixed.body(invoke.Context(), job="x", output="json", json=False, no_color=False, debug=False)
    assert json.loads(capsys.readouterr().out)["data"]["tier"] == "native"


def test_a_tier_that_does_not_exist_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    def body(context: Context) -> Answer:
        """Answer."""
        return Answer({})

    assert call(body, tier="compse", make={"tier": ANY}) == 2
    err = capsys.readouterr().err
    assert "'compse'" in err
    assert "the command line" in err


def test_the_tier_option_beats_the_environment(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def body(context: Context) -> Answer:
        """Answer."""
        return Answer({}, lines=(context.settings.origin("PLATFORM_TIER"),))

    monkeypatch.setenv("PLATFORM_TIER", "native")
    call(body, tier="", make={"tier": ANY})
    call(body, tier="native", make={"tier": ANY})
    assert capsys.readouterr().out == "the environment\nthe command line\n"


# --- settings, log, secrets


def test_a_wrong_setting_ends_every_task_with_2(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("POSTGRES_PORT", "x")
    assert call(answering(Answer({})), json=True) == 2
    assert json.loads(capsys.readouterr().out)["error"]["code"] == "SETTING_INVALID"


@pytest.mark.parametrize("log", [True, False])
def test_what_is_logged(checkout: Path, log: bool) -> None:
    call(raising(PlatformError("USAGE", "wrong")), make={"log": log})
    logs = list((checkout / ".platform" / "logs").glob("*.log"))
    assert [("wrong" in path.read_text()) for path in logs] == ([True] if log else [])


def test_passwords_of_the_settings_are_masked_but_not_the_documented_ones(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("POSTGRES_PASSWORD", "hunter2hunter2")
    call(answering(Answer({"x": "hunter2hunter2 minioadmin"}, lines=("hunter2hunter2 minioadmin",))))
    call(answering(Answer({"x": "hunter2hunter2 minioadmin"})), json=True)
    assert "hunter2" not in (out := capsys.readouterr().out)
    assert out.count("**** minioadmin") == 2


# --- consent


def run_of(root: Path, *, tty: bool) -> Context:
    return replace(context_of(root), console=console(tty=tty))


def answers(monkeypatch: pytest.MonkeyPatch, text: str, *, tty: bool = True) -> None:
    stdin = Stream(tty=tty)
    stdin.write(text)
    stdin.seek(0)
    monkeypatch.setattr(sys, "stdin", stdin)


def test_yes_asks_nobody(tmp_path: Path) -> None:
    run = run_of(tmp_path, tty=False)
    confirm(run, ["This deletes x"], yes=True)
    assert run.console.stderr.said == "This deletes x\n"  # type: ignore[attr-defined]


@pytest.mark.parametrize("text", ["y\n", "YES\n", " yes \n"])
def test_a_person_may_agree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    answers(monkeypatch, text)
    confirm(run_of(tmp_path, tty=True), [], yes=False)


@pytest.mark.parametrize("text", ["\n", "", "n\n", "yep\n", "j\n"])
def test_everything_else_means_no(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    answers(monkeypatch, text)
    with pytest.raises(PlatformError) as caught:
        confirm(run_of(tmp_path, tty=True), [], yes=False)
    assert (caught.value.code, caught.value.exit) == ("CONFIRMATION_NEEDED", 3)


def test_without_a_terminal_nobody_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answers(monkeypatch, "y\n", tty=False)
    with pytest.raises(PlatformError) as caught:
        confirm(run_of(tmp_path, tty=False), ["plan"], yes=False)
    assert caught.value.exit == 3


@pytest.mark.parametrize(
    ("values", "found"),
    [([], ()), (["a,b", "c"], ("a", "b", "c")), ([" a , ,b "], ("a", "b")), ([","], ())],
)
def test_names_with_commas_or_several_times(values: list[str], found: tuple[str, ...]) -> None:
    assert words(values) == found


@pytest.mark.parametrize(
    ("chosen", "wanted"), [("", "default"), ("a b", "here/a b"), ("~/x", "home/x"), ("{root}/there", "there")]
)
def test_a_directory_that_an_option_names_is_absolute(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chosen: str, wanted: str
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    for variable in ("HOME", "USERPROFILE"):
        monkeypatch.setenv(variable, str(tmp_path / "home"))
    assert directory(chosen.format(root=tmp_path), tmp_path / "default") == tmp_path / wanted


def test_what_lies_elsewhere_is_named_by_its_path(tmp_path: Path) -> None:
    made = tmp_path / "backups" / "000001"
    assert named(made, tmp_path / "backups") == "000001"
    assert named(made, tmp_path / "backups", "before the move") == "before the move"
    assert named(made, tmp_path / "others", "before the move") == str(made)
