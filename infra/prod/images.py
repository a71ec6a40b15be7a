"""Images of a site: where they are pulled from, and the digest that each reference had when it was locked."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from infra.errors import PlatformError
from infra.prod.site import Site

FORMAT = 1
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
Object = dict[str, Any]


def placed(reference: str, registry: str) -> str:
    """Name the copy of an image in a site's registry; '' as registry leaves it where it is."""
    if not registry or reference.startswith(f"{registry}/"):
        return reference
    return f"{registry}/{reference.rpartition('/')[2]}"


def pinned(reference: str, digests: Mapping[str, str]) -> str:
    """Return the reference with its locked digest; as it is where it has one, or none is known."""
    digest = digests.get(reference, "")
    return f"{reference}@{digest}" if digest and "@sha256:" not in reference else reference


def locked(site: Site) -> dict[str, str]:
    """Read the digests beside the site file: reference -> digest; {} where there is no such file.

    Raises:
        PlatformError: SITE_INVALID for a file that is damaged.
    """
    try:
        said = json.loads(site.lock.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise _damaged(site, str(error)) from error
    entries = said.get("images") if isinstance(said, dict) else None
    if not isinstance(entries, dict) or said.get("format") != FORMAT:
        raise _damaged(site, f"it is not of format {FORMAT}")
    wrong = [reference for reference, digest in entries.items() if not _DIGEST.fullmatch(str(digest))]
    if wrong:
        raise _damaged(site, f"{wrong[0]} has no digest")
    return {str(reference): str(digest) for reference, digest in entries.items()}


def _damaged(site: Site, why: str) -> PlatformError:
    steps = (f"write it again: invoke prod.lock {site.name}",)
    return PlatformError("SITE_INVALID", f"{site.lock} cannot be used", why=why, steps=steps)


def lock_text(digests: Mapping[str, str]) -> str:
    """Return the text of a lock file."""
    return json.dumps({"format": FORMAT, "images": dict(sorted(digests.items()))}, indent=2) + "\n"


def slots(thing: Object) -> Iterator[tuple[dict[str, Any], str]]:
    """Yield every place in an object that names an image, as a mapping and its key."""
    spec = thing.get("spec") or {}
    if thing["kind"] == "Cluster" and "imageName" in spec:
        yield spec, "imageName"
    pod = spec if thing["kind"] == "Pod" else (spec.get("template") or {}).get("spec") or {}
    for container in (*(pod.get("initContainers") or []), *(pod.get("containers") or [])):
        yield container, "image"
        yield from ((e, "value") for e in container.get("env") or [] if e["name"].endswith("_IMAGE") and "value" in e)
