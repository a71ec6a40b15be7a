"""The Compose files against the catalogue and against the rules that their first lines promise."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from typing import Any

import pytest
import yaml

from infra import catalog, endpoints, settings
from infra.settings import ROOT
from tests.drift import compose_files as files
from tests.drift.repo import read

SERVICES = files.everything()
STAYING = {n: s for n, s in SERVICES.items() if not files.one_shot(s)}
COMBINATIONS = list(files.combinations())
KNOWN_NAMES = (
    *("postgres", "redis", "temporal", "minio-datasets", "minio-results", "minio-setup", "mlflow", "loki", "grafana"),
    *(f"clearml-{name}" for name in ("apiserver", "webserver", "fileserver", "elasticsearch", "mongo", "redis")),
)
"""Names that scripts and habits of users rely on, written out a second time on purpose."""
UNASKED = {"clearml-async-delete": "it listens nowhere"}
WRITING = {
    "temporal-ui": "its start script writes its configuration",
    "temporal-setup": "the CLI keeps a file in its home",
    "grafana": "it unpacks plugins beside its data",
    "alloy": "not tried",
    **{f"clearml-{n}": "its programs write into their own folders" for n in ("apiserver", "webserver", "fileserver")},
    **{f"clearml-{n}": "not tried" for n in ("async-delete", "elasticsearch", "mongo")},
}
"""Services whose root file system can be written, and why."""
CAPABILITIES = {"CHOWN", "DAC_OVERRIDE", "FOWNER", "SETGID", "SETUID"}
OTHER_DEFAULT = {
    "PLATFORM_STACK": "platform",
    "PLATFORM_METRICS_DIR": "./obs/metrics",
    "PLATFORM_DOCKER_SOCKET": "/var/run/docker.sock",
    "S3_RESULTS_ENDPOINT": "http://minio-results:9000",
}
"""Settings whose empty default means what the files say."""


def of_every_service(attribute: str) -> dict[str, Any]:
    return {name: service.get(attribute) for name, service in SERVICES.items()}


def test_the_names_that_users_know() -> None:
    assert set(KNOWN_NAMES) <= set(SERVICES)
    assert {f"${{PLATFORM_STACK:-platform}}-{n}" for n in SERVICES} == set(of_every_service("container_name").values())
    assert files.load(files.CORE)["name"] == "${PLATFORM_STACK:-platform}"
    assert "postgres_platform_data:/var/lib/postgresql" in SERVICES["postgres"]["volumes"]


@pytest.mark.parametrize("name", SERVICES)
def test_image_has_an_exact_tag_and_can_be_replaced(name: str) -> None:
    variable, reference = files.image(SERVICES[name])
    assert variable in catalog.IMAGES
    if name == "minio-setup":
        assert reference == SERVICES["minio-results"]["image"]
        return
    assert re.fullmatch(r"[a-z0-9./_-]+:[\w.-]*\d[\w.-]*", reference)
    assert not re.search(r":(latest|main|master|nightly|edge|\d+)$", reference), "a tag that moves"


def test_every_image_setting_is_used() -> None:
    elsewhere = {"BACKEND_IMAGE", "FRONTEND_IMAGE", "TRAINING_IMAGE", "PYTHON_IMAGE", "JOBSET_IMAGE", "KUEUE_IMAGE"}
    assert {n for n in files.variables() if n.endswith("_IMAGE")} == set(catalog.IMAGES) - elsewhere


def test_ports_are_those_of_the_catalogue_and_local() -> None:
    mapped = {v: (a, d) for s in SERVICES.values() for a, v, d, _ in files.published(s)}
    ports = [p for s in catalog.SERVICES for p in s.ports]
    ports += [catalog.TEMPORAL_METRICS_PORT, *catalog.CLEARML_PORTS]
    known = {p.setting: ("127.0.0.1", str(p.default)) for p in ports}
    assert {setting: where for setting, where in mapped.items() if known.get(setting) != where} == {}


def test_light_publishes_the_same_ports() -> None:
    def ports(*names: str) -> set[tuple[str, str]]:
        found = files.combined(names)
        return {(v, d) for n in ("temporal", "temporal-ui") if n in found for _, v, d, _ in files.published(found[n])}

    assert ports(files.CORE, files.LIGHT) == ports(files.CORE)


@pytest.mark.parametrize(("name", "defaults"), files.variables().items())
def test_variable_has_the_default_of_its_setting(name: str, defaults: set[str]) -> None:
    setting = catalog.SETTINGS[name]
    if name.endswith("_IMAGE"):
        assert setting.default == ""
        inner = name == "BUCKETS_IMAGE"  # falls back to another image's variable
        assert len(defaults - {""}) == (0 if inner else 1), "two files name two images"
    else:
        assert defaults - {""} <= {OTHER_DEFAULT.get(name, setting.default)}
        assert (name in OTHER_DEFAULT) == (setting.default == "" and defaults - {""} != set())


@pytest.mark.parametrize("name", SERVICES)
def test_no_secret_on_a_command_line(name: str) -> None:
    service = SERVICES[name]
    said = f"{service.get('command')} {service.get('entrypoint')} {service.get('healthcheck', {}).get('test')}"
    secrets = {n for n, s in catalog.SETTINGS.items() if s.kind == "secret"}
    assert {n for n in secrets if f"{{{n}" in said} == set()


@pytest.mark.parametrize("name", STAYING)
def test_health_is_asked_often_and_by_old_engines(name: str) -> None:
    if name in UNASKED:
        assert "healthcheck" not in STAYING[name]
        return
    check = STAYING[name]["healthcheck"]
    assert {"test", "interval", "timeout", "retries", "start_period"} == set(check), "start_interval needs Docker 25"
    assert int(check["interval"].removesuffix("s")) <= 10
    assert check["test"][0] in ("CMD", "CMD-SHELL")


@pytest.mark.parametrize("name", SERVICES)
def test_logs_rotate(name: str) -> None:
    assert SERVICES[name]["logging"] == {"driver": "json-file", "options": {"max-size": "10m", "max-file": "3"}}


@pytest.mark.parametrize("name", SERVICES)
def test_no_privileges(name: str) -> None:
    service = SERVICES[name]
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert set(service.get("cap_add", [])) <= CAPABILITIES
    assert not {"privileged", "network_mode", "pid", "ipc", "devices", "userns_mode"} & set(service)
    assert service["init"] is True
    assert bool(service.get("read_only")) != (name in WRITING)


def test_only_alloy_sees_the_engine() -> None:
    seen = {n for n, s in SERVICES.items() if any("docker.sock" in v for v in s.get("volumes", []))}
    assert seen == {"alloy"}
    assert any(v.endswith("docker.sock:ro") for v in SERVICES["alloy"]["volumes"])


@pytest.mark.parametrize("name", SERVICES)
def test_memory_is_limited(name: str) -> None:
    assert re.fullmatch(r"\d+[mg]", SERVICES[name]["mem_limit"])


@pytest.mark.parametrize("name", files.names())
def test_a_limit_of_memory_has_its_reason(name: str) -> None:
    lines = [line for line in read(f"compose/{name}").splitlines() if "mem_limit:" in line]
    assert [line for line in lines if not re.search(r"mem_limit: \d+[mg] # \w+", line)] == []


@pytest.mark.parametrize("name", SERVICES)
def test_what_stays_comes_back_and_what_ends_does_not_for_ever(name: str) -> None:
    assert SERVICES[name]["restart"] in ("unless-stopped", "on-failure:5")


def named_volumes(service: dict[str, Any]) -> set[str]:
    return {v.split(":")[0] for v in service.get("volumes", []) if re.match(r"[a-z_]+:", v)}


def test_what_has_data_is_given_time_to_stop() -> None:
    quick = {"alloy", "clearml-fileserver", "clearml-redis", "grafana"}
    slow = {n for n, s in SERVICES.items() if named_volumes(s) and "stop_grace_period" in s}
    assert {n for n, s in SERVICES.items() if named_volumes(s)} - slow == quick


@pytest.mark.parametrize(("chosen", "profiles"), COMBINATIONS)
def test_volumes_are_declared_and_used(chosen: tuple[str, ...], profiles: tuple[str, ...]) -> None:
    declared = {v for name in chosen for v in files.load(name).get("volumes", {})}
    used = {v for s in files.combined(chosen, ("clearml",)).values() for v in named_volumes(s)}
    replaced = {"minio_datasets_data", "minio_results_data"} if len(used & {"minio_datasets_data"}) == 0 else set()
    assert used <= declared
    assert declared - used <= replaced


@pytest.mark.parametrize(("chosen", "profiles"), COMBINATIONS)
def test_every_one_shot_is_adopted_by_a_service_that_stays(chosen: tuple[str, ...], profiles: tuple[str, ...]) -> None:
    services = files.combined(chosen, profiles)
    waited_for = [
        (needed, condition["condition"])
        for service in services.values()
        if not files.one_shot(service)
        for needed, condition in service.get("depends_on", {}).items()
    ]
    ends = {n for n, s in services.items() if files.one_shot(s)}
    assert ends
    assert {n for n, condition in waited_for if condition == "service_completed_successfully"} == ends
    assert {n for n, _ in waited_for} <= set(services), "something is needed that is not there"


@pytest.mark.parametrize(("chosen", "profiles"), COMBINATIONS)
def test_what_is_needed_can_be_had(chosen: tuple[str, ...], profiles: tuple[str, ...]) -> None:
    services = files.combined(chosen, profiles)
    for name, service in services.items():
        for needed, condition in service.get("depends_on", {}).items():
            assert needed in services, f"{name} needs {needed}"
            if condition["condition"] == "service_healthy":
                assert "healthcheck" in services[needed], f"{name} waits for the health of {needed}"


def test_mounted_files_are_in_the_checkout() -> None:
    for name, service in SERVICES.items():
        for volume in service.get("volumes", []):
            source = re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", volume).split(":")[0]
            if source.startswith("./"):
                assert (ROOT / "compose" / source).exists(), f"{name} mounts {source}"
                assert volume.endswith(":ro"), f"{name} can write to {source}"


@pytest.mark.parametrize("engine", files.ENGINES)
def test_every_engine_has_its_targets(engine: str) -> None:
    assert (ROOT / "compose/obs/prometheus/targets" / engine / "object-store.yml").is_file()
    assert engine in catalog.SETTINGS["PLATFORM_S3_ENGINE"].choices
    assert yaml.safe_load(read(f"compose/obs/prometheus/targets/{engine}/object-store.yml")) is not None


def test_databases() -> None:
    listed = re.search(r"ARRAY\[(.+?)\]", read("compose/postgres/10-databases.sql"))
    assert listed
    wanted = {d.name for d in catalog.DATABASES} - {SERVICES["postgres"]["environment"]["POSTGRES_DB"]}
    assert set(re.findall(r"'(\w+)'", listed[1])) == wanted | {"temporal", "temporal_visibility"}


@pytest.mark.parametrize("obs", [False, True])
def test_buckets(obs: bool) -> None:
    environment = files.combined((files.CORE, files.OBS) if obs else (files.CORE,))["minio-setup"]["environment"]
    buckets = (*catalog.BUCKETS, *(catalog.OBS_BUCKETS if obs else ()))
    for store, prefix in (("minio-datasets", "DATASETS"), ("minio-results", "RESULTS")):
        assert environment[f"{prefix}_BUCKETS"].split() == [b.name for b in buckets if b.store == store]


def test_mlflow_knows_its_hosts_and_its_schema() -> None:
    environment = SERVICES["mlflow"]["environment"]
    hosts = environment["MLFLOW_SERVER_ALLOWED_HOSTS"].split(",")
    assert {"localhost:*", "127.0.0.1:*", "mlflow:*"} <= set(hosts)
    assert f'SCHEMA = "{catalog.MLFLOW_SCHEMA}"' in read("compose/mlflow/start.py")
    assert environment["MLFLOW_ARTIFACTS_DESTINATION"] == f"s3://{catalog.OBS_BUCKETS[0].name}"


def test_mlflow_and_who_asks_for_its_metrics_have_one_password() -> None:
    assert SERVICES["mlflow"]["environment"]["MLFLOW_LOGIN_PASSWORD"] == "${MLFLOW_ADMIN_PASSWORD:-}"
    prometheus = SERVICES["prometheus"]
    assert prometheus["environment"]["MLFLOW_PASSWORD"] == "${MLFLOW_ADMIN_PASSWORD:-}"
    config = yaml.safe_load(read("compose/obs/prometheus/prometheus.yml"))
    job = next(job for job in config["scrape_configs"] if job["job_name"] == "mlflow")
    assert job["basic_auth"]["password_file"] in " ".join(prometheus["entrypoint"])
    assert f'USER = "{endpoints.mlflow_login(settings.load(environ={})).user}"' in read("compose/mlflow/start.py")
    assert job["basic_auth"]["username"] == "admin"


def test_no_setting_of_clearml_that_everybody_knows() -> None:
    environment = SERVICES["clearml-apiserver"]["environment"]
    secure = {k: v for k, v in environment.items() if k.startswith("CLEARML__secure__")}
    parts = ("http__session_secret__apiserver", "auth__token_secret")
    keys = [f"credentials__{who}__user_secret" for who in ("apiserver", "webserver", "services_agent", "tests")]
    assert {f"CLEARML__secure__{name}" for name in (*parts, *keys)} <= set(secure)
    secrets = [v for k, v in secure.items() if k.endswith(("secret", "apiserver")) and "key" not in k]
    assert all(re.search(r"\$\{CLEARML_(SECRET|API_SECRET_KEY):-", v) for v in secrets)
    assert SERVICES["clearml-async-delete"]["environment"].items() >= secure.items()


def test_no_file_asks_for_more_than_the_oldest_compose_has() -> None:
    for name in files.names():
        loaded = files.load(name)
        assert "version" not in loaded, "obsolete, and newer ones warn of it"
        for service, entry in loaded["services"].items():
            if isinstance(entry, dict):
                assert not {"pre_start", "post_start", "provider", "models", "develop"} & set(entry), service


@pytest.mark.parametrize(("chosen", "profiles"), COMBINATIONS)
def test_compose_reads_it_and_sees_the_same(chosen: tuple[str, ...], profiles: tuple[str, ...]) -> None:
    docker = shutil.which("docker")
    if docker is None or subprocess.run([docker, "compose", "version"], capture_output=True, check=False).returncode:
        pytest.skip("Docker Compose is not on this machine")
    argv = [docker, "compose", *(w for name in chosen for w in ("-f", str(ROOT / "compose" / name)))]
    argv += [*(w for p in profiles for w in ("--profile", p)), "config", "--format", "json"]
    ours = {n: v for n, v in os.environ.items() if n not in catalog.SETTINGS}
    endpoints = {"S3_DATASETS_ENDPOINT": "http://s3.example.com", "S3_RESULTS_ENDPOINT": "http://s3.example.com"}
    done = subprocess.run(argv, capture_output=True, encoding="utf-8", check=False, env=ours | endpoints, cwd=ROOT)
    assert (done.returncode, done.stderr) == (0, "")
    seen = yaml.safe_load(done.stdout)["services"]
    wanted = files.combined(chosen, profiles)
    assert set(seen) == set(wanted)
    assert {n: sorted(s.get("depends_on", {})) for n, s in seen.items()} == {
        n: sorted(s.get("depends_on", {})) for n, s in wanted.items()
    }


def test_only_the_consoles_and_named_pages_may_call_the_stores() -> None:
    """Without the variable the server lets every page of the web."""
    for overlay, name in (
        ((), "MINIO_API_CORS_ALLOW_ORIGIN"),
        ((files.ENGINES["rustfs"],), "RUSTFS_CORS_ALLOWED_ORIGINS"),
    ):
        value = files.combined((files.CORE, *overlay))["minio-results"]["environment"][name]
        assert value.startswith("http://127.0.0.1:${MINIO_DATASETS_CONSOLE_PORT:-9001},http://localhost:")
        assert value.endswith("${PLATFORM_S3_ORIGINS:+,}${PLATFORM_S3_ORIGINS:-}")
        assert "*" not in value
        assert " " not in value


def test_databases_without_a_login_are_published_only_where_that_is_asked_for() -> None:
    inner = ("clearml-elasticsearch", "clearml-mongo", "clearml-redis")
    assert not [name for name in inner if files.everything()[name].get("ports")]
    asked = files.combined((files.CORE, files.OBS, "docker-compose.clearml-ports.yml"))
    mapped = {v: (a, d) for name in inner for a, v, d, _ in files.published(asked[name])}
    assert mapped == {p.setting: ("127.0.0.1", str(p.default)) for p in catalog.CLEARML_PORTS}
