"""One who reaches Temporal, the database or a store cannot make the worker run anything that the user did not order."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.types.json import Jsonb
from temporalio.client import Client, WorkflowFailureError

from tests.faults.conftest import Victim
from tests.faults.training.tools import Training, execute, start, until
from tests.smoke.platform import PYTHON

JOB = "evil-20261123-abcdef"


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    """The file that a program of the attacker's would leave."""
    return tmp_path / "the attacker was here"


def touching(trace: Path) -> list[str]:
    return [sys.executable, "-c", "import sys; open(sys.argv[1], 'a').write('ran\\n')", str(trace)]


def asked(platform: Victim, request: Mapping[str, Any], workflow_id: str = "") -> str:
    """What Temporal answers to somebody without any right who starts a training's workflow; '' for a success."""
    return asyncio.run(_asked(platform.contract, request, workflow_id or f"training-{request['job']}"))


async def _asked(contract: Mapping[str, str], request: Mapping[str, Any], workflow_id: str) -> str:
    client = await Client.connect(contract["TEMPORAL_HOST"], namespace=contract["TEMPORAL_NAMESPACE"])
    try:
        await client.execute_workflow("training", request, id=workflow_id, task_queue="training")
    except WorkflowFailureError as error:
        return "; ".join(reasons(error))
    return ""


def reasons(error: BaseException | None) -> Iterator[str]:
    while error is not None:
        yield str(error)
        error = error.__cause__


def captured(platform: Victim, job: str) -> dict[str, Any]:
    """The request of a training as Temporal gives it to everybody."""

    async def ask() -> dict[str, Any]:
        contract = platform.contract
        client = await Client.connect(contract["TEMPORAL_HOST"], namespace=contract["TEMPORAL_NAMESPACE"])
        history = await client.get_workflow_handle(f"training-{job}").fetch_history()
        payloads = history.events[0].workflow_execution_started_event_attributes.input
        found: dict[str, Any] = (await client.data_converter.decode(payloads.payloads))[0]
        return found

    return asyncio.run(ask())


def note(platform: Victim, job: str) -> None:
    """A row for a job, as everybody can write it who knows the login of the README."""
    execute(platform, "INSERT INTO experiments (name) VALUES ('evil') ON CONFLICT DO NOTHING")
    sql = "INSERT INTO jobs (id, experiment_id, command) SELECT %s, id, 'evil' FROM experiments WHERE name = 'evil'"
    execute(platform, sql, job)


def again(platform: Victim, job: str) -> None:
    """Set a job back, as everybody can who knows the login of the README."""
    execute(platform, "UPDATE jobs SET state = 'queued', attempt = 0, finished_at = NULL WHERE id = %s", job)


def worker_says(platform: Victim, words: str) -> None:
    log = platform.stack_home / "training" / "worker.log"
    until(lambda: words in log.read_text(encoding="utf-8"), f"the worker to say {words!r}")


@pytest.fixture(scope="module")
def worker(platform: Victim) -> Victim:
    """A platform with a worker."""
    platform.invoke("train.run", "--command", f"{PYTHON} -c pass", check=True)
    return platform


def test_what_nobody_has_signed_is_not_run(worker: Victim, trace: Path) -> None:
    note(worker, JOB)
    said = asked(worker, {"job": JOB, "command": touching(trace), "cwd": "/"})
    assert not trace.exists()
    assert "not signed" in said
    assert Training(worker, JOB).row().state == "failed"
    worker_says(worker, f"{JOB} refused")


def test_what_was_altered_is_not_run(worker: Victim, trace: Path) -> None:
    training = start(worker, "--command", f"{PYTHON} -c pass")
    training.until_final()
    request = captured(worker, training.id)
    again(worker, training.id)
    said = asked(worker, {**request, "command": touching(trace)})
    assert not trace.exists()
    assert "signature" in said


def test_a_name_of_another_job_is_an_alteration_too(worker: Victim, trace: Path) -> None:
    training = start(worker, "--command", f'"{touching(trace)[0]}" -c "{touching(trace)[2]}" "{trace}"')
    training.until_final()
    request = captured(worker, training.id)
    other = "other-20261123-abcdef"
    note(worker, other)
    assert "signature" in asked(worker, {**request, "job": other})
    assert trace.read_text() == "ran\n"


def test_what_has_run_already_is_not_run_again(worker: Victim, trace: Path) -> None:
    training = start(worker, "--command", f'"{touching(trace)[0]}" -c "{touching(trace)[2]}" "{trace}"')
    training.until_final()
    request = captured(worker, training.id)
    again(worker, training.id)
    assert "again" in asked(worker, request)
    assert "workflow" in asked(worker, request, "another-workflow")
    assert trace.read_text() == "ran\n"


def test_the_database_alone_decides_nothing(worker: Victim, trace: Path) -> None:
    blocker = start(worker, "--command", f'{PYTHON} -c "import time; time.sleep(5)"')
    training = start(worker, "--command", f"{PYTHON} -c pass")
    words = [*touching(trace)]
    with psycopg.connect(worker.contract["DATABASE_URL"], autocommit=True) as link:
        link.execute(
            "UPDATE jobs SET command = %s, config = jsonb_build_object('argv', %s::jsonb, 'cwd', '/') WHERE id = %s",
            (" ".join(words), Jsonb(words), training.id),
        )
    training.until_final()
    blocker.until_final()
    assert not trace.exists()


@pytest.mark.parametrize("job", ["../../evil", "a/b", "A", "x" * 200, "", "a\nb"])
def test_a_name_that_leads_elsewhere_is_not_followed(worker: Victim, trace: Path, job: str) -> None:
    before = sorted(p for p in worker.stack_home.rglob("*evil*"))
    assert "not signed" in asked(worker, {"job": job, "command": touching(trace), "cwd": "/"})
    assert not trace.exists()
    assert sorted(p for p in worker.stack_home.rglob("*evil*")) == before
