"""Releases on their way into a cluster that is played by lists of objects, with a Helm that is played, too."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from infra.kube import rollout as module
from infra.kube.api import NoAnswer
from infra.kube.helm_cli import Deploy, Helm
from infra.kube.kubectl_cli import Kubectl
from infra.kube.releases import Deployed, Wanted
from infra.kube.rollout import Rollout
from infra.rows import Chart
from infra.shell import Result
from infra.waiting import Item
from tests.unit.helpers import console
from tests.unit.kube import objects as o


@dataclass
class FakeApi:
    """Lists by path; `silent` makes it answer nothing."""

    lists: dict[str, list[Any]] = field(default_factory=dict)
    silent: bool = False

    def items(self, path: str, **query: str) -> list[Any]:
        if self.silent:
            raise NoAnswer("connection refused")
        return [dict(thing) for thing in self.lists.get(path, [])]

    def text(self, path: str, **query: str) -> str:
        return "the last words\n"

    def has(self, *things: Any, pods: Sequence[Any] = ()) -> None:
        """The cluster's workloads and pods from now on."""
        self.lists = {"/apis/apps/v1/deployments": list(things), "/api/v1/pods": list(pods)}


@dataclass
class FakeRun:
    """A run of Helm whose end the test decides."""

    argv: Sequence[str]
    stdin: str | None
    done: Result | None = None
    stopped: bool = False

    def result(self) -> Result | None:
        return self.done

    def stop(self, grace: float = 0.0) -> None:
        self.stopped = True


@dataclass
class Stage:
    """What the tests hold in their hands."""

    api: FakeApi
    rollout: Rollout
    runs: list[FakeRun]
    clock: list[float]

    def poll(self) -> Mapping[str, Item]:
        return {item.name: item for item in self.rollout.poll()}

    def states(self) -> dict[str, str]:
        return {name: item.state for name, item in self.poll().items()}

    def finish(self, code: int = 0, err: str = "") -> None:
        """The last run of Helm ends."""
        self.runs[-1].done = Result(code, "", err)


def wanted(name: str, needs: tuple[str, ...] = (), mark: str = "new") -> Wanted:
    chart = Chart(name, "platform", "core", needs=needs)
    return Wanted(chart, Deploy(name, f"helm/{name}", "platform", values=("-",)), '{"a": 1}', mark)


def stage(
    tmp_path: Path, *releases: Wanted, deployed: Mapping[str, Deployed] | None = None, busy: bool = False
) -> Stage:
    runs: list[FakeRun] = []
    clock = [1_795_000_000.0]

    def start(argv: Sequence[str], *, stdin: str | None = None) -> Any:
        runs.append(FakeRun(argv, stdin))
        return runs[-1]

    api = FakeApi()
    given: Any = api
    helm = Helm("helm", 4, tmp_path / "kubeconfig")
    made = Rollout(given, helm, releases, deployed or {}, console(), tmp_path / "notes", lambda: busy)
    made.start = start
    made.clock, made.began = (lambda: clock[0]), clock[0]
    return Stage(api, made, runs, clock)


def test_a_release_is_installed_with_its_values_on_standard_input(tmp_path: Path) -> None:
    s = stage(tmp_path, wanted("redis"))
    assert s.states() == {"redis": "starting"}
    assert s.runs[0].argv[:3] == ["helm", "upgrade", "redis"]
    assert s.runs[0].stdin == '{"a": 1}'
    s.finish()
    assert s.states() == {"redis": "starting"}, "applied is not ready"
    s.api.has(o.workload(), pods=[o.pod()])
    assert s.states() == {"redis": "ready"}
    assert len(s.runs) == 1
    assert s.rollout.changed == ["redis"]
    assert s.rollout.waited


def test_what_is_there_as_wanted_is_only_looked_at(tmp_path: Path) -> None:
    there = {"redis": Deployed("redis", "platform", 3, "deployed", "new", 3)}
    s = stage(tmp_path, wanted("redis"), deployed=there)
    s.api.has(o.workload(), pods=[o.pod()])
    s.poll()
    assert s.states() == {"redis": "ready"}
    assert (s.runs, s.rollout.changed) == ([], [])
    assert not s.rollout.waited


def test_what_is_there_as_wanted_but_only_starts_is_waited_for(tmp_path: Path) -> None:
    there = {"redis": Deployed("redis", "platform", 3, "deployed", "new", 3)}
    s = stage(tmp_path, wanted("redis"), deployed=there)
    s.api.has(o.workload(ready=0), pods=[])
    s.poll()
    assert s.states() == {"redis": "starting"}
    s.api.has(o.workload(), pods=[o.pod()])
    assert s.states() == {"redis": "ready"}
    assert (s.rollout.changed, s.rollout.waited) == ([], True)


@pytest.mark.parametrize("known", [("deployed", "old"), ("failed", "new"), ("superseded", "new")])
def test_another_hash_or_a_failed_release_is_upgraded(tmp_path: Path, known: tuple[str, str]) -> None:
    there = {"redis": Deployed("redis", "platform", 3, *known, 2)}
    s = stage(tmp_path, wanted("redis"), deployed=there)
    s.poll()
    assert s.runs[0].argv[1] == "upgrade"


def test_a_release_waits_for_what_it_needs_and_others_do_not(tmp_path: Path) -> None:
    s = stage(tmp_path, wanted("redis"), wanted("temporal", needs=("redis",)), wanted("minio"))
    assert s.states() == {"redis": "starting", "temporal": "waiting", "minio": "starting"}
    assert [run.argv[2] for run in s.runs] == ["redis", "minio"]
    for run in s.runs:
        run.done = Result(0, "", "")
    s.poll()
    s.api.has(o.workload(), pods=[o.pod()])
    s.poll()
    s.poll()
    assert [run.argv[2] for run in s.runs] == ["redis", "minio", "temporal"]


def test_an_upgrade_that_was_killed_goes_back_and_then_forward(tmp_path: Path) -> None:
    there = {"redis": Deployed("redis", "platform", 4, "pending-upgrade", "old", 3)}
    s = stage(tmp_path, wanted("redis"), deployed=there)
    s.poll()
    assert s.runs[0].argv[:4] == ["helm", "rollback", "redis", "3"]
    s.finish()
    s.poll()
    assert s.runs[1].argv[1] == "upgrade"


def test_an_installation_that_was_killed_is_begun_anew(tmp_path: Path) -> None:
    there = {"redis": Deployed("redis", "platform", 1, "pending-install", "new", 0)}
    s = stage(tmp_path, wanted("redis"), deployed=there)
    s.poll()
    assert s.runs[0].argv[1] == "uninstall"
    s.finish()
    s.poll()
    assert s.runs[1].argv[1] == "upgrade"


def test_a_run_of_helm_that_still_works_is_left_to_it(tmp_path: Path) -> None:
    there = {"redis": Deployed("redis", "platform", 4, "pending-upgrade", "old", 3)}
    s = stage(tmp_path, wanted("redis"), deployed=there, busy=True)
    assert s.states() == {"redis": "starting"}
    assert s.runs == []


def test_what_helm_refuses_is_said_in_its_words(tmp_path: Path) -> None:
    s = stage(tmp_path, wanted("redis"))
    s.poll()
    s.finish(
        1,
        "level=WARN msg=x\nError: UPGRADE FAILED: values don't meet the specifications of the schema(s)\n- at x: no\n",
    )
    found = s.poll()["redis"]
    assert found.state == "failed"
    assert found.detail.startswith("values don't meet the specifications of the schema(s) - at x: no")


def test_a_pod_that_cannot_start_ends_it_with_its_last_words(tmp_path: Path) -> None:
    s = stage(tmp_path, wanted("redis"))
    s.poll()
    s.finish()
    s.poll()
    s.api.has(o.workload(ready=0), pods=[o.pod(container=o.waiting("ImagePullBackOff", "manifest unknown"))])
    found = s.poll()["redis"]
    assert found.state == "failed"
    assert found.log is not None
    assert "the last words" in found.log.read_text()


def test_a_hook_that_cannot_start_ends_the_run_of_helm(tmp_path: Path) -> None:
    s = stage(tmp_path, wanted("redis"))
    s.poll()
    s.clock[0] += 5
    late: dict[str, Any] = {"about": {"creationTimestamp": "2030-01-01T00:00:00Z"}}
    s.api.has(o.workload(ready=0), pods=[o.pod(container=o.waiting("ErrImagePull", "no such host"), **late)])
    assert s.poll()["redis"].state == "failed"
    assert s.runs[0].stopped


def test_a_broken_pod_of_before_is_not_blamed_while_helm_works(tmp_path: Path) -> None:
    s = stage(tmp_path, wanted("redis"))
    s.poll()
    old: dict[str, Any] = {"about": {"creationTimestamp": "2020-01-01T00:00:00Z"}}
    s.api.has(o.workload(ready=0), pods=[o.pod(container=o.waiting("ImagePullBackOff"), **old)])
    assert s.poll()["redis"].state == "starting"
    assert not s.runs[0].stopped


def test_a_broken_pod_of_an_upgrade_that_was_just_killed_is_not_blamed(tmp_path: Path) -> None:
    there = {"redis": Deployed("redis", "platform", 4, "pending-upgrade", "old", 3)}
    s = stage(tmp_path, wanted("redis"), deployed=there)
    s.poll()
    s.finish()
    s.poll()
    made: dict[str, Any] = {
        "about": {"creationTimestamp": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(s.clock[0]))}
    }
    broken = o.pod(container=o.waiting("ImagePullBackOff"), labels={"controller-revision-hash": "redis-a"}, **made)
    going_back = o.workload("StatefulSet", ready=0, updateRevision="redis-b")
    s.api.lists = {"/apis/apps/v1/statefulsets": [going_back], "/api/v1/pods": [broken]}
    assert s.poll()["redis"].state == "starting"
    assert not s.runs[1].stopped


def test_a_crash_while_what_it_needs_is_away_is_forgiven(tmp_path: Path) -> None:
    there = {n: Deployed(n, "platform", 1, "deployed", "new", 1) for n in ("redis", "temporal")}
    s = stage(tmp_path, wanted("redis"), wanted("temporal", needs=("redis",)), deployed=there)
    crashing = o.pod("temporal", o.waiting("CrashLoopBackOff", restarts=5, exitCode=1))
    s.api.has(o.workload(ready=0), o.workload(release="temporal", ready=0), pods=[crashing])
    s.rollout._known["temporal"].applied = True  # as after an earlier look, before the node restarted
    assert "failed" not in s.states().values()


def test_silence_of_the_cluster_is_borne_for_a_while(tmp_path: Path) -> None:
    s = stage(tmp_path, wanted("redis"))
    s.api.silent = True
    assert s.states() == {"redis": "starting"}
    s.clock[0] += module.PATIENCE + 1
    with pytest.raises(NoAnswer):
        s.poll()


def test_runs_that_still_go_on_are_ended_with_ours(tmp_path: Path) -> None:
    s = stage(tmp_path, wanted("redis"))
    s.poll()
    s.rollout.stop()
    assert s.runs[0].stopped


def test_a_broken_pod_that_a_stateful_set_waits_for_is_made_anew(tmp_path: Path) -> None:
    there = {"redis": Deployed("redis", "platform", 3, "deployed", "new", 3)}
    s = stage(tmp_path, wanted("redis"), deployed=there)
    s.rollout.kubectl = Kubectl("kubectl", tmp_path / "kubeconfig")
    old = o.pod(container=o.waiting("ImagePullBackOff"), labels={"controller-revision-hash": "redis-a"})
    wanted_set = o.workload("StatefulSet", ready=0, updateRevision="redis-b")
    s.api.lists = {"/apis/apps/v1/statefulsets": [wanted_set], "/api/v1/pods": [old]}
    s.poll()
    s.poll()
    s.poll()
    assert [run.argv[-1] for run in s.runs] == ["pod/redis-0"], "once"


OLD: dict[str, Any] = {
    "creationTimestamp": "2020-01-01T00:00:00Z",
    "ownerReferences": [{"kind": "ReplicaSet", "name": "r", "uid": "set"}],
}


def test_a_pod_that_waits_after_crashes_of_before_is_tried_at_once(tmp_path: Path) -> None:
    there = {"redis": Deployed("redis", "platform", 1, "deployed", "new", 1)}
    s = stage(tmp_path, wanted("redis"), deployed=there)
    s.rollout.kubectl = Kubectl("kubectl", tmp_path / "kubeconfig")
    s.api.has(o.workload(ready=0), pods=[o.pod(container=o.waiting("CrashLoopBackOff", restarts=6), about=OLD)])
    assert [s.states()["redis"] for _ in range(3)] == ["starting"] * 3
    assert [run.argv[-1] for run in s.runs] == ["pod/redis-0"], "once"
    fresh = {**OLD, "creationTimestamp": "2030-01-01T00:00:00Z", "uid": "another"}
    s.api.has(o.workload(ready=0), pods=[o.pod(container=o.waiting("CrashLoopBackOff", restarts=3), about=fresh)])
    assert s.states()["redis"] == "failed"


@pytest.mark.parametrize(("restarts", "owned"), [(2, True), (6, False)])
def test_a_pod_that_mends_or_that_nobody_would_make_again_is_left_alone(
    tmp_path: Path, restarts: int, owned: bool
) -> None:
    there = {"redis": Deployed("redis", "platform", 1, "deployed", "new", 1)}
    s = stage(tmp_path, wanted("redis"), deployed=there)
    s.rollout.kubectl = Kubectl("kubectl", tmp_path / "kubeconfig")
    about = OLD if owned else {"creationTimestamp": OLD["creationTimestamp"]}
    crashing = o.waiting("CrashLoopBackOff", restarts=restarts)
    s.api.has(o.workload(ready=0), pods=[o.pod(container=crashing, about=about)])
    s.poll()
    s.poll()
    assert s.runs == []


def test_a_pod_of_an_earlier_build_is_replaced_and_waited_for(tmp_path: Path) -> None:
    there = {"redis": Deployed("redis", "platform", 1, "deployed", "new", 1)}
    s = stage(tmp_path, wanted("redis"), deployed=there)
    s.rollout.kubectl = Kubectl("kubectl", tmp_path / "kubeconfig")
    s.rollout.earlier = lambda pod: "backend:dev" if pod["metadata"]["uid"] == "uid-redis-0" else ""
    s.api.has(o.workload(), pods=[o.pod(about=OLD)])
    assert [s.states()["redis"] for _ in range(3)] == ["starting"] * 3, "ready is what the old pod still says"
    assert [run.argv[-1] for run in s.runs] == ["pod/redis-0"], "once"
    s.api.has(o.workload(), pods=[o.pod(about={**OLD, "creationTimestamp": "2030-01-01T00:00:00Z", "uid": "another"})])
    assert s.states()["redis"] == "ready"
    assert (s.rollout.changed, s.rollout.waited) == (["redis"], True)


def test_a_release_whose_images_are_on_their_way_is_held_back_and_nobody_else(tmp_path: Path) -> None:
    made = stage(tmp_path, wanted("redis"), wanted("minio"))
    reasons = {"minio": "its images are being loaded"}
    made.rollout.held = lambda name: reasons.get(name, "")
    seen = made.poll()
    assert (seen["minio"].state, seen["minio"].detail) == ("waiting", "its images are being loaded")
    assert [run.argv[2] for run in made.runs] == ["redis"]
    reasons.clear()
    made.poll()
    assert [run.argv[2] for run in made.runs] == ["redis", "minio"]
