"""A site against its cluster, which is played: what it lacks is named, what cannot be asked ends nothing."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from infra.kube.api import NoAnswer
from infra.prod import live, room
from infra.prod.cost import Share
from infra.prod.init import DEFAULT
from infra.prod.render import Rendered
from infra.prod.site import Site
from tests.unit.prod import things as t
from tests.unit.prod.played import UID, Played

GIB = 1024**3
SAYS: dict[str, Any] = {
    "site": "example",
    "cluster": {"context": "prod", "uid": UID, "version": "1.34"},
    "size": "small",
    "storage": {"class": "gp3", "zones": 2},
    "secrets": {"from": "external-secrets", "store": "vault"},
    "route": {
        "kind": "ingress",
        "class": "traefik",
        "issuer": "letsencrypt",
        "host": "a.example.com",
        "from": "traefik",
    },
    "observability": {"engine": "none"},
}
ROUTE = "/apis/networking.k8s.io/v1/ingressclasses/traefik"
ISSUER = "/apis/cert-manager.io/v1/clusterissuers/letsencrypt"
STORE = "/apis/external-secrets.io/v1/clustersecretstores/vault"
CLASSES, NODES = "/apis/storage.k8s.io/v1/storageclasses", "/api/v1/nodes"
READY = {"status": {"conditions": [{"type": "Ready", "status": "True"}]}}


def node(name: str, zone: str = "a", memory: str = "16Gi", **spec: Any) -> dict[str, Any]:
    about = {"name": name, "labels": {room.ZONE: zone}}
    return {"metadata": about, "spec": spec, "status": {"allocatable": {"cpu": "4", "memory": memory}}}


def answers(**other: Any) -> dict[str, Any]:
    """What a cluster says that has everything; `other` by the last part of a path, None where it is not there."""
    found: dict[str, Any] = {
        "/version": {"major": "1", "minor": "34+"},
        CLASSES: {"items": [{"metadata": {"name": "gp3"}, "allowVolumeExpansion": True}]},
        ROUTE: {},
        ISSUER: READY,
        STORE: READY,
        NODES: {"items": [node("one"), node("two", "b"), node("three", "b")]},
        "/api/v1/pods": {"items": []},
    }
    return {path: other.get(path.rpartition("/")[2], body) for path, body in found.items()}


@dataclass(frozen=True)
class Asked(Played):
    """A cluster that answers by path, and knows every kind but some."""

    said: dict[str, Any] = field(default_factory=dict)
    unknown: tuple[str, ...] = ()

    def get(self, path: str, **query: str) -> dict[str, Any]:
        if isinstance(self.said.get(path), Exception):
            raise self.said[path]
        if self.said.get(path) is None:
            raise NoAnswer(f"{path} not found", 404)
        return dict(self.said[path])

    def namespaces(self) -> set[str]:
        return {"platform", "default"}

    def has_kind(self, thing: Any) -> bool:
        return thing["kind"] not in self.unknown


def checked(cluster: Asked, *objects: dict[str, Any], **says: Any) -> tuple[list[tuple[str, str]], list[str]]:
    site = Site(Path("sites/example.yaml"), {**SAYS, **says})
    found, notes = live.check(Rendered(site, {"a": tuple(objects)}), cluster)
    return [(f.rule, f.object) for f in found], notes


def test_a_cluster_that_has_everything_gives_no_findings() -> None:
    assert checked(Asked(said=answers()), t.cluster(), t.deployment()) == ([], [])


LACKS: tuple[tuple[str, dict[str, Any], tuple[str, str]], ...] = (
    ("another version", {"version": {"major": "1", "minor": "36"}}, ("version", "site example")),
    ("no such class", {"storageclasses": {"items": []}}, ("storage-class", "StorageClass gp3")),
    ("no controller of routes", {"traefik": None}, ("present", "IngressClass traefik")),
    ("no issuer", {"letsencrypt": None}, ("present", "ClusterIssuer letsencrypt")),
    ("an issuer that is not ready", {"letsencrypt": {"status": {}}}, ("present", "ClusterIssuer letsencrypt")),
    ("no store of secrets", {"vault": None}, ("present", "ClusterSecretStore vault")),
    ("one zone", {"nodes": {"items": [node(n) for n in "abc"]}}, ("capacity", "site example")),
    (
        "a zone that no node names",
        {"nodes": {"items": [node("a", "a"), node("b", "a"), {**node("c"), "metadata": {"name": "c"}}]}},
        ("capacity", "site example"),
    ),
    ("little memory", {"nodes": {"items": [node(n, n, "512Mi") for n in "abc"]}}, ("capacity", "site example")),
    (
        "two nodes",
        {"nodes": {"items": [node("a", "a"), node("b", "b"), node("c", "b", unschedulable=True)]}},
        ("capacity", "Cluster platform/postgresql"),
    ),
    (
        "two nodes and one that is tainted",
        {
            "nodes": {
                "items": [node("a", "a"), node("b", "b"), node("c", "b", taints=[{"key": "x", "effect": "NoSchedule"}])]
            }
        },
        ("capacity", "Cluster platform/postgresql"),
    ),
)


@pytest.mark.parametrize(("other", "wanted"), [x[1:] for x in LACKS], ids=[x[0] for x in LACKS])
def test_what_the_cluster_lacks_is_found(other: dict[str, Any], wanted: tuple[str, str]) -> None:
    assert checked(Asked(said=answers(**other)), t.cluster(), t.deployment()) == ([wanted], [])


def test_a_taint_that_only_prefers_others_keeps_no_pod_away() -> None:
    soft = node("c", "b", taints=[{"key": "x", "effect": "PreferNoSchedule"}])
    said = answers(nodes={"items": [node("a", "a"), node("b", "b"), soft]})
    assert checked(Asked(said=said), t.cluster(), t.deployment()) == ([], [])


GATEWAY = "/apis/gateway.networking.k8s.io/v1/namespaces/infra/gateways/public"


@pytest.mark.parametrize(
    ("state", "wanted"),
    [
        ({"status": {"conditions": [{"type": "Programmed", "status": "True"}]}}, []),
        ({"status": {"conditions": [{"type": "Programmed", "status": "False", "message": "no address"}]}}, ["present"]),
        ({"status": {"conditions": [{"type": "Accepted", "status": "True"}]}}, ["present"]),
        (None, ["present"]),
    ],
    ids=["programmed", "not programmed", "only accepted", "absent"],
)
def test_a_gateway_has_to_be_there_and_at_work(state: Any, wanted: list[str]) -> None:
    route = {"kind": "gateway", "parent": "infra/public", "host": "a.example.com", "from": "infra"}
    found, _ = checked(Asked(said={**answers(), GATEWAY: state}), route=route)
    assert found == [(rule, "Gateway infra/public") for rule in wanted]


def test_a_kind_that_nothing_brings_is_found() -> None:
    cluster = Asked(said=answers(), unknown=("Cluster",))
    assert checked(cluster, t.cluster())[0] == [("definition", "postgresql.cnpg.io/v1 Cluster")]
    brought = t.thing("CustomResourceDefinition", {"names": {"kind": "Cluster"}}, "apiextensions.k8s.io/v1")
    assert checked(cluster, brought, t.cluster())[0] == []


def test_what_the_api_server_refuses_is_found() -> None:
    cluster = replace(Asked(said=answers()), refuses={"server": "admission denied"})
    assert checked(cluster, t.deployment(), t.job())[0] == [("dry-run", "Deployment platform/server")]


def test_what_may_not_be_asked_is_a_note_and_ends_nothing() -> None:
    cluster = Asked(said=answers(nodes=NoAnswer("nodes is forbidden", 500), traefik=None))
    found, notes = checked(cluster, t.deployment())
    assert found == [("present", "IngressClass traefik")]
    assert notes == ["not known: the room of its nodes (nodes is forbidden)"]


def test_volumes_that_cannot_grow_are_noted() -> None:
    found, notes = checked(Asked(said=answers(storageclasses={"items": [{"metadata": {"name": "gp3"}}]})))
    assert found == []
    assert notes == ["volumes of the class gp3 cannot grow: it lacks allowVolumeExpansion"]


def test_a_default_class_will_do_where_the_site_names_none() -> None:
    marked = {"name": "standard", "annotations": {DEFAULT: "true"}}
    there = {"items": [{"metadata": marked, "allowVolumeExpansion": True}]}
    assert checked(Asked(said=answers(storageclasses=there)), storage={"zones": 1}) == ([], [])
    assert checked(Asked(said=answers()), storage={"zones": 1})[0] == [("storage-class", "storage.class")]


def test_accelerators_that_no_node_has_are_noted() -> None:
    training = {"class": {"resource": "nvidia.com/gpu", "count": 1, "nodeSelector": {room.ZONE: "a"}}}
    assert "no node has 1 nvidia.com/gpu" in checked(Asked(said=answers()), training=training)[1][0]
    rich = node("one")
    rich["status"]["allocatable"]["nvidia.com/gpu"] = "4"
    others = {"items": [rich, node("two", "b"), node("three", "b")]}
    assert checked(Asked(said=answers(nodes=others)), training=training) == ([], [])


def test_room_that_others_have_taken_is_not_free() -> None:
    spec = {"nodeName": "one", "containers": [{"name": "x", "resources": {"requests": {"cpu": "3", "memory": "1Gi"}}}]}
    other = {"metadata": {"name": "x", "namespace": "other"}, "spec": spec}
    mine = {**other, "metadata": {"name": "x", "namespace": "platform"}}
    ended = {**other, "status": {"phase": "Succeeded"}}
    one = {"items": [node("one")]}
    big = t.deployment(t.pod(t.container(resources={"requests": {"cpu": "2", "memory": "1Gi"}})), replicas=1)
    for pods, wanted in (([other], [("capacity", "site example")]), ([mine], []), ([ended], [])):
        said = answers(nodes=one, pods={"items": pods})
        assert checked(Asked(said=said), big, storage={"class": "gp3"})[0] == wanted


def test_pods_are_placed_where_they_fit() -> None:
    rooms = [(2.0, 4.0 * GIB), (2.0, 8.0 * GIB)]
    large, small = Share(1, 6 * GIB, 0), Share(1, 1 * GIB, 0)
    assert room.unplaced([small, small, large], rooms) == []
    assert room.unplaced([large, large], rooms) == [large]
