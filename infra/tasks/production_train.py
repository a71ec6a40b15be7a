"""Trainings of production: ordered from its application, as its people do, and watched from here."""

from __future__ import annotations

import contextlib
import functools
import json
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from infra.console import Answer, Table
from infra.context import Context
from infra.errors import PlatformError
from infra.tasks import production_site, train_output, train_watch
from infra.training.described import described

if TYPE_CHECKING:
    from infra.prod.connect import Forward
    from infra.training.contract import Contract

LIMIT = 30.0
"""Seconds for an answer of the application."""
CANCEL_BUDGET = 120.0
"""Seconds for a training to stop and clean up."""
HERE_ONLY = (*("env", "env_file", "command", "as_", "image", "gpus", "workers", "queue", "priority", "or_cpu"),)
"""Options of train.run that the application of a site does not take."""


def run(context: Context, epochs: int = 15, experiment: str = "", detach: bool = False, **others: Any) -> Answer:
    """Have the application of the site start its training.

    Raises:
        PlatformError: USAGE for what only other tiers can do; NOT_FOUND, UNREACHABLE, SERVICE_FAILED.
    """
    given = [name.rstrip("_") for name in HERE_ONLY if others.get(name) not in (None, "", 0, 1, False, [])]
    if given:
        why = "programs of this machine are not there; the application starts the training that it is made for"
        steps = ("omit it", "or start yours from the application's own code")
        what = f"--{given[0].replace('_', '-')} does not work with production"
        raise PlatformError("USAGE", what, why=why, steps=steps)
    wanted = {"epochs": epochs, **({"experiment": experiment} if experiment else {})}
    with _application(context) as base:
        job = str(_asked(base, wanted)["job"])
    context.console.say(f"job {job}")
    if detach:
        lines = (job, f"next: invoke train.attach {job} --tier production")
        return Answer({"job": job, "state": "queued"}, lines=lines, names=(job,))
    return attach(context, job)


@contextlib.contextmanager
def _application(context: Context) -> Iterator[str]:
    """Open a forward to the application's server for the block; its address."""
    from infra.prod import connect
    from infra.prod.connect import ServicePort

    cluster = production_site.cluster_of(context)
    wanted = connect.targets(cluster, (), (ServicePort("platform", "platform-backend", 8000),))
    if not wanted:
        steps = ("invoke prod.status SITE",)
        raise PlatformError("NOT_FOUND", "the application is not deployed on this site", steps=steps)
    with connect.opened(cluster, wanted) as forwards:
        yield _address(forwards[0])


def _address(forward: Forward) -> str:
    return f"http://127.0.0.1:{forward.local}"


def _asked(base: str, wanted: dict[str, Any]) -> Any:
    """Start a training. Raises PlatformError SERVICE_FAILED with what the application says."""
    import requests

    try:
        answer = requests.post(f"{base}/trainings", json=wanted, timeout=LIMIT)
        said = answer.json()
    except (requests.RequestException, json.JSONDecodeError) as error:
        why = " ".join(str(error).split())[:200]
        raise PlatformError("SERVICE_FAILED", "the application did not start the training", why=why) from error
    if answer.status_code != 201:
        told = said.get("error") or {}
        why = str(told.get("message") or said)[:300]
        raise PlatformError("SERVICE_FAILED", "the application did not start the training", why=why)
    return said


def attach(context: Context, job: str) -> Answer:
    """Follow a training of the site until it has ended."""
    from infra.training import client

    with production_site.contract(context) as contract:
        found = client.find(contract, job)
        with train_watch.left_running(found.id):
            train_watch.shown(context.console, contract, found.id, _output(context, found.id))
        return _outcome(contract, found.id)


def _output(context: Context, job: str, rank: int = 0) -> train_watch.TrainingOutput:
    from infra.prod.jobs import SiteJobs
    from infra.training import runners

    pods = functools.partial(runners.log_of_pods, SiteJobs(production_site.cluster_of(context)), job, rank)
    return train_watch.TrainingOutput(train_watch.log_path(context, job, rank), pods, from_start=True)


def _outcome(contract: Contract, name: str) -> Answer:
    """Return the answer about a training that has ended. Raises PlatformError TASK_FAILED."""
    from infra.training import client

    job = client.find(contract, name)
    if job.state != "succeeded":
        raise train_watch.failure(job, f"its log: invoke train.logs {job.id} --tier production")
    after = ("", f"next: invoke train.show {job.id} --tier production")
    return Answer(described(job), Table(("", ""), tuple(train_watch.rows(job)), keep=(1,)), after, names=(job.id,))


def cancel(context: Context, job: str) -> Answer:
    """Cancel a training of the site and wait until it has stopped. Raises PlatformError WAIT_TIMEOUT."""
    from infra.training import client

    with production_site.contract(context) as contract:
        found = client.find(contract, job)
        if found.final:
            what = f"{found.id} has already {train_watch.ended(found.state)}: nothing to cancel"
            return Answer(described(found), lines=(what,))
        client.cancel(contract, found.id)
        end = time.monotonic() + CANCEL_BUDGET
        for _ in client.follow(contract, found.id):
            if time.monotonic() > end:
                steps = (f"invoke train.show {found.id} --tier production",)
                what = f"{found.id} has not stopped within {CANCEL_BUDGET:.0f} s"
                raise PlatformError("WAIT_TIMEOUT", what, steps=steps)
        found = client.find(contract, found.id)
    return Answer(described(found), lines=(f"{found.id} has {train_watch.ended(found.state)}",), names=(found.id,))


def logs(context: Context, job: str, follow: bool = False, tail: int = 0, rank: int = 0) -> Answer | None:
    """Print what the pods of a training have printed, while they are there."""
    with production_site.contract(context) as contract:
        return train_output.printed(
            context, contract, job, functools.partial(_output, context, rank=rank), follow, tail, rank
        )
