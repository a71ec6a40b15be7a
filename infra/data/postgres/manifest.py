"""The check that a manifest describes databases as our backups do: anyone who writes one can make its checksum fit.

What is refused here is what would be used as a path, a size or a name; the rest the server judges.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from infra.data import store
from infra.data.postgres.facts import LONGEST_NAME
from infra.data.store import Backup, is_amount

NEVER = "template0"
_DIRECTORY = re.compile(r"^[A-Za-z0-9_-]{1,64}$")


def judged(backup: Backup) -> Backup:
    """Return a backup of databases, with a problem where its manifest says what cannot be."""
    return store.judged(backup, _problem)


def _problem(facts: Mapping[str, Any]) -> str:
    for part in ("server", "client"):
        if not is_amount(_of(facts, part).get("number")):
            return f"the version of the {part} is missing"
    databases = _of(facts, "databases")
    if not databases:
        return "it contains no databases"
    bad = next((why for name, entry in databases.items() if (why := _of_database(name, entry))), "")
    folders = {str(entry["directory"]) for entry in databases.values()} if not bad else set()
    return bad or ("" if len(folders) == len(databases) else "two databases share one directory")


def _of_database(name: str, entry: Any) -> str:
    if not 0 < len(name.encode("utf-8", "replace")) <= LONGEST_NAME or "\0" in name or name == NEVER:
        return f"{name!r} is not a valid database name"
    if not isinstance(entry, dict) or entry.get("name") != name:
        return f"it does not mention {name!r}"
    if not isinstance(entry.get("directory"), str) or not _DIRECTORY.match(entry["directory"]):
        return f"{entry.get('directory')!r} is not a database directory"
    wrong = [field for field, fits in _FIELDS.items() if field not in entry or not fits(entry[field])]
    wrong += [field for field, fits in _LATER.items() if field in entry and not fits(entry[field])]
    if wrong or not isinstance(entry.get("tables"), dict):
        return f"the {wrong[0] if wrong else 'tables'} of {name!r}"
    tables = (label for label, table in entry["tables"].items() if not _is_table(table))
    return next((f"the table {label!r} of {name!r}" for label in tables), "")


def _is_table(table: Any) -> bool:
    return isinstance(table, dict) and is_amount(table.get("rows")) and is_amount(table.get("bytes"))


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and "\0" not in value


def _is_text_or_none(value: Any) -> bool:
    return value is None or _is_text(value)


def _are_texts(value: Any) -> bool:
    return isinstance(value, list) and all(_is_text(item) for item in value)


def _are_settings(value: Any) -> bool:
    pairs = isinstance(value, list) and all(isinstance(item, list) and len(item) == 2 for item in value)
    return pairs and all(_is_text(role) and _are_texts(lines) for role, lines in value)


def _are_collations(value: Any) -> bool:
    triples = isinstance(value, list) and all(isinstance(item, list) and len(item) == 3 for item in value)
    return triples and all(_is_text_or_none(name) and _are_texts([kind, locale]) for name, kind, locale in value)


_FIELDS = {
    "owner": _is_text,
    "encoding": _is_text,
    "collate": _is_text_or_none,
    "ctype": _is_text_or_none,
    "provider": _is_text,
    "locale": _is_text_or_none,
    "comment": _is_text_or_none,
    "connections": lambda value: type(value) is int,
    "acl": lambda value: value is None or (_are_texts(value) and all("=" in item for item in value)),
    "settings": _are_settings,
    "objects": _are_texts,
}

_LATER = {
    "roles": _are_texts,
    "tablespaces": _are_texts,
    "extensions": lambda value: isinstance(value, dict) and all(_is_text(v) for v in value.values()),
    "collations": _are_collations,
    "xml": lambda value: type(value) is bool,
    "template": lambda value: type(value) is bool,
    "icu_rules": _is_text,
    "tablespace": _is_text,
}
"""Fields that backups of earlier versions do not have."""


def _of(facts: Mapping[str, Any], key: str) -> dict[str, Any]:
    found = facts.get(key)
    return found if isinstance(found, dict) else {}
