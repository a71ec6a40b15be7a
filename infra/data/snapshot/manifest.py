"""What a snapshot's manifest says of its parts, and whether it is what one of ours says (see postgres_manifest)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from infra.data import store
from infra.data.store import Backup

_STORAGES = ("file", "databases")
_TYPES = {"tier": str, "parts": dict, "leftOut": dict, "quiesce": list, "recipients": list, "label": str, "why": str}
_OF_PARTS: dict[str, dict[str, type]] = {
    "databases": {"bytes": int},
    "objects": {"objects": int, "bytes": int},
    "redis": {"keys": int},
    "temporal": {"storage": str},
}


def judged(backup: Backup) -> Backup:
    """Return a snapshot, with a problem where its manifest says what cannot be."""
    return store.judged(backup, _problem)


def _problem(facts: Mapping[str, Any]) -> str:
    wrong = next((name for name, kind in _TYPES.items() if not isinstance(facts.get(name), kind)), "")
    if wrong:
        return f"the field {wrong}"
    if not all(isinstance(recipient, str) for recipient in facts["recipients"]):
        return "the field recipients"
    if not all(facts[name].isprintable() for name in ("tier", "label")):
        return f"the name {facts['label']!r}"
    bad = next((part for part, said in facts["parts"].items() if not _is_part(part, said)), "")
    return f"the part {bad!r}" if bad else ""


def _is_part(part: str, said: Any) -> bool:
    fields = _OF_PARTS.get(part)
    if fields is None or not isinstance(said, dict):
        return False
    if not all(type(said.get(name)) is kind for name, kind in fields.items()):
        return False
    try:
        summary({part: said})
    except (KeyError, TypeError, AttributeError, ValueError):
        return False
    return part != "temporal" or said["storage"] in _STORAGES


def summary(parts: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """Return each part of a snapshot in a few words."""
    words: dict[str, str] = {}
    if "databases" in parts:
        rows = sum(d["rows"] for d in parts["databases"]["databases"].values())
        words["databases"] = f"{', '.join(parts['databases']['databases'])}: {rows:,} rows"
    if "objects" in parts:
        words["objects"] = f"{parts['objects']['objects']:,} in {len(parts['objects']['buckets'])} buckets"
    if "redis" in parts:
        words["redis"] = f"{parts['redis']['keys']:,} keys"
    if "temporal" in parts:
        words["temporal"] = "its file" if parts["temporal"]["storage"] == "file" else "its databases"
    return words
