"""The state of a server that makes tasks fail later: each is named with the step that helps."""

from __future__ import annotations

from dataclasses import replace

import pytest

from infra import health, postgres_checks
from infra.postgres_checks import HELD, OLD, Facts

WELL = Facts(frozenset({*health.needed_databases(), "mine"}), taken=10, most=97, oldest=("users", OLD - 1))


def test_a_server_that_is_well_is_not_spoken_of() -> None:
    assert postgres_checks.findings(WELL) == []
    assert postgres_checks.findings(replace(WELL, slots=(("reader", "users", HELD - 1),), taken=77)) == []


@pytest.mark.parametrize(
    ("facts", "name", "words", "remedy"),
    [
        (replace(WELL, databases=frozenset({"platform"})), "databases", "postgres, ", "invoke db.init"),
        (replace(WELL, left_over=("users_new_1", "a\x1b[2J")), "scratch-databases", "users_new_1", "drop database"),
        (replace(WELL, slots=(("reader", "users", HELD),)), "replication-slots", "reader holds 1", "slot('reader')"),
        (replace(WELL, oldest=("users", OLD)), "transaction-age", "1,000,000,000", "vacuum (freeze)"),
        (replace(WELL, taken=78), "connections", "78 of 97", "POSTGRES_MAX_CONNECTIONS"),
    ],
)
def test_what_makes_tasks_fail_is_named_with_the_step(facts: Facts, name: str, words: str, remedy: str) -> None:
    (found,) = postgres_checks.findings(facts)
    assert found.id == name
    assert words in found.text
    assert remedy in found.remedy
    assert "\x1b" not in found.text
