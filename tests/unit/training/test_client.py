from __future__ import annotations

from datetime import UTC, datetime

import psycopg
import pytest

from infra import endpoints, settings
from infra.errors import PlatformError
from infra.training import client
from infra.training.contract import Contract
from infra.training.patience import Unavailable
from tests.unit.training.test_train_task import job as a_job

CONTRACT = Contract(endpoints.contract(endpoints.build(settings.load(environ={}), ())))
NOW = datetime(2026, 11, 23, 23, 59, tzinfo=UTC)


@pytest.mark.parametrize(
    ("experiment", "label"),
    [("digits", "digits"), ("My Nets / v2!", "my-nets-v2"), ("한글", "job"), ("x" * 90, "x" * 24), ("-a-", "a")],
)
def test_ids_are_short_and_readable(experiment: str, label: str) -> None:
    found = client.new_id(experiment, NOW)
    assert found.startswith(f"{label}-20261123-")
    assert len(found) == len(label) + 16


def test_ids_differ() -> None:
    assert len({client.new_id("digits", NOW) for _ in range(100)}) == 100


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("digits-20261123-1a2b3d", "did you mean digits-20261123-1a2b3c?"),
        ("1a2b3c", "did you mean digits-20261123-1a2b3c?"),
        ("nothing-like-it", None),
        ("", None),
    ],
)
def test_an_unknown_job_and_the_nearest_one(name: str, hint: str | None) -> None:
    error = client._unknown(name, ["digits-20261123-1a2b3c", "nets-20261101-ffffff"])
    assert (error.code, int(error.exit)) == ("NOT_FOUND", 9)
    assert error.steps[0] == (hint or "invoke train.list")


def test_servers_that_do_not_answer_are_named() -> None:
    with pytest.raises(PlatformError, match="Temporal does not answer") as caught, client.answering(CONTRACT):
        raise Unavailable("Temporal does not answer: refused")
    assert caught.value.code == "UNREACHABLE"


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ('FATAL:  password authentication failed for user "admin"', "LOGIN_REFUSED"),
        ('FATAL:  database "platform" does not exist', "NOT_FOUND"),
        ("connection refused", "UNREACHABLE"),
        ("FATAL:  sorry, too many clients already", "DATABASE_BUSY"),
    ],
)
def test_what_postgresql_refuses(text: str, code: str) -> None:
    with pytest.raises(PlatformError) as caught, client.answering(CONTRACT):
        raise psycopg.OperationalError(text)
    assert caught.value.code == code


def test_what_made_the_patience_end_is_told() -> None:
    with pytest.raises(PlatformError) as caught, client.answering(CONTRACT):
        raise Unavailable("PostgreSQL does not answer") from psycopg.errors.TooManyConnections("too many clients")
    assert (caught.value.code, caught.value.details["sqlstate"]) == ("DATABASE_BUSY", "53300")


def test_a_training_by_its_id_its_beginning_or_the_newest() -> None:
    recent = [a_job(id=name) for name in ("nets-20261124-aaaaaa", "digits-20261123-1a2b3c", "digits-20261123-1a2b3d")]
    assert [client.named(name, recent) for name in ("latest", "nets", "digits-20261123-1a2b3d")] == [
        recent[0],
        recent[0],
        recent[2],
    ]
    assert [client.named(name, []) for name in ("latest", "x", "")] == [None, None, None]
    assert client.named("", recent) is None
    with pytest.raises(PlatformError, match="2 trainings begin with digits") as caught:
        client.named("digits", recent)
    assert (caught.value.code, "digits-20261123-1a2b3c" in caught.value.why) == ("USAGE", True)
