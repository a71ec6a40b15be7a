"""Checks of a machine before the native tier starts: programs, ports, disk, memory."""

from __future__ import annotations

import shutil
from pathlib import Path

from infra import catalog
from infra.console import human_bytes
from infra.tiers import providers
from infra.tiers.base import Check
from infra.tiers.native.services import Programs
from infra.tiers.providers import Program

DISK_NEEDED = 500_000_000
"""Bytes that must be free: PostgreSQL 50 MB, write-ahead log up to 1 GB only under load, Temporal, some data."""
DISK_WARN = 2_000_000_000
MEMORY_NEEDED = {False: 600_000_000, True: 1_200_000_000}
"""Bytes of free memory to have: the measured need (core 350 MB, with MLflow 800 MB) and some headroom."""


def programs(found: Programs) -> list[Check]:
    """Name the program of each service, and what the object store's engine cannot do."""
    paths = {name: program.path for name, program in found.found.items()} | {"postgres": found.postgres.bin}
    checks = [
        Check(f"program.{name}", "ok", f"{paths[name]} ({_origin(name, program)})")
        for name, program in found.found.items()
    ]
    for gap in catalog.gaps(found.store.engine):
        checks.append(Check(f"engine.{gap.feature}", "warn", gap.reason, gap.instead or _better_store(gap.feature)))
    return checks


def _origin(name: str, program: Program) -> str:
    """Tell where a program was found; of an object store also which of several it is."""
    return f"{program.engine}, {program.origin}" if name == "object store" else program.origin


def _better_store(feature: str) -> str:
    """Name the engines that lack nothing of the kind."""
    lacking = {gap.where for gap in catalog.GAPS if gap.feature == feature}
    *others, last = [engine for engine in providers.S3_ENGINES if engine not in lacking]
    return f"use {', '.join(others)} or {last}: invoke minio.engine --to moves the data"


def disk(home: Path) -> Check:
    """Free space where the data goes."""
    existing = next(p for p in [home, *home.parents] if p.exists())
    free = shutil.disk_usage(existing).free
    text = f"{human_bytes(free)} free in {existing}"
    if free < DISK_NEEDED:
        remedy = f"free {human_bytes(DISK_NEEDED - free)}, or set PLATFORM_STATE_DIR to another disk"
        return Check("disk", "fail", f"only {text}; {human_bytes(DISK_NEEDED)} is needed", remedy)
    return Check("disk", "warn" if free < DISK_WARN else "ok", text, "")


def memory(obs: bool) -> Check:
    """Return the memory that is free for use; little memory is a warning, since swap may do."""
    import psutil

    free = psutil.virtual_memory().available
    needed = MEMORY_NEEDED[obs]
    text = f"{human_bytes(free)} of memory available, about {human_bytes(needed)} is needed"
    return Check("memory", "ok" if free >= needed else "warn", text, "close other programs" if free < needed else "")
