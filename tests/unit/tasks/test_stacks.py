"""The stacks of a machine, each asked in its own checkout: stand-ins for the checkouts, real processes."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from infra import machine
from infra.context import Context
from infra.errors import PlatformError
from infra.tasks import stacks
from tests.unit.helpers import context_of, settings_of, stack_at

PROGRAM = """
import json, os, sys
from pathlib import Path
words, state = sys.argv[2:], Path({state!r})
assert sys.argv[1] == "--here", sys.argv
wanted = {{"POSTGRES_PORT": None, "REDIS_PORT": "7000", "POSTGRES_PASSWORD": None, "PLATFORM_STATE_DIR": {home!r}}}
assert {{name: os.environ.get(name) for name in wanted}} == wanted, os.environ
if words[0] == "down":
    {down}
data = {{"state": state.read_text(), "services": [{{"urls": ["127.0.0.1:5432"]}}, {{"urls": ["http://h:9000/", "x"]}}]}}
print(json.dumps({{"data": data, "tier": "native"}}))
"""


@pytest.fixture
def context(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Context:
    """A run whose register of stacks is empty, with a setting of its own."""
    for name in ("XDG_STATE_HOME", "LOCALAPPDATA"):
        monkeypatch.setenv(name, str(tmp_path / "state"))
    monkeypatch.setenv("POSTGRES_PORT", "1")
    return context_of(tmp_path)


def checkout(root: Path, state: str, down: str = "state.write_text('stopped')") -> Path:
    """A checkout with a stack in a state, whose `down` does something; it is in the register."""
    for folder in ("infra/tasks", ".venv/bin", "home"):
        (root / folder).mkdir(parents=True)
    for name in ("tasks.py", "infra/tasks/command.py"):
        (root / name).touch()
    (root / ".venv" / "bin" / "python").symlink_to(sys.executable)
    (root / "state").write_text(state)
    stack = stack_at(root / "home")
    text = PROGRAM.format(state=str(root / "state"), down=down, home=str(stack.home))
    (root / "platform_launcher.py").write_text(text)
    given = settings_of(root, REDIS_PORT="7000", POSTGRES_PASSWORD="hidden")
    machine.register(type(stack)(f"{root.name}-1", stack.home), given, "compose", running=True)
    return root


def test_no_stack_is_said(context: Context) -> None:
    answer = stacks.listed(stacks._all())
    assert answer.data == []
    assert "invoke up" in answer.lines[0]


def test_each_stack_says_itself_how_it_is(context: Context, tmp_path: Path) -> None:
    checkout(tmp_path / "ä b", "ready")
    broken = checkout(tmp_path / "broken", "ready")
    (broken / "platform_launcher.py").write_text("raise SystemExit(3)")
    found = {f.name: f for f in stacks._all()}
    assert (found["ä b-1"].state, found["ä b-1"].tier, found["ä b-1"].ports) == ("ready", "native", (5432, 9000))
    assert (found["broken-1"].state, found["broken-1"].tier) == ("unknown", "compose")
    assert json.dumps([vars(f) for f in found.values()])


def test_all_are_stopped_and_one_that_cannot_be_keeps_no_other_from_it(context: Context, tmp_path: Path) -> None:
    good, stuck = checkout(tmp_path / "good", "degraded"), checkout(tmp_path / "stuck", "ready", "sys.exit(7)")
    with pytest.raises(PlatformError, match="still running: stuck-1") as caught:
        stacks.stop_all(context)
    assert caught.value.steps == (f"in {stuck}: invoke down",)
    assert (good / "state").read_text() == "stopped"
    (stuck / "state").write_text("stopped")
    assert stacks.stop_all(context).lines == ("nothing was running",)


TWO_TIERS = "state.write_text('stopped' if state.read_text() == 'degraded' else 'degraded')"


def test_a_stack_on_two_tiers_is_stopped_on_both(context: Context, tmp_path: Path) -> None:
    root = checkout(tmp_path / "both", "ready", TWO_TIERS)
    assert stacks.stop_all(context).lines == ("stopped: both-1",)
    assert (root / "state").read_text() == "stopped"


def test_what_has_stopped_is_not_stopped_again(context: Context, tmp_path: Path) -> None:
    checkout(tmp_path / "one", "stopped", "raise SystemExit('asked')")
    root = checkout(tmp_path / "two", "failed")
    answer = stacks.stop_all(context)
    assert (answer.names, answer.data) == (("two-1",), {"stopped": ["two-1"]})
    assert (root / "state").read_text() == "stopped"


def test_no_secret_of_a_shell_is_noted(context: Context, tmp_path: Path) -> None:
    checkout(tmp_path / "one", "ready")
    texts = [path.read_text() for path in (tmp_path / "state").rglob("*.json")]
    assert len(texts) == 1
    assert "7000" in texts[0]
    assert "hidden" not in texts[0]
