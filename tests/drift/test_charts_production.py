"""What charts must be in production beyond a lint: no write is lost, all can be restored, changes do not interrupt."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest

from infra import catalog
from infra.prod.rules import alerts
from infra.settings import ROOT
from infra.training.job_manifest import Pod
from tests.drift import manifests as m

PRODUCTION = "values-production.yaml"
CNPG = ("engine=cloudnativepg", "cloudnativepg.instances=3")


def one(objects: Any, kind: str, name: str = "") -> Any:
    """The object of a kind, and of a name where there are several."""
    found = [o for o in m.of_kind(objects, kind) if not name or o["metadata"]["name"].startswith(name)]
    assert len(found) == 1, [m.name(o) for o in found]
    return found[0]


def env(container: Any) -> dict[str, Any]:
    return {e["name"]: e.get("value", e.get("valueFrom")) for e in container.get("env", [])}


def postgres(*sets: str) -> Any:
    return one(m.rendered("postgresql", PRODUCTION, sets), "Cluster")["spec"]


# --- PostgreSQL


def test_a_commit_is_on_two_instances_before_it_is_acknowledged() -> None:
    wanted = {"method": "any", "number": 1, "dataDurability": "required", "failoverQuorum": True}
    assert postgres()["postgresql"]["synchronous"] == wanted
    assert "synchronous" not in one(m.rendered("postgresql", "values.yaml", CNPG[:1]), "Cluster")["spec"]["postgresql"]


def test_instances_are_on_different_nodes_and_are_evicted_last() -> None:
    spec = postgres()
    assert spec["affinity"]["podAntiAffinityType"] == "required"
    assert spec["resources"]["requests"]["memory"] == spec["resources"]["limits"]["memory"]
    assert [c["topologyKey"] for c in spec["topologySpreadConstraints"]] == ["topology.kubernetes.io/zone"]
    assert spec["priorityClassName"] == "platform-data"


def test_memory_is_used_and_the_disk_is_not_filled_by_a_replica_that_is_away() -> None:
    parameters = postgres()["postgresql"]["parameters"]
    assert (parameters["shared_buffers"], parameters["max_slot_wal_keep_size"]) == ("1GB", "10GB")


def test_a_cluster_can_be_made_from_the_archive_of_another_and_writes_to_one_of_its_own() -> None:
    time = "2026-11-29T10:00:00Z"
    values = ("cloudnativepg.recovery.server=postgresql", f"cloudnativepg.recovery.targetTime={time}")
    spec = postgres(*values, "cloudnativepg.serverName=postgresql-2")
    recovery = spec["bootstrap"]["recovery"]
    assert (recovery["source"], recovery["recoveryTarget"]) == ("origin", {"targetTime": time})
    assert "initdb" not in spec["bootstrap"]
    origin = spec["externalClusters"][0]["plugin"]["parameters"]
    assert (origin["serverName"], spec["plugins"][0]["parameters"]["serverName"]) == ("postgresql", "postgresql-2")


def test_what_a_kept_cluster_needs_is_kept_as_well() -> None:
    objects = m.rendered("postgresql", PRODUCTION)
    kept = m.of_kind(objects, "Cluster", "Database", "DatabaseRole", "ObjectStore", "ScheduledBackup")
    assert {o["kind"] for o in kept} == {"Cluster", "Database", "DatabaseRole", "ObjectStore", "ScheduledBackup"}
    assert {o["metadata"]["annotations"]["helm.sh/resource-policy"] for o in kept} == {"keep"}


def test_the_sidecar_that_archives_has_limits_and_a_role_takes_the_place_of_keys() -> None:
    store = one(m.rendered("postgresql", PRODUCTION), "ObjectStore")["spec"]
    assert store["instanceSidecarConfiguration"]["resources"]["limits"]["memory"] == "512Mi"
    sets = ("cloudnativepg.backup.inheritFromRole=true", "cloudnativepg.serviceAccountAnnotations.role=arn")
    store = one(m.rendered("postgresql", PRODUCTION, sets), "ObjectStore")["spec"]
    assert store["configuration"]["s3Credentials"] == {"inheritFromIAMRole": True}
    assert postgres(*sets)["serviceAccountTemplate"] == {"metadata": {"annotations": {"role": "arn"}}}


def test_each_consumer_has_a_login_that_reaches_its_databases_only_and_by_tls() -> None:
    rules = postgres()["postgresql"]["pg_hba"]
    assert (rules[0], rules[-1]) == ("hostnossl all all all reject", "host all all all reject")
    reach = {line.split()[2]: set(line.split()[1].split(",")) for line in rules[1:-1]}
    assert reach == {
        "platform": {"platform", "users"},
        "training": {"platform"},
        "labeler": {"labeler"},
        "temporal": {"temporal", "temporal_visibility"},
        "mlflow": {"mlflow"},
    }
    assert all(line.startswith("hostssl ") and line.endswith(" scram-sha-256") for line in rules[1:-1])
    objects = m.rendered("postgresql", PRODUCTION)
    roles = {r["spec"]["name"]: r["spec"] for r in m.of_kind(objects, "DatabaseRole")}
    assert set(roles) == set(reach)
    assert roles["training"]["inRoles"] == ["platform"]
    assert len({r["passwordSecret"]["name"] for r in roles.values()}) == len(roles)
    owners = {d["spec"]["name"]: d["spec"]["owner"] for d in m.of_kind(objects, "Database")}
    assert all(name in reach[owner] for name, owner in owners.items())


def test_the_certificate_has_the_name_that_applications_use() -> None:
    assert "postgresql.platform" in postgres()["certificates"]["serverAltDNSNames"]
    host = m.load("helm/temporal/values.yaml")["database"]["host"]
    assert host in postgres()["certificates"]["serverAltDNSNames"]


# --- those who use it


def clients() -> Iterator[tuple[str, dict[str, Any]]]:
    """Containers that reach PostgreSQL, with their variables."""
    for chart in ("temporal", "mlflow"):
        for owner, container in m.containers(m.rendered(chart, PRODUCTION)):
            found = env(container)
            if {"SQL_HOST", "POSTGRES_SEEDS", "PGHOST"} & set(found) and "test" not in m.name(owner):
                yield f"{m.name(owner)}/{container['name']}", found


def test_clients_check_the_certificate_of_the_database() -> None:
    found = dict(clients())
    assert len(found) == 6
    for name, variables in found.items():
        if "PGHOST" in variables:
            shown = (variables["PGSSLMODE"], variables["PGSSLROOTCERT"])
            assert shown == ("verify-full", "/etc/postgresql-ca/ca.crt"), name
        elif "SQL_TLS" in variables:
            assert variables["SQL_TLS"] == "true", name
            assert "SQL_TLS_DISABLE_HOST_VERIFICATION" not in variables, name
            assert variables["SQL_TLS_CA_FILE"] == "/etc/postgresql-ca/ca.crt", name
        else:
            assert (variables["SQL_TLS_ENABLED"], variables["SQL_HOST_VERIFICATION"]) == ("true", "true"), name


@pytest.mark.parametrize("chart", ["temporal", "mlflow"])
def test_a_schema_is_changed_by_a_job_named_by_its_contents_and_servers_wait_for_it(chart: str) -> None:
    objects = m.rendered(chart, PRODUCTION)
    job = one(objects, "Job", f"{chart}-schema-")
    assert job["metadata"]["labels"]["platform/migration"] == chart
    assert "helm.sh/hook" not in job["metadata"].get("annotations", {})
    assert not {"activeDeadlineSeconds", "ttlSecondsAfterFinished"} & set(job["spec"])
    other = one(
        m.rendered(chart, PRODUCTION, ("image.tag=9.9.9", "adminTools.image.tag=9.9.9")[: 1 + (chart == "temporal")]),
        "Job",
        f"{chart}-schema-",
    )
    assert other["metadata"]["name"] != job["metadata"]["name"]
    server = next(o for o in m.of_kind(objects, "Deployment") if o["metadata"]["name"] != "temporal-web")
    assert [c["name"] for c in server["spec"]["template"]["spec"]["initContainers"]] == ["schema"]


@pytest.mark.parametrize("chart", m.CHARTS)
@pytest.mark.parametrize("values", ["values.yaml", "values-kind.yaml", PRODUCTION])
def test_only_the_tests_of_charts_are_hooks(chart: str, values: str) -> None:
    hooks = {f["metadata"].get("annotations", {}).get("helm.sh/hook", "test") for f in m.rendered(chart, values)}
    assert hooks == {"test"}


def test_all_pods_of_temporal_wait_for_the_versions_that_the_job_makes() -> None:
    schema = m.load("helm/temporal/values.yaml")["schema"]
    texts = [c["args"][0] for _, c in m.containers(m.rendered("temporal", PRODUCTION)) if c["name"] == "schema"]
    assert len(texts) == 2
    for text in texts:
        assert schema["temporal"] in text
        assert schema["visibility"] in text


def test_connections_of_clients_are_within_what_the_server_takes() -> None:
    limit = int(postgres()["postgresql"]["parameters"]["max_connections"])
    temporal = one(m.rendered("temporal", PRODUCTION), "Deployment", "temporal-frontend")
    pool = int(env(temporal["spec"]["template"]["spec"]["containers"][0])["SQL_MAX_CONNS"])
    assert (temporal["spec"]["replicas"] + 1) * 6 * pool + 2 * 2 * 5 + 100 <= limit


@pytest.mark.parametrize("chart", m.CHARTS)
def test_replicas_are_on_different_nodes(chart: str) -> None:
    for thing in m.of_kind(m.rendered(chart, PRODUCTION), "Deployment", "StatefulSet"):
        if thing["spec"]["replicas"] > 1:
            rules = thing["spec"]["template"]["spec"]["topologySpreadConstraints"]
            hosts = [r for r in rules if r["topologyKey"] == "kubernetes.io/hostname"]
            assert hosts[0]["whenUnsatisfiable"] == "DoNotSchedule", m.name(thing)
            labels = thing["spec"]["template"]["metadata"]["labels"]
            assert hosts[0]["labelSelector"]["matchLabels"].items() <= labels.items(), m.name(thing)


@pytest.mark.parametrize("chart", m.CHARTS)
def test_servers_are_replaced_one_by_one_while_the_old_ones_serve(chart: str) -> None:
    for thing in m.of_kind(m.rendered(chart, PRODUCTION), "Deployment"):
        if thing["spec"]["replicas"] > 1 and thing["metadata"]["name"] not in ("platform-worker", "temporal-web"):
            assert thing["spec"]["strategy"]["rollingUpdate"] == {"maxUnavailable": 0, "maxSurge": 1}, m.name(thing)


def test_applications_finish_what_they_were_asked() -> None:
    for part in ("backend", "frontend"):
        container = one(m.rendered("platform", PRODUCTION), "Deployment", f"platform-{part}")["spec"]["template"][
            "spec"
        ]
        assert container["containers"][0]["lifecycle"]["preStop"] == {"sleep": {"seconds": 10}}


def test_a_primary_that_has_to_go_does_not_keep_writers_waiting() -> None:
    spec = postgres()
    assert spec["smartShutdownTimeout"] < spec["switchoverDelay"] <= 30, "the bar of a failover is 30 seconds"
    assert spec["smartShutdownTimeout"] < spec["stopDelay"] <= 90


@pytest.mark.parametrize("chart", m.CHARTS)
def test_budgets_let_broken_pods_go(chart: str) -> None:
    for budget in m.of_kind(m.rendered(chart, PRODUCTION), "PodDisruptionBudget"):
        assert budget["spec"]["unhealthyPodEvictionPolicy"] == "AlwaysAllow"


# --- trainings


def test_trainings_have_a_namespace_logins_and_rights_of_their_own() -> None:
    objects = m.rendered("platform", PRODUCTION)
    worker = env(one(objects, "Deployment", "platform-worker")["spec"]["template"]["spec"]["containers"][0])
    assert (worker["TRAINING_NAMESPACE"], worker["TRAINING_SECRET"]) == ("training", "training-credentials")
    spaces = {
        m.name(o): o["metadata"].get("namespace") for o in m.of_kind(objects, "Role", "RoleBinding", "ServiceAccount")
    }
    assert spaces == {
        "Role/platform-worker": "training",
        "RoleBinding/platform-worker": "training",
        "ServiceAccount/platform-training": "training",
        "ServiceAccount/platform-worker": None,
    }
    told = [o for o in m.of_kind(objects, "ConfigMap") if o["metadata"]["name"] == "platform-env"]
    assert [o["metadata"].get("namespace") for o in told] == [None, "training"]
    assert told[0]["data"] == told[1]["data"]


def test_what_the_chart_says_of_a_trainings_pod_is_what_the_worker_reads() -> None:
    import json

    sets = ("training.gpu.nodeSelector.pool=gpu", "imagePullSecrets[0].name=registry", "storage.bucketPrefix=acme-")
    objects = m.rendered("platform", PRODUCTION, sets)
    worker = env(one(objects, "Deployment", "platform-worker")["spec"]["template"]["spec"]["containers"][0])
    pod = Pod(**json.loads(worker["TRAINING_POD"]))
    assert (pod.node_selector, pod.shared_memory, pod.ca_config_map) == ({"pool": "gpu"}, "4Gi", "postgresql-ca")
    assert pod.priority_class == "platform-training"
    assert worker["TRAINING_GPUS"] == "0", "a training that does not ask for GPUs gets none"
    account = one(objects, "ServiceAccount", "platform-training")
    assert account["imagePullSecrets"] == [{"name": "registry"}]
    assert m.of_kind(objects, "ConfigMap")[0]["data"]["STORAGE_BUCKET_PREFIX"] == "acme-"


# --- what watches, and what others bring


def test_alerts_of_production_ask_for_series_that_something_gives() -> None:
    groups = m.load("helm/observability/files/production/production.yml")["groups"]
    rules = [rule for group in groups for rule in group["rules"]]
    assert {name for rule in rules for name in alerts.named(rule["expr"])} - alerts.SERIES == set()
    about = {rule["alert"] for rule in rules}
    assert {"PostgresWritesBlocked", "WalArchivingFails", "BackupTooOld", "BackupFailed", "DrillTooOld"} <= about
    rendered = one(m.rendered("observability", PRODUCTION), "PrometheusRule")
    assert rendered["spec"]["groups"] == groups


def test_what_an_alert_says_to_read_is_there() -> None:
    """A runbook begins with its name in bold."""
    groups = m.load("helm/observability/files/production/production.yml")["groups"]
    said = [rule["annotations"].get("action", "") for group in groups for rule in group["rules"]]
    named = {text.rpartition(", ")[2] for text in said if text.startswith("docs/production.md")}
    text = (ROOT / "docs/production.md").read_text(encoding="utf-8").lower()
    assert named
    assert {name for name in named if f"\n**{name}.**" not in text} == set()


def test_alerts_of_production_fire_when_they_should() -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not on this machine")
    argv = [promtool, "test", "rules", str(ROOT / "tests/drift/alerts_production_test.yml")]
    done = subprocess.run(argv, capture_output=True, encoding="utf-8", check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_redis_has_room_to_write_its_file() -> None:
    values = m.load("helm/redis/values-production.yaml")
    used = int(values["parameters"]["maxmemory"].removesuffix("gb"))
    assert 2 * used < int(values["resources"]["limits"]["memory"].removesuffix("Gi"))


def test_grafana_gives_its_volume_away_before_a_new_pod_wants_it() -> None:
    grafana = m.load("helm/kube-prometheus-stack/values-production.yaml")["grafana"]
    assert grafana["deploymentStrategy"] == {"type": "Recreate"}


def test_the_operator_is_one_without_the_failover_bugs_of_1_30_0() -> None:
    charts = {c.release: tuple(map(int, c.version.lstrip("v").split("."))) for c in catalog.UPSTREAM_CHARTS}
    assert charts["cloudnative-pg"] >= (0, 29, 1)
    assert charts["plugin-barman-cloud"] >= (0, 8, 1)
