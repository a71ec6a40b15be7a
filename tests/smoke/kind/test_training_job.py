"""Trainings as Kubernetes Jobs, and the application in the cluster: what pods, worker and node may do to them."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import requests

from infra import catalog, shell
from infra.settings import Settings
from infra.tiers.kind.nodes import Docker
from tests.smoke.kind.conftest import TheCluster
from tests.smoke.platform import Platform

LIMIT = 900.0
LONG = "100000"
JOBS = "/apis/batch/v1/namespaces/training/jobs"
PODS = "/api/v1/namespaces/training/pods"
ENDED = ("succeeded", "failed", "cancelled")
WORKERS = "app.kubernetes.io/component=worker"
Shown = dict[str, Any]


@pytest.fixture(scope="module", autouse=True)
def application(cluster: TheCluster) -> None:
    """The images, built here, and their Deployments."""
    cluster.task("app.build", timeout=3600)
    cluster.task("kind.up", "--apps", timeout=1800)


def kubectl(cluster: TheCluster, *words: str, expect: int = 0, namespace: str = catalog.TRAINING_NAMESPACE) -> str:
    found = cluster.tier.kubectl
    argv = [found.program, "--kubeconfig", str(found.kubeconfig), "--namespace", namespace, *words]
    done = shell.run(argv, limit=120, check=False)
    assert done.code == expect, done.err
    return done.out.strip()


def start(platform: Platform, *options: str) -> str:
    return str(platform.data("train.run", "--detach", *options)["job"])


def until(platform: Platform, job: str, true: Callable[[Shown], bool]) -> Shown:
    """What `train.show` says once something is true."""
    end = time.monotonic() + LIMIT
    while not true(found := dict(platform.data("train.show", job))):
        assert time.monotonic() < end, found
        assert found["state"] not in ENDED, found
        time.sleep(0.5)
    return found


def ended(platform: Platform, job: str) -> Shown:
    return until(platform, job, lambda found: found["state"] in ENDED)


def runs(epoch: int) -> Callable[[Shown], bool]:
    return lambda found: (found["epoch"] or 0) >= epoch


def of(job: str) -> str:
    """The selector of a training's pods."""
    return f"job-name=training-{job}"


def pods(cluster: TheCluster, job: str) -> list[str]:
    found = cluster.items(PODS, labelSelector=of(job))
    return [str(pod["metadata"]["name"]) for pod in found]


def jobs(cluster: TheCluster) -> dict[str, Any]:
    return {job["metadata"]["name"]: job for job in cluster.items(JOBS)}


def test_a_training_is_a_job_and_succeeds(cluster: TheCluster, platform: Platform) -> None:
    done = platform.data("train.run", "--epochs", "5", timeout=LIMIT)
    assert (done["state"], done["epoch"], done["attempt"]) == ("succeeded", 5, 1)
    made = jobs(cluster)[f"training-{done['job']}"]
    assert made["status"]["succeeded"] == 1
    assert made["spec"]["ttlSecondsAfterFinished"] > 0
    assert made["spec"]["template"]["spec"]["containers"][0]["resources"]["limits"]["memory"]


def test_as_a_subprocess_it_makes_no_job(cluster: TheCluster, platform: Platform) -> None:
    done = platform.data("train.run", "--epochs", "2", "--as", "subprocess", timeout=LIMIT)
    assert done["state"] == "succeeded"
    assert f"training-{done['job']}" not in jobs(cluster)


def test_a_killed_pod_is_followed_by_another_that_goes_on(cluster: TheCluster, platform: Platform) -> None:
    job = start(platform, "--epochs", LONG)
    seen = until(platform, job, runs(5))["epoch"]
    kubectl(cluster, "delete", "pod", *pods(cluster, job), "--grace-period=0", "--force")
    until(platform, job, lambda found: found["attempt"] >= 2 and found["epoch"] > seen)
    assert platform.data("train.cancel", job)["state"] == "cancelled"


def test_a_worker_that_dies_leaves_the_job_to_the_next(cluster: TheCluster, platform: Platform) -> None:
    job = start(platform, "--epochs", LONG)
    seen = until(platform, job, runs(3))["epoch"]
    uid = jobs(cluster)[f"training-{job}"]["metadata"]["uid"]
    kubectl(cluster, "delete", "pod", "--selector", WORKERS, "--grace-period=0", "--force", namespace="platform")
    until(platform, job, runs(seen + 20))
    assert jobs(cluster)[f"training-{job}"]["metadata"]["uid"] == uid
    assert platform.data("train.cancel", job)["state"] == "cancelled"


def test_a_cancelled_training_leaves_no_pod(cluster: TheCluster, platform: Platform) -> None:
    job = start(platform, "--epochs", LONG)
    until(platform, job, runs(1))
    assert pods(cluster, job)
    assert platform.data("train.cancel", job)["state"] == "cancelled"
    assert pods(cluster, job) == []
    assert f"training-{job}" not in jobs(cluster)


def test_a_job_killed_for_memory_says_so(platform: Platform) -> None:
    job = start(platform, "--as", "job", "--command", "python3 -c 'x = bytearray(8 * 10**9)'")
    found = ended(platform, job)
    assert found["state"] == "failed"
    assert "killed: out of memory" in found["error"]


def test_an_image_that_does_not_exist_ends_it_with_the_reason(platform: Platform) -> None:
    options = ("--as", "job", "--image", "registry.invalid/nothing:1", "--command", "python3 train.py")
    found = ended(platform, start(platform, *options))
    assert found["state"] == "failed"
    assert "registry.invalid/nothing:1" in found["error"]


def test_a_program_of_the_user_reports_and_fails_with_its_own_words(platform: Platform) -> None:
    good = """python3 -c 'print("{\\"epoch\\": 2, \\"epochs\\": 2, \\"metrics\\": {\\"loss\\": 0.5}}")'"""
    found = ended(platform, start(platform, "--as", "job", "--command", good))
    assert (found["state"], found["epoch"], found["metrics"]) == ("succeeded", 2, {"loss": 0.5})
    bad = "python3 -c 'raise SystemExit(\"no such images\")'"
    found = ended(platform, start(platform, "--as", "job", "--command", bad))
    assert (found["state"], "exit status 1" in found["error"]) == ("failed", True)


def test_what_needs_a_gpu_waits_for_a_node_and_can_be_cancelled(cluster: TheCluster, platform: Platform) -> None:
    job = start(platform, "--epochs", "3", "--gpus", "2")
    end = time.monotonic() + LIMIT
    while not pods(cluster, job):
        assert time.monotonic() < end
        time.sleep(0.5)
    limits = jobs(cluster)[f"training-{job}"]["spec"]["template"]["spec"]["containers"][0]["resources"]["limits"]
    assert limits["nvidia.com/gpu"] == "2"
    assert platform.data("train.cancel", job)["state"] == "cancelled"
    assert pods(cluster, job) == []


ACCOUNTS = {
    "platform-training": ("training", set()),
    "platform-worker": ("platform", {"create jobs", "delete jobs", "get pods", "delete secrets"}),
}
"""Account -> its namespace, and what it may do in that of the trainings; in its own it may do nothing."""


@pytest.mark.parametrize("account", ACCOUNTS)
def test_nobody_has_more_rights_than_needed(cluster: TheCluster, account: str) -> None:
    own, rights = ACCOUNTS[account]
    me = f"--as=system:serviceaccount:{own}:{account}"
    never = {f"{verb} secrets" for verb in ("get", "list", "watch", "create", "patch", "update")}
    never |= {"create pods", "get nodes", "create pods/exec"}
    for namespace in ("training", "platform"):
        allowed = rights if namespace == "training" else set()
        for asked in sorted(ACCOUNTS["platform-worker"][1] | never):
            expect = 0 if asked in allowed else 1
            said = kubectl(cluster, "auth", "can-i", *asked.split(), me, expect=expect, namespace=namespace)
            assert said.splitlines()[-1] == ("no" if expect else "yes"), (namespace, asked)


ECHOES = """python3 -c 'import os; print("token", os.environ["TOKEN"][::-1], os.environ["MODE"], os.environ["HOME"])'"""


def test_variables_reach_the_program_and_nothing_else(
    cluster: TheCluster, platform: Platform, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("TOKEN", "hf-7f3a91-do-not-tell")
    (tmp_path / "a.env").write_text("MODE=offline\n", encoding="utf-8")
    more = ("--env", "TOKEN", "--env", "HOME=/data/x", "--env-file", str(tmp_path / "a.env"))
    waits = start(platform, "--as", "job", "--gpus", "2", "--command", ECHOES, *more)
    secret = f"training-{waits}-env"
    end = time.monotonic() + LIMIT
    while f"training-{waits}" not in (made := jobs(cluster)):
        assert time.monotonic() < end
        time.sleep(0.5)
    assert kubectl(cluster, "get", "secret", secret, "-o", "name") == f"secret/{secret}"
    assert "do-not-tell" not in str(made[f"training-{waits}"])
    assert platform.data("train.show", waits)["record"]["env"] == ["HOME", "MODE", "TOKEN"]
    assert platform.data("train.cancel", waits)["state"] == "cancelled"
    done = platform.data("train.run", "--as", "job", "--command", ECHOES, *more, timeout=LIMIT)
    assert done["state"] == "succeeded"
    said = platform.invoke("train.logs", done["job"]).stdout
    assert f"token {'hf-7f3a91-do-not-tell'[::-1]} offline /data/x" in said
    assert f"training-{done['job']}" in jobs(cluster)
    left = kubectl(cluster, "get", "secrets", "-l", "app.kubernetes.io/managed-by=training-order", "-o", "name")
    assert left == "", "they go with the training"


def test_a_missing_secret_ends_a_training_with_the_reason(cluster: TheCluster, platform: Platform) -> None:
    job = start(platform, "--as", "job", "--command", "sleep 3600", "--env", "A=1")
    end = time.monotonic() + LIMIT
    while "Running" not in [p["status"].get("phase") for p in cluster.items(PODS, labelSelector=of(job))]:
        assert time.monotonic() < end
        time.sleep(0.5)
    kubectl(cluster, "delete", "secret", f"training-{job}-env")
    kubectl(cluster, "delete", "pod", *pods(cluster, job), "--grace-period=0", "--force")
    found = ended(platform, job)
    assert found["state"] == "failed"
    assert f'CreateContainerConfigError: secret "training-{job}-env" not found' in found["error"]
    assert f"training-{job}" not in jobs(cluster), "what cannot start does not stay behind"


def address(settings: Settings, setting: str) -> str:
    ports = {p.setting: p.node_port for p in catalog.CLUSTER_PORTS}
    return f"http://127.0.0.1:{ports[setting]}"


def test_backend_and_frontend_in_the_cluster(cluster: TheCluster) -> None:
    backend = address(cluster.context.settings, "BACKEND_PORT")
    frontend = address(cluster.context.settings, "FRONTEND_PORT")
    ready = requests.get(f"{backend}/ready", timeout=60)
    assert ready.status_code == 200, ready.text
    assert "<title>" in requests.get(frontend, timeout=60).text
    made = requests.post(f"{frontend}/api/trainings", json={"epochs": 3, "experiment": "in-cluster"}, timeout=60)
    assert made.status_code == 201, made.text
    job, end = made.json()["job"], time.monotonic() + LIMIT
    while (found := requests.get(f"{frontend}/api/trainings/{job}", timeout=60).json())["state"] not in ENDED:
        assert time.monotonic() < end, found
        time.sleep(0.5)
    assert found["state"] == "succeeded"
    assert f"training-{job}" in jobs(cluster)


def test_a_node_that_restarts_interrupts_no_training_for_good(
    cluster: TheCluster, platform: Platform, docker: Docker
) -> None:
    job = start(platform, "--epochs", LONG)
    seen = until(platform, job, runs(5))["epoch"]
    docker.stop([node.name for node in cluster.nodes()])
    cluster.task("kind.up", timeout=1800)
    until(platform, job, runs(seen + 20))
    assert platform.data("train.cancel", job)["state"] == "cancelled"
