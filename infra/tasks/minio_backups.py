"""Verified backups of objects: make, list, verify, restore, prune."""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from infra.console import Answer, Table, human_bytes, human_seconds
from infra.context import Context
from infra.errors import ExitCode, PlatformError
from infra.tasks import objects
from infra.tasks.command import ANY, command, confirm, directory, words
from infra.tasks.events import STREAM, TRUST, Event, ended, events

if TYPE_CHECKING:
    from infra.data import store
    from infra.data.objects import prune as objects_prune
    from infra.data.objects.client import Client
    from infra.data.objects.restore import BucketPlan

TO = "backup directory (default: backups/objects in the state directory)"
FROM = "path or name of a backup, or latest"


def _target(context: Context, to: str) -> Path:
    from infra.data.objects import records as objects_records

    return directory(to, objects_records.default_target(context.stack))


@command(
    tier=ANY,
    help={
        "to": TO,
        "bucket": objects.BUCKET,
        "versions": "all versions and delete markers, not only current objects",
        "keep": "afterwards verify it and remove older backups, keeping N verified ones",
        "json_stream": STREAM,
    },
    iterable=("bucket",),
)
def backup(
    context: Context,
    bucket: list[str],
    to: str = "",
    versions: bool = False,
    keep: int = 0,
    json_stream: bool = False,
) -> Answer:
    """Back up all buckets, or those named; what has not changed since the last backup is not read again.

    Example: invoke minio.backup --keep 7
    """
    from infra.data import store
    from infra.data.objects import backup as objects_backup

    if keep < 0:
        raise PlatformError("USAGE", f"--keep {keep} is less than 0", steps=("invoke minio.backup --keep 7",))
    target, missing, began = _target(context, to), list[str](), time.monotonic()
    with (
        events(context, json_stream) as event,
        store.locked(target, "minio.backup"),
        objects.clients(context) as clients,
    ):
        progress = objects.ObjectProgress(context.console, "read", event)
        tally = objects_backup.Tally(tick=lambda t: progress(t.objects, t.read))
        found = objects_backup.sources(clients, words(bucket), missing)
        made = objects_backup.backup(clients, target, found, versions, tally)
        kept = _keep(context, target, made, keep, event) if keep else {}
        return ended(context, event, _backed_up(context, made, tally, missing, kept, time.monotonic() - began))


def _keep(context: Context, target: Path, made: store.Backup, keep: int, event: Event) -> dict[str, Any]:
    """Verify the new backup and let old ones go. What hinders that is said; the backup itself stays."""
    from infra.data.objects import prune as objects_prune
    from infra.data.objects import verify as objects_verify

    objects_verify.check(made, tick=objects.ObjectProgress(context.console, "verified", event))
    objects_verify.mark_verified(made)
    try:
        gone = objects_prune.plan(target, keep)
        objects_prune.prune(gone)
    except PlatformError as error:
        context.console.warn(f"{error.what}: {error.why}")
        return {"verified": True, "pruned": [], "why": error.what, "incomplete": True}
    if gone.why:
        context.console.say(f"  {gone.why}", "dim")
    return {"verified": True, "pruned": [b.path.name for b in gone.backups], "freed": gone.size, "why": gone.why}


def _backed_up(
    context: Context, made: store.Backup, tally: Any, missing: list[str], kept: dict[str, Any], seconds: float
) -> Answer:
    from infra import shell

    partial = objects.named(context, tally.failed + [f"{name}: no such bucket" for name in missing], "not backed up")
    data = {
        "path": str(made.path),
        "objects": tally.objects,
        "bytes": tally.size,
        "read": tally.new,
        "bytesRead": tally.read,
        "vanished": tally.gone,
        "buckets": made.facts["buckets"],
        "missing": missing,
        "failed": tally.failed,
        "seconds": round(seconds, 3),
        **kept,
    }
    rate = human_bytes(tally.read / max(seconds, 1e-6))
    lines = (
        f"{made.path}",
        f"{tally.objects} objects, {human_bytes(tally.size)}; {tally.new} of them newly read"
        f" ({human_bytes(tally.read)}, {rate}/s) in {human_seconds(seconds)}",
        f"Next: {shell.typed('invoke', 'minio.verify', '--from', str(made.path))}",
    )
    code = ExitCode.PARTIAL if partial or kept.get("incomplete") else ExitCode.OK
    return Answer(data, lines=lines, names=(str(made.path),), exit=int(code))


@command("list", log=False, help={"to": TO})
def list_(context: Context, to: str = "") -> Answer:
    """List the backups, oldest first; broken ones with the problem.

    Example: invoke minio.list --json
    """
    from infra.data import maker, store
    from infra.data.objects import records as objects_records

    target = _target(context, to)
    if to:
        store.require_place(target)
    found = objects_records.listing(target)
    makers = ["" if b.problem else maker.of(context.stack.home, b) for b in found]
    rows = tuple((*_row(b), made) for b, made in zip(found, makers, strict=True))
    heading = ("BACKUP", "CREATED", "BUCKETS", "OBJECTS", "SIZE", "STATE", "MADE")
    lines = () if found else ("no backups yet; create one: invoke minio.backup",)
    data = [{**_backup_data(b), "maker": made or None} for b, made in zip(found, makers, strict=True)]
    return Answer(data, Table(heading, rows), lines, names=tuple(str(b.path) for b in found))


def _row(backup: store.Backup) -> tuple[str, ...]:
    state = backup.problem or ("verified" if backup.verified else "complete")
    facts = backup.facts
    if backup.problem:
        return backup.path.name, backup.created, "", "", "", f"broken: {state}"
    size = human_bytes(facts.get("bytes", 0))
    return (
        backup.path.name, backup.created, str(len(facts.get("buckets", []))), str(facts.get("objects", "")), size, state
    )  # fmt: skip


def _backup_data(backup: store.Backup) -> dict[str, Any]:
    known = {"path": str(backup.path), "created": backup.created, "sequence": backup.sequence}
    return {**known, "verified": backup.verified, "problem": backup.problem, **backup.facts}


@command(help={"from_": FROM, "to": TO, "json_stream": STREAM})
def verify(context: Context, from_: str = "latest", to: str = "", json_stream: bool = False) -> Answer:
    """Read every object of a backup and compare it with its SHA-256; exit 10 if anything is damaged, listing it.

    Example: invoke minio.verify --from latest
    """
    from infra.data.objects import verify as objects_verify

    with events(context, json_stream) as event:
        began, found = time.monotonic(), objects_verify.located(_target(context, to), from_)
        try:
            objects_verify.check(found, tick=objects.ObjectProgress(context.console, "verified", event))
        except PlatformError:
            objects_verify.unmark_verified(found)
            raise
        with contextlib.suppress(OSError):  # a backup on a read-only disk is whole, too
            objects_verify.mark_verified(found)
        seconds = time.monotonic() - began
        data = {"path": str(found.path), "objects": found.facts.get("objects"), "bytes": found.facts.get("bytes")}
        text = f"{found.path}: {data['objects']} objects are intact ({human_seconds(seconds)})"
        return ended(context, event, Answer({**data, "seconds": round(seconds, 3)}, lines=(text,)))


@command(
    tier=ANY,
    help={
        "from_": FROM,
        "bucket": objects.BUCKET,
        "to": TO,
        "exact": "also remove objects that are not in the backup (they are backed up first)",
        "versions": "also restore the versions and delete markers in the backup",
        "dry_run": "show the plan and change nothing",
        "yes": "skip the confirmation prompt",
        "trust": TRUST,
        "json_stream": STREAM,
    },
    iterable=("bucket",),
)
def restore(
    context: Context,
    bucket: list[str],
    from_: str = "",
    to: str = "",
    exact: bool = False,
    versions: bool = False,
    dry_run: bool = False,
    yes: bool = False,
    trust: bool = False,
    json_stream: bool = False,
) -> Answer:
    """Restore the objects of a backup; what it would overwrite is backed up first, the rest is kept.

    Example: invoke minio.restore --from latest --bucket model-weights --yes
    """
    from infra import tier_choice
    from infra.data import maker, store
    from infra.data.objects import restore as objects_restore
    from infra.data.objects import verify as objects_verify

    if not from_:
        raise PlatformError("USAGE", "--from is missing", steps=("invoke minio.restore --from latest --yes", _LIST))
    with events(context, json_stream) as event, contextlib.ExitStack() as stack:
        found = objects_verify.located(_target(context, to), from_)
        objects_verify.check(found, words(bucket), objects.ObjectProgress(context.console, "checked", event))
        clients = stack.enter_context(objects.clients(context))
        plans = objects_restore.plan(clients, found, words(bucket))
        home = context.stack.home
        lines = [*_plan(found, plans, exact), *maker.lines(home, found)]
        if dry_run:
            data = {**_plan_data(found, plans), "maker": maker.of(home, found)}
            return ended(context, event, Answer(data, lines=tuple(lines)))
        maker.require_trust(home, found, trust)
        confirm(context, lines, yes)
        # Nothing can be pruned from a disk that takes no writes, and the backup made first needs another place.
        beside = found.path.parent if os.access(found.path.parent, os.W_OK) else _target(context, "")
        with store.locked(beside, "minio.restore"):
            answer = _restored(context, clients, found, plans, beside, exact, versions, event)
        objects.warn_of_metadata(context, tier_choice.choose(context).tier.engines().values())
        return ended(context, event, answer)


_LIST = "invoke minio.list shows the backups"


def _plan(found: store.Backup, plans: list[BucketPlan], exact: bool) -> list[str]:
    lines = [f"This restores {found.path}:"]
    for p in plans:
        extra = f", {p.extra} {'REMOVED' if exact else 'others are kept'}" if p.extra else ""
        what = f"{p.missing} missing, {p.different} OVERWRITTEN" if p.different else f"{p.missing} missing"
        made = " (the bucket is created)" if p.new else ""
        lines.append(f"  {p.source.name:<24} {what}, {p.same} there{extra}; {human_bytes(p.size)}{made}")
    if any(p.overwrites or (exact and p.extra) for p in plans):
        lines.append("What is overwritten or removed is backed up first.")
    return lines


def _plan_data(found: store.Backup, plans: list[BucketPlan]) -> dict[str, Any]:
    named = [{**vars(p), "source": p.source.name, "store": p.source.store} for p in plans]
    return {"path": str(found.path), "dryRun": True, "plan": named}


def _restored(
    context: Context,
    clients: dict[str, Client],
    found: store.Backup,
    plans: list[BucketPlan],
    beside: Path,
    exact: bool,
    versions: bool,
    event: Event,
) -> Answer:
    from infra import shell
    from infra.data.objects import backup as objects_backup
    from infra.data.objects import restore as objects_restore
    from infra.data.objects.upload import Uploads

    began, progress = time.monotonic(), objects.ObjectProgress(context.console, "restored", event)
    tally = objects_backup.Tally(
        tick=lambda t: objects.ObjectProgress(context.console, "kept", event)(t.objects, t.read)
    )
    why = f"before a restore of {found.path.name}"
    # A crew stops its clients when it is done, so it gets some of its own.
    with objects_backup.connected(client.login for client in clients.values()) as others:
        back = objects_restore.way_back(others, beside, plans, exact, tally, why)
    if back:
        typed = shell.typed("invoke", "minio.restore", "--from", str(back.path), "--yes")
        context.console.say(f"  to undo: {typed}")
    done = objects_restore.RestoredObjects(tick=lambda d: progress(d.written + d.same, d.size))
    uploads = Uploads(context.stack.home / objects_restore.UPLOADS)
    order = objects_restore.Restore(clients, found, plans, uploads, exact, versions)
    objects_restore.restore(order, done)
    partial = objects.named(context, [f"{name}: {why}" for name, why in done.refused.items()], "not restored")
    data = {
        "path": str(found.path),
        "written": done.written,
        "unchanged": done.same,
        "removed": done.removed,
        "bytes": done.size,
        "refused": done.refused,
        "wayBack": str(back.path) if back else "",
        "seconds": round(time.monotonic() - began, 3),
    }
    text = f"{done.written} objects restored ({human_bytes(done.size)}), {done.same} already present"
    text += f", {done.removed} removed" if done.removed else ""
    return Answer(data, lines=(text,), exit=int(ExitCode.PARTIAL if partial else ExitCode.OK))


@command(help={"keep": "number of verified backups to keep", "to": TO, "yes": "skip the confirmation prompt"})
def prune(context: Context, keep: int = 0, to: str = "", yes: bool = False) -> Answer:
    """Remove old backups, keeping N verified ones, and objects that no backup needs any more.

    Example: invoke minio.prune --keep 7 --yes
    """
    from infra.data import store
    from infra.data.objects import prune as objects_prune

    if keep < 1:
        raise PlatformError("USAGE", "--keep N is missing or less than 1", steps=("invoke minio.prune --keep 7 --yes",))
    target = _target(context, to)
    if not target.is_dir():
        raise PlatformError("NOT_FOUND", f"there is no backup in {target}", steps=("invoke minio.backup",))
    with store.locked(target, "minio.prune"):
        plan = objects_prune.plan(target, keep)
        names = [b.path.name for b in plan.backups]
        if names or plan.contents:
            confirm(context, _pruning(names, plan), yes)
            objects_prune.prune(plan)
    data = {"removed": names, "contents": len(plan.contents), "freed": plan.size, "why": plan.why}
    text = f"removed {len(names)} backups and {len(plan.contents)} objects ({human_bytes(plan.size)})"
    said = text if names or plan.contents else "nothing to remove"
    return Answer(data, lines=(said, *((plan.why,) if plan.why else ())), names=tuple(names))


def _pruning(names: list[str], plan: objects_prune.PrunePlan) -> list[str]:
    contents = f"{len(plan.contents)} objects that no remaining backup needs ({human_bytes(plan.size)})"
    return ["This permanently deletes:", *(f"  {name}" for name in names), f"  {contents}"]


TASKS = (backup, list_, verify, restore, prune)
