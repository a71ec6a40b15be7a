"""Which values a sweep tries, how they come into the command, and what is best."""

from __future__ import annotations

import math

import pytest

from infra.errors import PlatformError
from infra.training import sweep
from infra.training.sweep import Goal, Trial


def test_a_grid_is_every_combination() -> None:
    found = sweep.grid(["lr=0.1, 0.01", "net=a,b"])
    assert found == [
        {"lr": "0.1", "net": "a"},
        {"lr": "0.1", "net": "b"},
        {"lr": "0.01", "net": "a"},
        {"lr": "0.01", "net": "b"},
    ]


def test_random_values_are_in_their_ranges_and_repeat_with_their_seed() -> None:
    entries = ["lr=log:0.0001..0.1", "units=int:16..18", "drop=0..0.5", "net=a,b"]
    found = sweep.drawn(entries, 200, seed=7)
    assert found == sweep.drawn(entries, 200, seed=7)
    assert found != sweep.drawn(entries, 200, seed=8)
    rates = [float(point["lr"]) for point in found]
    assert all(0.0001 <= rate <= 0.1 for rate in rates)
    assert 60 < sum(rate < math.sqrt(0.0001 * 0.1) for rate in rates) < 140, "as many below the geometric mean as above"
    assert {point["units"] for point in found} == {"16", "17", "18"}
    assert all(0 <= float(point["drop"]) <= 0.5 for point in found)
    assert {point["net"] for point in found} == {"a", "b"}


def test_a_value_never_becomes_several_words_and_other_braces_stay() -> None:
    words = ["python", "train.py", "--lr={lr}", '{"x": {lr}}', "{other}"]
    assert sweep.applied(words, {"lr": "1 2"}) == ["python", "train.py", "--lr=1 2", '{"x": 1 2}', "{other}"]
    assert sweep.applied(["{a}", "{b}"], {"a": "{b}", "b": "x"}) == ["{b}", "x"], "a value is not looked into"


@pytest.mark.parametrize(
    "entries", [["lr"], ["=1"], ["lr="], ["lr=1,,2"], ["lr=1", "lr=2"], ["a b=1"], [f"n={','.join('0' * 501)}"]]
)
def test_a_grid_that_is_none(entries: list[str]) -> None:
    with pytest.raises(PlatformError) as caught:
        sweep.grid(entries)
    assert caught.value.code == "USAGE"


@pytest.mark.parametrize(
    ("entry", "count"),
    [
        ("lr=2..1", 1),
        ("lr=log:0..1", 1),
        ("lr=a..1", 1),
        ("lr=nan..1", 1),
        ("lr=1..inf", 1),
        ("lr=0..1", 0),
        ("lr=0..1", 501),
    ],
)
def test_a_range_that_is_none(entry: str, count: int) -> None:
    with pytest.raises(PlatformError) as caught:
        sweep.drawn([entry], count, 0)
    assert caught.value.code == "USAGE"


def test_a_parameter_that_the_command_does_not_have() -> None:
    with pytest.raises(PlatformError, match=r"no \{lr\}"):
        sweep.applied(["python", "train.py"], {"lr": "1"})


@pytest.mark.parametrize(
    ("metric", "wanted", "least"),
    [
        ("val_loss", "", True),
        ("val_accuracy", "", False),
        ("error", "", True),
        ("loss", "max", False),
        ("map", "min", True),
    ],
)
def test_what_is_best(metric: str, wanted: str, least: bool) -> None:
    assert sweep.goal(metric, wanted) == Goal(metric, least)


def test_an_unknown_goal() -> None:
    with pytest.raises(PlatformError, match="neither min nor max"):
        sweep.goal("loss", "least")


@pytest.mark.parametrize(("least", "order"), [(True, "cbadef"), (False, "abcdef")])
def test_the_best_come_first_and_those_without_a_number_last(least: bool, order: str) -> None:
    values = {"a": 3.0, "b": 2.0, "c": -1.0, "d": None, "e": math.nan, "f": None}
    trials = [Trial(job, {}, "succeeded", value) for job, value in values.items()]
    assert "".join(trial.job for trial in sweep.ranked(trials, Goal("loss", least))) == order
