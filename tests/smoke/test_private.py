"""A private stack on every tier: random logins while it runs, end to end, and back without loss."""

from __future__ import annotations

import os
from collections.abc import Iterator

import psycopg
import pytest
import requests
from psycopg import sql

from infra import catalog
from tests.smoke import logins
from tests.smoke.platform import PYTHON, Platform

LIMIT = 600.0


def contract(platform: Platform) -> dict[str, str]:
    """The contract as it is now."""
    found: dict[str, str] = platform.data("env")
    return found


OWN = ("POSTGRES_PASSWORD", "MINIO_ROOT_PASSWORD")
"""Passwords that the tests' stage has set: as the user's own they would never be changed."""


def renamed(contract: dict[str, str], password: str) -> None:
    """Change the password of PostgreSQL as a user does before he changes the setting."""
    with psycopg.connect(contract["DATABASE_URL"], autocommit=True) as link:
        user = sql.Identifier(link.info.user)
        link.execute(sql.SQL("alter role {} password {}").format(user, sql.Literal(password)))


@pytest.fixture
def documented(platform: Platform) -> Iterator[Platform]:
    """The platform with the documented passwords for the test, and with those of its stage again afterwards."""
    own = {name: os.environ[name] for name in OWN if name in os.environ}
    default = catalog.SETTINGS["POSTGRES_PASSWORD"].default
    renamed(contract(platform), default)
    with pytest.MonkeyPatch.context() as patch:
        for name in own:
            patch.delenv(name)
        done(platform, "up")
        yield platform
        done(platform, "up", "--no-private")
        renamed(contract(platform), own.get("POSTGRES_PASSWORD", default))
    done(platform, "up")


@pytest.fixture
def filled(documented: Platform) -> Iterator[Platform]:
    logins.fill(contract(documented))
    yield documented
    done(documented, "up", "--no-private")
    logins.forget(contract(documented))


def done(platform: Platform, *arguments: str) -> None:
    patient = ("--timeout", str(LIMIT)) if arguments[0] == "up" else ()  # a busy machine is no fault of the logins
    result = platform.invoke(*arguments, *patient, timeout=2 * LIMIT)
    assert result.returncode == 0, result.stderr


def test_a_private_stack_works_from_end_to_end(filled: Platform) -> None:
    public = contract(filled)
    done(filled, "up", "--private")
    hidden = contract(filled)
    names = ("DATABASE_URL", "REDIS_URL", "INTERNAL_STORAGE_SECRET_KEY", "EXTERNAL_STORAGE_SECRET_KEY")
    assert [name for name in names if hidden[name] == public[name]] == []
    logins.works(hidden)
    logins.refused(public, hidden)
    done(filled, "train.run", "--command", f"{PYTHON} -c pass")
    done(filled, "doctor")
    done(filled, "secrets.rotate")
    rotated = contract(filled)
    assert rotated != hidden
    logins.works(rotated)
    logins.refused(hidden, rotated)
    done(filled, "train.run", "--command", f"{PYTHON} -c pass")
    done(filled, "up", "--no-private")
    assert contract(filled) == public
    logins.works(public)


@pytest.mark.needs("mlflow-login")
def test_mlflow_wants_the_login_of_the_contract(filled: Platform) -> None:
    if not filled.service("mlflow"):
        pytest.skip("MLflow does not run")

    def status(contract: dict[str, str]) -> int:
        login = (contract.get("MLFLOW_TRACKING_USERNAME", ""), contract.get("MLFLOW_TRACKING_PASSWORD", ""))
        url = f"{contract['MLFLOW_TRACKING_URI']}/api/2.0/mlflow/experiments/search?max_results=1"
        return requests.get(url, auth=login if login[1] else None, timeout=60).status_code

    public = contract(filled)
    done(filled, "up", "--private")
    hidden = contract(filled)
    assert (status(public), status(hidden)) == (401, 200)
    tracked = filled.data("train.run", "--epochs", "1", timeout=LIMIT)
    assert tracked["tracking"]["mlflow"]["state"] == "ok"
    done(filled, "secrets.rotate", "-s", "mlflow")
    rotated = contract(filled)
    assert (status(hidden), status(rotated)) == (401, 200)
    done(filled, "obs.check")
