"""The queue of trainings as the tier has it: remembered, checked, and removed only when nobody waits in it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from infra.errors import PlatformError
from infra.kube.releases import Wanted
from infra.tasks import kind_queue
from infra.tiers.cluster.deploy import DeployOutcome
from infra.tiers.kind import queue
from infra.tiers.kind.tier import Kind
from tests.unit.helpers import context_of


class Host:
    """A tier whose API answers with what a test says, by the last word of the path."""

    def __init__(self, home: Path, **answers: list[dict[str, Any]]) -> None:
        self.context = context_of(home)
        self.answers, self.gone = answers, list[str]()
        self.kubectl: Any = None
        self.runs = True

    @property
    def cluster(self) -> Any:
        """Itself, as far as a cluster is asked."""
        return SimpleNamespace(connected=self._connected)

    @contextlib.contextmanager
    def _connected(self) -> Iterator[Any]:
        yield SimpleNamespace(items=lambda path, **_: self.answers.get(path.rsplit("/", 1)[-1], []))

    def running(self) -> bool:
        """As the test says."""
        return self.runs

    def deploy(self, wanted: Sequence[Wanted], timeout: float | None) -> DeployOutcome:
        """Nothing."""
        return DeployOutcome([w.name for w in wanted], False)

    def uninstall(self, release: str, namespace: str) -> None:
        """Note it."""
        self.gone.append(f"{namespace}/{release}")


def release(name: str) -> dict[str, Any]:
    labels = {"owner": "helm", "name": name, "status": "deployed", "version": "1"}
    return {"metadata": {"namespace": "x", "labels": labels}}


def condition(kind: str, status: str) -> dict[str, Any]:
    return {"status": {"conditions": [{"type": kind, "status": status}]}}


def cluster_queue(active: str) -> dict[str, Any]:
    return {"metadata": {"name": "trainings"}, "spec": {}, **condition("Active", active)}


def test_a_stack_has_a_queue_when_it_was_asked_for(tmp_path: Path) -> None:
    host = Host(tmp_path)
    assert not queue.wanted(host)
    kind_queue.wish(cast(Kind, host), queue=True, no_queue=False)
    assert queue.wanted(host)
    kind_queue.wish(cast(Kind, host), queue=False, no_queue=False)
    assert queue.wanted(host), "remembered"
    kind_queue.wish(cast(Kind, host), queue=False, no_queue=True)
    assert not queue.wanted(host)
    with pytest.raises(PlatformError, match="exclude each other"):
        kind_queue.wish(cast(Kind, host), queue=True, no_queue=True)


@pytest.mark.parametrize(
    ("found", "status"), [([], "fail"), ([cluster_queue("False")], "fail"), ([cluster_queue("True")], "ok")]
)
def test_doctor_says_whether_it_takes_trainings(tmp_path: Path, found: list[dict[str, Any]], status: str) -> None:
    host = Host(tmp_path, clusterqueues=found)
    assert queue.checks(host) == [], "nobody has asked for one"
    queue.remember(host, True)
    assert [(check.id, check.status) for check in queue.checks(host)] == [("queue", status)]
    host.runs = False
    assert queue.checks(host) == []
    assert queue.line(host) == ""


def test_it_is_removed_in_reverse_order_and_not_under_those_who_wait(tmp_path: Path) -> None:
    waiting = condition("QuotaReserved", "False")
    host = Host(
        tmp_path, secrets=[release("jobset"), release("kueue")], workloads=[condition("Finished", "True"), waiting]
    )
    with pytest.raises(PlatformError, match="in the queue: 1"):
        queue.remove(host)
    assert host.gone == []
    host.answers["workloads"].remove(waiting)
    assert queue.remove(host) == ("jobset", "kueue")
    assert host.gone == ["kueue-system/kueue", "jobset-system/jobset"]
