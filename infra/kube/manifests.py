"""Rendered manifests as data: what is in them. Pure."""

from __future__ import annotations

KEPT = frozenset({"Namespace", "PersistentVolumeClaim", "PersistentVolume", "StorageClass", "CustomResourceDefinition"})
"""Kinds that are never deleted with an overlay: they hold data, or objects made by others."""


def removable(rendered: str) -> list[tuple[str, str]]:
    """Return the namespace and `kind/name` of all objects that may be deleted, last ones first."""
    import yaml

    found = []
    for entry in yaml.safe_load_all(rendered):
        if isinstance(entry, dict) and entry.get("kind") and entry["kind"] not in KEPT:
            about = entry.get("metadata") or {}
            found.append((about.get("namespace", "default"), f"{entry['kind'].lower()}/{about.get('name', '')}"))
    return list(reversed(found))
