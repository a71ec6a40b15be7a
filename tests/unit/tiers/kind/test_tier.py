"""The kind tier where it asks no cluster."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from infra import endpoints
from infra.kube.releases import Wanted
from infra.tiers.cluster import deploy as cluster_deploy
from infra.tiers.cluster.deploy import DeployOutcome
from infra.tiers.kind import repair
from infra.tiers.kind.cluster import KindCluster
from infra.tiers.kind.tier import Kind
from tests.unit.helpers import context_of
from tests.unit.tiers.kind.fakes import Answers


@pytest.mark.parametrize(
    ("services", "out", "logs"),
    [(("loki", "prometheus"), "", True), (("loki",), "grafana,alloy", False), (("prometheus",), "", False)],
)
def test_logs_are_carried_where_loki_runs_and_alloy_is_not_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, services: tuple[str, ...], out: str, logs: bool
) -> None:
    context = context_of(tmp_path, PLATFORM_LEAVE_OUT=out)
    built = endpoints.build(context.settings, ())
    monkeypatch.setattr(Kind, "endpoints", lambda _self: replace(built, services=services))
    seen = Kind(context).observed()
    assert seen.logs is logs
    assert set(seen.absent) == {"mlflow", "prometheus", "loki", "grafana", "clearml"} - set(services)


@pytest.mark.parametrize(
    ("changed", "there", "deployed"),
    [(["postgresql"], True, ["platform"]), (["postgresql"], False, []), ([], True, [])],
    ids=["another password", "no application", "nothing changed"],
)
def test_an_application_gets_the_logins_with_which_services_were_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changed: list[str], there: bool, deployed: list[str]
) -> None:
    tier, asked = Kind(context_of(tmp_path)), list[str]()
    tier.home.mkdir(parents=True)

    def deploy(self: Kind, wanted: Sequence[Wanted], timeout: float | None) -> DeployOutcome:
        asked.extend(w.name for w in wanted)
        return DeployOutcome([n for n in changed if n in asked], waited=False)

    labels = {"owner": "helm", "name": "platform", "status": "deployed", "version": "1"}
    release = {"metadata": {"name": "x", "namespace": "platform", "labels": labels}}
    api = Answers({"/api/v1/secrets": [release] if there else []})
    monkeypatch.setattr(KindCluster, "connected", lambda _self: contextlib.nullcontext(api))
    monkeypatch.setattr(repair, "ensure", lambda *_: False)
    monkeypatch.setattr(cluster_deploy, "prepare", lambda *_: None)
    monkeypatch.setattr(Kind, "tools", None)
    monkeypatch.setattr(Kind, "kubectl", None)
    monkeypatch.setattr(Kind, "deploy", deploy)
    monkeypatch.setattr(Kind, "_until_they_answer", lambda *_: None)
    tier.start(["postgres"], None)
    asked.clear()
    tier.renew_application(None)
    assert asked == deployed
