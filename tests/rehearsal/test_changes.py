"""Changes at work: those that are right interrupt nobody, those that are wrong leave the old version serving."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager

from infra.errors import ExitCode
from tests.rehearsal import application, images, postgresql
from tests.rehearsal.conftest import Table
from tests.rehearsal.ledger import Ledger
from tests.rehearsal.stage import Stage

FAILED = (int(ExitCode.SERVICE_FAILED), int(ExitCode.TIMEOUT))
SPACES = ("platform", "temporal", "training")
MLFLOW = "ghcr.io/mlflow/mlflow"


def _generations(stage: Stage) -> dict[str, int]:
    found = stage.cluster.get("deployments,statefulsets", "--all-namespaces")["items"]
    mine = [o for o in found if o["metadata"]["namespace"] in SPACES]
    return {o["metadata"]["name"]: int(o["status"]["observedGeneration"]) for o in mine}


def test_every_release_changes_and_nobody_notices(stage: Stage, table: Table) -> None:
    """A pull Secret is in the pods of every release: with another one all of them are made again."""
    name = f"registry-{len(_generations(stage)) + sum(_generations(stage).values())}"
    for space in SPACES:
        login = ("--docker-server=registry.invalid", "--docker-username=nobody", "--docker-password=nothing")
        stage.cluster.kubectl("create", "secret", "docker-registry", name, "-n", space, *login)
    postgresql.until_healthy(stage)
    before, base = _generations(stage), application.address(stage)
    jobs = [application.start_training(base)]
    with Ledger(postgresql.url(stage)) as ledger, application.under_load(base) as load:
        stage.say("images", {"pullSecret": name})
        stage.deploy()
        jobs.append(application.start_training(base))
        states = [application.ended(base, job) for job in jobs]
        postgresql.until_healthy(stage, seconds=300)
    after, lost = _generations(stage), ledger.lost()
    wrong = f"{len(load.failed)} of {load.done} requests failed, {states.count('succeeded')} of {len(jobs)} trainings"
    seen = f"{wrong} succeeded, {len(lost)} of {len(ledger.acknowledged)} writes lost"
    table.add("every release is changed", "no failed request, no lost write, trainings end", seen, ledger.longest_gap())
    assert [n for n in before if after[n] == before[n]] == []
    assert load.failed == []
    assert states == ["succeeded"] * len(jobs)
    assert not lost


@contextmanager
def _locked(stage: Stage, repository: str, digest: str) -> Iterator[None]:
    """Have another digest in the lock for the images of a repository."""
    lock = stage.site.with_suffix(".lock.json")
    text = lock.read_text(encoding="utf-8")
    said = json.loads(text)
    names = [reference for reference in said["images"] if reference.rpartition(":")[0] == repository]
    assert names
    said["images"] |= dict.fromkeys(names, digest)
    lock.write_text(json.dumps(said), encoding="utf-8")
    try:
        yield
    finally:
        lock.write_text(text, encoding="utf-8")


def _serving(stage: Stage, name: str) -> int:
    status = stage.cluster.get("deployment", name, "-n", "platform")["status"]
    return int(status.get("availableReplicas", 0))


def _judged(stage: Stage, table: Table, fault: str, repository: str, digest: str, name: str) -> None:
    base = application.address(stage)
    with application.under_load(base) as load, _locked(stage, repository, digest):
        done = stage.task("deploy", "--plan", stage.plan(), "--timeout", "90", "--output", "json")
    said = json.loads(done.stdout)["error"]
    ready = _serving(stage, name)
    seen = f"{said['code']}, {ready} old pods serve, {len(load.failed)} of {load.done} requests failed"
    table.add(fault, "deploy fails and says why, the old version serves", seen)
    assert done.returncode in FAILED, done.stdout
    assert said["why"]
    assert ready >= 1
    assert load.failed == []
    assert not [c for c in stage.data("diff")["changes"] if c["action"] in ("create", "change")]


def test_a_bad_image_leaves_the_old_version_serving(stage: Stage, table: Table) -> None:
    _judged(stage, table, "bad image", "platform-backend", "sha256:" + "0" * 64, "platform-backend")


def test_a_failing_migration_leaves_the_old_version_serving(stage: Stage, table: Table) -> None:
    """Have an image without MLflow under MLflow's name: its migration ends with an error."""
    lock = json.loads(stage.site.with_suffix(".lock.json").read_text(encoding="utf-8"))["images"]
    digest = next(value for name, value in lock.items() if name.startswith("platform-frontend:"))
    images.tag(stage.workers, "platform-frontend:dev", f"{MLFLOW}@{digest}")
    _judged(stage, table, "failing migration", MLFLOW, digest, "mlflow")
