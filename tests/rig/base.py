"""The root file system under the images: a small Debian 12 made by debootstrap, kept as a tar archive."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from tests.rig import cache, parts

SUITE = "bookworm"
PACKAGES = ("python3", "ca-certificates", "curl", "netcat-openbsd", "busybox")
NEEDLESS = (
    "usr/share/doc",
    "usr/share/man",
    "usr/share/locale",
    "usr/share/info",
    "var/cache/apt",
    "var/lib/apt/lists",
)


def key() -> str:
    """Suite and packages."""
    return cache.key(SUITE, *PACKAGES, *NEEDLESS)


def archive(log: Path) -> Path:
    """The archive, made when it is missing (about a minute; root only).

    Raises:
        RigProblem: debootstrap or tar failed.
    """
    target = cache.folder("parts") / f"base-root-{key()}"
    if not target.exists():
        with cache.fresh(target) as unfinished:
            make(unfinished / "root.tar", PACKAGES, log)
        cache.discard_others(target)
    return target / "root.tar"


def make(tar: Path, packages: Sequence[str], log: Path) -> None:
    """Make an archive of a small Debian with these packages (about a minute; root only).

    Raises:
        RigProblem: debootstrap or tar failed.
    """
    with cache.scratch() as place:
        root = place / "root"
        mirror = parts.debian_mirror()
        options: list[str | Path] = [
            "--variant=minbase",
            f"--include={','.join(packages)}",
            SUITE,
            root,
            *([mirror] if mirror else []),
        ]
        cache.run(["debootstrap", *options], log)
        for name in NEEDLESS:
            shutil.rmtree(root / name, ignore_errors=True)
            (root / name).mkdir(parents=True)
        cache.run(["tar", "-C", root, "-cf", tar, "."], log)
