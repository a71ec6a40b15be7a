"""The parts in a snapshot's manifest, and the check that it is one that we write (see postgres.manifest)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from infra.data import store
from infra.data.postgres.facts import SKIPPED
from infra.data.postgres.needs import Needs
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
        skipped = [name for name, why in parts["databases"].get("left_out", {}).items() if why == SKIPPED]
        words["databases"] += f" (without {', '.join(skipped)})" if skipped else ""
    if "objects" in parts:
        words["objects"] = f"{parts['objects']['objects']:,} in {len(parts['objects']['buckets'])} buckets"
    if "redis" in parts:
        words["redis"] = f"{parts['redis']['keys']:,} keys"
    if "temporal" in parts:
        words["temporal"] = "its file" if parts["temporal"]["storage"] == "file" else "its databases"
    return words


def missing(facts: Mapping[str, Any]) -> list[str]:
    """List in words what a snapshot lacks although nobody skipped it, and what of it could not be verified."""
    databases = facts["parts"].get("databases", {})
    left_out = {name: why for name, why in databases.get("left_out", {}).items() if why != SKIPPED}
    failed = (facts.get("verified") or {}).get("failed", {})
    said = [f"the database {name} is not in it: {why}" for name, why in left_out.items()]
    said += [f"the database {name} is not there: invoke db.init makes it" for name in databases.get("absent", ())]
    return said + [f"the database {name} is in it, but not verified: {why}" for name, why in failed.items()]


def needs(parts: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """List what databases ask of a server beyond what every one has; nothing of snapshots of earlier versions."""
    databases = parts.get("databases", {}).get("databases", {})
    found = {name: Needs.of(entry).lines() for name, entry in databases.items() if "encoding" in entry}
    return {name: ", ".join(lines) for name, lines in found.items() if lines}
