"""Logins of a site: its Secrets and what stands in them, as recipes without passwords."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from infra.prod.site import Site

Where = tuple[str, str]
"""Namespace and name."""
RELOAD = {"cnpg.io/reload": "true"}
"""Label by which CloudNativePG takes over a new password at once."""
ROLES = ("platform", "training", "labeler", "temporal", "mlflow")
"""Logins of PostgreSQL, one for each consumer."""
CA = "/etc/postgresql-ca/ca.crt"
"""Path at which pods find the authority of PostgreSQL's certificate."""


@dataclass(frozen=True)
class Recipe:
    """The content of a Secret: key -> text.

    `{password:ROLE}` is a new password, the same wherever the role is named; `{secret:NAMESPACE/NAME/KEY}` is taken
    from a Secret that must be there. Where one of these is only a part of the text, it is quoted for a URL.
    """

    values: Mapping[str, str]
    labels: Mapping[str, str] = field(default_factory=dict)


def recipes(site: Site) -> dict[Where, Recipe]:
    """Return every Secret that `prod.secrets --generate` can make for a site, or complete from others."""
    found = {("platform", f"postgresql-{role}"): _login(role, RELOAD) for role in ROLES}
    if site.engine("postgres") == "external":
        found = {}
    login = {"username": "{secret:platform/postgresql-temporal/username}"}
    login |= {"password": "{secret:platform/postgresql-temporal/password}"}
    found[("temporal", "temporal-database")] = Recipe(login) if not found else _login("temporal")
    if site.engine("redis") == "single":
        found[("platform", "redis-credentials")] = Recipe({"password": "{password:redis}"})
    found[("observability", "redis-exporter-credentials")] = Recipe({"password": _redis_password(site)})
    found[("platform", "platform-signing")] = Recipe({"TRAINING_KEY": "{password:signing}"})
    role = site.part("s3").get("identity") == "role"
    keys = {"ACCESS_KEY": "username", "SECRET_KEY": "password"}
    stores = {
        f"{side}_STORAGE_{name}": "" if role else f"{{secret:platform/object-store/{key}}}"
        for side in ("EXTERNAL", "INTERNAL")
        for name, key in keys.items()
    }
    found[("platform", "platform-credentials")] = Recipe({**_contract(site, "platform"), **stores})
    found[("training", "training-credentials")] = Recipe({**_contract(site, "training"), **stores})
    return found


def _login(role: str, labels: Mapping[str, str] | None = None) -> Recipe:
    return Recipe({"username": role, "password": f"{{password:{role}}}"}, labels or {})


def _contract(site: Site, role: str) -> dict[str, str]:
    """Return the secret part of the contract, for a role of PostgreSQL."""
    said: Mapping[str, Any] = site.part("postgres")
    external = said["engine"] == "external"
    password = f"{{secret:platform/postgresql-{role}/password}}" if external else f"{{password:{role}}}"
    user = f"{{secret:platform/postgresql-{role}/username}}" if external else role
    host = f"{said['host']}:{said.get('port', 5432)}" if external else "postgresql.platform:5432"
    server, check = f"postgresql://{user}:{password}@{host}", f"?sslmode=verify-full&sslrootcert={CA}"
    # A training has no business with accounts: the contract wants the variable, the server refuses the login.
    return {
        "DATABASE_URL": f"{server}/platform{check}",
        "USER_DATABASE_URL": f"{server}/users{check}",
        "REDIS_URL": _redis(site),
    }


def _redis(site: Site) -> str:
    said = site.part("redis")
    if said["engine"] == "external":
        return f"rediss://:{_redis_password(site)}@{said['host']}:{said.get('port', 6379)}/0"
    return f"redis://:{_redis_password(site)}@redis-master.platform:6379/0"


def _redis_password(site: Site) -> str:
    own = site.engine("redis") == "single"
    return "{password:redis}" if own else "{secret:platform/redis-credentials/password}"
