"""Images: which are here, and getting those that are not, side by side, with bytes, patience and mirrors."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from infra.console import Console, human_bytes
from infra.errors import PlatformError
from infra.references import mirrored, parse, short
from infra.waiting import FAILED, READY, Item, Wait

AT_ONCE = 4
BACK_OFF = (4.0, 8.0)
"""Seconds to wait after the first and the second refusal for too many pulls; then comes the next mirror."""
SILENCE = 18.0
"""Seconds without a first byte after which a registry counts as unreachable."""
_LIMITED = ("toomanyrequests", "too many requests", "rate limit")
_PASSING = ("502 ", "503 ", "504 ", "bad gateway", "service unavailable", "unexpected eof", "connection reset")
"""Further faults that another attempt may cure."""
_ABSENT = ("manifest unknown", "not found", "manifest for", "does not exist", "denied", "unauthorized", "invalid ref")


def tags(images: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """Return the image ids of all that an engine has, by reference, from its answer to GET /images/json."""
    found = {}
    for image in images:
        for reference in (*(image.get("RepoTags") or ()), *(image.get("RepoDigests") or ())):
            found[short(reference)] = str(image["Id"])
    return found


def missing(references: Iterable[str], present: Mapping[str, str]) -> list[str]:
    """Return the references that are not local, each once."""
    return [r for r in dict.fromkeys(references) if short(r) not in present]


@dataclass
class Pull:
    """One image on its way: bytes that have come and that are known to come, what it does, why it failed.

    With a `digest` exactly that image gets the name of the reference.
    """

    reference: str
    digest: str = ""
    setting: str = "..._IMAGE"
    state: str = "waiting"
    detail: str = ""
    error: PlatformError | None = None
    layers: dict[str, tuple[int, int]] = field(default_factory=dict)
    heard: float = 0.0

    def sources(self, mirrors: Sequence[str]) -> list[str]:
        """Return where it may come from, in the order in which to ask."""
        name = parse(self.reference)
        own = f"{name.host}/{name.repository}@{self.digest}" if self.digest else self.reference
        return [own, *mirrored(self.reference, mirrors, self.digest)]

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
        """Return what the wait shows."""
        return Item(self.reference, self.state, self.detail, budget=float("inf"))


def pull(
    client: Callable[[], Any],
    references: Sequence[str],
    mirrors: Sequence[str],
    console: Console,
    digests: Mapping[str, str] | None = None,
    settings: Mapping[str, str] | None = None,
) -> None:
    """Get images, several at once; ends at the first that is not available.

    Args:
        client: makes a client of the engine's SDK, one for each thread.
        digests: by reference, which exactly an image has to be; those of compose have theirs in the reference.
        settings: by reference, the setting that names another image instead, for the error.

    Raises:
        PlatformError: IMAGE_UNAVAILABLE or REGISTRY_UNREACHABLE.
    """
    pulls = [Pull(r, (digests or {}).get(r, ""), (settings or {}).get(r, "..._IMAGE")) for r in references]
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
                each.error = each.error or _unreachable(each, f"no answer within {SILENCE:.0f} s")
            if each.error is not None:
                raise each.error
        return [each.item() for each in pulls]

    Wait(console, poll, None).until_ready()


def _one(client: Any, mine: Pull, mirrors: Sequence[str]) -> None:
    for source in mine.sources(mirrors):
        for pause in (*BACK_OFF, 0.0):
            text = _tried(client, mine, source)
            if not text:
                mine.state = READY
                return
            limited = _any(text, _LIMITED)
            if not limited and not _any(text, _PASSING):
                break
            reason = "rate limited by" if limited else "no good answer from"
            mine.detail = f"{reason} {parse(source).host}, retrying in {pause:.0f} s"
            mine.heard = time.monotonic() + pause
            time.sleep(pause)
        else:
            continue  # still limited: the next mirror
        mine.state, mine.error = FAILED, _refused(mine, text)
        return
    mine.state, mine.error = FAILED, _exhausted(mine, text)


def _exhausted(mine: Pull, text: str) -> PlatformError:
    if not _any(text, _LIMITED):
        return _unreachable(mine, text)
    steps = ("log in: docker login", f"or set PLATFORM_IMAGE_MIRRORS, or {mine.setting}, to your own mirror")
    return PlatformError("REGISTRY_UNREACHABLE", f"rate limited: {mine.reference}", why=text, steps=steps)


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
            name, _, tag = short(mine.reference).rpartition(":")
            client.tag(source, name, tag)
    except (docker.errors.DockerException, requests.RequestException) as error:
        return str(getattr(error, "explanation", "") or error)
    return ""


def _any(text: str, words: Sequence[str]) -> bool:
    return any(word in text.lower() for word in words)


def _refused(mine: Pull, text: str) -> PlatformError:
    if not _any(text, _ABSENT) or _any(text, ("no such host", "dial tcp", "timeout", "lookup ")):
        return _unreachable(mine, text)
    return PlatformError(
        "IMAGE_UNAVAILABLE",
        f"image {mine.reference} is not available",
        why=text,
        steps=(
            f"check its name and tag; the setting {mine.setting} replaces it",
            "docker login, if it is private",
        ),
    )


def _unreachable(mine: Pull, text: str) -> PlatformError:
    return PlatformError(
        "REGISTRY_UNREACHABLE",
        f"image {mine.reference} is not present, and its registry does not answer",
        why=text,
        steps=(
            f"without a network: docker load an archive of the images, or select a local one with {mine.setting}",
            "behind a proxy: check that Docker itself uses it",
            "or use --tier native: it needs no images",
        ),
    )
