from __future__ import annotations

import json
from pathlib import Path

import pytest

from infra import catalog, rows
from infra.errors import PlatformError
from infra.kube import releases
from infra.settings import ROOT
from infra.tiers.kind.cluster import PROFILE
from tests.unit.helpers import settings_of
from tests.unit.kube import objects as o


def test_every_service_of_the_tier_has_a_release() -> None:
    assert set(releases.RELEASES_OF) == {s.name for s in catalog.offered("kind")}


def test_a_release_comes_with_what_it_needs_in_order() -> None:
    assert [c.release for c in releases.with_needs(["mlflow"])] == ["postgresql", "minio", "mlflow"]
    assert [c.release for c in releases.of_services(["temporal"])] == ["postgresql", "temporal"]


def test_an_unknown_release_is_refused_with_the_nearest() -> None:
    with pytest.raises(PlatformError) as caught:
        releases.chart("postgres")
    assert caught.value.code == "USAGE"
    assert "did you mean postgresql?" in caught.value.steps


def test_logins_of_the_settings_reach_the_values(tmp_path: Path) -> None:
    settings = settings_of(tmp_path, POSTGRES_PASSWORD="other pass", REDIS_PASSWORD="r", TEMPORAL_NAMESPACE="smoke")
    assert releases.values("postgresql", settings)["auth"] == {"username": "admin", "password": "other pass"}
    assert releases.values("redis", settings)["auth"] == {"enabled": True, "password": "r"}
    assert releases.values("temporal", settings)["database"]["password"] == "other pass"
    assert releases.values("temporal", settings)["namespaces"][0]["name"] == "smoke"


@pytest.mark.parametrize(
    ("target", "told"), [("https://hooks.example.com/a", True), ("notify-send done", False), ("", False)]
)
def test_a_webhook_reaches_the_worker_in_the_cluster_and_a_program_of_this_machine_does_not(
    tmp_path: Path, target: str, told: bool
) -> None:
    values = releases.values("platform", settings_of(tmp_path, PLATFORM_NOTIFY=target))
    assert values.get("notify") == ({"target": target} if told else None)


def test_the_number_of_connections_of_the_settings_reaches_the_server(tmp_path: Path) -> None:
    values = releases.values("postgresql", settings_of(tmp_path, POSTGRES_MAX_CONNECTIONS="300"))
    assert values["parameters"] == {"max_connections": "300"}, "a text: Helm would write 300 as 300.0"


def test_trainings_in_the_cluster_are_tracked_where_mlflow_runs(tmp_path: Path) -> None:
    known = settings_of(tmp_path)
    assert releases.values("platform", known, ["postgres"])["observabilityBackends"] == ["database"]
    assert releases.values("platform", known, ["mlflow"])["observabilityBackends"] == ["database", "mlflow"]
    named = settings_of(tmp_path, OBSERVABILITY_BACKENDS="clearml")
    assert releases.values("platform", named, ["mlflow"])["observabilityBackends"] == ["clearml"]


def test_without_a_password_redis_has_none(tmp_path: Path) -> None:
    assert releases.values("redis", settings_of(tmp_path))["auth"]["enabled"] is False


def test_an_image_of_the_settings_replaces_that_of_the_chart(tmp_path: Path) -> None:
    settings = settings_of(tmp_path, TEMPORAL_UI_IMAGE="mirror.example/ui:1")
    assert releases.values("temporal", settings)["ui"]["image"] == {"ref": "mirror.example/ui:1"}
    assert "image" not in releases.values("temporal", settings)


def test_of_a_release_with_several_services_only_the_wanted_run(tmp_path: Path) -> None:
    found = releases.values("observability", settings_of(tmp_path), ["prometheus"])
    on = {part for part, value in found.items() if isinstance(value, dict) and value.get("enabled")}
    assert on == {"prometheus", "postgresExporter", "redisExporter", "nodeExporter"}
    assert found["loki"]["enabled"] is False


def test_grafana_has_the_password_of_kind_unless_one_is_set(tmp_path: Path) -> None:
    def password(**values: str) -> str:
        return str(
            releases.values("observability", settings_of(tmp_path, **values), profile=PROFILE)["grafana"]["auth"][
                "password"
            ]
        )

    assert password() == "prom-operator"
    assert password(GRAFANA_ADMIN_PASSWORD="own") == "own"


def test_secrets_go_by_standard_input_and_not_by_the_command_line(tmp_path: Path) -> None:
    settings = settings_of(tmp_path, POSTGRES_PASSWORD="s3cr3t-word")
    made = releases.wanted(releases.chart("postgresql"), settings)
    assert "s3cr3t-word" not in " ".join([*made.deploy.values, *made.deploy.sets, *made.deploy.labels.values()])
    assert json.loads(made.stdin)["auth"]["password"] == "s3cr3t-word"


def test_the_hash_follows_chart_values_and_settings(tmp_path: Path) -> None:
    folder = tmp_path / "helm" / "redis" / "templates"
    folder.mkdir(parents=True)
    (folder / "a.yaml").write_text("a")

    def mark(*sets: str, **values: str) -> str:
        return releases.wanted(releases.chart("redis"), settings_of(tmp_path, **values), (), sets).fingerprint

    first = mark()
    assert mark() == first
    assert mark("a=b") != first
    assert mark(REDIS_PASSWORD="x") != first
    (folder / "a.yaml").write_text("b")
    changed = mark()
    assert changed != first
    (folder.parent / "values-production.yaml").write_text("x")
    assert mark() == changed, "what is not used here does not matter"


@pytest.mark.parametrize(
    "chart", [c for c in catalog.CHARTS if (ROOT / "helm" / c.release).is_dir()], ids=lambda c: c.release
)
def test_values_we_give_are_values_the_chart_has(chart: rows.Chart, tmp_path: Path) -> None:
    import yaml

    known = yaml.safe_load((ROOT / "helm" / chart.release / "values.yaml").read_text(encoding="utf-8"))
    every = {setting: "x:1" for c in catalog.CHARTS for setting in releases.images(c.release).values()}
    given = releases.values(
        chart.release, settings_of(tmp_path, **every), ["prometheus"], releases.Profile(storage_class="some-class")
    )
    assert [path for path in _paths(given) if not _has(known, path)] == []


def _paths(tree: object, before: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    if not isinstance(tree, dict):
        return [before]
    return [path for key, value in tree.items() for path in _paths(value, (*before, key))]


def _has(tree: object, path: tuple[str, ...]) -> bool:
    return not path or (isinstance(tree, dict) and path[0] in tree and _has(tree[path[0]], path[1:]))


def test_what_helm_keeps_in_secrets() -> None:
    secrets = [
        o.helm_secret("redis", 2, "pending-upgrade"),
        o.helm_secret("redis", 1, "deployed", **{releases.FINGERPRINT: "abc"}),
        o.helm_secret("minio", 10, "deployed", **{releases.FINGERPRINT: "def"}),
        o.helm_secret("minio", 9, "superseded"),
        o.helm_secret("mlflow", 1, "pending-install"),
        {"metadata": o.meta("another")},
    ]
    found = releases.deployed(secrets)
    assert set(found) == {"redis", "minio", "mlflow"}
    assert (found["redis"].pending, found["redis"].last_good) == (True, 1)
    assert (found["minio"].revision, found["minio"].fingerprint, found["minio"].pending) == (10, "def", False)
    assert (found["mlflow"].pending, found["mlflow"].last_good) == (True, 0)
