"""The functional question that each service of the platform must answer, made from endpoints alone."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import quote

from infra import catalog, probes
from infra.endpoints import Endpoints, Place

_HTTP_PATHS = {"mlflow": "/health", "prometheus": "/-/ready", "loki": "/ready", "grafana": "/api/health"}


def probe(endpoints: Endpoints, service: str, psql: Path, *, database: str = "platform") -> dict[str, Any]:
    """The probe of a service, as data (it holds passwords: keep it private).

    Temporal is asked over its web UI's API, which passes the question on to the server (gRPC would need 40 MB
    of libraries in the supervisor): it answers for the UI, the server and the namespace at once.
    """
    entry = catalog.service(service)
    where = {"host": endpoints.host, "port": endpoints.port(service)}
    if service == "postgres":
        login = {"user": endpoints.postgres.user, "password": endpoints.postgres.password}
        return {"kind": "sql", **where, **login, "database": database, "psql": str(psql)}
    if service == "redis":
        return {"kind": "redis", **where, "password": endpoints.redis_password}
    if service == "temporal":
        path = f"/api/v1/namespaces/{quote(endpoints.temporal_namespace, safe='')}"
        return {"kind": "http", **where, "port": endpoints.port(service, "ui"), "path": path}
    if service in endpoints.elsewhere:
        return _elsewhere(endpoints.elsewhere[service], service)
    if entry.login == catalog.STORE_LOGIN:
        keys = {"access_key": endpoints.store.user, "secret_key": endpoints.store.password}
        return {"kind": "s3", **where, **keys}
    return {"kind": "http", **where, "path": _HTTP_PATHS.get(service, "/")}


def _elsewhere(place: Place, store: str) -> dict[str, Any]:
    """The question for an S3 service that is not ours."""
    where = {"host": place.host, "port": place.port, "secure": place.secure, "region": place.region}
    keys = {"access_key": place.login.user, "secret_key": place.login.password}
    bucket = next(b.name for b in catalog.BUCKETS if b.store == store)
    return {"kind": "s3-bucket", **where, **keys, "bucket": bucket}


def thorough(endpoints: Endpoints, psql: Path) -> dict[str, dict[str, Any]]:
    """The questions at the end of `up`: also each database, and put, get, delete in each bucket."""
    questions: dict[str, dict[str, Any]] = {}
    for service in endpoints.services:
        # PostgreSQL itself is asked apart from our databases, which may be missing and can be made.
        questions[service] = probe(endpoints, service, psql, database="postgres")
    for database in catalog.DATABASES if "postgres" in endpoints.services else ():
        questions[f"database {database.name}"] = probe(endpoints, "postgres", psql, database=database.name)
    for bucket in buckets(endpoints):
        question = probe(endpoints, bucket.store, psql)
        questions[f"bucket {bucket.name}"] = {**question, "kind": "s3-write", "bucket": bucket.name}
    return questions


def buckets(endpoints: Endpoints) -> tuple[catalog.Bucket, ...]:
    """The buckets that shall exist: of stores that run, and those of observability only where MLflow does."""
    known = catalog.BUCKETS + (catalog.OBS_BUCKETS if "mlflow" in endpoints.services else ())
    return tuple(b for b in known if b.store in endpoints.services)


def ask(questions: dict[str, dict[str, Any]], limit: float = 5.0) -> dict[str, probes.Finding]:
    """Ask all questions side by side; `limit` is in seconds for each."""
    if not questions:
        return {}
    with ThreadPoolExecutor(max_workers=min(8, len(questions))) as pool:
        answers = {name: pool.submit(probes.check, question, limit) for name, question in questions.items()}
        return {name: answer.result() for name, answer in answers.items()}
