"""Programs of applications with nothing but the variables of `invoke env`: no address and no login is in them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from textwrap import dedent

import pytest

from infra.settings import ROOT
from infra.tiers.native import mlflow_env
from tests.smoke.platform import Platform

BOTO3 = """
    import os, uuid, boto3
    s3, bucket, key = boto3.client("s3"), os.environ["BUCKET_TRAINING_DATASETS"], f"example-{uuid.uuid4()}"
    s3.put_object(Bucket=bucket, Key=key, Body=b"hello")
    print(s3.get_object(Bucket=bucket, Key=key)["Body"].read().decode())
    s3.delete_object(Bucket=bucket, Key=key)
"""
DATASET = """
    import io, os, uuid, boto3, numpy

    class Images:  # what torch.utils.data.Dataset asks for: a length, and items by number
        def __init__(self, prefix):
            self.s3, self.bucket = boto3.client("s3"), os.environ["BUCKET_TRAINING_DATASETS"]
            found = self.s3.list_objects_v2(Bucket=self.bucket, Prefix=prefix)
            self.keys = sorted(entry["Key"] for entry in found.get("Contents", []))
        def __len__(self):
            return len(self.keys)
        def __getitem__(self, number):
            body = self.s3.get_object(Bucket=self.bucket, Key=self.keys[number])["Body"].read()
            return numpy.load(io.BytesIO(body))

    prefix = f"example-{uuid.uuid4()}/"
    s3, bucket = boto3.client("s3"), os.environ["BUCKET_TRAINING_DATASETS"]
    for number in range(3):
        body = io.BytesIO()
        numpy.save(body, numpy.full((2, 2), number))
        s3.put_object(Bucket=bucket, Key=f"{prefix}{number}.npy", Body=body.getvalue())
    images = Images(prefix)
    print(len(images), int(images[2].sum()))
    for key in images.keys:
        s3.delete_object(Bucket=bucket, Key=key)
"""
LIBPQ = """
    import psycopg
    with psycopg.connect("") as link:  # libpq reads PGHOST, PGPORT, PGUSER, PGPASSWORD and PGDATABASE
        print(link.execute("select current_database()").fetchone()[0])
"""
LABELER = """
    import os, psycopg
    with psycopg.connect(os.environ["LABELER_DATABASE_URL"]) as link:
        print(link.execute("select current_database()").fetchone()[0])
"""
REDIS = """
    import os, uuid, redis
    link, key = redis.Redis.from_url(os.environ["REDIS_URL"], decode_responses=True), f"example-{uuid.uuid4()}"
    link.set(key, "kept", ex=60)
    print(link.getdel(key))
"""
TEMPORAL = """
    import asyncio, os
    from temporalio.client import Client

    async def main():
        client = await Client.connect(os.environ["TEMPORAL_ADDRESS"], namespace=os.environ["TEMPORAL_NAMESPACE"])
        async for _ in client.list_workflows(page_size=1):
            break
        print("answered", flush=True)
        os._exit(0)  # threads of the client may outlast the interpreter and crash at its end, when all is done

    asyncio.run(main())
"""
SQLALCHEMY = """
    import asyncio, os
    from sqlalchemy import text
    from sqlalchemy.ext.asyncio import create_async_engine

    async def main():
        engine = create_async_engine(os.environ["DATABASE_URL"].replace("postgresql://", "postgresql+asyncpg://", 1))
        async with engine.connect() as link:
            print((await link.execute(text("select current_database()"))).scalar_one())
        await engine.dispose()

    asyncio.run(main())
"""
DJANGO = """
    import os
    from urllib.parse import unquote, urlsplit
    from django.conf import settings

    url = urlsplit(os.environ["USER_DATABASE_URL"])
    settings.configure(DATABASES={"default": {
        "ENGINE": "django.db.backends.postgresql", "NAME": url.path[1:], "HOST": url.hostname, "PORT": url.port,
        "USER": unquote(url.username), "PASSWORD": unquote(url.password),
    }})
    import django
    django.setup()
    from django.db import connection
    with connection.cursor() as cursor:
        cursor.execute("select current_database()")
        print(cursor.fetchone()[0])
"""
MLFLOW = """
    import mlflow, uuid
    experiment = mlflow.set_experiment(f"example-{uuid.uuid4()}")  # the client reads MLFLOW_TRACKING_URI and its login
    with mlflow.start_run() as run:
        mlflow.log_metric("accuracy", 0.5, step=1)
        mlflow.log_text("hello", "note.txt")
    found = mlflow.get_run(run.info.run_id)
    note = mlflow.artifacts.load_text(f"runs:/{run.info.run_id}/note.txt")
    print(found.info.status, found.data.metrics["accuracy"], note)
    mlflow.delete_experiment(experiment.experiment_id)
"""
NODE = """
    const net = require("node:net");
    const [host, port] = process.env.TEMPORAL_ADDRESS.split(":");
    const url = new URL(process.env.REDIS_URL);
    const link = net.connect(Number(url.port), url.hostname, () => {
      const login = url.password ? `AUTH ${decodeURIComponent(url.password)}\\r\\n` : "";
      link.write(`${login}PING\\r\\n`);
    });
    let said = "";
    link.on("data", (part) => {
      said += part;
      if (said.includes("PONG")) { console.log("PONG"); link.end(); }
    });
"""

PROGRAMS = {
    "boto3": (BOTO3, ("boto3",), "hello"),
    "dataset": (DATASET, ("boto3", "numpy"), "3 8"),
    "libpq": (LIBPQ, ("psycopg",), "platform"),
    "labeler": (LABELER, ("psycopg",), "labeler"),
    "redis-py": (REDIS, ("redis",), "kept"),
    "temporalio": (TEMPORAL, ("temporalio",), "answered"),
    "sqlalchemy": (SQLALCHEMY, ("sqlalchemy", "greenlet", "asyncpg"), "platform"),
    "django": (DJANGO, ("django",), "users"),
}
"""A name -> the program, the packages that it needs, what it prints."""


def surroundings(platform: Platform) -> dict[str, str]:
    """The variables of `invoke env`, and of this machine only what programs need to start."""
    kept = {k: v for k, v in os.environ.items() if k in ("PATH", "HOME", "SYSTEMROOT", "TMPDIR", "TEMP", "LANG")}
    return {**kept, "PYTHONUTF8": "1", **platform.contract}


def printed(argv: list[str], cwd: Path, env: dict[str, str]) -> str:
    """What a program prints."""
    done = subprocess.run(argv, cwd=cwd, env=env, capture_output=True, encoding="utf-8", check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_program_finds_the_platform(platform: Platform, tmp_path: Path, name: str) -> None:
    program, packages, expected = PROGRAMS[name]
    for package in packages:
        pytest.importorskip(package, reason=f"{package} is not installed here: requirements/dev.txt")
    argv = [sys.executable, "-c", dedent(program)]
    assert printed(argv, tmp_path, surroundings(platform)) == expected


def test_the_client_of_mlflow_finds_the_platform(platform: Platform, tmp_path: Path) -> None:
    if platform.service("mlflow") is None:
        pytest.skip("mlflow does not run: start the platform with --obs")
    if not mlflow_env.ready(ROOT):
        pytest.skip("MLflow's client is not installed here: .venv-mlflow comes with --obs of the native tier")
    argv = [str(mlflow_env.python_of(ROOT)), "-c", dedent(MLFLOW)]
    # Its client also says where to look at the run.
    assert printed(argv, tmp_path, surroundings(platform)).splitlines()[-1] == "FINISHED 0.5 hello"


def test_a_node_program_finds_the_platform(platform: Platform, tmp_path: Path) -> None:
    node = shutil.which("node")
    if node is None:
        pytest.skip("there is no node on this machine")
    assert printed([node, "-e", NODE], tmp_path, surroundings(platform)) == "PONG"


@pytest.mark.parametrize(("profile", "bucket"), [("datasets", "TRAINING_DATASETS"), ("results", "MODEL_WEIGHTS")])
def test_a_profile_leads_to_its_store(platform: Platform, tmp_path: Path, profile: str, bucket: str) -> None:
    target = tmp_path / "aws"
    done = platform.invoke("env", "--profiles", str(target))
    assert done.returncode == 0, done.stderr
    env = {k: v for k, v in surroundings(platform).items() if not k.startswith("AWS_")}
    look = f"import os, boto3; print(boto3.client('s3').head_bucket(Bucket=os.environ['BUCKET_{bucket}'])" + (
        "['ResponseMetadata']['HTTPStatusCode'])"
    )
    argv = [sys.executable, "-c", look]
    assert printed(argv, tmp_path, {**env, "AWS_CONFIG_FILE": str(target), "AWS_PROFILE": profile}) == "200"


def test_the_other_store_by_an_option(platform: Platform) -> None:
    other = platform.data("env", "--store", "results")
    assert other["AWS_ENDPOINT_URL_S3"] == platform.contract["INTERNAL_STORAGE_ENDPOINT"]
    assert platform.contract["AWS_ENDPOINT_URL_S3"] == platform.contract["EXTERNAL_STORAGE_ENDPOINT"]
