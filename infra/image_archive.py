"""Images as one file, for machines without a network: written and read through the engine, never half of it."""

from __future__ import annotations

import contextlib
import hashlib
import os
import tarfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any

from infra.errors import PlatformError

CHUNK = 1 << 20
_LARGEST = 16 << 20
"""Bytes of a manifest of images, at the most."""
Progress = Callable[[int], None]
"""Called with the number of bytes done."""


def save(client: Any, references: Sequence[str], target: Path, progress: Progress) -> str:
    """Write images to a tar file as `docker save` does, layers that they share once; returns its SHA-256.

    Args:
        client: of the engine's SDK (docker.APIClient).
        references: local images by name and tag.
        target: the file; it appears when it is whole.
        progress: see `Progress`.

    Raises:
        PlatformError: NOT_FOUND when an image is not local, USAGE when the file cannot be written.
    """
    if target.is_dir():  # else it would be noticed after all of it has been written
        raise _unwritable(target, "it is a directory")
    unfinished = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        with unfinished.open("wb") as file:
            digest = _written(file, _stream(client, references), progress)
            file.flush()
            os.fsync(file.fileno())
        os.replace(unfinished, target)
    except OSError as error:
        raise _unwritable(target, error.strerror or str(error)) from error
    finally:
        with contextlib.suppress(OSError):  # its folder is none; that has been said
            unfinished.unlink(missing_ok=True)
    return digest


def _unwritable(target: Path, why: str) -> PlatformError:
    steps = ("name a file in a writable directory with enough free space",)
    return PlatformError("USAGE", f"{target} cannot be written", why=why, steps=steps)


def _stream(client: Any, references: Sequence[str]) -> Iterator[bytes]:
    url = f"{client.base_url}/v{client.api_version}/images/get"
    answer = client.get(url, params=[("names", name) for name in references], stream=True, timeout=None)
    if answer.status_code != 200:
        why = answer.json().get("message", "") if answer.status_code in (404, 500) else f"HTTP {answer.status_code}"
        raise PlatformError(
            "NOT_FOUND", "the engine does not export the images", why=why, steps=("invoke images.pull",)
        )
    yield from answer.iter_content(CHUNK)


def _written(file: Any, chunks: Iterator[bytes], progress: Progress) -> str:
    digest, done = hashlib.sha256(), 0
    for chunk in chunks:
        file.write(chunk)
        digest.update(chunk)
        done += len(chunk)
        progress(done)
    return digest.hexdigest()


def contents(source: Path) -> list[str]:
    """Return the names and tags of the images in an archive.

    Raises:
        PlatformError: USAGE when it cannot be read, or is not an image archive.
    """
    import json

    steps = ("name a file written by `invoke images.bundle` or `docker save`",)
    if not source.is_file():
        raise PlatformError("USAGE", f"there is no file {source}", steps=steps)
    try:
        with tarfile.open(source) as archive:
            manifest = archive.extractfile("manifest.json")
            entries = json.loads(_whole(manifest)) if manifest else []
    except (OSError, tarfile.TarError, KeyError, ValueError, EOFError) as error:
        unreadable = isinstance(error, OSError) and error.strerror
        why = unreadable or "it is not a complete tar file with a manifest.json"
        raise PlatformError("USAGE", f"{source} is not an image archive", why=why, steps=steps) from error
    return [tag for entry in entries for tag in entry.get("RepoTags") or ()]


def _whole(file: IO[bytes]) -> bytes:
    """Return what a small file holds. Raises ValueError for a large one: an archive may be compressed."""
    found = file.read(_LARGEST + 1)
    if len(found) > _LARGEST:
        raise ValueError("larger than any manifest")
    return found


def load(client: Any, source: Path, progress: Progress) -> list[str]:
    """Give the images of an archive to the engine; returns their names and tags.

    Raises:
        PlatformError: USAGE for a file that is none, PROGRAM_FAILED when the engine refuses it.
    """
    import docker
    import requests

    found = contents(source)
    try:
        for event in client.load_image(_read(source, progress), quiet=False):
            if "error" in event:
                raise docker.errors.APIError(event["error"])
    except (docker.errors.DockerException, requests.RequestException) as error:
        why = str(getattr(error, "explanation", "") or error)
        steps = (
            "check that the engine has free space: docker system df",
            "check that the file is complete: compare its SHA-256",
        )
        raise PlatformError("PROGRAM_FAILED", f"the engine did not accept {source}", why=why, steps=steps) from error
    return found


def _read(source: Path, progress: Progress) -> Iterator[bytes]:
    done = 0
    with source.open("rb") as file:
        while chunk := file.read(CHUNK):
            done += len(chunk)
            progress(done)
            yield chunk
