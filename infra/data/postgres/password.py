"""The password of the role that everything logs in as: changed while the server runs, without its text reaching it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from infra.data.postgres import clients
from infra.endpoints import Endpoints
from infra.errors import PlatformError


def change(endpoints: Endpoints, known: Iterable[str], wanted: str) -> bool:
    """Make the server take this password; False when it took it already. Sessions that are open go on.

    Args:
        endpoints: where it is, and the role's name.
        known: what its password may be now.
        wanted: what it is to be.

    Raises:
        PlatformError: LOGIN_REFUSED when none of them is right; UNREACHABLE.
    """
    refused: PlatformError | None = None
    for password in dict.fromkeys((wanted, *known)):
        login = replace(endpoints, postgres=replace(endpoints.postgres, password=password))
        try:
            return _changed(login, wanted)
        except PlatformError as error:
            if error.code != "LOGIN_REFUSED":
                raise
            refused = error
    assert refused is not None
    raise refused


def _changed(login: Endpoints, wanted: str) -> bool:
    from psycopg import sql

    with clients.connected(login) as link:
        if login.postgres.password == wanted:
            return False
        # What the server keeps (RFC 5803) is computed here: its log may show statements.
        kept = link.pgconn.encrypt_password(wanted.encode(), login.postgres.user.encode(), b"scram-sha-256").decode()
        role = sql.Identifier(login.postgres.user)
        link.execute(sql.SQL("alter role {} password {}").format(role, sql.Literal(kept)))
    return True
