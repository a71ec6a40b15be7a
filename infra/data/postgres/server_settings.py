"""Settings of a server that belong to no database and to no role: in a backup, and told where another one differs.

They are never set by a restore: what fits one machine may keep another server from starting.
"""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

from infra.data import store
from infra.data.postgres.clients import Server
from infra.data.store import Backup

if TYPE_CHECKING:
    import psycopg

FILE = "server.json"
"""The file of a backup that has them: some may hold passwords, so they are not in the manifest."""
_SYSTEM = """
select name, setting from pg_file_settings where sourcefile like '%/postgresql.auto.conf' and error is null order by 1
"""
_EVERYBODY = "select unnest(setconfig) from pg_db_role_setting where setrole = 0 and setdatabase = 0 order by 1"
_SECRET = ("conninfo", "password", "passphrase", "command")


def read(server: Server, link: psycopg.Connection[Any]) -> dict[str, Any]:
    """Return the settings by `alter system`, as far as we may read them, and by `alter role all`, as `name=value`."""
    system = dict(link.execute(_SYSTEM.encode()).fetchall()) if server.superuser else {}
    return {"system": system, "everybody": [text for (text,) in link.execute(_EVERYBODY).fetchall()]}


def saved(backup: Backup) -> dict[str, Any]:
    """Return those of a backup; none of one that an earlier version made. Raises PlatformError BACKUP_DAMAGED."""
    file = next((f for f in backup.files if f.path == FILE), None)
    if file is None:
        return {"system": {}, "everybody": []}
    try:
        with os.fdopen(store.open_file(backup, file), encoding="utf-8") as stream:
            found = json.load(stream)
        return {"system": dict(found["system"]), "everybody": [str(text) for text in found["everybody"]]}
    except (ValueError, TypeError, KeyError) as error:
        raise store.damaged(backup, FILE, "does not hold settings") from error


def differing(server: Server, link: psycopg.Connection[Any], backup: Backup) -> list[str]:
    """List what is set otherwise than on a backup's server, with the statement that sets it."""
    there, here = saved(backup), read(server, link)
    system = {n: v for n, v in there["system"].items() if here["system"].get(n) != v} if server.superuser else {}
    texts = [f"alter system set {n} to {_shown(n, v)}" for n, v in system.items()]
    for text in there["everybody"]:
        if text not in here["everybody"]:
            name, _, value = text.partition("=")
            texts.append(f"alter role all set {name} to {_shown(name, value)}")
    return [f"the server's own setting is not restored: {text}" for text in texts]


def _shown(name: str, value: str) -> str:
    return f"... (in {FILE})" if any(word in name for word in _SECRET) else f"'{value}'"
