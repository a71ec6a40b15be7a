"""Snapshots: the whole platform in one piece, verified, encrypted where asked for, restored on any tier."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import invoke

from infra.console import Answer, Table, human_bytes, human_seconds, printable
from infra.context import Context
from infra.errors import ExitCode, PlatformError
from infra.tasks import objects
from infra.tasks.command import ANY, command, confirm, directory, named, words
from infra.tasks.events import STREAM, TRUST, TRUST_VERIFIED, ended, events

if TYPE_CHECKING:
    from infra.data.snapshot.restore import RestoredSnapshot, SnapshotPlan
    from infra.data.store import Backup
    from infra.tier_choice import Choice

TARGET = "snapshot directory (default: snapshots in the state directory)"
IDENTITY = "file with the private key of an encrypted snapshot (age or OpenSSH)"
SKIP = "leave out databases, objects, redis or temporal; repeatable, or comma-separated"
NAME = "path or name of a snapshot, or latest"


def _target(context: Context, to: str) -> Path:
    from infra.data.snapshot import create as snapshot

    return directory(to, snapshot.default_target(context.stack))


def _parts(skip: list[str]) -> tuple[str, ...]:
    from infra.data.snapshot import create as snapshot

    unknown = [name for name in words(skip) if name not in snapshot.PARTS]
    if unknown or set(words(skip)) >= set(snapshot.PARTS):
        steps = (f"the parts are: {', '.join(snapshot.PARTS)}; at least one must remain",)
        raise PlatformError("USAGE", f"--skip {','.join(words(skip))} is not valid", steps=steps)
    return tuple(part for part in snapshot.PARTS if part not in words(skip))


def create(
    context: Context,
    encrypt: list[str],
    skip: list[str],
    skip_database: list[str],
    name: str = "",
    to: str = "",
    fence: bool = False,
    no_verify: bool = False,
    json_stream: bool = False,
) -> Answer:
    """Create a snapshot of databases, objects, Redis and Temporal, and verify it.

    Example: invoke snapshot.create before-the-upgrade
    """
    from infra import tier_choice
    from infra.data.snapshot import create as snapshot

    choice = tier_choice.choose(context)
    active = tier_choice.require_running(choice)
    context.console.tier = active.name
    target, skipped = _target(context, to), words(skip_database)
    order = snapshot.SnapshotOrder(target, name, _parts(skip), fence, not no_verify, tuple(encrypt), skipped=skipped)
    with events(context, json_stream) as event:
        made = snapshot.create(active, order, event)
        event("published", {"path": str(made.path)})
        return ended(context, event, _made(context, made))


def _made(context: Context, made: Backup) -> Answer:
    from infra import shell
    from infra.data.snapshot import create as snapshot
    from infra.data.snapshot import manifest as snapshot_manifest

    checked = made.facts.get("verified") or {}
    dangling = checked.get("objects", {}).get("dangling", [])
    for name in dangling[:20]:
        context.console.warn(
            f"a training record refers to the object {name}, which is in neither the store nor the snapshot"
        )
    for part, why in made.facts["leftOut"].items():
        context.console.warn(f"{part} is not included: {why} (--skip {part} silences this warning)")
    missing = snapshot_manifest.missing(made.facts)
    for text in missing:
        context.console.warn(printable(text))
    rows = tuple(snapshot_manifest.summary(made.facts["parts"]).items())
    seconds = human_seconds(float(made.facts["seconds"]))
    state = "verified" if checked and not checked["failed"] else "not verified"
    name = named(made.path, _target(context, ""), made.facts.get("label") or "")
    lines = (
        f"{made.path}",
        f"{state}, {'encrypted, ' if snapshot.encrypted(made) else ''}{human_bytes(_size(made))} in {seconds}",
        f"Next: {shell.typed('invoke', 'snapshot.restore', name)}",
    )
    code = ExitCode.PARTIAL if dangling or missing or made.facts["leftOut"] else ExitCode.OK
    return Answer(_data(made), Table(("PART", ""), rows), lines, names=(str(made.path),), exit=int(code))


def _size(made: Backup) -> int:
    """Return the bytes on disk; objects that another snapshot has as well are counted in each."""
    from infra.data.snapshot import create as snapshot

    objects = 0 if snapshot.encrypted(made) else made.facts["parts"].get("objects", {}).get("bytes", 0)
    return made.size + int(objects)


def _data(made: Backup) -> dict[str, Any]:
    known = {
        "path": str(made.path),
        "created": made.created,
        "verified": made.verified,
        "problem": made.problem or None,
    }
    return {**known, "bytes": 0 if made.problem else _size(made), **made.facts}


CREATE: dict[str, Any] = {
    "iterable": ("encrypt", "skip", "skip_database"),
    "help": {
        "name": "name of the snapshot; also accepted as the first argument",
        "to": TARGET,
        "skip": SKIP,
        "skip_database": "leave out this database; repeatable, or comma-separated",
        "encrypt": "encrypt it for this recipient: age1..., or an SSH public key; repeatable",
        "fence": "pause writers briefly, so that all databases are captured at the same moment",
        "no_verify": "do not verify it by restoring and comparing",
        "json_stream": STREAM,
    },
}


def tasks(named: bool) -> tuple[invoke.Task[Any], ...]:
    """Return the tasks; Invoke has no optional words, so the command line decides whether `create` takes one."""
    return (command(**CREATE, tier=ANY)(_create_named if named else create), list_, show, verify, restore, delete, key)


def _create_named(
    context: Context,
    name: str,
    encrypt: list[str],
    skip: list[str],
    skip_database: list[str],
    to: str = "",
    fence: bool = False,
    no_verify: bool = False,
    json_stream: bool = False,
) -> Answer:
    return create(context, encrypt, skip, skip_database, name, to, fence, no_verify, json_stream)


_create_named.__name__, _create_named.__doc__ = create.__name__, create.__doc__


@command("list", log=False, help={"to": TARGET})
def list_(context: Context, to: str = "") -> Answer:
    """List the snapshots, newest last; broken ones are marked.

    Example: invoke snapshot.list
    """
    from infra.data import maker, store
    from infra.data.snapshot import create as snapshot

    target = _target(context, to)
    if to:
        store.require_place(target)
    found = snapshot.listing(target)
    heading = ("SNAPSHOT", "NAME", "CREATED", "TIER", "SIZE", "STATE", "MADE", "PARTS")
    lines = () if found else ("no snapshots yet; create one: invoke snapshot.create",)
    names = tuple(b.facts.get("label") or b.path.name for b in found if not b.problem)
    home = context.stack.home
    data = [{**_data(b), "maker": None if b.problem else maker.of(home, b)} for b in found]
    return Answer(data, Table(heading, tuple(_row(home, b) for b in found)), lines, names=names)


def _row(home: Path, b: Backup) -> tuple[str, ...]:
    from infra.data import maker
    from infra.data.snapshot import create as snapshot

    if b.problem:
        return b.path.name, "", b.created, "", "", "BROKEN", "", b.problem
    state = "verified" if b.verified else "not verified"
    state += ", encrypted" if snapshot.encrypted(b) else ""
    parts = ", ".join(b.facts["parts"])
    what = f"{parts} ({b.facts['why']})" if b.facts.get("why") else parts
    made = (b.created, b.facts["tier"], human_bytes(_size(b)), state, maker.of(home, b))
    return b.path.name, b.facts.get("label", ""), *made, what


@command(log=False, help={"name": NAME, "to": TARGET})
def show(context: Context, name: str, to: str = "") -> Answer:
    """Show what a snapshot contains, as of when, and how it was verified.

    Example: invoke snapshot.show latest
    """
    from infra.data import maker
    from infra.data.snapshot import create as snapshot
    from infra.data.snapshot import manifest as snapshot_manifest

    found = snapshot.find(_target(context, to), name)
    rows = list(snapshot_manifest.summary(found.facts["parts"]).items())
    rows += [(f"{name} needs", what) for name, what in snapshot_manifest.needs(found.facts["parts"]).items()]
    rows += [(f"as of ({mark['part']})", mark["at"]) for mark in found.facts["quiesce"]]
    rows += [("encrypted for", recipient) for recipient in found.facts["recipients"]]
    checked = found.facts.get("verified")
    data = {**_data(found), "maker": maker.of(context.stack.home, found)}
    state = f"verified in {checked['seconds']} s" if checked else "not verified when it was created"
    lines = (str(found.path), f"made {data['maker']}, {state}")
    return Answer(data, Table(("", ""), tuple(rows)), lines, names=(str(found.path),))


@command(
    tier=ANY,
    help={"name": NAME, "to": TARGET, "identity": IDENTITY, "trust": TRUST_VERIFIED, "json_stream": STREAM},
)
def verify(
    context: Context, name: str, to: str = "", identity: str = "", trust: bool = False, json_stream: bool = False
) -> Answer:
    """Verify a snapshot: databases restored and compared, every object read, every key taken by Redis.

    Example: invoke snapshot.verify latest
    """
    from infra import tier_choice
    from infra.data import maker, store
    from infra.data.snapshot import create as snapshot
    from infra.data.snapshot import restore as snapshot_restore
    from infra.data.snapshot import verify as snapshot_verify

    found = snapshot.find(_target(context, to), name)
    ends = tier_choice.running_endpoints(context)
    with events(context, json_stream) as event, store.locked(found.path.parent, context.console.command):
        try:
            with snapshot_restore.opened(context, found, identity) as content:
                trusted = trust or maker.of(context.stack.home, found) == maker.HERE
                done = snapshot_verify.verify(context, ends, content, found.facts, event, trusted)
        except PlatformError as error:
            if error.code == "BACKUP_DAMAGED":
                snapshot_verify.unmark(found)
            raise
        failed = done["failed"]
        for database, why in failed.items():
            context.console.warn(printable(f"the database {database} could not be verified: {why}"))
        for text in done["exceptions"]:
            context.console.warn(printable(text))
        if failed:
            snapshot_verify.unmark(found)
        else:
            snapshot_verify.mark(found, done)
        lines = (str(found.path), f"verified in {human_seconds(done['seconds'])}")
        code = ExitCode.PARTIAL if failed or done["unchecked"] else ExitCode.OK
        return ended(context, event, Answer({"path": str(found.path), **done}, lines=lines, exit=int(code)))


@command(
    tier=ANY,
    iterable=("skip", "part"),
    help={
        "name": NAME,
        "to": TARGET,
        "skip": SKIP,
        "part": "restore only this part; repeatable, or comma-separated",
        "identity": IDENTITY,
        "despite_differences": "restore what can be loaded of the databases, report what differs, and mark them",
        "dry_run": "only show what would be done",
        "yes": "skip the confirmation prompt",
        "trust": TRUST,
        "json_stream": STREAM,
        "tier": "tier to restore to; started if it is not running",
    },
)
def restore(
    context: Context,
    name: str,
    skip: list[str],
    part: list[str],
    to: str = "",
    identity: str = "",
    despite_differences: bool = False,
    dry_run: bool = False,
    yes: bool = False,
    trust: bool = False,
    json_stream: bool = False,
) -> Answer:
    """Restore a snapshot, also one from another tier; the current data is saved first.

    Example: invoke snapshot.restore latest --tier native --yes
    """
    from infra import lifecycle, stack, tier_choice
    from infra.data import maker
    from infra.data.snapshot import create as snapshot
    from infra.data.snapshot import restore as snapshot_restore

    found = snapshot.find(_target(context, to), name)
    choice = tier_choice.choose(context)
    context.console.tier = choice.tier.name
    plan = snapshot_restore.plan(found, choice.tier, words(skip), words(part), despite_differences)
    others = [t for t in tier_choice.tiers(context).values() if t.name != choice.tier.name and t.running()]
    compared = snapshot_restore.compared(choice.tier, plan)
    lines = plan.lines() + compared.lines(choice.tier.name)
    lines += [f"The tier {t.name} is running and will be stopped first; its data is kept." for t in others]
    lines += maker.lines(context.stack.home, found)
    if dry_run:
        more = {"maker": maker.of(context.stack.home, found), "databases": compared.data()}
        return Answer({**_planned(plan), **more}, lines=tuple(lines))
    maker.require_trust(context.stack.home, found, trust)
    with events(context, json_stream) as event, snapshot_restore.opened(context, found, identity) as content:
        confirm(context, lines, yes)
        _running(choice, others)
        with stack.lock(context.stack, context.console.command):
            _stop_worker(context)
            done = snapshot_restore.restore(choice.tier, plan, content, event)
        lifecycle.up(choice, None, None)
        if "objects" in done.parts:
            objects.warn_of_metadata(context, choice.tier.engines().values())
        return ended(context, event, _restored(context, plan, done))


def _planned(plan: SnapshotPlan) -> dict[str, Any]:
    return {"path": str(plan.backup.path), "tier": plan.tier, "parts": list(plan.parts), "leftOut": dict(plan.left_out)}


def _running(choice: Choice, others: list[Any]) -> None:
    """Have this tier running, and no other one that conflicts."""
    from infra import lifecycle, tier_choice

    for other in others:
        lifecycle.down(tier_choice.Choice(other, "in the way", named=True))
    lifecycle.up(choice, None, None)


def _stop_worker(context: Context) -> None:
    from infra.training import service as training

    training.stop_worker(context.stack)


def _restored(context: Context, plan: SnapshotPlan, done: RestoredSnapshot) -> Answer:
    for item, why in list(done.refused.items())[:20]:
        context.console.warn(f"not restored: {item}: {why}")
    for part, why in plan.left_out.items():
        context.console.warn(f"left out: {part}: {why}")
    for text in (f"{name} differs: {what}" for name, found in done.differences.items() for what in found):
        context.console.warn(printable(text))
    data = {**_planned(plan), "restored": done.parts, "wayBack": done.way_back, "refused": done.refused}
    data["differences"] = done.differences
    lines = [f"restored on {plan.tier} in {human_seconds(done.seconds)}: {', '.join(done.parts)}", "to undo:"]
    for part, way in done.way_back.items():
        lines += [f"  {part:<10} {line}" for line in _ways(way)]
    code = ExitCode.PARTIAL if plan.left_out or done.refused or done.differences else ExitCode.OK
    return Answer({**data, "seconds": done.seconds}, lines=(*lines, "Next: invoke status"), exit=int(code))


def _ways(way: Any) -> list[str]:
    if isinstance(way, dict):
        return [f"{name} is kept as {old}" for name, old in way.items()]
    return list(way) if isinstance(way, list) else [way]


@command(help={"name": NAME, "to": TARGET, "yes": "skip the confirmation prompt"})
def delete(context: Context, name: str, to: str = "", yes: bool = False) -> Answer:
    """Delete a snapshot permanently.

    Example: invoke snapshot.delete before-the-upgrade --yes
    """
    from infra.data import store
    from infra.data.snapshot import create as snapshot

    target = _target(context, to)
    broken = [b for b in snapshot.listing(target) if b.problem and b.path.name == name]
    found = broken[0] if broken else snapshot.find(target, name)
    with store.locked(found.path.parent, context.console.command):
        what = "broken" if broken else f"{found.facts['tier']}, {human_bytes(_size(found))}"
        confirm(context, [f"This permanently deletes: {found.path} ({found.created}, {what})"], yes)
        store.remove(found)
    return Answer({"removed": str(found.path)}, lines=(f"deleted: {found.path}",), names=(str(found.path),))


@command(log=False, help={"to": "file to create"})
def key(_: Context, to: str) -> Answer:
    """Create a key for encrypted snapshots: write the private key to a file and print its recipient.

    Example: invoke snapshot.key --to backup-key.txt
    """
    from infra.data.snapshot import age as snapshot_age

    path = Path(to).expanduser().absolute()
    recipient = snapshot_age.new_key(path)
    lines = (recipient, f"the private key is in {path}: keep it elsewhere; without it the snapshots cannot be read")
    return Answer({"recipient": recipient, "path": str(path)}, lines=lines, names=(recipient,))


TASKS = tasks(named=False)
