"""PLATFORM_S3_ENGINE=external: an external S3 service, with a region, keys and a bucket of somebody else."""

from __future__ import annotations

import ipaddress
import os
import secrets
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from infra import catalog
from infra.sigv4 import Store, bucket_body
from tests.faults.compose.conftest import LIGHT, error, project
from tests.faults.conftest import Victim
from tests.smoke import containers
from tests.smoke.stage import Stage, stage

REGION = "eu-north-1"
OURS = sorted(b.name for b in catalog.BUCKETS)
THEIRS = "of-somebody-else"


@dataclass(frozen=True)
class Service:
    """A server on an address of this machine that containers reach, too."""

    store: Store
    box: str

    @property
    def settings(self) -> dict[str, str]:
        """The settings that lead to it."""
        url, found = f"http://{self.store.host}:{self.store.port}", {"PLATFORM_S3_ENGINE": "external"}
        for prefix in catalog.EXTERNAL_STORES.values():
            keys = {"ACCESS_KEY": self.store.access_key, "SECRET_KEY": self.store.secret_key}
            found |= {f"{prefix}_{name}": text for name, text in {"ENDPOINT": url, **keys}.items()}
        return found | {"S3_REGION": REGION}

    def status(self, method: str, path: str, body: bytes = b"") -> int:
        """The HTTP status of a request of its owner."""
        return self.store.request(method, path, body).status


def free_port(host: str) -> int:
    with socket.create_server((host, 0)) as held:
        return int(held.getsockname()[1])


def gateway(config: dict[str, str]) -> str:
    """This machine's address in a network; an engine started for the first time does not tell that of its bridge."""
    return config.get("Gateway") or str(next(ipaddress.ip_network(config["Subnet"]).hosts()))


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    """The object store's image, started by itself, with an object of its owner in it."""
    engine = containers.client()
    host = gateway(engine.inspect_network("bridge")["IPAM"]["Config"][0])
    port, keys = free_port(host), ("owner-of-it", "s3cret, \"#$'\\ %20ö")
    image = os.environ.get("MINIO_IMAGE") or pytest.fail("no image of an object store is named")
    bound = engine.create_host_config(port_bindings={9000: (host, port)}, tmpfs={"/data": ""})
    env = {"MINIO_ROOT_USER": keys[0], "MINIO_ROOT_PASSWORD": keys[1], "MINIO_REGION": REGION}
    name = f"platform-test-external-{secrets.token_hex(3)}"
    made = engine.create_container(
        image, ["server", "/data"], environment=env, ports=[9000], host_config=bound, name=name
    )
    try:
        engine.start(made["Id"])
        found = Service(Store(host, port, *keys, region=REGION), made["Id"])
        wait(found)
        assert found.status("PUT", f"/{THEIRS}", bucket_body(REGION)) == 200
        assert found.status("PUT", f"/{THEIRS}/kept", b"theirs") == 200
        yield found
    finally:
        engine.remove_container(made["Id"], force=True, v=True)


def wait(service: Service) -> None:
    end = time.monotonic() + 60
    while True:
        try:
            if service.status("GET", "/") == 200:
                return
        except OSError:
            assert time.monotonic() < end
        time.sleep(0.1)


@pytest.fixture(scope="module")
def platform(service: Service) -> Iterator[Victim]:
    """A platform whose objects are there."""
    with stage("compose", **LIGHT, **service.settings) as made:
        victim = Victim(made)
        victim.up()
        yield victim


def changed(victim: Victim, **values: str) -> Victim:
    return Victim(Stage(victim.stage.tier, victim.stage.home, {**victim.stage.env, **values}, victim.stage.root))


def test_up_makes_our_buckets_there_and_runs_no_store(service: Service, platform: Victim) -> None:
    parts = {
        c["Labels"]["com.docker.compose.service"] for c in containers.of_project(containers.client(), project(platform))
    }
    assert parts == {"postgres", "redis", "temporal", "minio-setup"}
    assert [service.status("HEAD", f"/{name}") for name in OURS] == [200] * len(OURS)


def test_applications_are_led_there(service: Service, platform: Victim) -> None:
    contract = platform.contract
    for prefix in ("EXTERNAL", "INTERNAL"):
        assert contract[f"{prefix}_STORAGE_ENDPOINT"] == f"http://{service.store.host}:{service.store.port}"
        assert contract[f"{prefix}_STORAGE_ACCESS_KEY"] == service.store.access_key
        assert contract[f"{prefix}_STORAGE_SECRET_KEY"] == service.store.secret_key
    assert contract["AWS_DEFAULT_REGION"] == REGION


def test_status_is_ready_and_shows_where(service: Service, platform: Victim) -> None:
    found = {s["name"]: s for s in platform.stage.data("status")["services"]}
    assert found["minio-results"]["state"] == "ready"
    assert found["minio-results"]["urls"] == [f"http://{service.store.host}:{service.store.port}"]


def test_a_bucket_that_was_deleted_is_made_again(service: Service, platform: Victim) -> None:
    assert service.status("DELETE", "/config-schemas") == 204
    assert platform.stage.data("minio.init")["made"] == ["config-schemas"]
    assert service.status("HEAD", "/config-schemas") == 200


def test_only_our_buckets_are_backed_up_and_brought_back(service: Service, platform: Victim) -> None:
    assert service.status("PUT", "/model-weights/w", b"weights") == 200
    made = platform.stage.data("minio.backup")
    assert {b["name"] for b in made["buckets"]} == {*OURS, "mlflow-artifacts"}
    assert service.status("DELETE", "/model-weights/w") == 204
    platform.invoke("minio.restore", "--from", "latest", "--yes", check=True)
    assert service.store.request("GET", "/model-weights/w").body == b"weights"


def test_a_training_runs_there(platform: Victim) -> None:
    platform.invoke("train.run", "--epochs", "1", check=True)


def test_neither_reset_nor_down_nor_restart_touches_it(service: Service, platform: Victim) -> None:
    platform.invoke("restart", "-s", "minio-results", check=True)
    done = platform.invoke("compose.reset", "--service", "minio-datasets", "--yes", check=True)
    assert "an external S3 service and is not touched" in done.stderr
    platform.invoke("compose.down", "--volumes", "--yes", check=True)
    assert service.store.request("GET", f"/{THEIRS}/kept").body == b"theirs"
    assert [service.status("HEAD", f"/{name}") for name in OURS] == [200] * len(OURS)
    platform.up()


def test_from_our_own_store_to_it_and_back(platform: Victim) -> None:
    platform.invoke("down", check=True)
    own = changed(platform, PLATFORM_S3_ENGINE="silo")
    own.up()
    platform.up()  # the containers of our stores are in the way of nothing
    listed = containers.of_project(containers.client(), project(platform))
    assert "minio-results" not in {c["Labels"]["com.docker.compose.service"] for c in listed}


@pytest.mark.parametrize(
    ("values", "code", "exit_code", "said"),
    [
        ({"S3_RESULTS_ENDPOINT": ""}, "SETTING_INVALID", 2, "S3_RESULTS_ENDPOINT"),
        ({"S3_RESULTS_ENDPOINT": "s3.example.com"}, "SETTING_INVALID", 2, "S3_RESULTS_ENDPOINT"),
        ({"S3_RESULTS_ENDPOINT": "http://127.0.0.1:9"}, "SETTING_INVALID", 2, "container"),
        ({"S3_RESULTS_SECRET_KEY": "not-that-one"}, "LOGIN_REFUSED", 5, "S3_RESULTS_SECRET_KEY"),
        ({"S3_REGION": "us-east-2"}, "LOGIN_REFUSED", 5, "S3_REGION"),
    ],
)
def test_what_is_wrong_is_said_before_anything_starts(
    service: Service, fresh: Victim, engine: Any, values: dict[str, str], code: str, exit_code: int, said: str
) -> None:
    done = changed(fresh, **{**service.settings, **values}).invoke("up", "--json")
    assert error(done)["code"] == code
    assert done.returncode == exit_code
    assert said in done.stdout
    assert containers.of_project(engine, project(fresh)) == []


def test_a_service_that_does_not_answer_is_named(service: Service, fresh: Victim, engine: Any) -> None:
    gone = f"http://{service.store.host}:{free_port(service.store.host)}"
    done = changed(fresh, **{**service.settings, "S3_DATASETS_ENDPOINT": gone}).invoke("up", "--json")
    assert (error(done)["code"], done.returncode) == ("UNREACHABLE", 5)
    assert gone in done.stdout
    assert "S3_DATASETS_ENDPOINT" in done.stdout
    assert containers.of_project(engine, project(fresh)) == []


@pytest.mark.parametrize("tier", ["native", "kind"])
def test_other_tiers_refuse_instead_of_using_their_own(service: Service, fresh: Victim, tier: str) -> None:
    done = changed(fresh, **service.settings, PLATFORM_TIER=tier).invoke("up", "--json")
    assert (error(done)["code"], done.returncode) == ("SETTING_INVALID", 2)
    assert "PLATFORM_S3_ENGINE" in done.stdout
