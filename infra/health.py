"""The functional question that each service of the platform must answer, made from endpoints alone."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import quote

from infra import catalog, probes, rows
from infra.database import MAINTENANCE
from infra.endpoints import Endpoints, Login, StorePlace


def probe(endpoints: Endpoints, service: str, psql: Path, *, database: str = "platform") -> dict[str, Any]:
    """Return the probe of a service, as data (it holds passwords: keep it private).

    Args:
        database: of an SQL server; '' asks the server itself, whichever databases it has.

    Raises:
        KeyError: the catalogue asks it a kind of question that nothing here knows.
    """
    if service in endpoints.elsewhere:
        return _elsewhere(endpoints.elsewhere[service], service)
    asked = catalog.service(service).question
    where = {"kind": asked.kind, "host": endpoints.host, "port": endpoints.port(service, asked.role)}
    known: dict[str, dict[str, Any]] = {
        "sql": {**_login(endpoints.postgres, "user", "password"), "database": database, "psql": str(psql)},
        "redis": {"password": endpoints.password(service)},
        "s3": _login(endpoints.store, "access_key", "secret_key"),
        "http": {"path": asked.path.format(namespace=quote(endpoints.temporal_namespace, safe=""))},
        "tcp": {},
    }
    return where | known[asked.kind]


def _login(login: Login, user: str, password: str) -> dict[str, str]:
    return {user: login.user, password: login.password}


def _elsewhere(place: StorePlace, store: str) -> dict[str, Any]:
    """Return the question for an external S3 service."""
    where = {"host": place.host, "port": place.port, "secure": place.secure, "region": place.region}
    keys = {"access_key": place.login.user, "secret_key": place.login.password}
    bucket = next(b.name for b in catalog.BUCKETS if b.store == store)
    return {"kind": "s3-bucket", **where, **keys, "bucket": bucket}


def thorough(endpoints: Endpoints, psql: Path) -> dict[str, dict[str, Any]]:
    """Return the questions at the end of `up`: also each database, and put, get, delete in each bucket."""
    questions: dict[str, dict[str, Any]] = {}
    for service in endpoints.services:
        # PostgreSQL itself is asked apart from the databases, which may be missing and can be made.
        questions[service] = probe(endpoints, service, psql, database="")
    for name in needed_databases() if "postgres" in endpoints.services else ():
        questions[f"database {name}"] = probe(endpoints, "postgres", psql, database=name)
    for bucket in buckets(endpoints):
        question = probe(endpoints, bucket.store, psql)
        questions[f"bucket {bucket.name}"] = {**question, "kind": "s3-write", "bucket": bucket.name}
    return questions


def needed_databases() -> tuple[str, ...]:
    """Return the databases that tasks need: the platform's own, and the one that PostgreSQL's tools connect to."""
    return (MAINTENANCE, *(entry.name for entry in catalog.DATABASES))


def buckets(endpoints: Endpoints) -> tuple[rows.Bucket, ...]:
    """Return the buckets that must exist: of stores that run, and those of observability only where MLflow does."""
    known = catalog.BUCKETS + (catalog.OBS_BUCKETS if "mlflow" in endpoints.services else ())
    return tuple(b for b in known if b.store in endpoints.services)


def ask(questions: dict[str, dict[str, Any]], limit: float = 5.0) -> dict[str, probes.Finding]:
    """Ask all questions side by side; `limit` is in seconds for each."""
    if not questions:
        return {}
    with ThreadPoolExecutor(max_workers=min(8, len(questions))) as pool:
        answers = {name: pool.submit(probes.check, question, limit) for name, question in questions.items()}
        return {name: answer.result() for name, answer in answers.items()}
