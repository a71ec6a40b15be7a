"""External object stores: does the service answer, take the keys, and can containers reach it."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from pathlib import Path

from infra import catalog, endpoints, health
from infra.endpoints import StorePlace
from infra.errors import PlatformError
from infra.probes import Finding
from infra.settings import Settings
from infra.tiers.base import Check

LIMIT = 10.0
"""Seconds for an answer: the service may be far away."""


def checks(settings: Settings) -> list[Check]:
    """Return one finding for each store; nothing where the platform runs the stores.

    Raises:
        PlatformError: SETTING_INVALID for an address that is missing, or that containers cannot reach.
    """
    places = endpoints.external(settings)
    for store, place in places.items():
        _refuse_loopback(settings, store, place)
    ends = endpoints.build(settings, tuple(places), places)
    found = health.ask({store: health.probe(ends, store, Path()) for store in places}, limit=LIMIT)
    return [_check(settings, store, places, finding) for store, finding in found.items()]


def _refuse_loopback(settings: Settings, store: str, place: StorePlace) -> None:
    if not _loopback(place.host):
        return
    name = setting(store)
    raise PlatformError(
        "SETTING_INVALID",
        f"{name}={place.url}: no container can reach that, because inside a container it is the container itself",
        why=f"it comes from {settings.origin(name)}",
        steps=(
            f"set {name} to an address of this machine that containers can also reach, e.g. http://192.168.1.2:9000",
            "or to that of the docker0 bridge: ip addr show docker0",
        ),
    )


def _loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def setting(store: str) -> str:
    """Return the setting that says where a store is."""
    return f"{catalog.EXTERNAL_STORES[store]}_ENDPOINT"


def _check(settings: Settings, store: str, places: Mapping[str, StorePlace], finding: Finding) -> Check:
    name, place = setting(store), places[store]
    if finding.ok:
        return Check(f"store.{store}", "ok", f"{place.url} answers and accepts the keys")
    text, where = f"the S3 service {place.url} ({name}, from {settings.origin(name)})", settings.text("S3_REGION")
    if finding.fatal:
        access, secret = endpoints.build(settings, (), places).key_settings(store)
        text += f" refuses the key {place.login.user}, region {where}: {finding.detail}"
        return Check(f"store.{store}", "fail", text, f"set {access} and {secret}, or S3_REGION", "LOGIN_REFUSED")
    remedy = f"check that it is running and can be reached from here, or set {name} to another address"
    return Check(f"store.{store}", "fail", f"{text} does not work: {finding.detail}", remedy, "UNREACHABLE")
