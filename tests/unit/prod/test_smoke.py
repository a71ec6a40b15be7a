"""The pod of prod.smoke: the backend's own, as far as a pod that ends can be; what it prints is read."""

from __future__ import annotations

import json
from typing import Any

import pytest

from infra import shell
from infra.errors import PlatformError
from infra.prod import network, smoke
from infra.prod.rules import RULES
from tests.unit.prod import things as t
from tests.unit.prod.played import Played

ENV = [{"configMapRef": {"name": "platform-env"}}, {"secretRef": {"name": "platform-credentials"}}]


def _backend() -> Any:
    server = t.container(name="backend", envFrom=ENV, ports=[{"containerPort": 8000}], readinessProbe={}, lifecycle={})
    template = t.pod(server, **t.spread(volumes=[{"name": "ca", "configMap": {"name": "postgresql-ca"}}]))
    template["metadata"]["labels"] = {"app.kubernetes.io/name": "platform", "app.kubernetes.io/component": "backend"}
    made = t.deployment(template)
    made["metadata"]["name"] = smoke.SERVER
    return made


def test_the_pod_has_what_the_backend_has_and_is_no_server() -> None:
    pod = smoke.made([_backend()], "platform-smoke-1", with_training=False)["spec"]["template"]
    (container,) = pod["spec"]["containers"]
    backend = _backend()["spec"]["template"]["spec"]
    assert container["image"] == backend["containers"][0]["image"]
    assert container["envFrom"] == ENV
    assert pod["spec"]["volumes"] == backend["volumes"]
    assert not {"ports", "readinessProbe", "lifecycle"} & container.keys()
    assert dict(network.SMOKE.labels).items() <= pod["metadata"]["labels"].items()
    assert network.BACKEND.labels != network.SMOKE.labels
    compile(container["command"][-1], "smoke_checks", "exec")


def test_the_pod_keeps_the_rules_that_the_cluster_guards() -> None:
    job = smoke.made([_backend()], "platform-smoke-1", with_training=True)
    names = ("image-digest", "limits", "restricted", "deadline", "secret-by-value", "helm-hook")
    assert [list(rule.find([job])) for rule in RULES if rule.name in names] == [[]] * len(names)


class Asked(Played):
    """A cluster whose pods say something and end."""

    def _logs(self, words: Any, things: Any) -> shell.Result:
        lines = ['{"check": "redis", "ok": true, "why": ""}', '{"check": "temporal", "ok": false, "why": "no answer"}']
        return shell.Result(0, "\n".join(["Some warning", *lines]), "")


def _fails(job: Any) -> None:
    job["status"] = {"failed": 1}


def test_what_the_pod_found_is_told_and_the_pod_removed() -> None:
    there = Asked(becomes=_fails)
    found = smoke.run(there, [_backend()], False, sleep=lambda seconds: None)
    assert [(c.check, c.ok, c.why) for c in found] == [("redis", True, ""), ("temporal", False, "no answer")]
    assert [entry.split()[0] for entry in there.log] == ["create", "delete"]
    assert not [name for kind, _, name in there.has if kind.startswith("Job")]


def test_a_pod_that_never_ends_is_removed_as_well() -> None:
    there = Asked()
    with pytest.raises(PlatformError) as late:
        smoke.run(there, [_backend()], False, budget=-1, sleep=lambda seconds: None)
    assert late.value.code == "WAIT_TIMEOUT"
    assert there.log[-1].startswith("delete")


@pytest.mark.parametrize(
    ("text", "why"), [("", "it printed nothing"), ("Traceback\nImportError: x\n", "ImportError: x")]
)
def test_a_pod_that_could_not_ask_is_a_failure_with_its_last_line(text: str, why: str) -> None:
    with pytest.raises(PlatformError) as failed:
        smoke.read(text, "platform-smoke-1")
    assert (failed.value.code, failed.value.why) == ("SERVICE_FAILED", why)


def test_a_site_without_a_backend_has_nothing_to_try() -> None:
    with pytest.raises(PlatformError, match="has no platform-backend"):
        smoke.made([], "x", with_training=False)


def test_every_question_is_named_once_and_a_training_only_when_wished() -> None:
    from infra.prod import smoke_checks

    class Backends:
        backends = ("mlflow",)

    plain: Any = smoke_checks.questions(Backends(), with_training=False)  # type: ignore[arg-type]
    more: Any = smoke_checks.questions(Backends(), with_training=True)  # type: ignore[arg-type]
    assert set(more) - set(plain) == {"training"}
    assert json.dumps(sorted(plain))
