"""`kind.up` on a tier that does nothing: it says what `up` says, and what comes with --apps is interrupted alike."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import invoke
import pytest

from infra import health, proof, settings, tier_choice
from infra.probes import Finding
from infra.supervision import age
from infra.tasks import helm_upgrade, kind
from tests.unit.tasks.test_verbs import COMMON
from tests.unit.test_lifecycle import FakeTier


@pytest.fixture
def tier(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeTier:
    """The kind tier, played, on an empty checkout; everything that runs answers."""
    made, real = FakeTier("kind"), settings.load
    monkeypatch.setattr(settings, "load", lambda root=tmp_path, **more: real(root=root, **more))
    monkeypatch.setattr(tier_choice, "tier_of", lambda name, context: made.of(context))
    monkeypatch.setattr(proof, "psql", lambda settings: Path("/x/psql"))
    monkeypatch.setattr(health, "ask", lambda questions, limit=5.0: {name: Finding(True) for name in questions})
    return made


def up(**options: Any) -> int:
    """Run `kind.up` as Invoke does; its exit code."""
    given: dict[str, Any] = {str(a.name): a.default for a in kind.up.get_arguments()}
    common = {name: value for name, value in COMMON.items() if name in given}
    try:
        kind.up.body(invoke.Context(), **{**given, "service": [], **common, **options})
    except invoke.Exit as end:
        return end.code
    return 0


def interrupted(*_: object) -> None:
    raise KeyboardInterrupt


def test_what_an_earlier_version_of_the_checkout_started_is_named(
    tier: FakeTier, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(age, "outdated", lambda home, root: ["the training worker"])
    assert up() == 0
    assert "started by an earlier version of this checkout: the training worker" in capsys.readouterr().err


def test_interrupted_it_says_what_goes_on_and_how_to_stop_it(
    tier: FakeTier, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(type(tier), "start", interrupted)
    assert up(json=True) == 130
    error = json.loads(capsys.readouterr().out)["error"]
    assert "keep running" in error["message"]
    assert any("invoke down" in action["command"] for action in error["actions"])


def test_interrupted_while_the_applications_come_it_names_the_command_that_goes_on(
    tier: FakeTier, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(helm_upgrade, "roll_out", interrupted)
    monkeypatch.setattr(kind, "the_tier", lambda context: tier)
    assert up(json=True, apps=True) == 130
    actions = json.loads(capsys.readouterr().out)["error"]["actions"]
    assert any("invoke kind.up --apps goes on" in action["command"] for action in actions)
