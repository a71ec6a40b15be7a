"""The checks of `doctor`: what the preflight of a tier asks, and what only a person wants to know."""

from __future__ import annotations

import contextlib
import itertools
import os
import platform
import sys
from collections.abc import Sequence
from pathlib import Path

from infra import catalog, database, gpu_checks, health, lifecycle, outdated, postgres_checks, proof
from infra.console import printable
from infra.context import Context
from infra.errors import PlatformError
from infra.settings import ENV_FILE
from infra.tiers.base import Check, Tier

MINIMUM_PYTHON = (3, 11)
PRIVATE = ("backups/**/*", "snapshots/**/*", "trash/*", "scratch/*")
"""Below the state directory; what services have made themselves lies below a private directory of the trash."""
LOOK_AT = 2000
"""Entries of each that are looked at: a pool of objects may hold a hundred thousand, all made alike."""


def checks(tier: Tier, obs: bool) -> list[Check]:
    """Run all checks, those of the machine first; never raises for a failed check."""
    found = [
        _python(),
        *outdated.packages(tier.context.settings.root),
        *outdated.programs(tier.context),
        *_settings(tier.context),
        *_variables(),
        *_private(tier.context),
        *_shared(tier.context),
        *gpu_checks.checks(tier),
    ]
    try:
        found += tier.preflight(lifecycle.selected(tier, obs or None))
    except PlatformError as error:
        found.append(Check(error.code.lower(), "fail", error.what, "; ".join(error.steps), error.code))
        return found
    if tier.running():
        found += [*_moved(tier), *_answers(tier), *tier.own_answers()]
    return found


def _python() -> Check:
    version = platform.python_version()
    if sys.version_info < MINIMUM_PYTHON:
        return Check("python", "fail", f"Python {version} is too old", "install Python 3.11 or newer")
    return Check("python", "ok", f"Python {version}, {platform.system()} {platform.machine()}")


def _moved(tier: Tier) -> list[Check]:
    names = tier.outdated()
    text = f"started by an earlier version or with other settings: {', '.join(names)}"
    return [Check("moved", "warn", text, "invoke up applies the current ones")] if names else []


def _settings(context: Context) -> list[Check]:
    moved = [n for n, v in context.settings.values.items() if v.origin != "default"]
    listed = ", ".join(f"{n} ({context.settings.origin(n)})" for n in moved)
    return [Check("settings", "ok", listed or "all settings have their defaults")]


def _private(context: Context) -> list[Check]:
    """Check that nobody else can read data or passwords; returns nothing where modes mean nothing."""
    if sys.platform == "win32":
        return []
    env = context.settings.root / ENV_FILE
    loose = [*_loose_below(context.stack.home), *([env] if _holds_secrets(context) and _loose(env) else [])]
    if not loose:
        return [Check("private", "ok", "backups, snapshots, trash and secrets are private")]
    more = f" and {len(loose) - 1} more" if len(loose) > 1 else ""
    text = f"other users can read {loose[0]}{more}, which contains data or passwords"
    return [Check("private", "warn", text, f"chmod go= {loose[0]}")]


def _shared(context: Context) -> list[Check]:
    """Warn where other people could log in with the documented passwords."""
    if context.settings.text("PLATFORM_PRIVATE") == "yes" or not (others := other_people()):
        return []
    more = f" and {len(others) - 1} more" if len(others) > 1 else ""
    text = f"{others[0]}{more} can use this machine, and the passwords of this stack are the documented ones"
    return [Check("shared", "warn", printable(text), "invoke up --private makes random ones, without loss")]


def other_people() -> list[str]:
    """Return the people with an account that can log in to this machine, or a session on it, but for this one."""
    import getpass

    import psutil

    me = {os.environ.get("SUDO_USER", "")}
    with contextlib.suppress(OSError, KeyError):  # a user without a name, as in containers
        me.add(getpass.getuser())
    sessions: set[str] = set()
    with contextlib.suppress(OSError, RuntimeError):
        sessions = {session.name for session in psutil.users()}
    return sorted({*sessions, *_accounts()} - me - {"root"})


def _accounts() -> set[str]:
    """Return the accounts of people: numbers from 1000 (macOS: 501) on, with a shell (POSIX)."""
    if sys.platform == "win32":
        return set()
    import pwd

    first = 501 if sys.platform == "darwin" else 1000
    people = [entry for entry in pwd.getpwall() if first <= entry.pw_uid < 60_000]  # above are those of services
    return {e.pw_name for e in people if Path(e.pw_shell).name not in ("nologin", "false", "")}


def _loose_below(home: Path) -> list[Path]:
    """Return the files and directories with backups or passwords that others can read; the first LOOK_AT each."""
    secret = [home / "logins.json", *(p for s in catalog.SERVICES if s.password for p in home.glob(f"*/{s.name}.conf"))]
    found = [path for path in secret if path.exists() and _loose(path)]
    for pattern in PRIVATE:
        found += [path for path in itertools.islice(home.glob(pattern), LOOK_AT) if _loose(path)]
    return found


def _holds_secrets(context: Context) -> bool:
    values = context.settings.values
    return any(str(ENV_FILE) in values[n].origin for n, s in catalog.SETTINGS.items() if s.kind == "secret")


def _loose(path: Path) -> bool:
    """Return whether group or others may do anything with it."""
    with contextlib.suppress(OSError):
        return not path.is_symlink() and bool(path.stat().st_mode & 0o077)
    return False


def _answers(tier: Tier) -> list[Check]:
    ends = tier.endpoints()
    questions = health.thorough(ends, proof.psql(tier.context.settings))
    remedy = "invoke up creates what is missing; invoke logs -s SERVICE shows why it fails"
    return postgres_checks.checks(ends) + [
        Check(f"answer.{name}", "ok" if f.ok else "fail", f.detail or f"{name} works", "" if f.ok else remedy)
        for name, f in health.ask(questions).items()
    ]


def _variables() -> list[Check]:
    """Note the variables that steer PostgreSQL's own programs: no task heeds them, what is run by hand does."""
    names = database.foreign()
    text = f"{', '.join(names)} of your shell are not used by any task, but by psql and programs that you start"
    return [Check("variables", "ok", printable(text))] if names else []


def worst(found: Sequence[Check]) -> str:
    """Return the worst status among checks: fail, warn or ok."""
    return next((s for s in ("fail", "warn") if any(c.status == s for c in found)), "ok")
