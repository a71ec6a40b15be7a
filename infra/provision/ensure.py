"""Databases and buckets that must exist: made when missing, on every `up`, on any tier, from endpoints alone."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

from infra import catalog, database, health, rows
from infra.endpoints import Endpoints
from infra.errors import PlatformError
from infra.sigv4 import Store, bucket_body

TEMPLATE = "template1"
"""The database that every server has, to connect to where those that we know are gone."""
_NAME = "platform-up"
"""Name of our sessions in the server's list."""


def preload() -> None:
    """Load the database client in the background: it takes as long as the servers' start."""
    threading.Thread(target=__import__, args=("psycopg",), daemon=True).start()


def everything(endpoints: Endpoints) -> list[str]:
    """Make missing databases and buckets, side by side; returns what was made. Idempotent.

    Raises:
        PlatformError: UNREACHABLE, LOGIN_REFUSED, or SERVICE_FAILED for a store that makes no bucket.
    """
    with ThreadPoolExecutor(2) as pool:
        jobs = [pool.submit(databases, endpoints), pool.submit(buckets, endpoints)]
        made, stored = (job.result() for job in jobs)
    return [f"database {name}" for name in made] + [f"bucket {name}" for name in stored]


def databases(endpoints: Endpoints) -> list[str]:
    """Make missing databases (and MLflow's schema where MLflow runs); returns the names of those made.

    Raises:
        PlatformError: UNREACHABLE or LOGIN_REFUSED.
    """
    if "postgres" not in endpoints.services:
        return []
    from psycopg import sql

    names = health.needed_databases()
    urls = [endpoints.database_url(name) for name in (*names, TEMPLATE)]
    with database.session_on_any(urls, "make missing databases", name=_NAME) as link:
        there = {row[0] for row in link.execute("select datname from pg_database")}
        missing = [name for name in names if name not in there]
        for name in missing:
            like = sql.SQL(" template template0") if name == database.MAINTENANCE else sql.SQL("")
            link.execute(sql.SQL("create database {}{}").format(sql.Identifier(name), like))
    if "mlflow" in endpoints.services:
        schema(endpoints)
    return missing


def schema(endpoints: Endpoints) -> None:
    """Create MLflow's own schema in the database `platform`: its tables would collide with ours in one."""
    from psycopg import sql

    with database.session(endpoints.database_url("platform"), "make the schema of MLflow", name=_NAME) as link:
        link.execute(sql.SQL("create schema if not exists {}").format(sql.Identifier(catalog.MLFLOW_SCHEMA)))


def buckets(endpoints: Endpoints) -> list[str]:
    """Make missing buckets; returns the names of those made.

    Raises:
        PlatformError: UNREACHABLE or LOGIN_REFUSED.
    """
    made = []
    for bucket in health.buckets(endpoints):
        store = store_of(endpoints, bucket.store)
        keys = endpoints.key_settings(bucket.store)
        if _request(store, "HEAD", bucket, keys) == 404:
            status = _request(store, "PUT", bucket, keys, bucket_body(store.region))
            if status not in (200, 204, 409):
                raise _no_bucket(bucket, status)
            made.append(bucket.name)
    return made


def store_of(endpoints: Endpoints, service: str) -> Store:
    """Return a small client for one of the object stores."""
    place = endpoints.place(service)
    return Store(place.host, place.port, place.login.user, place.login.password, place.secure, place.region)


def _request(store: Store, method: str, bucket: rows.Bucket, keys: tuple[str, str], body: bytes = b"") -> int:
    import http.client

    try:
        status = store.request(method, f"/{bucket.name}", body, limit=10).status
    except (OSError, http.client.HTTPException) as error:
        raise PlatformError(
            "UNREACHABLE",
            f"the object store {bucket.store} does not answer on {store.host}:{store.port}",
            why=str(error),
            steps=("invoke status", f"invoke logs -s {bucket.store}"),
        ) from error
    if status == 403:
        raise PlatformError(
            "LOGIN_REFUSED",
            f"the object store {bucket.store} refused the key {store.access_key}",
            steps=(f"check {keys[0]} and {keys[1]} in .env", "invoke doctor"),
        )
    return status


def _no_bucket(bucket: rows.Bucket, status: int) -> PlatformError:
    return PlatformError(
        "SERVICE_FAILED",
        f"the bucket {bucket.name} could not be created in {bucket.store}",
        why=f"the store answered HTTP {status}",
        steps=(f"invoke logs -s {bucket.store}",),
    )
