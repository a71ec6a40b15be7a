from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import yaml

from infra import catalog, endpoints
from infra.endpoints import Login
from infra.supervision.client import Spec
from infra.tiers.native.postgres import PostgresPlace
from infra.tiers.native.services import CORE, Builder, Programs, prometheus_yaml
from infra.tiers.providers import Program
from tests.unit.helpers import settings_of

SECRETS = {
    "POSTGRES_PASSWORD": "geheim-pg",
    "REDIS_PASSWORD": "geheim-redis",
    "MINIO_ROOT_PASSWORD": "geheim-minio",
}


def builder(root: Path, engine: str = "rclone", **values: str) -> Builder:
    settings, home = settings_of(root, **values), root / "native"
    place = PostgresPlace(Path("/pg/bin"), home / "data" / "postgres", None, "postgresql", "bundled")
    found = Program(Path("/pg/bin"), "postgresql", "bundled")
    others = {"redis": Program(Path("/x/valkey-server"), "v", "bundled")}
    others |= {"temporal": Program(Path("/x/temporal"), "t", "bundled")}
    others |= {"object store": Program(Path(f"/x/{engine}"), engine, "PATH")}
    return Builder(settings, endpoints.build(settings, CORE), home, Programs(place, {"postgres": found, **others}))


def specs(made: Builder) -> dict[str, Spec]:
    every = [
        *made.core(),
        made.mlflow(Path("/venv/python")),
        made.prometheus(Program(Path("/x/p"), "p", "PATH"), "text"),
    ]
    return {s.name: s for s in every}


def test_the_core_is_the_core_of_the_catalogue(tmp_path: Path) -> None:
    assert [s.name for s in builder(tmp_path).core()] == list(CORE)
    assert CORE == ("postgres", "redis", "temporal", "minio-datasets", "minio-results")


def test_no_password_is_an_argument_and_all_fit_into_json(tmp_path: Path) -> None:
    for spec in specs(builder(tmp_path, **SECRETS)).values():
        said = " ".join([*spec.argv, spec.cwd, spec.log])
        assert not any(secret in said for secret in SECRETS.values()), spec.name
        assert Spec(**json.loads(json.dumps(asdict(spec)))) == spec


def test_every_service_has_a_directory_of_its_own_by_which_it_is_recognised(tmp_path: Path) -> None:
    made = specs(builder(tmp_path))
    assert len({s.cwd for s in made.values()}) == len(made)
    assert all(Path(s.cwd).is_absolute() for s in made.values())


@pytest.mark.parametrize("name", [*CORE, "mlflow", "prometheus"])
def test_a_moved_port_reaches_command_and_probe(tmp_path: Path, name: str) -> None:
    port = catalog.service(name).ports[0]
    before, after = specs(builder(tmp_path))[name], specs(builder(tmp_path, **{port.setting: "23456"}))[name]
    said = " ".join([*after.argv, *after.env.values()])
    assert "23456" in said
    assert before.fingerprint != after.fingerprint, "it has to be restarted"
    if name != "temporal":  # is asked over its web port
        assert after.probe["port"] == 23456


@pytest.mark.parametrize("name", CORE)
def test_what_a_program_listens_on_is_this_machine_alone(tmp_path: Path, name: str) -> None:
    said = " ".join(specs(builder(tmp_path))[name].argv)
    assert "127.0.0.1" in said
    assert "0.0.0.0" not in said


@pytest.mark.parametrize(
    ("setting", "restarted"),
    [("REDIS_PASSWORD", {"redis"}), ("MINIO_ROOT_PASSWORD", {"minio-datasets", "minio-results", "mlflow"})],
)
def test_a_new_password_restarts_who_has_to_know_it(tmp_path: Path, setting: str, restarted: set[str]) -> None:
    before, after = specs(builder(tmp_path)), specs(builder(tmp_path, **{setting: "another-one"}))
    assert {n for n in before if before[n].fingerprint != after[n].fingerprint} == restarted


def test_the_same_settings_make_the_same_fingerprints(tmp_path: Path) -> None:
    first, second = specs(builder(tmp_path, **SECRETS)), specs(builder(tmp_path, **SECRETS))
    assert {n: s.fingerprint for n, s in first.items()} == {n: s.fingerprint for n, s in second.items()}


def test_stop_signals_and_time_to_stop(tmp_path: Path) -> None:
    made = specs(builder(tmp_path))
    assert (made["postgres"].stop_signal, made["postgres"].grace) == ("INT", 30.0)
    assert made["redis"].stop_signal == "TERM"


def test_needs_and_budgets_come_from_the_catalogue(tmp_path: Path) -> None:
    mlflow = specs(builder(tmp_path))["mlflow"]
    entry = catalog.service("mlflow")
    assert (tuple(mlflow.needs), mlflow.budget) == (entry.needs, entry.budget)


def test_durability(tmp_path: Path) -> None:
    made = specs(builder(tmp_path))
    redis, temporal = " ".join(made["redis"].argv), " ".join(made["temporal"].argv)
    assert "--appendonly yes" in redis
    assert made["temporal"].env["GOGC"] == "50"
    assert "synchronous=2" in temporal
    assert str(tmp_path / "native" / "data" / "temporal" / "temporal.db") in temporal


def test_redis_reads_its_password_from_a_file_only_where_there_is_one(tmp_path: Path) -> None:
    config = str(builder(tmp_path).config("redis"))
    assert config not in specs(builder(tmp_path))["redis"].argv
    assert specs(builder(tmp_path, REDIS_PASSWORD="x"))["redis"].argv[1] == config


def test_mlflow_is_not_steered_by_a_proxy(tmp_path: Path) -> None:
    env = specs(builder(tmp_path))["mlflow"].env
    assert env["NO_PROXY"] == env["no_proxy"] == "127.0.0.1"


# --- ports


def test_all_ports_are_claimed_with_the_setting_that_moves_them(tmp_path: Path) -> None:
    claims = builder(tmp_path, "minio").claims(CORE)
    core = [p.setting for s in catalog.SERVICES if s.name in CORE for p in s.ports]
    assert {c.setting for c in claims} == {*core, "TEMPORAL_METRICS_PORT"}
    assert {c.port for c in claims if c.service == "redis"} == {6379}


def test_seaweedfs_claims_its_internal_ports_by_the_setting_that_moves_them(tmp_path: Path) -> None:
    found = builder(tmp_path, "weed", MINIO_RESULTS_INTERNAL_PORT="21000").claims(["minio-results", "redis"])
    moved = [c.port for c in found if c.setting == "MINIO_RESULTS_INTERNAL_PORT"]
    assert moved == [*range(21000, 21009), 31007]
    assert not [c for c in builder(tmp_path).claims(["minio-results"]) if c.setting.endswith("INTERNAL_PORT")]


def test_a_console_that_the_engine_lacks_claims_no_port(tmp_path: Path) -> None:
    settings = {c.setting for c in builder(tmp_path, "rclone").claims(CORE)}
    assert not {"MINIO_DATASETS_CONSOLE_PORT", "MINIO_RESULTS_CONSOLE_PORT"} & settings
    assert "TEMPORAL_UI_PORT" in settings


# --- directories and Prometheus


def test_versions_of_objects_are_data_too(tmp_path: Path) -> None:
    made = builder(tmp_path)
    data = tmp_path / "native" / "data"
    assert made.data_of("minio-datasets") == [data / "minio-datasets", data / "minio-datasets-versions"]
    assert made.data_of("redis") == [data / "redis"]
    moved = replace(made.programs.postgres, data=Path("/var/lib/x"))
    other = replace(made, programs=replace(made.programs, postgres=moved))
    assert other.data_of("postgres") == [Path("/var/lib/x")]


@pytest.mark.parametrize("name", CORE)
def test_the_directories_that_a_service_needs(tmp_path: Path, name: str) -> None:
    made = builder(tmp_path)
    needed = set(made.directories(name))
    assert made.log(name).parent in needed
    assert (made.data(name) in needed) == (name != "postgres"), "initdb makes PostgreSQL's"


STORE_TARGETS = {
    "minio": ["http://127.0.0.1:9000/minio/v2/metrics/cluster", "http://127.0.0.1:9002/minio/v2/metrics/cluster"],
    "weed": ["http://127.0.0.1:19008/metrics", "http://127.0.0.1:19028/metrics"],
    "rclone": [],
}


@pytest.mark.parametrize("engine", STORE_TARGETS)
def test_what_exposes_metrics(tmp_path: Path, engine: str) -> None:
    found = builder(tmp_path, engine).targets((*CORE, "mlflow", "prometheus"))
    assert [url for name, url in found.items() if name.startswith("minio")] == STORE_TARGETS[engine]
    assert found["temporal"] == "http://127.0.0.1:8234/metrics"
    assert found["mlflow"] == "http://127.0.0.1:5000/metrics"
    assert found["prometheus"] == "http://127.0.0.1:9090/metrics"
    assert set(builder(tmp_path, engine).targets(("postgres", "temporal"))) == {"temporal"}


def test_prometheus_asks_every_target(tmp_path: Path) -> None:
    found = builder(tmp_path, "minio").targets((*CORE, "prometheus"))
    jobs = yaml.safe_load(prometheus_yaml(found, {"temporal": Login("a", "b: 'c")}))["scrape_configs"]
    asked = {j["job_name"]: f"http://{j['static_configs'][0]['targets'][0]}{j['metrics_path']}" for j in jobs}
    assert asked == found
    wanted = {j["job_name"]: j["basic_auth"] for j in jobs if "basic_auth" in j}
    assert wanted == {"temporal": {"username": "a", "password": "b: 'c"}}


def test_other_targets_restart_prometheus(tmp_path: Path) -> None:
    one, other = (builder(tmp_path).prometheus(Program(Path("/x/p"), "p", "PATH"), text) for text in ("a", "b"))
    assert one.fingerprint != other.fingerprint
