"""The stack's volumes: what is in them, moving them into the trash and back; no program inside a container is needed.

A container that is made and never started gives access to a volume through the engine's archive calls
(Docker Engine API, ContainerArchive and PutContainerArchive), whatever image it is of.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from infra.errors import PlatformError
from infra.tiers.base import Removal
from infra.tiers.compose.model import ComposeModel

MOUNT = "/volume"
ARCHIVE = "volume.tar"
FACTS = "volume.json"
CHUNK = 2**20
MAJORS = range(20, 11, -1)
_VERSION_FILES = (*(f"{major}/docker/PG_VERSION" for major in MAJORS), "PG_VERSION", "data/PG_VERSION")
"""Places of that file in a volume of the official images: since 18 below the major, before at the top or in data/."""


def volume_facts(client: Any, volume: str) -> dict[str, Any] | None:
    """Return the engine's description of a volume; None when there is none."""
    import docker

    try:
        found: dict[str, Any] = client.inspect_volume(volume)
    except docker.errors.NotFound:
        return None
    return found


@contextlib.contextmanager
def opened(client: Any, volume: str, image: str) -> Iterator[str]:
    """Create a container that holds the volume at MOUNT and never runs; remove it afterwards."""
    binds = client.create_host_config(binds={volume: {"bind": MOUNT, "mode": "rw"}})
    labels = {"platform.helper": "volume"}
    made = client.create_container(image, command=["none"], host_config=binds, labels=labels)["Id"]
    try:
        yield made
    finally:
        client.remove_container(made, force=True, v=True)  # with the unnamed volumes that its image asks for


def some_image(client: Any, preferred: str) -> str:
    """Return an image that is here, for `opened`.

    Raises:
        PlatformError: IMAGE_UNAVAILABLE when the engine has none at all.
    """
    import docker

    with contextlib.suppress(docker.errors.NotFound):
        client.inspect_image(preferred)
        return preferred
    for image in client.images():
        return str(image["Id"])
    steps = ("invoke compose.pull",)
    raise PlatformError("IMAGE_UNAVAILABLE", "no local image is available to inspect the volume with", steps=steps)


def postgres_major(client: Any, volume: str, image: str) -> str:
    """Return the major version of the data in a volume; '' when it holds none."""
    with opened(client, volume, image) as box:
        for path in _VERSION_FILES:
            text = _small_file(client, box, f"{MOUNT}/{path}")
            if text:
                return text.strip()
    return ""


def _small_file(client: Any, box: str, path: str) -> str:
    import docker

    try:
        chunks, _ = client.get_archive(box, path)
    except docker.errors.NotFound:
        return ""
    with tarfile.open(fileobj=io.BytesIO(b"".join(chunks))) as archive:
        member = next((m for m in archive if m.isfile()), None)
        file = archive.extractfile(member) if member else None
        return file.read(100).decode("ascii", "replace") if file else ""


def wanted_major(client: Any, image: str) -> str:
    """Return the major version of PostgreSQL in an image: its PG_MAJOR variable, as in the official image."""
    import docker

    with contextlib.suppress(docker.errors.NotFound):
        for entry in client.inspect_image(image)["Config"].get("Env") or ():
            if entry.startswith("PG_MAJOR="):
                return str(entry.partition("=")[2])
    tag = image.rpartition(":")[2]
    return tag.split(".")[0] if tag[:1].isdigit() else ""


def refuse_other_major(found: str, wanted: str, volume: str) -> None:
    """Raise PlatformError DATA_INCOMPATIBLE when a volume was written by another major version."""
    if not found or not wanted or found == wanted:
        return
    raise PlatformError(
        "DATA_INCOMPATIBLE",
        f"the volume {volume} was written by PostgreSQL {found}; this is PostgreSQL {wanted}",
        why="nothing was started, and the volume is untouched",
        steps=(
            f"upgrade the data: invoke db.upgrade --old-image postgres:{found} (the old storage is kept)",
            f"or continue with the old version: POSTGRES_IMAGE=postgres:{found}, invoke up",
        ),
    )


def removals(client: Any, model: ComposeModel, services: Sequence[str]) -> list[Removal]:
    """Return the volumes of these services (all if none is named) that are there, with their sizes in bytes."""
    sizes = {v["Name"]: int((v.get("UsageData") or {}).get("Size", 0)) for v in client.df().get("Volumes") or ()}
    found = []
    for part in model.parts.values():
        for volume in part.volumes:
            if volume in sizes and (not services or part.owner in services):
                found.append(Removal(part.owner or part.name, None, max(sizes[volume], 0), volume))
    return list({r.volume: r for r in found}.values())


def image_of(model: ComposeModel, volume: str) -> str:
    """Return the image of the part that uses a volume."""
    return next((p.image for p in model.parts.values() if volume in p.volumes), "")


def stash(client: Any, removal: Removal, into: Path, image: str) -> None:
    """Copy a volume into the trash, whole or not at all, then remove it.

    Raises:
        PlatformError: STATE_UNWRITABLE; the volume is in its place then.
    """
    from infra.stack import unwritable

    unfinished = into / f".{ARCHIVE}"
    try:
        with opened(client, removal.volume, image) as box, open(unfinished, "wb") as file:
            os.chmod(unfinished, 0o600)
            for chunk in client.get_archive(box, MOUNT, chunk_size=CHUNK)[0]:
                file.write(chunk)
            file.flush()
            os.fsync(file.fileno())
        facts = volume_facts(client, removal.volume) or {}
        (into / FACTS).write_text(json.dumps({"name": removal.volume, "labels": facts.get("Labels") or {}}))
        os.replace(unfinished, into / ARCHIVE)
    except OSError as error:
        unfinished.unlink(missing_ok=True)
        raise unwritable(into, error) from error
    client.remove_volume(removal.volume)


def unstash(client: Any, removal: Removal, kept: Path, image: str) -> None:
    """Make the volume again and fill it from the trash.

    Raises:
        PlatformError: NOT_FOUND when nothing whole is kept; DATA_INCOMPATIBLE when its place is taken.
    """
    archive = kept / ARCHIVE
    if not archive.exists():
        raise PlatformError(
            "NOT_FOUND", f"the trash has no complete copy of {removal.volume}", steps=("invoke trash.list",)
        )
    if volume_facts(client, removal.volume) is not None:
        steps = (f"invoke reset -s {removal.service} moves it to the trash, too",)
        raise PlatformError("DATA_INCOMPATIBLE", f"there is already a volume {removal.volume}", steps=steps)
    facts = json.loads((kept / FACTS).read_text(encoding="utf-8"))
    client.create_volume(removal.volume, labels=facts.get("labels") or {})
    try:
        with opened(client, removal.volume, image) as box, open(archive, "rb") as file:
            client.put_archive(box, "/", file)  # with the owner of its top directory
    except BaseException:
        client.remove_volume(removal.volume, force=True)
        raise
    archive.unlink()
