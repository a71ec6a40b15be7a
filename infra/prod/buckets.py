"""The object stores of a site, as its application reaches them, with the site's prefix of the buckets' names."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from urllib.parse import urlsplit

from infra import catalog
from infra.data.objects.client import Client
from infra.data.objects.login import STORES, StoreLogin
from infra.errors import PlatformError


class PrefixedClient(Client):
    """A client of a site's object store that calls its buckets by their names without the site's prefix."""

    def __init__(self, login: StoreLogin, prefix: str) -> None:
        """Keep the prefix."""
        super().__init__(login)
        self.prefix = prefix

    def _path(self, bucket: str, key: str) -> str:
        return super()._path(f"{self.prefix}{bucket}" if bucket else "", key)


def logins(contract: Mapping[str, str]) -> list[StoreLogin]:
    """Return how a site's stores are reached, from its contract. Raises PlatformError USAGE where roles do it."""
    sides = dict(zip(STORES, ("EXTERNAL", "INTERNAL"), strict=True))
    return [_login(contract, name, side) for name, side in sides.items()]


def _login(contract: Mapping[str, str], name: str, side: str) -> StoreLogin:
    where = urlsplit(contract[f"{side}_STORAGE_ENDPOINT"])
    keys = (contract.get(f"{side}_STORAGE_ACCESS_KEY", ""), contract.get(f"{side}_STORAGE_SECRET_KEY", ""))
    if not all(keys):
        steps = ("copy the objects by the tools of your cloud", "or leave them out: --skip objects")
        raise PlatformError("USAGE", "the site's object store has no keys that could be used from here", steps=steps)
    secure = where.scheme == "https"
    only = tuple(b.name for b in (*catalog.BUCKETS, *catalog.OBS_BUCKETS) if b.store == name)
    made = StoreLogin(
        name, where.hostname or "", where.port or (443 if secure else 80), *keys, secure=secure, only=only
    )
    region = contract.get("AWS_DEFAULT_REGION", "")
    return replace(made, region=region) if region else made
