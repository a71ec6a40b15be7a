"""Images: which are here, and getting those that are not, side by side, with bytes, patience and mirrors."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from infra.console import Console, human_bytes
from infra.errors import PlatformError
from infra.waiting import FAILED, READY, Item, Wait

AT_ONCE = 4
BACK_OFF = (4.0, 8.0)
"""Seconds to wait after the first and the second refusal for too many pulls; then comes the next mirror."""
SILENCE = 18.0
"""Seconds without a first byte after which a registry counts as unreachable."""
_LIMITED = ("toomanyrequests", "too many requests", "rate limit")
_ABSENT = ("manifest unknown", "not found", "manifest for", "does not exist", "denied", "unauthorized", "invalid ref")


def tags(images: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """Return the reference -> image id of all that an engine has, from its answer to GET /images/json."""
    found = {}
    for image in images:
        for reference in (*(image.get("RepoTags") or ()), *(image.get("RepoDigests") or ())):
            found[plain(reference)] = str(image["Id"])
    return found


def plain(reference: str) -> str:
    """Return a reference without the parts engines add or omit: docker.io/library/postgres:18.6 is postgres:18.6."""
    text = reference.removeprefix("docker.io/").removeprefix("library/")
    if "@" in text:
        name, digest = text.split("@", 1)
        return f"{name.rsplit(':', 1)[0] if ':' in name.rsplit('/', 1)[-1] else name}@{digest}"
    return text if ":" in text.rsplit("/", 1)[-1] else f"{text}:latest"


def missing(references: Iterable[str], present: Mapping[str, str]) -> list[str]:
    """Return the references that are not local, each once."""
    return [r for r in dict.fromkeys(references) if plain(r) not in present]


def mirrored(reference: str, mirrors: Sequence[str]) -> list[str]:
    """Where else an image of Docker Hub can be had; images of other registries have no mirror."""
    first = reference.split("/", 1)[0]
    elsewhere = "/" in reference and ("." in first or ":" in first) and first != "docker.io"
    if elsewhere or "@" in reference:
        return []
    name = plain(reference)
    return [f"{mirror}/{name if '/' in name else f'library/{name}'}" for mirror in mirrors]


@dataclass
class Pull:
    """One image on its way: bytes that have come and that are known to come, what it does, why it failed."""

    reference: str
    state: str = "waiting"
    detail: str = ""
    error: PlatformError | None = None
    layers: dict[str, tuple[int, int]] = field(default_factory=dict)
    heard: float = 0.0

    def note(self, event: Mapping[str, Any]) -> None:
        """Take in one event of the engine's stream."""
        self.heard = time.monotonic()
        progress = event.get("progressDetail") or {}
        if event.get("id") and progress.get("total") and event.get("status") == "Downloading":
            self.layers[event["id"]] = (int(progress["current"]), int(progress["total"]))
        elif event.get("id") in self.layers and event.get("status") in ("Download complete", "Pull complete"):
            total = self.layers[event["id"]][1]
            self.layers[event["id"]] = (total, total)
        here, all_of_it = (sum(pair[i] for pair in self.layers.values()) for i in (0, 1))
        self.detail = f"{human_bytes(here)} of {human_bytes(all_of_it)}" if all_of_it else str(event.get("status", ""))

    def item(self) -> Item:
        """What the wait shows."""
        return Item(self.reference, self.state, self.detail, budget=float("inf"))


def pull(client: Callable[[], Any], references: Sequence[str], mirrors: Sequence[str], console: Console) -> None:
    """Get images, several at once; ends at the first that cannot be had.

    Args:
        client: makes a client of the engine's SDK, one for each thread.

    Raises:
        PlatformError: IMAGE_UNAVAILABLE or REGISTRY_UNREACHABLE.
    """
    pulls = [Pull(r) for r in references]
    queue = iter(pulls)
    lock = threading.Lock()
    console.say(f"  pulling {len(pulls)} image{'s' if len(pulls) > 1 else ''}: {', '.join(references)}")

    def work() -> None:
        while True:
            with lock:
                mine = next(queue, None)
            if mine is None:
                return
            _one(client(), mine, mirrors)

    for _ in range(min(AT_ONCE, len(pulls))):
        threading.Thread(target=work, daemon=True).start()

    def poll() -> list[Item]:
        for each in pulls:
            if each.state == "pulling" and not each.layers and time.monotonic() - each.heard > SILENCE:
                each.error = each.error or _unreachable(each.reference, f"no answer within {SILENCE:.0f} s")
            if each.error is not None:
                raise each.error
        return [each.item() for each in pulls]

    Wait(console, poll, None).until_ready()


def _one(client: Any, mine: Pull, mirrors: Sequence[str]) -> None:
    for source in (mine.reference, *mirrored(mine.reference, mirrors)):
        for pause in (*BACK_OFF, 0.0):
            text = _tried(client, mine, source)
            if not text:
                mine.state = READY
                return
            if not _any(text, _LIMITED):
                break
            mine.detail = f"rate limited by {source.split('/')[0]}, retrying in {pause:.0f} s"
            mine.heard = time.monotonic() + pause
            time.sleep(pause)
        else:
            continue  # still limited: the next mirror
        mine.state, mine.error = FAILED, _refused(mine.reference, text)
        return
    steps = ("log in: docker login", "or set PLATFORM_IMAGE_MIRRORS, or the image's setting, to your own mirror")
    mine.error = PlatformError("REGISTRY_UNREACHABLE", f"rate limited: {mine.reference}", why=text, steps=steps)
    mine.state = FAILED


def _tried(client: Any, mine: Pull, source: str) -> str:
    """Pull from one place; '' when it is here now, else what went wrong."""
    import docker
    import requests

    mine.state, mine.heard = "pulling", time.monotonic()
    try:
        for event in client.pull(source, stream=True, decode=True):
            if "error" in event:
                return str(event["error"])
            mine.note(event)
        if source != mine.reference:
            name, _, tag = mine.reference.rpartition(":")
            client.tag(source, name, tag)
    except (docker.errors.DockerException, requests.RequestException) as error:
        return str(getattr(error, "explanation", "") or error)
    return ""


def _any(text: str, words: Sequence[str]) -> bool:
    return any(word in text.lower() for word in words)


def _refused(reference: str, text: str) -> PlatformError:
    if not _any(text, _ABSENT) or _any(text, ("no such host", "dial tcp", "timeout", "lookup ")):
        return _unreachable(reference, text)
    return PlatformError(
        "IMAGE_UNAVAILABLE",
        f"image {reference} is not available",
        why=text,
        steps=(
            "check its name and tag (a setting ..._IMAGE replaces it)",
            "docker login, if it is private",
        ),
    )


def _unreachable(reference: str, text: str) -> PlatformError:
    return PlatformError(
        "REGISTRY_UNREACHABLE",
        f"image {reference} is not present, and its registry does not answer",
        why=text,
        steps=(
            "without a network: docker load an archive of the images, or select local ones with the settings ..._IMAGE",
            "behind a proxy: check that Docker itself uses it",
            "or use --tier native: it needs no images",
        ),
    )
