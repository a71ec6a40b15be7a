"""Flows become policies, and what these allow is computed from them alone."""

from __future__ import annotations

from typing import Any

import pytest

from infra.prod import network, reach
from infra.prod import site as sites
from infra.prod.network import Flow, Peer
from infra.settings import ROOT

WEB = Peer("web", "platform", (("app", "web"),))
DATA = Peer("data", "platform", (("app", "data"),))
OTHER = Peer("other", "temporal", (("app", "other"),))
OUTSIDE = Peer("outside", cidr="10.0.0.0/8")
FLOWS = [Flow(WEB, DATA, (5432,)), Flow(OTHER, DATA, (5432,)), Flow(WEB, OUTSIDE, (443,))]


@pytest.mark.parametrize("name", ["example", "rehearsal"])
def test_the_policies_of_a_site_allow_its_flows_and_no_more(name: str) -> None:
    site = sites.load(name, ROOT)
    assert list(reach.differences(network.policies(site), network.flows(site))) == []


def test_every_guarded_namespace_denies_by_default() -> None:
    made = network.policies(sites.load("example", ROOT))
    denied = [p["metadata"]["namespace"] for p in made if p["spec"] == network._denied("x")["spec"]]
    assert denied == list(network.GUARDED)


def test_a_training_reaches_neither_accounts_nor_applications() -> None:
    found = {f.target.name for f in network.flows(sites.load("example", ROOT)) if f.source == network.TRAINING}
    assert found == {"postgresql", "external Redis", "the object store", "mlflow/server", network.TRAINING.name}


def test_the_workers_of_a_training_find_each_other_on_any_port() -> None:
    made = network.policies(sites.load("example", ROOT))
    assert reach.reachable(made, [network.TRAINING, network.BACKEND], [29500, 41234]) == {
        reach.Reach(network.TRAINING.name, network.TRAINING.name, port) for port in (29500, 41234)
    }


def policy(selector: dict[str, Any], namespace: str = "platform", **spec: Any) -> dict[str, Any]:
    types = [name.capitalize() for name in spec if spec[name] is not None]
    body = {"podSelector": selector, "policyTypes": types, **{k: v for k, v in spec.items() if v}}
    return {"metadata": {"namespace": namespace}, "spec": body}


def labelled(**labels: str) -> dict[str, Any]:
    return {"matchLabels": labels}


EVERYWHERE: dict[str, Any] = {}
CASES: tuple[tuple[str, list[dict[str, Any]], bool], ...] = (
    ("no policy allows everything", [], True),
    ("deny in, nothing else", [policy(EVERYWHERE, ingress=[])], False),
    ("deny out, nothing else", [policy(EVERYWHERE, egress=[])], False),
    ("deny elsewhere", [policy(EVERYWHERE, "temporal", ingress=[])], True),
    ("a pod of the namespace", [policy(labelled(app="data"), ingress=[{"from": [{"podSelector": {}}]}])], True),
    (
        "only another pod",
        [policy(labelled(app="data"), ingress=[{"from": [{"podSelector": labelled(app="x")}]}])],
        False,
    ),
    ("the right port", [policy(EVERYWHERE, ingress=[{"ports": [{"port": 5432}]}])], True),
    ("another port", [policy(EVERYWHERE, ingress=[{"ports": [{"port": 80}]}])], False),
    ("another protocol", [policy(EVERYWHERE, ingress=[{"ports": [{"port": 5432, "protocol": "UDP"}]}])], False),
    ("addresses are no pods", [policy(EVERYWHERE, ingress=[{"from": [{"ipBlock": {"cidr": "0.0.0.0/0"}}]}])], False),
    (
        "both ends must allow it",
        [policy(EVERYWHERE, ingress=[{}]), policy(EVERYWHERE, egress=[{"to": [{"podSelector": labelled(app="x")}]}])],
        False,
    ),
    ("policies add up", [policy(EVERYWHERE, ingress=[]), policy(labelled(app="data"), ingress=[{}])], True),
    (
        "an expression",
        [policy(EVERYWHERE, ingress=[{"from": [{"podSelector": {"matchExpressions": [
            {"key": "app", "operator": "In", "values": ["web"]}]}}]}])],
        True,
    ),
)  # fmt: skip


@pytest.mark.parametrize(("policies", "allowed"), [c[1:] for c in CASES], ids=[c[0] for c in CASES])
def test_meaning_of_policies(policies: list[dict[str, Any]], allowed: bool) -> None:
    found = reach.reachable(policies, [WEB, DATA], [5432])
    assert (reach.Reach("web", "data", 5432) in found) is allowed


def test_a_namespace_is_chosen_by_its_name() -> None:
    there = {"namespaceSelector": labelled(**{"kubernetes.io/metadata.name": "temporal"})}
    policies = [policy(EVERYWHERE, ingress=[{"from": [there]}])]
    found = {r.source for r in reach.reachable(policies, [WEB, DATA, OTHER], [5432]) if r.target == "data"}
    assert found == {"other"}


def test_what_is_missing_and_what_is_too_much_is_said() -> None:
    made = [policy(EVERYWHERE, ingress=[]), policy(EVERYWHERE, egress=[])]
    assert "web cannot reach data:5432, which it needs" in list(reach.differences(made, FLOWS))
    wide = [policy(EVERYWHERE, ingress=[{}], egress=[{}])]
    assert "data can reach web:5432, which nothing needs" in list(reach.differences(wide, FLOWS))
