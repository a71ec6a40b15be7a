"""The queue of trainings: its quota is the room that is left, and Kueue takes its objects."""

from __future__ import annotations

import json
from typing import Any

import pytest

from infra import catalog, references
from infra.kube import queues, releases
from infra.kube.queues import Quota
from infra.settings import ROOT
from tests.unit.helpers import settings_of

GIB = 1024**3


def node(cpu: str, memory: str, **more: str) -> dict[str, Any]:
    return {"metadata": {"name": "n"}, "status": {"allocatable": {"cpu": cpu, "memory": memory, **more}}}


def pod(cpu: str, memory: str, phase: str = "Running", name: str = "redis") -> dict[str, Any]:
    requests = {"cpu": cpu, "memory": memory}
    return {
        "metadata": {"name": "p", "labels": {"app.kubernetes.io/name": name}},
        "spec": {"containers": [{"resources": {"requests": requests}}, {}]},
        "status": {"phase": phase},
    }


def test_the_quota_is_what_is_left_beside_all_that_is_no_training() -> None:
    nodes = [node("2", "8Gi"), node("2000m", "8388608Ki", **{queues.GPU: "2"})]
    pods = [
        pod("850m", "1Gi"),
        pod("80m", "100Mi", "Pending"),
        pod("1", "1Gi", "Succeeded"),
        pod("500m", "2Gi", name="training"),
    ]
    assert queues.free(nodes, pods) == Quota(3.05, 14.875 * GIB, 2)


def test_a_full_cluster_still_lets_one_training_try() -> None:
    assert queues.free([node("1", "1Gi")], [pod("990m", "1000Mi")]) == Quota(0.25, GIB / 4)


@pytest.mark.parametrize(("gpus", "covered"), [(0, ["cpu", "memory"]), (2, ["cpu", "memory", queues.GPU])])
def test_the_objects(gpus: int, covered: list[str]) -> None:
    made = queues.objects("platform", Quota(0.75, 1.5 * GIB, gpus))
    by_kind = {thing["kind"]: thing for thing in made}
    group = by_kind["ClusterQueue"]["spec"]["resourceGroups"][0]
    assert group["coveredResources"] == covered
    amounts = {r["name"]: r["nominalQuota"] for r in group["flavors"][0]["resources"]}
    assert amounts == {"cpu": "750m", "memory": "1536Mi"} | ({queues.GPU: "2"} if gpus else {})
    assert group["flavors"][0]["name"] == by_kind["ResourceFlavor"]["metadata"]["name"]
    assert by_kind["LocalQueue"]["metadata"] == {"name": "trainings", "namespace": "platform"}
    assert by_kind["LocalQueue"]["spec"]["clusterQueue"] == by_kind["ClusterQueue"]["metadata"]["name"]
    priorities = {t["metadata"]["name"]: t["value"] for t in made if t["kind"] == "WorkloadPriorityClass"}
    assert priorities == {f"training-{name}": value for name, value in catalog.PRIORITIES.items()}
    assert priorities["training-normal"] == 0, "as what names no priority counts"


def test_the_queue_in_words() -> None:
    queue = queues.objects("platform", Quota(1, GIB))[-2]
    assert queues.described(queue) == "queue trainings: 0 admitted, 0 waiting; cpu 0 of 1000m, memory 0 of 1024Mi"
    usage = [{"resources": [{"name": "cpu", "total": "500m"}]}]
    queue["status"] = {"admittedWorkloads": 1, "pendingWorkloads": 3, "flavorsUsage": usage}
    assert queues.described(queue).startswith("queue trainings: 1 admitted, 3 waiting; cpu 500m of 1000m")
    assert queues.described(None) == "the queue trainings is not there"


@pytest.mark.parametrize(
    ("image", "repository", "tag"),
    [
        ("rig/kueue:0.19.2", "docker.io/rig/kueue", "0.19.2"),
        ("mirror.example:5000/kueue@sha256:" + "a" * 64, "mirror.example:5000/kueue@sha256", "a" * 64),
        ("mirror.example:5000/kueue", "mirror.example:5000/kueue", "latest"),
    ],
)
def test_another_image_of_an_upstream_chart(image: str, repository: str, tag: str) -> None:
    found = releases.values("kueue", settings_of(ROOT, KUEUE_IMAGE=image))
    assert found == {"controllerManager": {"manager": {"image": {"repository": repository, "tag": tag}}}}
    assert references.full(image) == f"{repository}:{tag}"


def test_an_upstream_chart_comes_from_a_folder_where_it_is_there(tmp_path: Any) -> None:
    chart = releases.chart("jobset")
    there = settings_of(ROOT, PLATFORM_CHARTS=str(tmp_path))
    assert releases.wanted(chart, there).deploy.chart == "oci://registry.k8s.io/jobset/charts/jobset"
    assert releases.wanted(chart, there).deploy.version == "0.12.0"
    file = tmp_path / "jobset-0.12.0.tgz"
    file.touch()
    found = releases.wanted(chart, there)
    assert (found.deploy.chart, found.deploy.version) == (str(file), "")
    assert json.loads(found.stdin) == {}
