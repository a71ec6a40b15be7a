"""Addresses of the platform's S3 servers and the keys for them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from infra import catalog
from infra.data.objects import sign

if TYPE_CHECKING:
    from infra.endpoints import Endpoints

STORES = ("minio-datasets", "minio-results")


@dataclass(frozen=True)
class StoreLogin:
    """An S3 server: the name of its service, where it is, its keys, and whether one serves both stores.

    `only`: our own buckets in an external service, where all others are somebody else's. `settings` are the
    names of the settings that hold the keys. `prefix` is what the names of the buckets begin with there, while we call
    them by the rest.
    """

    name: str
    host: str
    port: int
    access_key: str
    secret_key: str = field(repr=False)
    shared: bool = False
    secure: bool = False
    region: str = sign.REGION
    only: tuple[str, ...] = ()
    settings: tuple[str, str] = catalog.STORE_LOGIN
    prefix: str = ""

    @property
    def shown(self) -> str:
        """User and address for messages."""
        return f"{self.access_key}@{self.host}:{self.port}"


def login_of(endpoints: Endpoints, store: str) -> StoreLogin:
    """Return address and keys of a store of the platform."""
    place, known = endpoints.place(store), catalog.BUCKETS + catalog.OBS_BUCKETS
    shared = len({endpoints.place(name).url for name in STORES}) == 1
    return StoreLogin(
        *(store, place.host, place.port, place.login.user, place.login.password, shared, place.secure, place.region),
        only=tuple(b.name for b in known if b.store == store) if store in endpoints.elsewhere else (),
        settings=endpoints.key_settings(store),
    )


def home_of(bucket: str) -> str:
    """Return the store that a bucket belongs to; one that the catalogue does not know is with the results."""
    return next((b.store for b in catalog.BUCKETS if b.name == bucket), STORES[-1])
