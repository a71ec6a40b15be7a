"""S3 engines as plain processes, each in a directory of its own on a free port, and gone after the block."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from infra.data.objects.client import Client
from infra.data.objects.login import StoreLogin
from infra.errors import PlatformError
from infra.tiers import providers
from infra.tiers.native import object_store
from infra.tiers.native.object_store import StorePlan
from tests.rig import cache
from tests.smoke.stage import free_ports

ACCESS, SECRET = "rig-access-key", "rig-secret-key-0123"
STARTED_WITHIN = 30.0


def free_port() -> int:
    """A TCP port on 127.0.0.1 that nobody listens on just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def engine(name: str, home: Path) -> Iterator[StoreLogin]:
    """An engine that the native tier knows (`rclone`, `weed`, `minio`), empty or with what the directory holds.

    Raises:
        FileNotFoundError: the program is not installed.
    """
    home.mkdir(parents=True, exist_ok=True)
    port, console = free_port(), free_port()
    program = _program(name)
    address = ("minio-datasets", "127.0.0.1", port, console)
    inner = int(free_ports()["MINIO_DATASETS_INTERNAL_PORT"]) if name == "weed" else 0
    object_store.ensure_secrets(home, name)
    own = (inner, object_store.signing_key(home), object_store.certificate_file(home))
    plan = StorePlan(*address, ACCESS, SECRET, home / "data", home / "cache", *own)
    for directory in object_store.directories(program, plan):
        directory.mkdir(parents=True, exist_ok=True)
    command = object_store.command(program, plan)
    with running(command.argv, home, command.env):
        login = StoreLogin("minio-datasets", "127.0.0.1", port, ACCESS, SECRET)
        answering(login)
        yield login


def _program(name: str) -> providers.Program:
    if name in ("rclone", "weed"):
        return _bundled(name)
    built = cache.path("parts").glob(f"object-store-*/{name}")  # by `python -m tests.rig.up`
    path = shutil.which(name) or next(map(str, built), None)
    if path is None:
        raise FileNotFoundError(name)
    return providers.Program(Path(path), name, "PATH")


def _bundled(name: str) -> providers.Program:
    from tests.unit.helpers import settings_of

    try:
        return providers.s3_server(settings_of(Path.cwd(), PLATFORM_S3_SERVER=name))
    except PlatformError as error:
        raise FileNotFoundError(name) from error


@contextlib.contextmanager
def running(argv: list[str], home: Path, env: dict[str, str] | None = None) -> Iterator[subprocess.Popen[bytes]]:
    """A program for the block, with its output in `log`."""
    with open(home / "log", "ab") as log:
        child = subprocess.Popen(argv, cwd=home, env={**os.environ, **(env or {})}, stdout=log, stderr=log)
    try:
        yield child
    finally:
        child.terminate()
        try:
            child.wait(15)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


def answering(login: StoreLogin) -> None:
    """Wait until a server lists its buckets. Raises TimeoutError after `STARTED_WITHIN` seconds."""
    end = time.monotonic() + STARTED_WITHIN
    while not _answers(login):
        if time.monotonic() > end:
            raise TimeoutError(f"{login.shown} did not start")
        time.sleep(0.05)


def _answers(login: StoreLogin) -> bool:
    client = Client(login)
    try:
        client.buckets()
    except PlatformError:
        return False
    finally:
        client.close()
    return True


def boto(login: StoreLogin) -> Any:
    """The reference client: boto3, set so that it gets along with every engine."""
    import boto3
    from botocore.config import Config

    checks = {"request_checksum_calculation": "when_required", "response_checksum_validation": "when_required"}
    config = Config(s3={"addressing_style": "path"}, retries={"max_attempts": 1}, **checks)
    keys = {"aws_access_key_id": login.access_key, "aws_secret_access_key": login.secret_key}
    where = {"endpoint_url": f"http://{login.host}:{login.port}", "region_name": "us-east-1"}
    return boto3.client("s3", config=config, **where, **keys)


def open_uploads(login: StoreLogin, bucket: str) -> list[str]:
    """Keys of the uploads in parts that are neither complete nor given up."""
    client = boto(login)
    try:
        return [upload["Key"] for upload in client.list_multipart_uploads(Bucket=bucket).get("Uploads", [])]
    except client.exceptions.ClientError as error:
        if error.response["Error"]["Code"] != "NoSuchUpload":  # which is how rclone says that there is none
            raise
        return []
