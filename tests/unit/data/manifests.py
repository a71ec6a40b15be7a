"""What a manifest says of a database."""

from __future__ import annotations

from typing import Any


def manifest_facts(name: str = "users") -> dict[str, Any]:
    """The facts of a backup of one database, as they are written."""
    table = {"rows": 3, "bytes": 30, "digest": "0" * 32}
    entry: dict[str, Any] = {
        "name": name,
        "owner": "infra",
        "acl": None,
        "encoding": "UTF8",
        "collate": "C",
        "ctype": "C",
    }
    entry |= {"provider": "c", "locale": None, "connections": -1, "comment": None, "settings": [], "size": 8_000_000}
    entry |= {"directory": "00-users", "objects": ["TABLE public t infra"], "tables": {"TABLE DATA public t": table}}
    version = {"number": 180006, "version": "18.6"}
    return {"server": version, "client": version, "databases": {name: entry}}
