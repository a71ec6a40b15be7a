"""Run inside a cluster, in a pod with the application's image, variables and files: does the contract hold?

`prod.smoke` gives this text to Python in that pod. Each question writes only what is its own and removes it again; one
line of JSON is printed for each: its name, whether it went well, and why not.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
import uuid
from collections.abc import Callable
from datetime import timedelta
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit, urlunsplit

if TYPE_CHECKING:
    from infra.training.contract import Contract, Storage

LIMIT = 10
"""Seconds for an answer."""
TRAINING_LIMIT = 300.0
"""Seconds for a training of one epoch, with the start of its pod."""
ME = f"smoke-{uuid.uuid4().hex[:12]}"
BACKEND, FRONTEND = "http://platform-backend:8000", "http://platform-frontend:8080"


def database(contract: Contract, variable: str) -> None:
    """Write rows into a temporary table, over TLS, into a server whose writes are durable."""
    from infra.training.contract import connect_database

    with connect_database(contract, LIMIT, variable) as connection:
        connection.execute("create temporary table smoke (n int)")
        connection.execute("insert into smoke select generate_series(1, 10)")
        row = connection.execute("select sum(n) from smoke").fetchone()
        assert row == (55,), f"the sum of 1 to 10 is {row}"
        tls = connection.execute("select ssl from pg_stat_ssl where pid = pg_backend_pid()").fetchone()
        assert tls == (True,), "the connection is not encrypted"
        for name in ("fsync", "full_page_writes", "data_checksums"):
            value = connection.execute("select current_setting(%s)", (name,)).fetchone()
            assert value == ("on",), f"{name} is {value}"


def wrong_password(contract: Contract) -> None:
    """Have a wrong password refused."""
    import psycopg

    from infra.database import connect

    parts = urlsplit(contract["DATABASE_URL"])
    login, _, address = parts.netloc.rpartition("@")
    wrong = f"{login.split(':')[0]}:{quote('not the password', safe='')}@{address}"
    why = "it was accepted"
    try:
        connect(urlunsplit(parts._replace(netloc=wrong)), name="smoke", timeout=LIMIT).close()
    except psycopg.OperationalError as error:
        why = str(error)
    assert "password authentication failed" in why, why


def redis(contract: Contract) -> None:
    """Set, read and delete a key that expires."""
    from infra.training.contract import connect_redis

    with connect_redis(contract, LIMIT) as client:
        client.set(ME, "값 ü", ex=60)
        assert client.get(ME) == "값 ü", "what was set is not what is read"
        client.delete(ME)
        assert client.get(ME) is None, "what was deleted is still there"


def storage(where: Storage, store: str) -> None:
    """Put, read and delete an object in each bucket; a request without a login is refused."""
    import requests

    from infra import catalog
    from infra.training.contract import connect_storage

    client = connect_storage(where, threads=1, patience=LIMIT)
    with contextlib.closing(client):
        for bucket in [where.prefix + b.name for b in catalog.BUCKETS if b.store == store]:
            at = {"Bucket": bucket, "Key": f"{ME}/a b+ü"}
            body = os.urandom(1000)
            client.put_object(**at, Body=body)
            try:
                assert client.get_object(**at)["Body"].read() == body, f"{bucket}: another object is read"
                refused = requests.get(f"{where.endpoint}/{bucket}/{quote(at['Key'])}", timeout=LIMIT).status_code
                assert refused in (401, 403), f"{bucket}: HTTP {refused} without a login"
            finally:
                client.delete_object(**at)


def temporal(contract: Contract) -> None:
    """Have a workflow of this pod's own worker run to its end."""
    assert asyncio.run(_workflow(contract)) == f"hello {ME}"


def program() -> tuple[type, Callable[..., Any]]:
    """Make the workflow and its activity; the SDK takes them from the top of a module alone, and so they look."""
    from temporalio import activity, workflow

    async def greet(name: str) -> str:
        return f"hello {name}"

    class Smoke:
        async def run(self, name: str) -> str:
            limit = timedelta(seconds=LIMIT)
            return str(await workflow.execute_activity("smoke-greet", name, schedule_to_close_timeout=limit))

    Smoke.__qualname__, Smoke.run.__qualname__ = "Smoke", "Smoke.run"
    workflow.run(Smoke.run)
    return workflow.defn(name="smoke", sandboxed=False)(Smoke), activity.defn(name="smoke-greet")(greet)


async def _workflow(contract: Contract) -> str:
    from temporalio.client import Client
    from temporalio.worker import UnsandboxedWorkflowRunner, Worker

    smoke, greet = program()
    client = await Client.connect(contract["TEMPORAL_HOST"], namespace=contract["TEMPORAL_NAMESPACE"])
    runner = UnsandboxedWorkflowRunner()
    async with Worker(client, task_queue=ME, workflows=[smoke], activities=[greet], workflow_runner=runner):
        limit = timedelta(seconds=6 * LIMIT)
        return str(await client.execute_workflow("smoke", ME, id=ME, task_queue=ME, execution_timeout=limit))


def mlflow(contract: Contract) -> None:
    """Log a metric in a run, read it, delete the run."""
    base = f"{contract['MLFLOW_TRACKING_URI']}/api/2.0/mlflow"
    known = _http("GET", f"{base}/experiments/get-by-name?experiment_name=smoke", good=(200, 404))
    if "experiment" not in known:
        known = {
            "experiment": {"experiment_id": _http("POST", f"{base}/experiments/create", name="smoke")["experiment_id"]}
        }
    number = known["experiment"]["experiment_id"]
    run = _http("POST", f"{base}/runs/create", experiment_id=number, run_name=ME)["run"]["info"]["run_id"]
    try:
        _http("POST", f"{base}/runs/log-metric", run_id=run, key="smoke", value=0.5, timestamp=1)
        found = _http("GET", f"{base}/runs/get?run_id={run}")["run"]["data"]["metrics"]
        assert [m["value"] for m in found] == [0.5], found
    finally:
        _http("POST", f"{base}/runs/delete", run_id=run)


def application() -> None:
    """Ask the backend for its dependencies, through the frontend, and the frontend for its page."""
    for base in (BACKEND, f"{FRONTEND}/api"):
        found = _http("GET", f"{base}/ready", good=(200, 503))
        lacking = [f"{name}: {state['reason']}" for name, state in found["dependencies"].items() if not state["ready"]]
        assert not lacking, "; ".join(lacking)
    import requests

    page = requests.get(f"{FRONTEND}/", timeout=LIMIT)
    assert page.status_code == 200, f"the page: HTTP {page.status_code}"
    assert "<html" in page.text, "the page is no page"


def training() -> None:
    """Have a training of one epoch run to its end, as a Job of its own."""
    import time

    name = _http("POST", f"{BACKEND}/trainings", good=(201,), epochs=1, experiment="smoke")["job"]
    end = time.monotonic() + TRAINING_LIMIT
    while time.monotonic() < end:
        found = _http("GET", f"{BACKEND}/trainings/{name}")
        if found["finished_at"]:
            assert found["state"] == "succeeded", f"{name}: {found['state']}: {found['error']}"
            return
        time.sleep(2)
    raise AssertionError(f"{name} is {found['state']} after {TRAINING_LIMIT:.0f} s")


def _http(method: str, url: str, good: tuple[int, ...] = (200,), **body: Any) -> Any:
    import requests

    answer = requests.request(method, url, json=body or None, timeout=LIMIT)
    assert answer.status_code in good, f"{method} {urlsplit(url).path}: HTTP {answer.status_code}: {answer.text[:200]}"
    return answer.json()


def questions(contract: Contract, with_training: bool) -> dict[str, Callable[[], None]]:
    """Return every question by its name."""
    found: dict[str, Callable[[], None]] = {
        "database platform": lambda: database(contract, "DATABASE_URL"),
        "database users": lambda: database(contract, "USER_DATABASE_URL"),
        "a wrong password": lambda: wrong_password(contract),
        "redis": lambda: redis(contract),
        "external storage": lambda: storage(contract.datasets, "minio-datasets"),
        "internal storage": lambda: storage(contract.results, "minio-results"),
        "temporal": lambda: temporal(contract),
        "application": application,
    }
    found |= {"mlflow": lambda: mlflow(contract)} if "mlflow" in contract.backends else {}
    return found | ({"training": training} if with_training else {})


def main() -> int:
    """Ask everything; 1 when something went wrong."""
    from apps.backend.ready import masked
    from infra.training.contract import read

    contract, wrong = read(), 0
    for name, ask in questions(contract, "--training" in sys.argv).items():
        why = ""
        try:
            ask()
        except Exception as error:  # whatever it is, it is the reason
            why = masked(f"{type(error).__name__}: {' '.join(str(error).split())}"[:500], contract.values)
        wrong += bool(why)
        sys.stdout.write(json.dumps({"check": name, "ok": not why, "why": why}) + "\n")
        sys.stdout.flush()
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
