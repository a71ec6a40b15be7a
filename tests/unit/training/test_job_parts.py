"""The manifest of a training's Job, the verdicts on it, and who may ask for what."""

from __future__ import annotations

import base64
import dataclasses
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest

from infra import tier_choice
from infra.errors import PlatformError
from infra.prod import check
from infra.training import cluster, gang, job_manifest, job_queue, runners
from infra.training.client import Order
from infra.training.job_manifest import Pod, Shape, manifest
from infra.training.job_queue import Standing
from infra.training.job_verdict import FAILED, RUNNING, SUCCEEDED, judge
from infra.training.request import JOB, Request
from infra.training.runners import How
from tests.unit.helpers import context_of, settings_of
from tests.unit.training.api_server import serving

NOW = datetime(2026, 11, 25, 12, 0, 0, tzinfo=UTC)
BUILT_IN = Request("digits-1", epochs=3, dataset="digits/v1", runner=JOB)
NO_CLUSTER = PlatformError("TIER_UNAVAILABLE", "no cluster")
USERS = Request("mine-1", command=["python", "train.py", "--rate", "0.1"], runner=JOB, image="me/train:1", gpus=2)


@pytest.mark.parametrize("request_", [BUILT_IN, USERS])
def test_the_manifest_is_what_kubernetes_wants(request_: Request) -> None:
    kubernetes_validate.validate(manifest(request_, Shape(), 1), "1.34", strict=True)


GANG = Request(
    "mine-2",
    command=["torchrun", "train.py"],
    runner=JOB,
    image="me/train:1",
    gpus=2,
    workers=3,
    queue="team",
    priority="high",
)


def test_several_workers_are_a_jobset_that_begins_again_as_a_whole() -> None:
    found = manifest(GANG, Shape(), 1)
    assert found["kind"] == "JobSet"
    assert [finding.text for finding in check.schemas([found], "1.34")] == []
    labels = found["metadata"]["labels"]
    assert (labels[job_manifest.QUEUE], labels[job_manifest.PRIORITY]) == ("team", "training-high")
    job = found["spec"]["replicatedJobs"][0]["template"]
    kubernetes_validate.validate(
        {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "x"}, **job}, "1.34", strict=True
    )
    assert (job["spec"]["completions"], job["spec"]["completionMode"], job["spec"]["backoffLimit"]) == (3, "Indexed", 0)
    env = {entry["name"]: entry.get("value", "") for entry in job["spec"]["template"]["spec"]["containers"][0]["env"]}
    assert next(iter(env)) == "RANK", "the others refer to it, so it comes first"
    assert (env["PET_NODE_RANK"], env["JAX_PROCESS_ID"], env["PET_NPROC_PER_NODE"]) == ("$(RANK)", "$(RANK)", "2")
    assert env["MASTER_ADDR"] == "training-mine-2-w-0-0.training-mine-2"


def test_a_queue_is_a_label_of_a_single_job_too() -> None:
    found = manifest(dataclasses.replace(USERS, queue="team"), Shape(), 1)
    assert found["metadata"]["labels"][job_manifest.QUEUE] == "team"
    kubernetes_validate.validate(found, "1.34", strict=True)


@pytest.mark.parametrize("job", ["a", "x" * 24 + "-20261123-1a2b3c", "x" * 24 + "-20261123-1a2b3c-001", "y" * 100])
def test_the_name_of_a_pod_of_several_workers_is_a_hosts_name(job: str) -> None:
    assert len(f"{job_manifest.name(job)}-w-0-63-abcde") <= 63
    assert job_manifest.name(job) != job_manifest.name(job + "1")


def condition(kind: str, status: str, reason: str = "", message: str = "") -> dict[str, str]:
    return {"type": kind, "status": status, "reason": reason, "message": message}


@pytest.mark.parametrize(
    ("conditions", "note"),
    [
        ([condition("QuotaReserved", "False", "Pending", "300m more needed")], Standing("queued", "300m more needed")),
        ([condition("QuotaReserved", "True"), condition("Admitted", "True")], Standing("admitted")),
        ([condition("Evicted", "True", "PodsReadyTimeout", "too late")], Standing("queued", "too late")),
        (
            [
                condition("QuotaReserved", "False", "Pending", "no room"),
                condition("Evicted", "True", "Preempted", "by x"),
            ],
            Standing("preempted", "no room"),
        ),
    ],
)
def test_what_kueue_says_of_a_training(conditions: list[dict[str, str]], note: Standing) -> None:
    assert job_queue.standing({"status": {"conditions": conditions}}) == note


def workload(uid: str, made: str, priority: int = 0, queue: str = "a", *conditions: dict[str, str]) -> dict[str, Any]:
    about = {"uid": uid, "creationTimestamp": f"2026-11-25T12:00:0{made}Z"}
    said = [condition("QuotaReserved", "False", "Pending", "no room"), *conditions]
    return {
        "metadata": about,
        "spec": {"queueName": queue, "priority": priority},
        "status": {"conditions": [*{c["type"]: c for c in said}.values()]},
    }


def test_the_position_in_the_queue_is_by_priority_and_then_by_age() -> None:
    mine = workload("mine", "5")
    others = [
        mine,
        workload("older", "1"),
        workload("younger", "9"),
        workload("younger but higher", "9", 100),
        workload("admitted", "0", 0, "a", condition("QuotaReserved", "True")),
        workload("finished", "0", 0, "a", condition("Finished", "True")),
        workload("another queue", "0", 0, "b"),
        {**workload("switched off", "0"), "spec": {"queueName": "a", "active": False}},
    ]
    assert job_queue.standing(mine, others) == Standing("queued", "3 of 4: no room")


def test_a_suspended_job_is_no_failure() -> None:
    verdict = judge({"spec": {"suspend": True}}, [], "1Gi", NOW, queue=Standing("preempted", "no room"))
    assert (verdict.state, verdict.standing, verdict.note) == (RUNNING, "preempted", "no room")


def test_one_that_is_admitted_runs_with_its_first_pod() -> None:
    queue, pod = Standing("admitted"), {"metadata": {}, "status": {"phase": "Pending"}}
    runs: dict[str, Any] = {"metadata": {}, "status": {"phase": "Running"}}
    assert judge({}, [], "1Gi", NOW, queue=queue).standing == "admitted"
    assert judge({}, [pod], "1Gi", NOW, queue=queue).standing == "admitted"
    assert judge({}, [pod], "1Gi", NOW).standing == "running", "of one in no queue nobody has to admit anything"
    assert judge({}, [runs, pod], "1Gi", NOW, queue=queue, workers=2).standing == "running"


def test_several_workers_that_all_fail_of_their_own_accord_do_not_begin_again() -> None:
    def pod(code: int, reason: str = "Error") -> dict[str, Any]:
        state = {"terminated": {"exitCode": code, "reason": reason}}
        return {"metadata": {}, "status": {"phase": "Failed", "containerStatuses": [{"state": state}]}}

    verdict = judge({}, [pod(5), pod(5)], "1Gi", NOW, workers=2)
    assert (verdict.state, verdict.reason) == (FAILED, "the training ended with exit status 5")
    assert judge({}, [pod(5), pod(137)], "1Gi", NOW, workers=2).state == RUNNING, "one was killed"
    assert judge({}, [pod(5), pod(75)], "1Gi", NOW, workers=2).state == RUNNING, "one asks for another try"
    assert judge({}, [pod(5)], "1Gi", NOW, workers=2).state == RUNNING, "one is gone"


def test_several_workers_do_not_wait_for_ever_for_one_that_fits_nowhere() -> None:
    runs: dict[str, Any] = {"metadata": {}, "status": {"phase": "Running"}}
    waits = {"type": "PodScheduled", "status": "False", "message": "0/1 nodes are available: 1 Insufficient cpu."}
    about = {"name": "training-x-w-0-1-abc", "creationTimestamp": "2026-11-25T11:58:00Z"}
    pod: dict[str, Any] = {"metadata": about, "status": {"phase": "Pending", "conditions": [waits]}}
    early = judge({}, [runs, pod], "1Gi", NOW, workers=2, patience=121)
    assert (early.state, early.note) == (
        RUNNING,
        "1 of 2 workers run: waiting for a node: 0/1 nodes are available: 1 Insufficient cpu.",
    )
    late = judge({}, [runs, pod], "1Gi", NOW, workers=2, patience=119)
    assert (late.state, late.ended) == (FAILED, False)
    assert late.reason == (
        "training-x-w-0-1-abc, one of 2 workers, could not be placed within 119 s: "
        "0/1 nodes are available: 1 Insufficient cpu."
    )
    assert judge({}, [pod], "1Gi", NOW, patience=1).state == RUNNING, "one that is alone keeps nobody waiting"


def test_of_several_workers_it_is_said_how_many_run_and_one_that_fails_is_not_the_end() -> None:
    runs: dict[str, Any] = {"metadata": {}, "status": {"phase": "Running"}}
    ended = [{"state": {"terminated": {"exitCode": 1, "reason": "Error"}}}]
    fails: dict[str, Any] = {"metadata": {}, "status": {"phase": "Failed", "containerStatuses": ended}}
    assert judge({}, [runs, runs], "1Gi", NOW, workers=2).note == ""
    assert judge({}, [runs], "1Gi", NOW, workers=3).note == "1 of 3 workers run"
    assert judge({}, [runs, fails], "1Gi", NOW, workers=2).state == RUNNING
    assert judge({}, [fails], "1Gi", NOW).state == FAILED


def test_the_built_in_training_claims_its_own_try() -> None:
    container = manifest(BUILT_IN, Shape(), 0)["spec"]["template"]["spec"]["containers"][0]
    assert container["command"][:4] == ["python3", "-u", "-m", "infra.training.trainer"]
    assert "TRAINING_ATTEMPT" not in [entry["name"] for entry in container["env"]]
    assert container["image"] == "platform-backend:dev"


def test_a_program_of_the_user_runs_in_its_image_with_its_gpus() -> None:
    made = manifest(USERS, Shape(), 4)
    container = made["spec"]["template"]["spec"]["containers"][0]
    assert (container["command"], container["image"]) == (USERS.command, "me/train:1")
    assert {"name": "TRAINING_ATTEMPT", "value": "4"} in container["env"]
    assert container["resources"]["limits"]["nvidia.com/gpu"] == "2"
    assert made["metadata"]["annotations"] == {job_manifest.ATTEMPT: "4"}


GPU_POOL = Pod(
    gpu_resource="amd.com/gpu",
    node_selector={"pool": "gpu"},
    tolerations=[{"key": "gpu", "operator": "Exists"}],
    shared_memory="4Gi",
    priority_class="platform-training",
    ca_config_map="postgresql-ca",
)


def test_a_training_with_gpus_goes_to_their_nodes_and_another_one_does_not() -> None:
    with_gpus, without = (
        manifest(order, Shape(pod=GPU_POOL), 1)["spec"]["template"]["spec"] for order in (USERS, BUILT_IN)
    )
    assert with_gpus["nodeSelector"] == {"pool": "gpu"}
    assert GPU_POOL.tolerations[0] in with_gpus["tolerations"]
    assert with_gpus["containers"][0]["resources"]["limits"]["amd.com/gpu"] == "2"
    assert "nodeSelector" not in without
    assert GPU_POOL.tolerations[0] not in without["tolerations"]
    kubernetes_validate.validate(manifest(USERS, Shape(pod=GPU_POOL), 1), "1.34", strict=True)


def test_a_training_has_shared_memory_and_the_authority_of_the_database() -> None:
    pod = manifest(BUILT_IN, Shape(pod=GPU_POOL), 1)["spec"]["template"]["spec"]
    assert {"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": "4Gi"}} in pod["volumes"]
    mounts = {mount["name"]: mount["mountPath"] for mount in pod["containers"][0]["volumeMounts"]}
    assert mounts == {"tmp": "/tmp", "shm": "/dev/shm", "postgresql-ca": "/etc/postgresql-ca"}
    assert pod["priorityClassName"] == "platform-training"


def test_a_drain_is_no_failure_and_those_who_tidy_up_leave_it_alone() -> None:
    spec = manifest(BUILT_IN, Shape(), 1)["spec"]
    rule = {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]}
    assert spec["podFailurePolicy"] == {"rules": [rule]}
    assert spec["template"]["metadata"]["annotations"]["karpenter.sh/do-not-disrupt"] == "true"


def test_the_pod_comes_from_the_environment_and_a_wrong_one_is_said() -> None:
    given = {"TRAINING_POD": json.dumps({"shared_memory": "1Gi", "gpu_resource": "x/y"})}
    assert job_manifest.shape(given).pod == Pod(gpu_resource="x/y", shared_memory="1Gi")
    with pytest.raises(PlatformError, match="TRAINING_POD"):
        job_manifest.shape({"TRAINING_POD": '{"sharedMemory": "1Gi"}'})


def test_the_pod_has_no_rights_and_the_manifest_no_secret() -> None:
    pod = manifest(BUILT_IN, Shape(), 0)["spec"]["template"]["spec"]
    assert (pod["automountServiceAccountToken"], pod["serviceAccountName"]) == (False, "platform-training")
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["containers"][0]["securityContext"]["readOnlyRootFilesystem"] is True
    assert {"secretRef": {"name": "platform-env"}} in pod["containers"][0]["envFrom"]


def test_the_shape_comes_from_the_environment() -> None:
    limits = {"limits": {"memory": "2Gi"}}
    given = {"TRAINING_IMAGE": "i:1", "TRAINING_SECRET": "s", "TRAINING_RESOURCES": json.dumps(limits)}
    found = job_manifest.shape({**given, "TRAINING_GPUS": "1"})
    assert (found.image, found.secret, found.memory, found.gpus) == ("i:1", "s", "2Gi", 1)
    assert job_manifest.shape({}) == Shape()
    with pytest.raises(PlatformError, match="TRAINING_RESOURCES"):
        job_manifest.shape({"TRAINING_RESOURCES": "{"})


def job(*conditions: dict[str, str]) -> dict[str, Any]:
    return {"status": {"conditions": [{"status": "True", **c} for c in conditions]}}


def pod(age: float = 60, **status: Any) -> dict[str, Any]:
    made = datetime.fromtimestamp(NOW.timestamp() - age, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return {"metadata": {"creationTimestamp": made}, "status": status}


def ended(code: int, reason: str = "Error", **status: Any) -> dict[str, Any]:
    state = {"state": {"terminated": {"exitCode": code, "reason": reason}}}
    return pod(phase="Failed", containerStatuses=[state], **status)


def waiting(reason: str, age: float) -> dict[str, Any]:
    state = {"state": {"waiting": {"reason": reason, "message": "no such image"}}}
    return pod(age, phase="Pending", containerStatuses=[state])


GIVEN_UP = {"type": "Failed", "reason": "BackoffLimitExceeded"}
DISRUPTED = [{"type": "DisruptionTarget", "status": "True"}]


@pytest.mark.parametrize(
    ("found", "pods", "state", "text"),
    [
        (job(), [], RUNNING, "waiting for its pod"),
        (job(), [pod(phase="Running")], RUNNING, ""),
        (job({"type": "Complete"}), [ended(137), pod(phase="Succeeded")], SUCCEEDED, ""),
        (job(), [ended(137, "OOMKilled")], FAILED, "killed: out of memory, over its limit (1Gi)"),
        (job(GIVEN_UP), [ended(137, "OOMKilled")], FAILED, "killed: out of memory"),
        (job(), [ended(1)], FAILED, "exit status 1"),
        (job(), [ended(128, "StartError")], FAILED, "StartError"),
        (job(), [ended(75), pod(phase="Running")], RUNNING, ""),
        (job(), [ended(255, "Unknown")], RUNNING, ""),
        (job(), [ended(255)], FAILED, "exit status 255"),
        (job(), [ended(143)], RUNNING, "its pod is starting"),
        (job(), [ended(1, conditions=DISRUPTED)], RUNNING, ""),
        (job(), [ended(1, reason_="x")], FAILED, "exit status 1"),
        (job(GIVEN_UP), [ended(75), ended(75)], FAILED, "exit status 75, repeatedly; giving up"),
        (job({"type": "Failed", "reason": "DeadlineExceeded"}), [], FAILED, "DeadlineExceeded"),
        (job(), [waiting("ErrImagePull", 3)], RUNNING, "ErrImagePull no such image"),
        (job(), [waiting("ImagePullBackOff", 16)], FAILED, "cannot start: ImagePullBackOff: no such image"),
        (job(), [waiting("CreateContainerConfigError", 16)], FAILED, "CreateContainerConfigError"),
        (job(), [waiting("InvalidImageName", 0)], FAILED, "InvalidImageName"),
        (job(), [waiting("ContainerCreating", 500)], RUNNING, "ContainerCreating"),
    ],
)
def test_verdicts(found: dict[str, Any], pods: list[dict[str, Any]], state: str, text: str) -> None:
    verdict = judge(found, pods, Shape().memory, NOW)
    assert verdict.state == state
    assert text in verdict.reason + verdict.note


def test_an_evicted_pod_is_replaced() -> None:
    evicted = {**ended(137)["status"], "reason": "Evicted"}
    assert judge(job(), [{"metadata": {}, "status": evicted}], "1Gi", NOW).state == RUNNING


@pytest.mark.parametrize(
    ("obstacle", "how", "command", "expected"),
    [
        (NO_CLUSTER, How(), (), "subprocess"),
        (NO_CLUSTER, How("subprocess"), (), "subprocess"),
        (None, How(), (), "job"),
        (None, How("subprocess"), (), "subprocess"),
        (None, How(), ("python",), "subprocess"),
        (None, How("job"), ("python",), "job"),
    ],
)
def test_how_a_training_runs(obstacle: PlatformError | None, how: How, command: tuple[str, ...], expected: str) -> None:
    assert runners.applied(Order("x", command=command), how, obstacle).runner == expected


def test_jobs_need_the_tier_and_the_application_in_its_cluster(tmp_path: Path) -> None:
    path = tmp_path / "kind" / "kubeconfig"
    for tier in ("native", "compose"):
        found = runners.obstacle(None, tier)
        assert found is not None
        assert (found.code, "invoke up --tier kind" in found.steps[0]) == ("TIER_UNAVAILABLE", True)
    found = runners.obstacle(path, "kind")
    assert found is not None
    assert found.code == "NOT_RUNNING"
    with serving() as (state, _):
        path.parent.mkdir(parents=True)
        path.write_text(kubeconfig(state.port, token="t"))
        found = runners.obstacle(path, "kind")
        assert found is not None
        assert "app.build" in found.steps[0]
        state.config_maps.add("platform-env")
        assert runners.obstacle(path, "kind") is None
        state.broken = 503
        found = runners.obstacle(path, "kind")
        assert found is not None
        assert found.code == "UNREACHABLE"


@pytest.mark.parametrize(
    ("obstacle", "how", "code"),
    [
        (NO_CLUSTER, How("job"), "TIER_UNAVAILABLE"),
        (None, How("pod"), "USAGE"),
        (None, How("subprocess", image="x"), "USAGE"),
        (NO_CLUSTER, How(gpus=64), "USAGE"),
        (NO_CLUSTER, How(workers=3), "USAGE"),
        (NO_CLUSTER, How(workers=0), "USAGE"),
        (None, How("job", gpus=-1), "USAGE"),
        (None, How("job", image="a b"), "USAGE"),
    ],
)
def test_what_does_not_go_together_is_refused(obstacle: PlatformError | None, how: How, code: str) -> None:
    with pytest.raises(PlatformError) as caught:
        runners.applied(Order("x"), how, obstacle)
    assert caught.value.code == code


def test_gpus_that_this_machine_lacks_are_refused_or_done_without(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(gang.DEVICES, "GPU-a")
    mine = Order("x", command=("python3", "train.py"), env={gang.DEVICES: "GPU-a", "A": "1"})
    assert runners.applied(mine, How(gpus=1, or_cpu=True), None).gpus == 1, "it is there"
    with pytest.raises(PlatformError, match="this machine has 1"):
        runners.applied(mine, How(gpus=2), None)
    without = runners.applied(mine, How(gpus=2, or_cpu=True), None)
    assert (without.gpus, without.env) == (0, {gang.DEVICES: "", "A": "1"}), "and it takes none that others may hold"
    with pytest.raises(PlatformError, match="want GPUs"):
        runners.applied(mine, How(or_cpu=True), None)


@pytest.mark.parametrize(
    ("nodes", "gpus", "workers", "enough"),
    [
        (["2"], 2, 1, True),
        (["1", "1"], 2, 1, False),
        (["1", "1"], 1, 2, True),
        (["3"], 1, 3, True),
        ([], 1, 1, False),
    ],
)
def test_gpus_that_no_node_offers_are_waited_for_or_done_without(
    tmp_path: Path, nodes: list[str], gpus: int, workers: int, enough: bool
) -> None:
    order = Order("x", command=("python3",), runner=JOB, gpus=gpus, workers=workers)
    path = tmp_path / "kubeconfig"
    with serving() as (state, _):
        path.write_text(kubeconfig(state.port, token="t"))
        state.nodes = [{}, *({"status": {"allocatable": {job_manifest.GPU: count}}} for count in nodes)]
        assert runners.afforded(path, order, How(JOB, or_cpu=True)).gpus == (gpus if enough else 0)
        assert runners.afforded(path, order, How(JOB)) == order, "a cluster may add nodes for it"


def test_variables_reach_a_job_if_it_can_have_them() -> None:
    order = Order("x", command=("python3", "train.py"), env={"WANDB_MODE": "offline"})
    for how in (How(), How(JOB)):
        assert runners.applied(order, how, None).env == {"WANDB_MODE": "offline"}
    odd = dataclasses.replace(order, env={"1": "x"})
    assert runners.applied(odd, How(), None).env == {"1": "x"}
    with pytest.raises(PlatformError, match="a Job cannot have a variable named '1'"):
        runners.applied(odd, How(JOB), None)


def test_only_the_tier_with_a_cluster_gives_the_worker_its_kubeconfig(tmp_path: Path) -> None:
    found = settings_of(tmp_path, BACKEND_IMAGE="b:1")
    context = context_of(tmp_path)
    given = {name: tier.jobs_kubeconfig for name, tier in tier_choice.tiers(context).items()}
    assert given == {"compose": None, "native": None, "kind": context.stack.tier_home("kind") / "kubeconfig"}
    assert runners.environment(found, given["native"]) == {}
    before = runners.environment(found, given["kind"])
    assert (before["TRAINING_RUNNER"], before["TRAINING_IMAGE"]) == ("subprocess,job", "b:1")
    kubeconfig = Path(before["TRAINING_KUBECONFIG"])
    kubeconfig.parent.mkdir(parents=True)
    kubeconfig.write_text("made anew")
    assert runners.environment(found, given["kind"]) != before, "the worker must begin anew"


def kubeconfig(port: int = 1234, **user: str) -> str:
    named = {"name": "n"}
    return json.dumps(
        {
            "current-context": "n",
            "contexts": [{**named, "context": {"cluster": "n", "user": "n"}}],
            "clusters": [{**named, "cluster": {"server": f"http://127.0.0.1:{port}"}}],
            "users": [{**named, "user": user}],
        }
    )


def test_a_kubeconfig_is_read(tmp_path: Path) -> None:
    (tmp_path / "k").write_text(kubeconfig(token="t"))
    found = cluster.from_kubeconfig(tmp_path / "k")
    assert (found.host, found.port, found.token()) == ("127.0.0.1", 1234, "t")


@pytest.mark.parametrize("text", ["", "{", "[]", '{"current-context": "n"}', base64.b64encode(b"x").decode()])
def test_a_kubeconfig_that_leads_nowhere_is_an_error(tmp_path: Path, text: str) -> None:
    (tmp_path / "k").write_text(text)
    with pytest.raises(PlatformError) as caught:
        cluster.from_kubeconfig(tmp_path / "k")
    assert caught.value.code == "NOT_RUNNING"


def test_outside_a_cluster_jobs_need_a_kubeconfig(tmp_path: Path) -> None:
    with pytest.raises(PlatformError, match="requires a cluster"):
        cluster.from_pod({}, tmp_path)
