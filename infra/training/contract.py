"""The `.env` contract as a program on the platform sees it: read from the environment, connections on demand."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from infra import catalog, database, setting_rules
from infra.errors import PlatformError

if TYPE_CHECKING:
    import psycopg
    import redis

CONNECT_TIMEOUT = 5
"""Seconds to reach a server."""

REGION = catalog.SETTINGS["S3_REGION"].default
REGION_NAME = "AWS_DEFAULT_REGION"
"""Set only where the object stores are an external service that signs for another region."""

PREFIX_NAME = "STORAGE_BUCKET_PREFIX"
"""There only where bucket names are shared with others, as in a cloud: the buckets' names begin with it."""

READ_TIMEOUT = 30
"""Seconds to wait for an answer of an object store."""


@dataclass(frozen=True)
class Storage:
    """An object store: address, keys, the region that requests are signed for, how names of buckets begin."""

    endpoint: str
    access_key: str
    secret_key: str = field(repr=False)
    region: str = REGION
    prefix: str = ""


@dataclass(frozen=True)
class Contract:
    """Everything that an application may know of the platform."""

    values: Mapping[str, str] = field(repr=False)

    def __getitem__(self, name: str) -> str:
        return self.values[name]

    @property
    def datasets(self) -> Storage:
        """The store with bucket training-datasets."""
        return self._storage("EXTERNAL")

    @property
    def results(self) -> Storage:
        """The store with checkpoints, weights, schemas and results."""
        return self._storage("INTERNAL")

    @property
    def backends(self) -> tuple[str, ...]:
        """List the programs that track trainings."""
        return tuple(name for name in self._named if name not in self.absent_backends)

    @property
    def absent_backends(self) -> tuple[str, ...]:
        """List the programs that are to track trainings, but have no address that says that they run."""
        return tuple(n for n in self._named if not {*catalog.OPTIONAL_NAMES.get(n, ())} <= set(self.values))

    @property
    def _named(self) -> tuple[str, ...]:
        return setting_rules.words(self["OBSERVABILITY_BACKENDS"])

    @property
    def mlflow_login(self) -> tuple[str, str] | None:
        """The user and the password for MLflow; None where it wants none."""
        user, password = (self.values.get(name, "") for name in catalog.MLFLOW_LOGIN)
        return (user, password) if password else None

    def _storage(self, prefix: str) -> Storage:
        endpoint, access, secret = (self[f"{prefix}_STORAGE_{n}"] for n in ("ENDPOINT", "ACCESS_KEY", "SECRET_KEY"))
        region, prefix = self.values.get(REGION_NAME) or REGION, self.values.get(PREFIX_NAME, "")
        return Storage(endpoint, access, secret, region, prefix)


def read(environ: Mapping[str, str] | None = None) -> Contract:
    """Return the contract from the environment (default: the process's).

    Raises:
        PlatformError: USAGE, naming every variable that is missing.
    """
    environ = os.environ if environ is None else environ
    optional = {name for names in catalog.OPTIONAL_NAMES.values() for name in names}
    missing = [name for name in catalog.CONTRACT_NAMES if name not in environ and name not in optional]
    if missing:
        raise PlatformError(
            "USAGE",
            f"not in the environment: {', '.join(missing)}",
            why="this program finds the platform only through the variables that invoke env prints",
            steps=("invoke env --write .env.platform, then load that file",),
        )
    more = [name for name in (REGION_NAME, PREFIX_NAME, *catalog.MLFLOW_LOGIN) if environ.get(name)]
    there = [name for name in catalog.CONTRACT_NAMES if name in environ]
    return Contract({name: environ[name] for name in (*there, *more)})


def connect_database(
    contract: Contract, timeout: int = CONNECT_TIMEOUT, variable: str = "DATABASE_URL"
) -> psycopg.Connection[tuple[Any, ...]]:
    """Return a connection to `platform`, or to the database of another variable: autocommit, UTC, schema public.

    Raises:
        psycopg.OperationalError: no answer within `timeout` seconds, or the login was refused.
    """
    options = "-c timezone=UTC -c search_path=public"
    return database.connect(contract[variable], name="training", options=options, timeout=timeout)


def connect_redis(contract: Contract, timeout: float = CONNECT_TIMEOUT) -> redis.Redis:
    """Return a Redis client; it connects at the first command and waits `timeout` seconds for each."""
    import redis

    return redis.Redis.from_url(
        contract["REDIS_URL"], socket_connect_timeout=timeout, socket_timeout=timeout, decode_responses=True
    )


def _is_here(endpoint: str) -> bool:
    """Return whether a store is on this machine, where a company's proxy must not be asked for it."""
    return urlsplit(endpoint).hostname in ("localhost", "127.0.0.1", "::1")


_SITE = ("ca_bundle",)
"""Settings of a site for all its programs, which ours use too."""


def own_session() -> Any:
    """Return a boto3 session that neither the caller's AWS_* variables nor ~/.aws steer: profiles, retries, regions."""
    import boto3
    from botocore import configprovider, session

    known = configprovider.BOTOCORE_DEFAUT_SESSION_VARIABLES
    unset = {name: (None, None, row[2], row[3]) for name, row in known.items() if name not in _SITE}
    files = dict.fromkeys(("config_file", "credentials_file"), (None, None, os.devnull, None))
    made = session.Session(session_vars={**unset, **files})
    return boto3.Session(botocore_session=made)


def connect_storage(storage: Storage, threads: int = 16, patience: float = READ_TIMEOUT) -> Any:
    """Return a boto3 S3 client for a store; it connects at the first call and may be shared by `threads` threads.

    `patience` is the time in seconds to wait for an answer.
    """
    from botocore.config import Config

    # Not every S3 server knows the newer checksums: send them only where the operation requires one.
    config = Config(
        s3={"addressing_style": "path", "us_east_1_regional_endpoint": "regional"},
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
        connect_timeout=min(CONNECT_TIMEOUT, patience),
        read_timeout=patience,
        retries={"max_attempts": 2, "mode": "standard"},
        max_pool_connections=threads,
        **({"proxies": {}} if _is_here(storage.endpoint) else {}),
    )
    return own_session().client(
        "s3",
        endpoint_url=storage.endpoint,
        # Without keys: the role that the cloud gives this program, by the SDK's own ways.
        aws_access_key_id=storage.access_key or None,
        aws_secret_access_key=storage.secret_key or None,
        region_name=storage.region,
        config=config,
    )
