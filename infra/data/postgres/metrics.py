"""Figures of the backups of databases, for Prometheus' textfile collector."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from infra import private, stack
from infra.context import Context
from infra.data.postgres.backups import created, listing
from infra.data.store import Backup

FILE = Path("metrics", "backup.prom")
"""Below the stack's state directory."""


def write(context: Context, target: Path) -> Path:
    """Write the figures of a target for Prometheus' textfile collector (no secrets: everybody may read it).

    It goes to PLATFORM_METRICS_DIR where that is set, else below the state directory; returns the file.

    Raises:
        PlatformError: STATE_UNWRITABLE.
    """
    chosen = context.settings.text("PLATFORM_METRICS_DIR")
    path = (context.settings.root / chosen / FILE.name) if chosen else context.stack.home / FILE
    try:
        private.make(path.parent, 0o755)
        stack.write_atomic(path, text(listing(target)), mode=0o644)
    except OSError as error:
        raise stack.unwritable(path, error) from error
    return path


def text(found: Sequence[Backup]) -> str:
    """Return the figures as Prometheus reads them: when, how large, how long, when last verified."""
    whole = [b for b in found if not b.problem]
    verified = [b for b in whole if b.verified]
    newest = whole[-1:] and whole[-1]
    values = {
        "platform_backups": ("Complete backups.", len(whole)),
        "platform_backups_broken": ("Directories that are not complete backups.", len(found) - len(whole)),
        "platform_backup_last_timestamp_seconds": ("When the newest one was made.", newest and created(newest)),
        "platform_backup_last_size_bytes": ("Its size.", newest and newest.size),
        "platform_backup_last_duration_seconds": ("How long it took.", newest and newest.facts.get("seconds", 0)),
        "platform_backup_last_verified_timestamp_seconds": (
            "When the newest verified one was made.",
            verified and created(verified[-1]),
        ),
        "platform_backup_last_verified_size_bytes": ("Its size.", verified and verified[-1].size),
    }
    lines = []
    for name, (help_, value) in values.items():
        lines += [f"# HELP {name} {help_}", f"# TYPE {name} gauge", f"{name} {value or 0}"]
    return "\n".join(lines) + "\n"
