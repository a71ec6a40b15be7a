"""The images: built here, run as on a cluster (another user, read-only root), against the real platform."""

from __future__ import annotations

import contextlib
import os
import time
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pytest
import requests

from infra import catalog, docker_engine
from infra.errors import PlatformError
from infra.training import client as trainings
from infra.training.config import TrainingConfig
from infra.training.contract import Contract
from infra.training.orders import Orders
from infra.training.request import JOB
from tests.apps.conftest import Application
from tests.unit.helpers import free_port

RIG_BASE = "platform-rig/base:12"
LIMIT = 600.0
PREFIX = f"platform-apptest-{uuid.uuid4().hex[:6]}"


@dataclass(frozen=True)
class Images:
    """The built images and the engine that has them."""

    engine: Any
    backend: str
    frontend: str

    @contextlib.contextmanager
    def running(self, image: str, env: Mapping[str, str], command: list[str] | None = None) -> Iterator[str]:
        """A container on this machine's network as a pod would have it; its id."""
        options = self.engine.create_host_config(
            network_mode="host", read_only=True, tmpfs={"/tmp": "mode=1777"}, cap_drop=["ALL"]
        )
        made = self.engine.create_container(image, command, environment=dict(env), host_config=options)["Id"]
        try:
            self.engine.start(made)
            yield made
        finally:
            self.engine.remove_container(made, force=True)

    def log(self, container: str) -> str:
        return str(self.engine.logs(container).decode("utf-8", "replace"))


@pytest.fixture(scope="module")
def images(application: Application) -> Iterator[Images]:
    try:
        engine = docker_engine.client(docker_engine.find(), 1800)
    except PlatformError as error:
        pytest.skip(f"no Docker: {error.what}")
    base = os.environ.get("PYTHON_IMAGE") or next((i for i in (catalog.PYTHON_IMAGE, RIG_BASE) if has(engine, i)), "")
    if not base:
        pytest.skip("no image to build on: neither PYTHON_IMAGE nor one of the rig")
    names = {"BACKEND_IMAGE": f"{PREFIX}-backend:dev", "FRONTEND_IMAGE": f"{PREFIX}-frontend:dev"}
    env = {**application.stage.env, **names, "PYTHON_IMAGE": base}
    type(application.stage)(application.stage.tier, application.stage.home, env).invoke("app.build", check=True)
    try:
        yield Images(engine, names["BACKEND_IMAGE"], names["FRONTEND_IMAGE"])
    finally:
        for name in names.values():
            engine.remove_image(name, force=True)


def has(engine: Any, image: str) -> bool:
    return bool(engine.images(name=image))


@pytest.fixture(scope="module")
def contract(application: Application) -> dict[str, str]:
    return dict(application.stage.data("env"))


def answered(url: str, images: Images, container: str) -> requests.Response:
    end = time.monotonic() + LIMIT
    while True:
        with contextlib.suppress(requests.ConnectionError):
            return requests.get(url, timeout=60)
        assert time.monotonic() < end, images.log(container)
        time.sleep(0.2)


def test_the_backends_image_is_ready_on_the_platform(images: Images, contract: dict[str, str]) -> None:
    port = free_port()
    with images.running(images.backend, {**contract, "APP_HOST": "127.0.0.1", "APP_PORT": str(port)}) as container:
        assert answered(f"http://127.0.0.1:{port}/health", images, container).json() == {"status": "ok"}
        answer = requests.get(f"http://127.0.0.1:{port}/ready", timeout=60)
        assert answer.status_code == 200, answer.text
        assert requests.get(f"http://127.0.0.1:{port}/trainings", timeout=60).status_code == 200


def test_the_frontends_image_serves_the_page_and_passes_questions_on(images: Images, application: Application) -> None:
    port = free_port()
    env = {"APP_HOST": "127.0.0.1", "APP_PORT": str(port), "BACKEND_URL": application.urls["backend"]}
    with images.running(images.frontend, env) as container:
        assert "<title>" in answered(f"http://127.0.0.1:{port}/", images, container).text
        assert requests.get(f"http://127.0.0.1:{port}/api/health", timeout=60).json() == {"status": "ok"}


PREPARATION = """
import os, subprocess, sys
from infra.training import contract
from infra.training.environment import own_environment
own = own_environment(os.environ, contract.read())
sys.exit(subprocess.call([sys.executable, "-m", "infra.training.prepare"], env=own))
"""
"""A worker's first step, in the environment that a worker gives it."""


def test_a_pod_of_a_job_claims_its_own_try_and_trains(images: Images, contract: dict[str, str]) -> None:
    known = Contract(contract)
    # No worker of this stage takes Jobs, so nobody but the container runs it.
    job = trainings.start(known, trainings.Order("as-a-pod", TrainingConfig(epochs=3), runner=JOB), Orders(b"k" * 32))
    with images.running(images.backend, contract, ["python3", "-c", PREPARATION]) as pod:
        assert images.engine.wait(pod, timeout=LIMIT)["StatusCode"] == 0, images.log(pod)
    words = ["--job", job, "--dataset", "digits/v1", "--epochs", "3"]
    with images.running(images.backend, contract, ["python3", "-u", "-m", "infra.training.trainer", *words]) as pod:
        ended = images.engine.wait(pod, timeout=LIMIT)["StatusCode"]
        assert ended == 0, images.log(pod)
        assert '"epoch": 3' in images.log(pod)
    found = trainings.find(known, job)
    assert (found.attempt, found.epoch, found.state) == (1, 3, "running")
    trainings.cancel(known, job)


@pytest.mark.parametrize("program", ["apps.backend", "infra.training.worker"])
def test_without_the_contract_a_container_says_what_is_missing(images: Images, program: str) -> None:
    with images.running(images.backend, {}, ["python3", "-m", program]) as container:
        assert images.engine.wait(container, timeout=LIMIT)["StatusCode"] == 2
        assert "not in the environment: DATABASE_URL" in images.log(container)


def test_nothing_in_the_images_belongs_to_the_user_or_root_process(images: Images) -> None:
    for image in (images.backend, images.frontend):
        assert images.engine.inspect_image(image)["Config"]["User"] == "1000:1000"
