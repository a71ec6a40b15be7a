"""The services that the page lists: given to the backend, or else what the contract tells of them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from urllib.parse import urlsplit

from infra.errors import PlatformError
from infra.training.contract import Contract

VARIABLE = "SERVICE_LINKS"
"""A JSON object: name -> address, e.g. {"MLflow": "http://127.0.0.1:5000"}. It is for people's browsers, which may
reach the services elsewhere than the backend does."""
_PASSWORDLESS = {"PostgreSQL": "DATABASE_URL", "Redis": "REDIS_URL"}


def links(contract: Contract, environ: Mapping[str, str]) -> list[dict[str, object]]:
    """Name, address and whether a browser can open it, of each service.

    Raises:
        PlatformError: USAGE when SERVICE_LINKS is no JSON object of texts.
    """
    found = _given(environ.get(VARIABLE, "")) or _told(contract)
    return [{"name": n, "address": a, "web": a.startswith(("http://", "https://"))} for n, a in found.items()]


def _given(text: str) -> dict[str, str]:
    if not text:
        return {}
    try:
        found = json.loads(text)
    except ValueError as error:
        raise _unusable(str(error)) from error
    if not isinstance(found, dict) or not all(isinstance(value, str) for value in found.values()):
        raise _unusable("it is no object of texts")
    return found


def _unusable(why: str) -> PlatformError:
    example = '{"MLflow": "http://127.0.0.1:5000"}'
    return PlatformError("USAGE", f"{VARIABLE} cannot be used", why=why, steps=(f"{VARIABLE}='{example}'",))


def _told(contract: Contract) -> dict[str, str]:
    """Read addresses from the contract, without logins."""
    found = {name: _where(contract[variable]) for name, variable in _PASSWORDLESS.items()}
    found |= {"Temporal": contract["TEMPORAL_HOST"]}
    found |= {"Object store, datasets": contract["EXTERNAL_STORAGE_ENDPOINT"]}
    found |= {"Object store, results": contract["INTERNAL_STORAGE_ENDPOINT"]}
    web = {"mlflow": ("MLflow", "MLFLOW_TRACKING_URI"), "clearml": ("ClearML", "CLEARML_WEB_HOST")}
    return found | {title: contract[variable] for key, (title, variable) in web.items() if key in contract.backends}


def _where(url: str) -> str:
    return urlsplit(url).netloc.rpartition("@")[2]
