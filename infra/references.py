"""Image references: the one place that knows how files, engines, nodes and registries write them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

HUB = "docker.io"
"""Docker Hub, which a reference without a host means."""
_HUB_NAMES = (HUB, "index.docker.io", "registry-1.docker.io")


@dataclass(frozen=True)
class Reference:
    """A reference in its parts: registry, repository, tag and digest ('' where it has none)."""

    host: str
    repository: str
    tag: str
    digest: str = ""

    @property
    def full(self) -> str:
        """Return what containerd and Kubernetes' nodes list, e.g. docker.io/library/postgres:18.6."""
        tag, digest = f":{self.tag}" if self.tag else "", f"@{self.digest}" if self.digest else ""
        return f"{self.host}/{self.repository}{tag}{digest}"

    @property
    def short(self) -> str:
        """Return what Docker lists, e.g. postgres:18.6; with a digest it lists no tag."""
        name = self.repository if self.host == HUB else f"{self.host}/{self.repository}"
        name = name.removeprefix("library/") if self.host == HUB else name
        return f"{name}@{self.digest}" if self.digest else f"{name}:{self.tag}"

    def at(self, mirror: str, digest: str = "") -> str:
        """Return the same in a mirror of Docker Hub, exactly that digest where one is given."""
        return f"{mirror}/{self.repository}{f'@{digest}' if digest else f':{self.tag}'}"


def parse(text: str) -> Reference:
    """Split a reference as Docker does: no host means Docker Hub, neither tag nor digest `latest`."""
    name, _, digest = text.partition("@")
    first, slash, rest = name.partition("/")
    named = bool(slash) and ("." in first or ":" in first or first == "localhost")
    host, path = (first, rest) if named else (HUB, name)
    path, _, tag = path.partition(":")
    if host in _HUB_NAMES:
        host, path = HUB, path if "/" in path else f"library/{path}"
    return Reference(host, path, tag or ("" if digest else "latest"), digest)


def full(text: str) -> str:
    """Return a reference as containerd and nodes list it."""
    return parse(text).full


def short(text: str) -> str:
    """Return a reference as Docker lists it."""
    return parse(text).short


def mirrored(text: str, mirrors: Sequence[str], digest: str = "") -> list[str]:
    """Return where else an image of Docker Hub may be; those of other registries, or named by digest, have no mirror.

    Args:
        digest: which exactly that image has to be.
    """
    found = parse(text)
    if found.host != HUB or found.digest:
        return []
    return [found.at(mirror, digest) for mirror in mirrors]
