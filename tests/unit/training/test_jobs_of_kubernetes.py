"""A training as a Kubernetes Job, against an API server of our own: made, found again, followed, taken away."""

from __future__ import annotations

import dataclasses
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from temporalio.activity import ActivityCancellationDetails
from temporalio.exceptions import ApplicationError, CancelledError
from temporalio.testing import ActivityEnvironment

from infra import catalog
from infra.errors import PlatformError
from infra.training import job_runner, orders, temporal_client
from infra.training.cluster import Away, JobCluster, Refused
from infra.training.contract import Contract
from infra.training.job_activities import JobActivities
from infra.training.job_manifest import ATTEMPT, KEPT, Shape
from infra.training.job_runner import JobLog, JobRunner
from infra.training.job_variables import JobVariables
from infra.training.job_verdict import SUCCEEDED, JobVerdict
from infra.training.orders import VALID, Orders
from infra.training.request import JOB, Request
from tests.unit.helpers import eventually
from tests.unit.training.api_server import State, serving

ORDERS = Orders(b"k" * 32)
BUILT_IN = ORDERS.place(Request("digits-1", epochs=3, dataset="digits/v1", runner=JOB), {})
FORBIDDEN = ORDERS.place(Request("forbidden", epochs=1, runner=JOB), {})
NAME = "training-digits-1"
Api = tuple[State, JobCluster]


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> Iterator[Api]:
    monkeypatch.setattr(job_runner, "POLL", 0.02)
    monkeypatch.setattr(job_runner, "BEAT", 0.01)
    monkeypatch.setattr(job_runner, "REFUSAL_PATIENCE", 0.05)
    with serving() as found:
        yield found


def runner(api: Api, request: Request = BUILT_IN, beat: Any = lambda: None) -> JobRunner:
    return JobRunner(api[1], Shape(), request, beat)


def activities(api: Api, logs: Path) -> JobActivities:
    nowhere = Contract(dict.fromkeys(catalog.CONTRACT_NAMES, "redis://127.0.0.1:1/0"))
    return JobActivities(nowhere, logs, ORDERS, api[1], Shape())


def temporal(job: str = "digits-1") -> ActivityEnvironment:
    """Temporal's side of an activity in the workflow of a training."""
    found = ActivityEnvironment()
    found.info = dataclasses.replace(found.info, workflow_id=f"training-{job}")
    return found


def following(environment: ActivityEnvironment, work: JobActivities) -> tuple[threading.Thread, list[Any]]:
    """The activity in a thread; how it ended is put into the list."""
    outcome: list[Any] = []

    def run() -> None:
        try:
            outcome.append(environment.run(work.run, BUILT_IN))
        except BaseException as error:
            outcome.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    return thread, outcome


def test_a_job_that_is_not_there_is_made_once(api: Api) -> None:
    made = runner(api)
    assert made.adopted() is None
    made.create(3)
    made.create(4)
    assert made.adopted() == 3
    assert list(api[0].jobs) == [NAME]


def test_the_program_of_a_job_gets_further_variables(api: Api) -> None:
    runner(api).create(3, {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1"})
    (container,) = api[0].jobs[NAME]["spec"]["template"]["spec"]["containers"]
    assert {"name": "MLFLOW_HTTP_REQUEST_MAX_RETRIES", "value": "1"} in container["env"]


def test_a_job_that_is_just_being_deleted_is_waited_for(api: Api) -> None:
    state, _ = api
    state.jobs[NAME] = {"metadata": {"name": NAME, "deletionTimestamp": "2026-11-25T12:00:00Z"}}
    beats = []

    def beat() -> None:
        beats.append(1)
        if len(beats) == 3:
            del state.jobs[NAME]

    assert runner(api, beat=beat).adopted() is None


def test_each_line_of_the_pods_is_told_once(api: Api, tmp_path: Path) -> None:
    state, cluster = api
    made = runner(api)
    made.create(0)
    state.pod("a", phase="Running")
    state.logs["a"] = ["2026-11-25T12:00:00.1Z one", "2026-11-25T12:00:00.25Z two"]
    log = JobLog(tmp_path / "x.log")
    assert log.news(cluster, state.pods) == ["one", "two"]
    state.logs["a"] += ["2026-11-25T12:00:00.250000001Z three", "2026-11-25T12:00:07Z "]
    assert log.news(cluster, state.pods) == ["three", ""]
    assert JobLog(tmp_path / "x.log").news(cluster, state.pods) == [], "another worker goes on where this one stopped"
    assert (tmp_path / "x.log").read_text() == "one\ntwo\nthree\n\n"


def test_two_tries_at_once_write_each_line_once(api: Api, tmp_path: Path) -> None:
    state, cluster = api
    state.pod("a", phase="Running")
    logs = [JobLog(tmp_path / "x.log"), JobLog(tmp_path / "x.log")]
    state.logs["a"] = ["2026-11-25T12:00:00.1Z one"]
    assert [log.news(cluster, state.pods) for log in logs] == [["one"], []]
    assert (tmp_path / "x.log").read_text() == "one\n"


def test_it_is_followed_to_its_end_with_what_it_waits_for(api: Api, tmp_path: Path) -> None:
    state, _ = api
    made = runner(api)
    made.create(0)
    notes: list[str] = []
    lines: list[str] = []

    def noted(found: JobVerdict) -> bool:
        notes.append(found.note)
        if len(notes) == 1:
            return False
        steps = {"waiting for its pod": pending, "waiting for a node: 0/1 nodes are available": finished}
        steps[found.note]()
        return True

    def pending() -> None:
        message = {"type": "PodScheduled", "status": "False", "message": "0/1 nodes are available"}
        state.pod("a", phase="Pending", conditions=[message])

    def finished() -> None:
        state.pod("a", phase="Succeeded")
        state.logs["a"] = ["2026-11-25T12:00:00Z done"]
        state.end(NAME)

    assert made.follow(JobLog(tmp_path / "x.log"), lines.append, noted).state == SUCCEEDED
    assert notes[:2] == ["waiting for its pod"] * 2, "what could not be told is told again"
    assert (notes[2:], lines) == (["waiting for a node: 0/1 nodes are available"], ["done"])


def test_an_api_server_that_is_away_is_waited_for(api: Api, tmp_path: Path) -> None:
    state, _ = api
    made = runner(api)
    made.create(0)
    state.end(NAME)
    state.broken = 503
    beats = []

    def beat() -> None:
        beats.append(1)
        state.broken = 0 if len(beats) > 5 else 503

    assert runner(api, beat=beat).follow(JobLog(tmp_path / "x.log"), print, bool).state == SUCCEEDED
    assert len(beats) > 5, "it shows that it lives meanwhile"


def test_an_api_server_that_does_not_know_our_rights_yet_is_waited_for(
    api: Api, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job_runner, "REFUSAL_PATIENCE", 60)
    state, _ = api
    runner(api).create(0)
    state.end(NAME)
    state.broken = 403
    beats = []

    def beat() -> None:
        beats.append(1)
        state.broken = 0 if len(beats) > 5 else 403

    assert runner(api, beat=beat).follow(JobLog(tmp_path / "x.log"), print, bool).state == SUCCEEDED


def test_an_api_server_that_stays_away_is_given_up(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job_runner, "PATIENCE", 0.1)
    api[0].broken = 503
    with pytest.raises(Away, match="503: etcdserver: leader changed"):
        runner(api).adopted()


def test_removal_leaves_nothing(api: Api) -> None:
    made = runner(api)
    made.create(0)
    api[0].pod("a", phase="Running")
    assert made.remove() is True
    assert (api[0].jobs, api[0].pods) == ({}, [])
    assert ("DELETE", f"/apis/batch/v1/namespaces/training/jobs/{NAME}?propagationPolicy=Background") in api[0].asked


def test_a_pod_that_does_not_end_is_said(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job_runner, "REMOVAL", 0.1)
    api[0].pod("a", phase="Running")
    assert runner(api).remove() is False


def test_the_token_is_sent(api: Api) -> None:
    runner(api).adopted()
    assert api[0].tokens == {"Bearer a-token"}


def test_the_activity_makes_the_job_and_ends_with_it(api: Api, tmp_path: Path) -> None:
    thread, outcome = following(temporal(), activities(api, tmp_path))
    eventually(lambda: NAME in api[0].jobs)
    assert api[0].jobs[NAME]["metadata"]["annotations"][ATTEMPT] == "0"
    api[0].end(NAME)
    thread.join(20)
    assert outcome == [None]
    assert f"Job {NAME}" in (tmp_path / "digits-1.log").read_text()


def test_another_worker_takes_the_same_job_over(api: Api, tmp_path: Path) -> None:
    runner(api).create(0)
    thread, outcome = following(temporal(), activities(api, tmp_path))
    eventually(lambda: ("GET", f"/api/v1/namespaces/training/pods?labelSelector=job-name%3D{NAME}") in api[0].asked)
    api[0].end(NAME)
    thread.join(20)
    assert outcome == [None]
    assert [ask for ask in api[0].asked if ask[0] == "POST"][1:] == []


def test_a_failed_job_is_a_failed_training_with_its_last_lines(api: Api, tmp_path: Path) -> None:
    runner(api).create(0)
    ended = {"exitCode": 3, "reason": "Error"}
    api[0].pod("a", phase="Failed", containerStatuses=[{"state": {"terminated": ended}}])
    api[0].logs["a"] = ["2026-11-25T12:00:00Z first", "2026-11-25T12:00:01Z cannot read the images"]
    with pytest.raises(ApplicationError, match="exit status 3") as caught:
        temporal().run(activities(api, tmp_path).run, BUILT_IN)
    assert caught.value.non_retryable
    assert caught.value.details[0] == ["first", "cannot read the images"]


@pytest.mark.parametrize(("queue", "left"), [("team", set()), ("", {NAME})])
def test_one_without_hope_gives_its_quota_back(api: Api, tmp_path: Path, queue: str, left: set[str]) -> None:
    request = ORDERS.place(Request("digits-1", epochs=3, dataset="digits/v1", runner=JOB, queue=queue), {})
    runner(api, request).create(0)
    api[0].pod("a", phase="Pending", containerStatuses=[{"state": {"waiting": {"reason": "InvalidImageName"}}}])
    with pytest.raises(ApplicationError, match="InvalidImageName"):
        temporal().run(activities(api, tmp_path).run, request)
    assert set(api[0].jobs) == left


def test_a_cancellation_takes_the_job_away(api: Api, tmp_path: Path) -> None:
    environment = temporal()
    thread, outcome = following(environment, activities(api, tmp_path))
    eventually(lambda: NAME in api[0].jobs)
    environment.cancel()
    thread.join(20)
    assert isinstance(outcome[0], CancelledError)
    assert api[0].jobs == {}


@pytest.mark.parametrize(
    ("details", "status", "there"),
    [
        (ActivityCancellationDetails(timed_out=True), "RUNNING", True),
        (ActivityCancellationDetails(not_found=True), "RUNNING", True),
        (ActivityCancellationDetails(not_found=True), "TERMINATED", False),
    ],
)
def test_a_try_that_was_taken_for_lost_leaves_the_job_to_the_next(
    api: Api,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    details: ActivityCancellationDetails,
    status: str,
    there: bool,
) -> None:
    monkeypatch.setattr(temporal_client, "status", lambda contract, job: status)
    environment = temporal()
    thread, _ = following(environment, activities(api, tmp_path))
    eventually(lambda: NAME in api[0].jobs)
    environment.cancel(details)
    thread.join(20)
    assert not thread.is_alive()
    assert (NAME in api[0].jobs) is there


def test_a_worker_that_ends_leaves_the_job_running(api: Api, tmp_path: Path) -> None:
    environment = temporal()
    thread, outcome = following(environment, activities(api, tmp_path))
    eventually(lambda: NAME in api[0].jobs)
    environment.worker_shutdown()
    thread.join(20)
    assert isinstance(outcome[0], ApplicationError)
    assert not outcome[0].non_retryable
    assert NAME in api[0].jobs


def test_a_job_that_somebody_deletes_is_made_again_by_the_next_try(api: Api, tmp_path: Path) -> None:
    thread, outcome = following(temporal(), activities(api, tmp_path))
    eventually(lambda: NAME in api[0].jobs)
    del api[0].jobs[NAME]
    thread.join(20)
    assert isinstance(outcome[0], ApplicationError)
    assert (outcome[0].non_retryable, "was deleted" in outcome[0].message) == (False, True)


def test_missing_rights_are_a_clear_reason(api: Api, tmp_path: Path) -> None:
    with pytest.raises(ApplicationError, match=r"Kubernetes refused: jobs\.batch is forbidden") as caught:
        temporal("forbidden").run(activities(api, tmp_path).run, FORBIDDEN)
    assert caught.value.non_retryable


def test_refusals_carry_their_status(api: Api) -> None:
    with pytest.raises(Refused) as caught:
        runner(api, Request("forbidden", runner=JOB)).create(0)
    assert caught.value.status == 403


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"signature": ""}, "not signed"),
        ({"image": "evil/image:1"}, "signature is wrong"),
        ({"command": ["sh", "-c", "evil"]}, "signature is wrong"),
        ({"issued": 2_000_000_000}, "signature is wrong"),
        ({"gpus": 8}, "signature is wrong"),
    ],
)
def test_what_was_not_ordered_makes_no_job(api: Api, tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ApplicationError, match=words) as caught:
        temporal().run(activities(api, tmp_path).run, dataclasses.replace(BUILT_IN, **changes))
    assert caught.value.non_retryable
    assert api[0].jobs == {}


def test_an_old_order_makes_no_job_since_its_job_may_have_been_cleared_away(api: Api, tmp_path: Path) -> None:
    old = ORDERS.place(Request("digits-1", epochs=3, runner=JOB), {}, now=time.time() - VALID - 86_400)
    with pytest.raises(ApplicationError, match="8 days ago"):
        temporal().run(activities(api, tmp_path).run, old)
    assert api[0].jobs == {}
    assert VALID < KEPT, "a Job must outlive the time in which its order may begin"


def test_an_old_order_whose_job_is_there_is_followed_to_its_end(api: Api, tmp_path: Path) -> None:
    old = ORDERS.place(Request("digits-1", epochs=3, runner=JOB), {}, now=time.time() - VALID - 86_400)
    runner(api, old).create(0)
    api[0].end(NAME)
    temporal().run(activities(api, tmp_path).run, old)


def test_a_worker_outside_checks_orders_by_the_key_of_the_cluster(api: Api, tmp_path: Path) -> None:
    state, cluster = api
    nowhere = Contract(dict.fromkeys(catalog.CONTRACT_NAMES, "redis://127.0.0.1:1/0"))
    outside = JobActivities(nowhere, tmp_path, None, cluster, Shape())
    with pytest.raises(ApplicationError, match="no key") as caught:
        temporal().run(outside.run, BUILT_IN)
    assert not caught.value.non_retryable, "it may be made yet"
    state.keep("platform", "platform-signing", TRAINING_KEY=ORDERS.key)
    with pytest.raises(ApplicationError, match="signature is wrong"):
        temporal().run(outside.run, dataclasses.replace(BUILT_IN, epochs=4))
    runner(api).create(0)
    state.end(NAME)
    temporal().run(outside.run, BUILT_IN)


def test_the_key_of_the_application_signs_what_becomes_a_job(api: Api) -> None:
    state, cluster = api
    with pytest.raises(PlatformError) as caught:
        orders.of_cluster(cluster, "platform-signing", "platform")
    assert (caught.value.code, caught.value.steps) == ("TIER_UNAVAILABLE", ("invoke kind.up --apps",))
    state.keep("platform", "platform-signing", TRAINING_KEY=b"k" * 64 + b"\n")
    found = orders.of_cluster(cluster, "platform-signing", "platform")
    assert (found.key, found.variable) == (b"k" * 64, {"TRAINING_KEY": "k" * 64})


def kept(api: Api, request: Request = BUILT_IN) -> Request:
    """An order with a variable, whose Secret and Job are there."""
    mine = Orders(ORDERS.key, variables=JobVariables(api[1], "platform-env"))
    placed = mine.place(request, {"A": "1"})
    runner(api, placed).create(0)
    return placed


def test_what_a_lost_worker_left_is_removed_at_the_end(api: Api, tmp_path: Path) -> None:
    placed = kept(api)
    api[0].pod("a", phase="Running")
    temporal().run(activities(api, tmp_path).tidy, placed)
    assert (api[0].jobs, api[0].pods, api[0].secrets) == ({}, [], {})
    temporal().run(activities(api, tmp_path).tidy, placed)


@pytest.mark.parametrize("end", ["Complete", "Failed"])
def test_a_job_that_has_ended_stays_with_its_logs_and_loses_its_variables(api: Api, tmp_path: Path, end: str) -> None:
    placed = kept(api)
    api[0].end(NAME, end)
    temporal().run(activities(api, tmp_path).tidy, placed)
    assert (list(api[0].jobs), api[0].secrets) == ([NAME], {})


def test_nobody_removes_a_job_by_an_order_that_is_not_ours(api: Api, tmp_path: Path) -> None:
    placed = kept(api)
    with pytest.raises(ApplicationError, match="signature is wrong"):
        temporal().run(activities(api, tmp_path).tidy, dataclasses.replace(placed, epochs=4))
    assert list(api[0].jobs) == [NAME]


@pytest.mark.parametrize(("status", "final"), [(503, False), (403, True)])
def test_what_cannot_be_removed_now_is_tried_again(api: Api, tmp_path: Path, status: int, final: bool) -> None:
    placed = kept(api)
    api[0].broken = status
    with pytest.raises(ApplicationError) as caught:
        temporal().run(activities(api, tmp_path).tidy, placed)
    assert caught.value.non_retryable is final
