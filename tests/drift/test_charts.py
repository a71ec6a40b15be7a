"""Every chart with each of its values files: valid, restricted, limited; production without logins of development."""

from __future__ import annotations

import json

import pytest

from infra import catalog
from infra.settings import ROOT
from tests.drift import manifests as m
from tests.drift.repo import read

RENDERINGS = [pytest.param(chart, values, (), id=f"{chart}-{values}") for chart in m.CHARTS for values in m.VALUES]
RENDERINGS += [pytest.param(chart, "values.yaml", sets, id=f"{chart}-{','.join(sets)}") for chart, sets in m.ENGINES]
PRODUCTION = "values-production.yaml"
OPENS_DATA = {s.name if s.release == "observability" else s.release for s in catalog.SERVICES if s.login or s.password}
"""Secrets with the login of a server."""
KEEPS_DATA = {s.release for s in catalog.SERVICES for p in s.parts if p.volume and p.only in ("", "silo")}
"""Charts that have a volume as they are."""
PASSWORD_MAY_BE_OFF = {s.release for s in catalog.SERVICES if s.password}
MAY_ASK_THE_API = {"platform-worker", "alloy"}
"""Workloads with a token for the Kubernetes API: the one makes Jobs, the other reads logs."""


@pytest.mark.parametrize("chart", m.CHARTS)
@pytest.mark.parametrize("values", m.VALUES)
def test_helm_finds_nothing_to_complain_of(chart: str, values: str) -> None:
    sets = [w for text in m.REQUIRED.get(chart, ()) if values == PRODUCTION for w in ("--set", text)]
    done = m.run_helm("lint", "--strict", chart, "-f", f"{chart}/{values}", *sets)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "[WARNING]" not in done.stdout
    assert "[ERROR]" not in done.stdout


@pytest.mark.parametrize("version", m.VERSIONS)
@pytest.mark.parametrize(("chart", "values", "sets"), RENDERINGS)
def test_objects_fit_the_schemas_of_kubernetes(chart: str, values: str, sets: tuple[str, ...], version: str) -> None:
    objects = m.rendered(chart, values, sets)
    assert objects
    assert [wrong for found in objects if (wrong := m.invalid(found, version))] == []


@pytest.mark.parametrize(("chart", "values", "sets"), RENDERINGS)
def test_pods_have_least_privileges_limits_and_probes(chart: str, values: str, sets: tuple[str, ...]) -> None:
    objects = m.rendered(chart, values, sets)
    assert [*m.not_restricted(objects), *m.unlimited(objects), *m.unasked(objects)] == []
    tokens = {
        owner["metadata"]["name"] for owner, pod in m.pods(objects) if pod["spec"]["automountServiceAccountToken"]
    }
    assert tokens <= MAY_ASK_THE_API


@pytest.mark.parametrize(("chart", "values", "sets"), RENDERINGS)
def test_labels_are_those_of_the_conventions(chart: str, values: str, sets: tuple[str, ...]) -> None:
    wanted = {
        f"app.kubernetes.io/{key}" for key in ("name", "instance", "component", "part-of", "managed-by", "version")
    }
    objects = m.rendered(chart, values, sets)
    assert [m.name(found) for found in objects if not wanted <= set(found["metadata"]["labels"])] == []
    for owner, pod in m.pods(m.of_kind(objects, "Deployment", "StatefulSet", "DaemonSet")):
        selector = owner["spec"]["selector"]["matchLabels"]
        assert selector.items() <= pod["metadata"]["labels"].items()
        # A label that changes with the chart's version would restart everything.
        assert not {"helm.sh/chart", "app.kubernetes.io/version"} & set(pod["metadata"]["labels"])


@pytest.mark.parametrize(("chart", "values", "sets"), RENDERINGS)
def test_services_and_budgets_lead_to_pods(chart: str, values: str, sets: tuple[str, ...]) -> None:
    objects = m.rendered(chart, values, sets)
    labels = [pod["metadata"]["labels"] for owner, pod in m.pods(objects) if owner["kind"] not in ("Job", "Pod")]
    selectors = [(s, s["spec"].get("selector")) for s in m.of_kind(objects, "Service")]
    selectors += [(p, p["spec"]["selector"]["matchLabels"]) for p in m.of_kind(objects, "PodDisruptionBudget")]
    selectors += [(p, p["spec"]["podSelector"]["matchLabels"]) for p in m.of_kind(objects, "NetworkPolicy")]
    lost = [
        m.name(thing) for thing, wanted in selectors if wanted and not any(wanted.items() <= x.items() for x in labels)
    ]
    assert lost == []


@pytest.mark.parametrize("chart", m.CHARTS)
def test_what_serves_has_a_disruption_budget(chart: str) -> None:
    objects = m.rendered(chart)
    budgets = [b["spec"]["selector"]["matchLabels"] for b in m.of_kind(objects, "PodDisruptionBudget")]
    for owner in m.of_kind(objects, "StatefulSet", "Deployment"):
        if owner["metadata"]["name"] not in ("platform-worker", "postgres-exporter", "redis-exporter"):
            assert owner["spec"]["selector"]["matchLabels"] in budgets, m.name(owner)


@pytest.mark.parametrize(("chart", "values", "sets"), RENDERINGS)
def test_data_and_what_opens_them_outlive_an_uninstallation(chart: str, values: str, sets: tuple[str, ...]) -> None:
    objects = m.rendered(chart, values, sets)
    kept = [*m.of_kind(objects, "PersistentVolumeClaim", "Cluster", "Database")]
    kept += [s for s in m.of_kind(objects, "Secret") if s["metadata"]["name"] in OPENS_DATA]
    policy = "helm.sh/resource-policy"
    assert [m.name(k) for k in kept if k["metadata"].get("annotations", {}).get(policy) != "keep"] == []
    # A claim made from a template belongs to nobody: the next installation could not say how large it is.
    assert [m.name(s) for s in m.of_kind(objects, "StatefulSet") if "volumeClaimTemplates" in s["spec"]] == []


@pytest.mark.parametrize("chart", sorted(KEEPS_DATA))
def test_charts_with_data_keep_a_volume(chart: str) -> None:
    assert m.of_kind(m.rendered(chart), "PersistentVolumeClaim")


@pytest.mark.parametrize("chart", m.CHARTS)
def test_every_chart_has_a_test_of_its_own(chart: str) -> None:
    hooks = [f["metadata"].get("annotations", {}).get("helm.sh/hook") for f in m.rendered(chart, "values-kind.yaml")]
    assert "test" in hooks


@pytest.mark.parametrize("chart", m.CHARTS)
def test_passwords_of_development_are_in_the_values_for_kind_only(chart: str) -> None:
    default = [t for t in m.development_logins(m.rendered(chart)) if not t.endswith(": minioadmin")]  # the user's name
    assert default == []
    assert m.development_logins(m.rendered(chart, PRODUCTION)) == []


@pytest.mark.parametrize("chart", m.CHARTS)
def test_production_makes_no_password(chart: str) -> None:
    assert [m.name(s) for s in m.of_kind(m.rendered(chart, PRODUCTION), "Secret")] == []


@pytest.mark.parametrize("chart", m.CHARTS)
def test_production_opens_no_port_of_the_node(chart: str) -> None:
    objects = m.rendered(chart, PRODUCTION)
    assert m.node_ports(objects) == {}
    assert [m.name(s) for s in m.of_kind(objects, "Service") if s["spec"].get("type", "ClusterIP") == "NodePort"] == []


@pytest.mark.parametrize("values", ["values.yaml", PRODUCTION])
@pytest.mark.parametrize("chart", m.CHARTS)
def test_images_are_exact(chart: str, values: str) -> None:
    images = {c["image"] for _, c in m.containers(m.rendered(chart, values))}
    images |= {c["spec"]["imageName"] for c in m.of_kind(m.rendered(chart, values), "Cluster")}
    own = {"platform-backend:dev", "platform-frontend:dev"} if values == "values.yaml" else set()
    assert [image for image in images - own if m.unpinned(image)] == []


def test_a_tag_that_moves_is_recognised() -> None:
    assert [m.unpinned(i) for i in ("x", "x:latest", "a.b:5000/x", "x:1.2", "x@sha256:0", "a:5/x:1")] == [
        *[True, True, True, False, False, False]
    ]


@pytest.mark.parametrize("chart", m.CHARTS)
def test_production_has_more_than_one_or_an_engine_elsewhere(chart: str) -> None:
    objects = m.rendered(chart, PRODUCTION)
    counts = {m.name(f): f["spec"]["replicas"] for f in m.of_kind(objects, "Deployment", "StatefulSet")}
    counts |= {m.name(f): f["spec"]["instances"] for f in m.of_kind(objects, "Cluster")}
    # One server with its data in a file; one that only reads another's numbers.
    alone = {"StatefulSet/redis", "Deployment/redis-exporter"}
    assert {found for found, count in counts.items() if count < 2} <= alone


@pytest.mark.parametrize("chart", [c for c in m.CHARTS if c not in ("postgresql", "minio")])
def test_production_says_who_may_connect(chart: str) -> None:
    objects = m.rendered(chart, PRODUCTION)
    allowed = [p["spec"]["podSelector"]["matchLabels"] for p in m.of_kind(objects, "NetworkPolicy")]
    for owner, pod in m.pods(m.of_kind(objects, "Deployment", "StatefulSet")):
        if any(c.get("ports") for c in pod["spec"]["containers"]):
            assert any(a.items() <= pod["metadata"]["labels"].items() for a in allowed), m.name(owner)


WRONG = (
    ("postgresql", "persistence.size=5GB", "'/persistence/size'"),
    ("postgresql", "engine=mysql", "'/engine'"),
    ("postgresql", "cloudnativepg.instances=two", "'/cloudnativepg/instances'"),
    ("redis", "service.nodePort=abc", "'/service/nodePort'"),
    ("redis", "service.nodePort=80", "'/service/nodePort'"),
    ("redis", "auth.enabld=true", "'enabld'"),
    ("minio", "auth.password=short", "'/auth/password'"),
    ("minio", "buckets.names[0]=Not_A_Bucket", "'/buckets/names/0'"),
    ("temporal", "historyShards=none", "'/historyShards'"),
    ("temporal", "namespaces[0].name=default", "'/namespaces/0'"),
    ("mlflow", "replicas=1.5", "'/replicas'"),
    ("observability", "loki.retention=forever", "'/loki/retention'"),
    ("platform", "training.gpus=-1", "'/training/gpus'"),
    ("platform", "observabilityBackends[0]=wandb", "'/observabilityBackends/0'"),
)


@pytest.mark.parametrize(("chart", "wrong", "where"), WRONG, ids=[f"{c}-{w}" for c, w, _ in WRONG])
def test_a_wrong_value_is_named(chart: str, wrong: str, where: str) -> None:
    done = m.run_helm("template", chart, chart, "--set", wrong)
    assert done.returncode != 0
    assert where in done.stderr


NEEDED = (
    ("postgresql", ("engine=external", "auth.password=x"), "set external.host"),
    ("postgresql", ("engine=external", "external.host=x"), "set auth.existingSecret, or auth.password"),
    ("postgresql", ("engine=cloudnativepg", "cloudnativepg.backup.enabled=true"), "destinationPath"),
    ("minio", ("engine=external", "auth.existingSecret=x"), "set external.endpoint"),
    ("platform", ("ingress.enabled=true",), "set ingress.host"),
    ("platform", ("backend.image.tag=",), "set the image's tag"),
)


@pytest.mark.parametrize(("chart", "sets", "message"), NEEDED, ids=[f"{c}-{','.join(s)}" for c, s, _ in NEEDED])
def test_a_value_that_is_missing_is_asked_for(chart: str, sets: tuple[str, ...], message: str) -> None:
    done = m.run_helm("template", chart, chart, *(w for s in sets for w in ("--set", s)))
    assert done.returncode != 0
    assert message in done.stderr


@pytest.mark.parametrize("chart", m.CHARTS)
def test_schema_has_every_value_and_no_other(chart: str) -> None:
    schema = json.loads(read(f"helm/{chart}/values.schema.json"))
    assert _differences(schema, m.load(f"helm/{chart}/values.yaml"), schema["$defs"], "") == ["/global"]


def _differences(
    schema: dict[str, object], value: object, known: dict[str, dict[str, object]], where: str
) -> list[str]:
    if "$ref" in schema:
        schema = known[str(schema["$ref"]).rpartition("/")[2]]
    properties = schema.get("properties")
    if not isinstance(properties, dict) or not isinstance(value, dict):
        return []
    assert schema["additionalProperties"] is False, where
    missing = [f"{where}/{key}" for key in properties.keys() ^ value.keys()]
    return sorted(missing) + [
        found
        for key in properties.keys() & value.keys()
        for found in _differences(properties[key], value[key], known, f"{where}/{key}")
    ]


@pytest.mark.parametrize("chart", m.CHARTS)
def test_chart_is_named_after_its_folder_and_tells_its_version(chart: str) -> None:
    about, values = m.load(f"helm/{chart}/Chart.yaml"), m.load(f"helm/{chart}/values.yaml")
    assert about["name"] == chart
    if "image" in values:
        tag, version = values["image"]["tag"], str(about["appVersion"])
        if values["image"]["repository"].startswith("pgvector/"):  # its tags begin with pgvector's own version
            tag, version = tag.split("-")[1], f"pg{version.split('.')[0]}"
        assert tag.startswith(version)


def test_every_folder_is_a_release_of_the_catalogue() -> None:
    releases = {c.release for c in (*catalog.CHARTS, *catalog.UPSTREAM_CHARTS)}
    assert {p.name for p in (ROOT / "helm").iterdir() if p.is_dir()} == releases


def test_temporals_command_line_asks_the_dns_for_nothing_but_addresses() -> None:
    tool = "temporal operator"
    asked = [c for _, c in m.containers(m.rendered("temporal")) if tool in json.dumps(c)]
    found = [entry["value"] for c in asked for entry in c["env"] if entry["name"] == "TEMPORAL_ADDRESS"]
    setup = m.load("compose/docker-compose.yml")["services"]["temporal-setup"]
    assert tool in json.dumps(setup)
    found.append(setup["environment"]["TEMPORAL_ADDRESS"])
    assert len(found) == len(asked) + 1
    assert len(asked) == 2, "the Job that makes namespaces, and the chart's test"
    assert [address for address in found if not address.startswith("passthrough:///")] == []


LOGINS = sorted(
    {
        (release, path)
        for release, rows in (
            *((s.release, s.values) for s in catalog.SERVICES),
            *((c.release, c.values) for c in catalog.CHARTS),
        )
        for path, setting in rows
        if release and setting in {name for s in catalog.SERVICES for name in s.generated}
    }
)
KEEPS_ITS_LOGIN = {
    ("postgresql", "auth.password"): "with its data; it is changed by SQL while it runs",
    ("observability", "grafana.auth.password"): "with its data; it is changed by its API",
}
"""Values that count at the first start alone."""


@pytest.mark.parametrize(("chart", "path"), LOGINS)
def test_a_new_password_restarts_what_reads_it(chart: str, path: str) -> None:
    def pods(password: str) -> list[object]:
        sets = (f"{path}={password}", *(("auth.enabled=true",) if chart in PASSWORD_MAY_BE_OFF else ()))
        objects = m.of_kind(m.rendered(chart, "values-kind.yaml", sets), "Deployment", "StatefulSet", "DaemonSet")
        return [found["spec"]["template"] for found in objects]

    restarted = pods("one-of-twelve") != pods("two-of-twelve")
    assert restarted is ((chart, path) not in KEEPS_ITS_LOGIN)


def test_grafana_restarts_when_its_data_source_gets_another_password() -> None:
    def pod(password: str) -> object:
        objects = m.rendered("observability", "values-kind.yaml", (f"postgresExporter.password={password}",))
        found = m.of_kind(objects, "Deployment", "StatefulSet")
        return next(f["spec"]["template"] for f in found if f["metadata"]["name"] == "grafana")

    assert pod("one-of-twelve") != pod("two-of-twelve")
