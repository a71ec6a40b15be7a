"""The plain manifests: valid, restricted, the same as the charts; production without what development has."""

from __future__ import annotations

import pytest

from infra import catalog
from infra.settings import ROOT
from tests.drift import manifests as m

PRODUCTION = "overlays/production"


def test_every_kustomization_is_checked() -> None:
    found = {p.parent.relative_to(ROOT / "k8s").as_posix() for p in (ROOT / "k8s").rglob("kustomization.yaml")}
    assert found == set(m.FOLDERS)


@pytest.mark.parametrize("version", m.VERSIONS)
@pytest.mark.parametrize("folder", m.FOLDERS)
def test_objects_fit_the_schemas_of_kubernetes(folder: str, version: str) -> None:
    assert [wrong for found in m.kustomized(folder) if (wrong := m.invalid(found, version))] == []


@pytest.mark.parametrize("folder", m.FOLDERS)
def test_pods_have_least_privileges_limits_and_probes(folder: str) -> None:
    objects = m.kustomized(folder)
    assert [*m.not_restricted(objects), *m.unlimited(objects), *m.unasked(objects)] == []


@pytest.mark.parametrize("folder", m.FOLDERS)
def test_everything_is_labelled_so_that_it_can_be_found_again(folder: str) -> None:
    wanted = {"app.kubernetes.io/part-of": "platform"}
    if folder != "namespaces":  # these outlive a deletion of the rest
        wanted["app.kubernetes.io/managed-by"] = "kustomize"
    assert [m.name(f) for f in m.kustomized(folder) if not wanted.items() <= f["metadata"]["labels"].items()] == []


def test_one_object_in_a_file() -> None:
    files = [p for p in (ROOT / "k8s").rglob("*.yaml") if p.name not in ("kustomization.yaml", "clusterip.yaml")]
    assert len(files) > 20
    assert [p.name for p in files if "\n---" in p.read_text(encoding="utf-8")] == []


def test_nothing_deletes_a_namespace() -> None:
    for folder in set(m.FOLDERS) - {"namespaces"}:
        assert m.of_kind(m.kustomized(folder), "Namespace") == []


def test_namespaces_are_those_of_the_catalogue() -> None:
    assert {n["metadata"]["name"] for n in m.kustomized("namespaces")} == set(catalog.NAMESPACES)


def test_ports_of_the_node_are_those_of_the_catalogue() -> None:
    ports = m.node_ports((*m.kustomized("overlays/nodeports"), *m.kustomized("overlays/kind")))
    wanted = {p.node_port: (p.namespace, p.port) for p in catalog.CLUSTER_PORTS}
    assert {number: (namespace, port) for number, (_, namespace, port) in ports.items()} == wanted


@pytest.mark.parametrize("service", m.load("k8s/overlays/nodeports/kustomization.yaml")["resources"])
def test_services_lead_to_the_pods_of_the_charts(service: str) -> None:
    pods = [pod["metadata"]["labels"] for chart in m.CHARTS for _, pod in m.pods(m.rendered(chart))]
    ports = {p["name"] for chart in m.CHARTS for _, c in m.containers(m.rendered(chart)) for p in c.get("ports", [])}
    for found in m.kustomized(service.removeprefix("../../")):
        selector = found["spec"]["selector"]
        assert any(selector.items() <= labels.items() for labels in pods), m.name(found)
        assert {p["targetPort"] for p in found["spec"]["ports"]} <= ports


def test_applications_are_told_the_same_as_by_the_chart() -> None:
    raw, chart = m.kustomized("overlays/kind"), m.rendered("platform", "values-kind.yaml")
    env = {
        k: v
        for f in m.of_kind(raw, "ConfigMap", "Secret")
        for k, v in (*f.get("data", {}).items(), *f.get("stringData", {}).items())
    }
    del env["SERVICE_LINKS"]
    told = [f for f in chart if f["metadata"]["name"] == "platform-env"]
    assert env == {k: v for f in told for k, v in (*f.get("data", {}).items(), *f.get("stringData", {}).items())}
    assert set(env) <= set(catalog.CONTRACT_NAMES)


@pytest.mark.parametrize("part", ["backend", "frontend", "worker"])
def test_pods_are_those_of_the_chart(part: str) -> None:
    ours, theirs = (
        next(pod["spec"] for owner, pod in m.pods(objects) if owner["metadata"]["name"] == found)
        for objects, found in (
            (m.kustomized("overlays/kind"), part),
            (m.rendered("platform", "values-kind.yaml"), f"platform-{part}"),
        )
    )
    same = (
        "image",
        "command",
        "ports",
        "resources",
        "securityContext",
        "startupProbe",
        "readinessProbe",
        "livenessProbe",
    )
    ours, theirs = ours["containers"][0], theirs["containers"][0]
    assert {k: ours.get(k) for k in same} == {k: theirs.get(k) for k in same}
    assert {e["name"] for e in ours["env"]} == {e["name"] for e in theirs["env"]} - {
        "SERVICE_LINKS",
        "TRAINING_RESOURCES",
        "TRAINING_GPUS",
        "TRAINING_PATIENCE",
        "TRAINING_POD",
    }


def test_rights_are_those_of_the_chart() -> None:
    ours, theirs = (m.of_kind(o, "Role")[0]["rules"] for o in (m.kustomized("platform"), m.rendered("platform")))
    assert ours == theirs


def test_production_has_nothing_of_development() -> None:
    objects = m.kustomized(PRODUCTION)
    assert m.development_logins(objects) == []
    assert m.of_kind(objects, "Secret") == []
    assert m.node_ports(objects) == {}
    assert {s["spec"]["type"] for s in m.of_kind(objects, "Service")} == {"ClusterIP"}
    images = {c["image"] for _, c in m.containers(objects)}
    images |= {e["value"] for _, c in m.containers(objects) for e in c.get("env", []) if e["name"] == "TRAINING_IMAGE"}
    assert [image for image in images if m.unpinned(image)] == []
    assert min(d["spec"]["replicas"] for d in m.of_kind(objects, "Deployment")) > 1
    assert m.of_kind(objects, "Ingress")[0]["spec"]["tls"]
