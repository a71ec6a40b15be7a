from __future__ import annotations

import errno
import io
import json
import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from infra import columns
from infra.console import FORMATS, KEEP_LOGS, MASK, Answer, Console, Table, human_bytes, human_seconds
from infra.errors import PlatformError
from infra.settings import ROOT
from tests.unit.helpers import Said, Stream, console

KEYS = ["schemaVersion", "command", "tier", "stack", "status", "data", "warnings", "error"]
ERROR_KEYS = ["code", "category", "message", "why", "retryable", "details", "actions"]
ERROR = PlatformError("LOCKED", "it is held", why="by pid 1", steps=("wait", "invoke status"), details={"pid": 1})
ODD_SECRET = 'p"a\\ss/w ö%rd'


def envelope(said: Said) -> dict[str, Any]:
    """The one object on stdout."""
    found = json.loads(said.out) if said.output == "json" else yaml.safe_load(said.out)
    assert isinstance(found, dict)
    return found


# --- the envelope


@pytest.mark.parametrize("output", ["json", "yaml"])
def test_envelope_of_an_answer(output: str) -> None:
    said = console(output)
    said.tier, said.stack = "native", "x-123456"
    said.warn("careful")
    said.answer(Answer({"path": Path("/x"), "한글": [1, None]}, lines=("for people",)))
    found = envelope(said)
    assert list(found) == KEYS
    assert found["data"] == {"path": "/x", "한글": [1, None]}
    assert [found[k] for k in KEYS if k != "data"] == [1, "test", "native", "x-123456", "ok", ["careful"], None]


@pytest.mark.parametrize("output", ["json", "yaml"])
def test_envelope_of_a_failure(output: str) -> None:
    said = console(output)
    said.fail(ERROR)
    found = envelope(said)
    assert list(found) == KEYS
    assert (found["status"], found["data"]) == ("error", None)
    assert list(found["error"]) == ERROR_KEYS
    assert found["error"]["actions"] == [{"id": "1", "command": "wait"}, {"id": "2", "command": "invoke status"}]
    wanted = {"code": "LOCKED", "category": "locked", "message": "it is held", "retryable": True, "details": {"pid": 1}}
    assert {k: found["error"][k] for k in wanted} == wanted


@pytest.mark.parametrize("output", ["json", "yaml"])
def test_progress_never_reaches_stdout(output: str) -> None:
    said = console(output)
    said.say("working")
    said.warn("careful")
    assert said.out == ""
    assert said.err.splitlines() == ["working", "! careful"]


def test_json_is_ascii_on_a_stream_that_is_not_utf8() -> None:
    said = console("json", encoding="cp1252")
    said.answer(Answer({"name": "한글 ✓"}))
    assert said.out.isascii()
    assert envelope(said)["data"] == {"name": "한글 ✓"}


@pytest.mark.parametrize("output", ["json", "yaml"])
def test_a_failure_keeps_its_letters_on_a_stream_that_is_not_utf8(output: str) -> None:
    said = console(output, encoding="cp1252")
    said.fail(PlatformError("USAGE", "한글"))
    assert envelope(said)["error"]["message"] == "한글"


# --- answers for people and for scripts


def test_a_table_has_aligned_columns_and_no_borders() -> None:
    said = console()
    said.answer(Answer({}, Table(("name", "port"), (("redis", "6379"), ("minio-datasets", "9000"))), ("", "Next: x")))
    assert said.out.splitlines() == [
        "name            port",
        "redis           6379",
        "minio-datasets  9000",
        "",
        "Next: x",
    ]


WIDE = Table(("key", "size"), (("runs/" + "x" * 200, "1 MB"), ("학습/" + "한" * 60, "2 MB"), ("short", "3 MB")))


@pytest.mark.parametrize("room", [30, 40, 80, 120])
@pytest.mark.parametrize("encoding", ["utf-8", "cp949"])
def test_no_value_makes_a_table_wider_than_the_terminal(
    room: int, encoding: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(room))
    said = console(tty=True, encoding=encoding)
    said.answer(Answer({}, WIDE))
    *lines, hint = said.out.splitlines()
    assert max(columns.width(line) for line in lines) <= room
    assert [line.endswith(f"{n} MB") for n, line in enumerate(lines) if n] == [True] * 3
    assert "-o json" in hint


def test_nothing_is_cut_for_a_program_that_reads_it() -> None:
    said = console()
    said.answer(Answer({}, WIDE))
    assert "x" * 200 in said.out
    assert "-o json" not in said.out


def test_a_secret_is_hidden_before_it_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "30")
    said = console(tty=True, secrets=("correct horse battery staple",))
    said.answer(Answer({}, Table(("a",), (("login correct horse battery staple " + "x" * 50,),))))
    assert "correct" not in said.out


def test_what_a_terminal_would_obey_is_shown_and_not_sent() -> None:
    said = console()
    said.answer(Answer({}, Table(("a",), (("red\x1b[31m\nnext",),))))
    assert said.out == "a\nred\\x1b[31m\\nnext\n"


@pytest.mark.parametrize(
    ("widths", "room", "fitted"),
    [
        ([10, 20], 40, [10, 20]),
        ([10, 20], 26, [10, 14]),
        ([30, 30, 5], 49, [20, 20, 5]),
        ([30, 30], 10, [6, 6]),
        ([4, 100, 60], 64, [4, 28, 28]),
    ],
)
def test_the_widest_columns_give_way(widths: list[int], room: int, fitted: list[int]) -> None:
    assert columns.fitting(widths, room) == fitted


def test_what_people_copy_is_cut_last() -> None:
    assert columns.fitting([60, 20, 30], 70, keep=(1, 2)) == [16, 20, 30]
    assert columns.fitting([60, 20, 30], 40, keep=(1, 2)) == [6, 15, 15]


def test_an_empty_table_shows_no_heading() -> None:
    said = console()
    said.answer(Answer({}, Table(("name",), ())))
    assert said.out == ""


def test_names_and_variables_one_a_line() -> None:
    said, other = console("name"), console("env")
    answer = Answer({}, env={"A": "1", "B": "2"}, names=("x", "y"))
    said.answer(answer)
    other.answer(answer)
    assert (said.out, other.out) == ("x\ny\n", "A=1\nB=2\n")


def test_the_error_block_says_what_why_log_next_and_code_in_this_order() -> None:
    said = console()
    details = {"log": ["line 1", "line 2"]}
    said.fail(PlatformError("WAIT_TIMEOUT", "redis was late", why="no answer", steps=("a", "b"), details=details))
    lines = said.err.splitlines()
    assert lines[:2] == ["✗ redis was late", "  why:  no answer"]
    assert lines[3:7] == ["    | line 1", "    | line 2", "  next: a", "  next: b"]
    assert lines[7].startswith("  code: WAIT_TIMEOUT (exit 6)")
    assert said.out == ""


def test_the_page_that_the_error_block_names_is_named_by_its_path_in_the_checkout() -> None:
    said = console()
    said.fail(ERROR)
    assert "docs/errors.md" in said.err.splitlines()[-1]


# --- colours and symbols


@pytest.mark.parametrize(
    ("tty", "environ", "colored"),
    [
        (False, {}, False),
        (True, {}, True),
        (True, {"NO_COLOR": "1"}, False),
        (True, {"TERM": "dumb"}, False),
        (False, {"FORCE_COLOR": "1"}, True),
        (True, {"FORCE_COLOR": "1", "NO_COLOR": "1"}, False),
        (False, {"NO_COLOR": ""}, False),
        (True, {"NO_COLOR": ""}, True),
    ],
)
@pytest.mark.parametrize("output", FORMATS)
def test_when_escape_codes_are_written(tty: bool, environ: dict[str, str], colored: bool, output: str) -> None:
    said = console(output, tty=tty, environ=environ)
    said.say("x", "good")
    said.warn("x")
    said.fail(ERROR)
    assert ("\x1b" in said.err) == colored
    assert "\x1b" not in said.out


def test_the_option_no_color_wins_over_everything() -> None:
    said = console(tty=True, environ={"FORCE_COLOR": "1"})
    said.no_color = True
    said.say("x", "bad")
    assert said.err == "x\n"


@pytest.mark.parametrize("encoding", ["cp1252", "cp437", "ascii", "latin-1"])
def test_plain_symbols_where_the_stream_is_not_utf8(encoding: str) -> None:
    said = console(encoding=encoding)
    said.fail(ERROR)
    assert said.err.startswith("x it is held")
    assert (said.symbol("good"), said.symbol("bad")) == ("+", "x")


@pytest.mark.parametrize("encoding", ["utf-8", "UTF-8", "utf8"])
def test_symbols_where_the_stream_is_utf8(encoding: str) -> None:
    assert console(encoding=encoding).symbol("good") == "✓"


def test_letters_that_the_stream_lacks_are_replaced_and_do_not_end_the_run() -> None:
    said = console(encoding="cp1252")
    said.say("bücher 한글")
    said.answer(Answer({}, lines=("한",)))
    assert (said.err, said.out) == ("bücher ??\n", "?\n")


# --- questions and live drawing


@pytest.mark.parametrize(
    ("stdin", "stderr", "environ", "live"),
    [
        (True, True, {}, True),
        (False, True, {}, False),
        (True, False, {}, False),
        (True, True, {"CI": "true"}, False),
        (True, True, {"TERM": "dumb"}, False),
    ],
)
def test_only_a_real_terminal_is_drawn_on_and_asked(
    monkeypatch: pytest.MonkeyPatch, stdin: bool, stderr: bool, environ: dict[str, str], live: bool
) -> None:
    monkeypatch.setattr(sys, "stdin", Stream(tty=stdin))
    assert console(tty=stderr, environ=environ).live is live


def test_without_a_standard_input_nobody_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", None)
    assert not console(tty=True).live


# --- secrets


@pytest.mark.parametrize("output", FORMATS)
@pytest.mark.parametrize("secret", ["hunter2hunter2", ODD_SECRET, "비밀번호", "null", "1", ":"])
def test_secrets_are_masked_in_whatever_is_said(output: str, secret: str) -> None:
    said = console(output, secrets=(secret,))
    texts = [f"<{secret}>", f"http://u:{secret}@h"]
    said.say(texts[0])
    said.warn(texts[0])
    said.answer(Answer({"url": texts, "deep": [{"x": texts[0]}]}, Table(("a",), ((texts[0],),)), tuple(texts)))
    assert f"<{MASK}>" in said.err
    for shown in (said.err, _decoded(said)):
        assert f"<{secret}>" not in shown


@pytest.mark.parametrize("output", ["json", "yaml"])
@pytest.mark.parametrize("secret", ["hunter2hunter2", ODD_SECRET, "1", "e"])
def test_secrets_are_masked_in_errors_which_stay_readable(output: str, secret: str) -> None:
    said = console(output, secrets=(secret,))
    text = f"<{secret}>"
    said.fail(PlatformError("USAGE", text, why=text, steps=(text,), details={"log": [text], "x": {"y": text}}))
    assert text not in said.err + _decoded(said)
    assert (envelope(said)["error"]["code"], list(envelope(said))) == ("USAGE", KEYS)


def _decoded(said: Said) -> str:
    """What stdout says, without the escapes of its format."""
    return repr(envelope(said)) if said.output in ("json", "yaml") else said.out


def test_a_secret_is_masked_as_it_stands_in_a_url(tmp_path: Path) -> None:
    said = console(secrets=("p@ss/word",))
    said.say("postgresql://admin:p%40ss%2Fword@127.0.0.1")
    assert said.err == f"postgresql://admin:{MASK}@127.0.0.1\n"


def test_a_secret_that_holds_another_is_masked_whole() -> None:
    said = console(secrets=("abcdefgh", "abc"))
    said.say("abcdefgh abc")
    assert said.err == f"{MASK} {MASK}\n"


@contextmanager
def logged(said: Said, directory: Path) -> Iterator[None]:
    said.open_log(directory)
    assert said.log is not None
    with said.log:
        yield


def test_the_log_is_masked_and_has_no_colours(tmp_path: Path) -> None:
    said = console(tty=True, environ={"FORCE_COLOR": "1"}, secrets=("hunter2",))
    with logged(said, tmp_path):
        said.say("password hunter2", "bad")
        said.fail(PlatformError("USAGE", "hunter2"))
    text = _log(tmp_path).read_text()
    assert "hunter2" not in text
    assert "\x1b" not in text
    assert f"password {MASK}" in text


# --- the log of a run


def _log(directory: Path) -> Path:
    (path,) = directory.glob("*.log")
    return path


def test_the_log_is_private_and_named_by_time_and_task(tmp_path: Path) -> None:
    said = console()
    with logged(said, tmp_path / "made" / "logs"):
        said.say("한글 line")
    path = _log(tmp_path / "made" / "logs")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert path.name.endswith("-test.log")
    assert path.read_text(encoding="utf-8").endswith("한글 line\n")


def test_only_the_newest_logs_are_kept(tmp_path: Path) -> None:
    for day in range(1, 29):
        (tmp_path / f"200001{day:02}T000000Z-{day}-up.log").touch()
    (tmp_path / "redis.log").touch()
    with logged(console(), tmp_path):
        pass
    kept = sorted(p.name for p in tmp_path.glob("*Z-*.log"))
    assert len(kept) == KEEP_LOGS == 20
    assert kept[0].startswith("20000110")
    assert kept[-1].endswith("-test.log")
    assert (tmp_path / "redis.log").exists()


def test_a_log_that_cannot_be_opened_is_no_obstacle(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    said = console()
    said.open_log(tmp_path / "file" / "logs")
    said.say("all the same")
    assert said.err == "all the same\n"


class FullDisk(io.StringIO):
    def write(self, text: str) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")


def test_a_full_disk_does_not_hide_the_message_that_says_so() -> None:
    said = console()
    said.log = FullDisk()
    said.fail(PlatformError("STATE_UNWRITABLE", "the disk is full"))
    assert "the disk is full" in said.err
    assert "STATE_UNWRITABLE" in said.err


# --- readers that go away

_PIPED = """
import sys
from infra.console import Answer, Console
Console().answer(Answer({}, lines=tuple(str(n) for n in range(200_000))))
Console().say("done")
"""


@pytest.mark.skipif(os.name == "nt", reason="pipes of POSIX")
def test_a_reader_that_leaves_early_is_no_error() -> None:
    command = [sys.executable, "-c", _PIPED]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as program:
        assert program.stdout is not None
        assert program.stderr is not None
        assert program.stdout.readline() == "0\n"
        program.stdout.close()
        assert program.stderr.read() == "done\n"
    assert program.returncode == 0


def test_the_standard_streams_are_used_where_none_are_given(capsys: pytest.CaptureFixture[str]) -> None:
    plain = Console()
    plain.say("progress")
    plain.answer(Answer({}, lines=("answer",)))
    assert capsys.readouterr() == ("answer\n", "progress\n")


# --- numbers for people


@pytest.mark.parametrize(
    ("size", "text"),
    [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (1_440_000_000, "1.4 GB"), (256e9, "256 GB"), (2e12, "2.0 TB")],
)
def test_sizes_for_people(size: float, text: str) -> None:
    assert human_bytes(size) == text


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.04, "0.0 s"), (3.21, "3.2 s"), (42.4, "42 s"), (250, "4 min 10 s"), (7500, "2 h 5 min")]
)
def test_durations_for_people(seconds: float, text: str) -> None:
    assert human_seconds(seconds) == text


# --- narrow terminals and colours

STATES = Table(
    ("service", "state", "memory", "note"),
    (("postgres", "+ ready", "120 MB", "a rather long note"), ("redis", "x failed", "3 MB", "")),
    keep=(0, 1),
    drop=(3, 2),
    styles={"+ ready": "good", "x failed": "bad"},
)


def test_columns_are_dropped_before_words_are_cut() -> None:
    assert STATES.narrowed(80) == STATES
    assert STATES.narrowed(30).lines(30)[1] == "postgres  + ready   120 MB"
    assert STATES.narrowed(20).lines(20)[1] == "postgres  + ready"


def test_a_narrow_terminal_says_what_was_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "30")
    made = console(tty=True, environ={"NO_COLOR": "1"})
    made.answer(Answer({}, STATES))
    assert all(len(line) <= 30 for line in made.out.splitlines()[:-1])
    assert "everything: -o json" in made.out.splitlines()[-1]


@pytest.mark.parametrize(
    ("environ", "coloured"), [({"FORCE_COLOR": "1"}, True), ({}, False), ({"NO_COLOR": "1"}, False)]
)
def test_states_are_coloured_where_colours_are_wanted(environ: dict[str, str], coloured: bool) -> None:
    made = console(environ=environ)
    made.answer(Answer({}, STATES))
    assert ("\x1b[32m+ ready\x1b[0m" in made.out) == coloured
    assert ("\x1b[31mx failed\x1b[0m" in made.out) == coloured
    assert ("\x1b" in made.out) == coloured
