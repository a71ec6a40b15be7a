"""The object stores of a site, as its application reaches them, with the site's prefix of the buckets' names."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from urllib.parse import urlsplit

from infra import catalog
from infra.data.objects.login import STORES, StoreLogin
from infra.errors import PlatformError


def logins(contract: Mapping[str, str], prefix: str) -> list[StoreLogin]:
    """Return how a site's stores are reached.

    Args:
        contract: the site's.
        prefix: what the names of its buckets begin with.

    Raises:
        PlatformError: USAGE where roles and no keys give access.
    """
    sides = dict(zip(STORES, ("EXTERNAL", "INTERNAL"), strict=True))
    return [replace(_login(contract, name, side), prefix=prefix) for name, side in sides.items()]


def _login(contract: Mapping[str, str], name: str, side: str) -> StoreLogin:
    where = urlsplit(contract[f"{side}_STORAGE_ENDPOINT"])
    keys = (contract.get(f"{side}_STORAGE_ACCESS_KEY", ""), contract.get(f"{side}_STORAGE_SECRET_KEY", ""))
    if not all(keys):
        steps = ("copy the objects by the tools of your cloud", "or leave them out: prod.snapshot --skip-objects")
        raise PlatformError("USAGE", "the site's object store has no keys that could be used from here", steps=steps)
    secure = where.scheme == "https"
    only = tuple(b.name for b in (*catalog.BUCKETS, *catalog.OBS_BUCKETS) if b.store == name)
    made = StoreLogin(
        name, where.hostname or "", where.port or (443 if secure else 80), *keys, secure=secure, only=only
    )
    region = contract.get("AWS_DEFAULT_REGION", "")
    return replace(made, region=region) if region else made
