"""The maker of a backup: each stack signs the manifests of its own with a key that only it has.

A manifest's checksum says that nothing was damaged, not who wrote it. What a backup holds is run when it is restored:
SQL with all rights of the server, workflows, and weights that execute code when a program loads them.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
from collections.abc import Iterator, Sequence
from contextvars import ContextVar
from pathlib import Path
from typing import Protocol

from infra import private
from infra.errors import PlatformError

HERE, ELSEWHERE = "here", "elsewhere"
KEY = "maker.key"
"""In the state directory. Without it, e.g. on another machine, every backup counts as made elsewhere."""
_PURPOSE = b"platform backup 1\n"
_home: ContextVar[Path | None] = ContextVar("home of the stack that signs", default=None)

MEANS = {
    "db": "its SQL runs here with all rights of the database server, so it can run programs as the server's user",
    "objects": "it can hold weights or pickles that run code when a program loads them",
    "snapshot": (
        "its SQL runs here with all rights of the database server, its workflows go on here, and weights in it can "
        "run code when a program loads them"
    ),
}
"""Kind of backup -> the harm that its maker can do to those who restore it."""


class SignedBackup(Protocol):
    """The parts of a backup that are looked at: see `infra.data.store.Backup`."""

    @property
    def path(self) -> Path:
        """Its directory."""

    @property
    def kind(self) -> str:
        """A key of MEANS."""

    @property
    def digest(self) -> str:
        """SHA-256 of its manifest, in hex."""

    @property
    def signature(self) -> str:
        """Return what `signature` gave when it was published."""


@contextlib.contextmanager
def signing(home: Path) -> Iterator[None]:
    """Sign the backups that are published in the block as those of the stack with this state directory."""
    token = _home.set(home)
    try:
        yield
    finally:
        _home.reset(token)


def signature(kind: str, digest: str) -> str:
    """Return the signature for a manifest with this digest; '' where nobody signs.

    Raises:
        OSError: the key cannot be made or read.
    """
    home = _home.get()
    return "" if home is None else _signed(private.key(home / KEY), kind, digest)


def of(home: Path, backup: SignedBackup) -> str:
    """Return HERE for a backup whose manifest this stack has signed, else ELSEWHERE."""
    try:
        wanted = _signed((home / KEY).read_bytes().strip(), backup.kind, backup.digest)
    except OSError:
        return ELSEWHERE
    return HERE if hmac.compare_digest(wanted.encode(), backup.signature.encode("utf-8", "replace")) else ELSEWHERE


def lines(home: Path, backup: SignedBackup) -> Sequence[str]:
    """Return the lines of a plan about a backup that was made elsewhere; none for one of this stack."""
    return () if of(home, backup) == HERE else (f"It was made elsewhere: {MEANS[backup.kind]}.",)


def require_trust(home: Path, backup: SignedBackup, trusted: bool) -> None:
    """Refuse to restore what was made elsewhere unless that is said to be trusted.

    Raises:
        PlatformError: TRUST_NEEDED; nothing was touched.
    """
    if trusted or of(home, backup) == HERE:
        return
    raise PlatformError(
        "TRUST_NEEDED",
        f"{backup.path} was made elsewhere, or before backups were signed",
        why=MEANS[backup.kind],
        steps=("if you trust who made it: the same command with --trust", "see docs/backup.md, Trust"),
        details={"path": str(backup.path), "maker": ELSEWHERE},
    )


def _signed(key: bytes, kind: str, digest: str) -> str:
    return hmac.new(key, _PURPOSE + f"{kind}\n{digest}".encode(), hashlib.sha256).hexdigest()
