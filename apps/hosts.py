"""Names by which a browser may call an application: a page of another site that leads its own name here gets nothing.

That is DNS rebinding: the browser takes the page for one of the same origin, so nothing but the name in its request
tells the two apart.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Mapping

VARIABLE = "APP_ALLOWED_HOSTS"
"""Further names, with commas between: those of the Service in a cluster, of the ingress, of a proxy."""
_HEADER = re.compile(r"(?:\[(?P<bracketed>[0-9a-f:.]+)\]|(?P<name>[a-z0-9._-]+))(?::[0-9]*)?")
HERE = ("localhost", "127.0.0.1", "::1")


def allowed(environ: Mapping[str, str]) -> frozenset[str]:
    """Return the names by which the application of this environment may be called, without ports."""
    named = (word.strip() for word in environ.get(VARIABLE, "").split(","))
    return frozenset(_plain(name) for name in (*HERE, environ.get("APP_HOST", ""), *named)) - {"", "0.0.0.0", "::"}


def accepts(names: Iterable[str], header: str | None, address: str) -> bool:
    """Tell whether a request with that Host header is meant for this application.

    Args:
        names: what `allowed` says.
        header: the Host header, None where there is none.
        address: the address that the connection came to; by it (as the kubelet's probes do) one may call as well.
    """
    if header is None:
        return False
    name = _plain(header)
    return bool(name) and (name in frozenset(names) or (_is_address(name) and name == _plain(address)))


def refusal(header: str | None) -> str:
    """Say why a request is refused, and what would change that."""
    return f"this application is not called {ascii(header or '')[:100]}; {VARIABLE} names what else it is called"


def _plain(text: str) -> str:
    """Return a name or an address without its port, in one spelling; '' for what is neither."""
    text = text.strip().lower()
    found = _HEADER.fullmatch(text)
    name = found["bracketed"] or found["name"].rstrip(".") if found else text
    try:
        return str(ipaddress.ip_address(name.removeprefix("::ffff:")))
    except ValueError:
        return name if found and not found["bracketed"] else ""


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
