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
from tests.unit.helpers import context_of, stack_at

PROGRAM = """
import json, os, sys
from pathlib import Path
words, state = sys.argv[2:], Path({state!r})
assert sys.argv[1] == "--here" and "POSTGRES_PORT" not in os.environ, (sys.argv, dict(os.environ))
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
    (root / "platform_launcher.py").write_text(PROGRAM.format(state=str(root / "state"), down=down))
    stack = stack_at(root / "home")
    machine.register(type(stack)(f"{root.name}-1", stack.home), root, "compose", running=True)
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
