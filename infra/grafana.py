"""Grafana's password, which it keeps with its data: the one that it gets when it starts counts at its first start only.

Source: https://grafana.com/docs/grafana/latest/developers/http_api/user/ (`GET /api/user`, `PUT /api/user/password`).
"""

from __future__ import annotations

from collections.abc import Iterable

from infra.endpoints import Endpoints
from infra.errors import PlatformError

LIMIT = 20.0
"""Seconds for an answer."""


def give_password(ends: Endpoints, known: Iterable[str]) -> bool:
    """Make Grafana take the password of these endpoints; False when it took it already.

    Args:
        ends: where it is, with the login that is wanted.
        known: what its password may be now.

    Raises:
        PlatformError: LOGIN_REFUSED when none of them is right; UNREACHABLE.
    """
    import requests

    try:
        return _given(ends, list(dict.fromkeys((ends.grafana.password, *known))))
    except requests.RequestException as error:
        steps = ("invoke logs -s grafana", "then the same command again")
        raise PlatformError("UNREACHABLE", "Grafana does not answer", why=str(error), steps=steps) from error


def _given(ends: Endpoints, known: list[str]) -> bool:
    import requests

    url, user, wanted = ends.url("grafana"), ends.grafana.user, ends.grafana.password
    for password in known:
        if requests.get(f"{url}/api/user", auth=(user, password), timeout=LIMIT).status_code != 200:
            continue
        if password == wanted:
            return False
        change = {"oldPassword": password, "newPassword": wanted, "confirmNew": wanted}
        answer = requests.put(f"{url}/api/user/password", json=change, auth=(user, password), timeout=LIMIT)
        if answer.status_code == 200:
            return True
        raise _refused(f"HTTP {answer.status_code}: {answer.text[:200].strip()}")
    raise _refused("none of the passwords that this stack has had is right")


def _refused(why: str) -> PlatformError:
    steps = ("set GRAFANA_ADMIN_PASSWORD in .env to its present password", "or: invoke reset -s grafana")
    return PlatformError("LOGIN_REFUSED", "Grafana's password could not be changed", why=why, steps=steps)
