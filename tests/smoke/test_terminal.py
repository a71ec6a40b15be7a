"""What people see on a real terminal: a narrow one, one that is resized, colours where they are wanted."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator

import pytest

from infra.settings import ROOT
from tests.smoke.platform import PYTHON, Platform

if sys.platform == "win32":
    pytest.skip("there is no pty on Windows", allow_module_level=True)

from tests.terminal import COLOUR, Session, lines, on_terminal, widest

NARROW, WIDE = 60, 120
CUT = "(cut to the width of this terminal"
PATH = [sys.executable, "-m", "invoke"]


def shown(platform: Platform, *words: str, width: int = NARROW) -> str:
    """What a task draws on a terminal of this width."""
    with on_terminal([*PATH, *words, "--tier", platform.tier], ROOT, os.environ, width) as session:
        code, drawn = session.end()
    assert code == 0, drawn
    return drawn


def table(drawn: str, first: str) -> list[str]:
    """The lines of a table, from the one that begins so to the first empty line or remark."""
    every = lines(drawn)
    start = next(i for i, line in enumerate(every) if line.startswith(first))
    end = next(
        (i for i, line in enumerate(every) if i > start and (not line or line.startswith(("(", "  next")))), None
    )
    return every[start:end]


def test_status_fits_a_narrow_terminal(platform: Platform) -> None:
    drawn = shown(platform, "status")
    rows = table(drawn, "service")
    assert max(map(len, rows)) <= NARROW
    assert {"service", "state", "address"} <= set(rows[0].split()), "what people look for stays"
    assert CUT in drawn
    assert "ready" in drawn


def test_doctor_fits_a_narrow_terminal_and_says_everything(platform: Platform) -> None:
    # It warns on some machines, and says so with 0; nothing of its texts is cut, only ids may be.
    with on_terminal([*PATH, "doctor", "--tier", platform.tier], ROOT, os.environ, NARROW) as session:
        code, drawn = session.end()
    assert code == 0, drawn
    rows = [line for line in lines(drawn) if re.match(r"[✓!✗] |  {20,}\S", line)]
    assert len(rows) > 20
    assert max(map(len, rows)) <= NARROW
    text = " ".join(" ".join(rows).split())
    assert ".venv has the packages of this checkout" in text or "bucket training-datasets works" in text
    assert re.search(r"^\d+ checks: \d+ ok, \d+ warn, 0 fail$", "\n".join(lines(drawn)), re.MULTILINE)


def test_lists_fit_a_narrow_terminal(platform: Platform) -> None:
    platform.data("train.run", "--command", f"{PYTHON} -c 'print(1)'", timeout=600)
    rows = table(shown(platform, "train.list"), "JOB")
    assert max(map(len, rows)) <= NARROW
    assert len(rows) >= 2
    whole = shown(platform, "train.list", width=240)
    assert re.search(r"\d{4}-\d\d-\d\dT\d\d:\d\d[+-]\d\d:\d\d", whole), "times are ISO 8601, with their zone"
    with on_terminal([*PATH, "list"], ROOT, os.environ, NARROW) as session:
        _, drawn = session.end()
    assert widest(drawn) <= NARROW or CUT in drawn


@pytest.mark.parametrize(
    ("environ", "coloured"), [({"FORCE_COLOR": "1"}, True), ({}, False), ({"NO_COLOR": "1"}, False)]
)
def test_colours_through_a_pipe_are_asked_for(platform: Platform, environ: dict[str, str], coloured: bool) -> None:
    kept = {k: v for k, v in os.environ.items() if k not in ("FORCE_COLOR", "NO_COLOR")}
    argv = [*PATH, "status", "--tier", platform.tier]
    done = subprocess.run(argv, cwd=ROOT, env=kept | environ, capture_output=True, encoding="utf-8", check=False)
    assert bool(COLOUR.search(done.stdout)) is coloured
    assert "\x1b" not in done.stdout.replace("\x1b[", "") or coloured


@pytest.fixture
def following(platform: Platform) -> Iterator[Session]:
    """A training that prints lines until the file `enough` is there, watched on a wide terminal."""
    says = "'line', n, 'of a program that says more than fits into sixty cells of a line'"
    code = f"import time; [(print({says}, flush=True), time.sleep(0.3)) for n in range(200)]"
    argv = [*PATH, "train.run", "--tier", platform.tier, "--command", f'{PYTHON} -c "{code}"', "--experiment", "narrow"]
    with on_terminal(argv, ROOT, os.environ, WIDE) as session:
        yield session
        platform.invoke("train.cancel", "latest", timeout=300)


def test_a_watched_training_is_drawn_anew_after_a_resize_and_left_by_a_key(following: Session) -> None:
    following.until(lambda drawn: "line 2 " in drawn)
    following.resize(NARROW)
    before = len(following.drawn)
    following.until(lambda drawn: drawn.count("running") > 2 and "line 9 " in drawn[before:])
    bar = [line for line in lines(following.drawn[before:]) if line.startswith("running")][2:]
    assert bar, "the bar is drawn again"
    assert max(map(len, bar)) <= NARROW
    following.type("\x03")
    code, drawn = following.end()
    assert code == 130
    assert "continues in the background" in drawn
    assert "\x1b[?25h" in drawn or "\x1b[?25l" not in drawn, "the cursor is there again"
