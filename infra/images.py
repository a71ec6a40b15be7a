"""The platform's images: a setting, else a locked digest, else what the Compose files say."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from infra import catalog
from infra.errors import PlatformError
from infra.settings import Settings

LOCK = Path("compose/images.lock.json")
"""In the checkout: reference -> digest of the index (or manifest), as a registry reported it."""
FORMAT = 1
FILES = "compose/docker-compose*.yml"
BUILT_HERE = ("BACKEND_IMAGE", "FRONTEND_IMAGE", "TRAINING_IMAGE")
"""Built by app.build: no registry has them."""
_DEFAULT = re.compile(r"\$\{(\w+_IMAGE):-([^${}\s]+)\}")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


@dataclass(frozen=True)
class Image:
    """An image: the setting that replaces it, what it is for, its reference, and who says so."""

    setting: str
    purpose: str
    reference: str
    origin: str


def declared(root: Path) -> dict[str, str]:
    """Read the references as the files name them, tag included, by setting; what is built here is left out."""
    found = {"PYTHON_IMAGE": catalog.PYTHON_IMAGE}
    for path in sorted(root.glob(FILES)):
        for name, reference in _DEFAULT.findall(path.read_text(encoding="utf-8")):
            found.setdefault(name, reference)
    return {name: found[name] for name in catalog.IMAGES if name in found}


def locked(root: Path) -> dict[str, str]:
    """Return the digests of the lock file by reference; {} when there is none.

    Raises:
        PlatformError: SETTINGS_UNREADABLE when it is damaged: using other images than were locked would be worse.
    """
    path = root / LOCK
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise _damaged(path, str(error)) from error
    entries = content.get("images") if isinstance(content, dict) else None
    if not isinstance(entries, dict) or content.get("format") != FORMAT:
        raise _damaged(path, f"it does not have format {FORMAT}")
    for reference, digest in entries.items():
        if not _DIGEST.fullmatch(str(digest)):
            raise _damaged(path, f"{reference} has no digest")
    return {str(reference): str(digest) for reference, digest in entries.items()}


def _damaged(path: Path, why: str) -> PlatformError:
    return PlatformError(
        "SETTINGS_UNREADABLE",
        f"{path} cannot be used",
        why=why,
        steps=("create it again where a registry can be reached: invoke images.lock", f"or remove it: {path.name}"),
    )


def lock_text(digests: Mapping[str, str]) -> str:
    """Return the text of a lock file."""
    return json.dumps({"format": FORMAT, "images": dict(sorted(digests.items()))}, indent=2) + "\n"


def images(settings: Settings, local: Collection[str] = ()) -> list[Image]:
    """Return every image that a tier with containers may run, in the order of the catalogue.

    Args:
        settings: a setting that is not empty wins.
        local: what the engine has, as name:tag and name@digest. An image loaded from an archive has its tag, but no
            digest there: a tag that is local stands for its locked digest when the digest itself is not.
    """
    digests = locked(settings.root)
    found = []
    said = declared(settings.root) | ({"BUCKETS_IMAGE": ""} if settings.text("BUCKETS_IMAGE") else {})
    for name, reference in said.items():
        chosen = settings.text(name)
        digest = digests.get(reference, "")
        if chosen:
            found.append(Image(name, catalog.IMAGES[name], chosen, settings.origin(name)))
        elif digest and not (reference in local and f"{reference.rpartition(':')[0]}@{digest}" not in local):
            found.append(Image(name, catalog.IMAGES[name], f"{reference}@{digest}", str(LOCK)))
        else:
            found.append(Image(name, catalog.IMAGES[name], reference, "the files"))
    return found


def references(settings: Settings, local: Collection[str] = ()) -> dict[str, str]:
    """Choose a reference by setting: override, else locked digest, else the files' tag; see `images` for `local`."""
    return {image.setting: image.reference for image in images(settings, local)}


def needed(settings: Settings, obs: bool = False, clearml: bool = False) -> tuple[str, ...]:
    """Return the settings of the images that the compose tier runs: the core, with observability, with ClearML."""
    chosen = {"", "light" if settings.light else "full", settings.text("PLATFORM_S3_ENGINE")}
    wanted = [
        s for s in catalog.SERVICES if s.overlay == catalog.OVERLAY_CORE or (clearml if s.name == "clearml" else obs)
    ]
    names = dict.fromkeys(part.image for s in wanted for part in s.parts if part.only in chosen)
    if not settings.text("BUCKETS_IMAGE"):  # the store's own image makes the buckets, too
        names.pop("BUCKETS_IMAGE", None)
    return tuple(names)


def replaced(settings: Settings, local: Collection[str] = ()) -> dict[str, str]:
    """Return the references that differ from those in the files: those that Compose and the charts need."""
    said = declared(settings.root)
    return {name: reference for name, reference in references(settings, local).items() if reference != said.get(name)}
