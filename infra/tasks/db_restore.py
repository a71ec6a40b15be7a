"""Databases come back from a backup."""

from __future__ import annotations

from typing import TYPE_CHECKING

from infra.console import Answer, Table, human_seconds, printable
from infra.errors import ExitCode, PlatformError
from infra.tasks.command import ANY, command, confirm, words
from infra.tasks.events import STREAM, TRUST, ended, events

if TYPE_CHECKING:
    from infra.context import Context
    from infra.data.postgres.restore import Restored


@command(
    tier=ANY,
    iterable=("database",),
    help={
        "from_": "path or name of a backup, or latest",
        "database": "database; repeatable, or comma-separated",
        "to": "restore the database under this name",
        "despite_differences": "restore what can be loaded, report what differs, and mark the database",
        "dry_run": "only show what would be done",
        "yes": "skip the confirmation prompt",
        "trust": TRUST,
        "json_stream": STREAM,
    },
)
def restore(
    context: Context,
    database: list[str],
    from_: str = "",
    to: str = "",
    despite_differences: bool = False,
    dry_run: bool = False,
    yes: bool = False,
    trust: bool = False,
    json_stream: bool = False,
) -> Answer:
    """Restore databases from a backup; the current ones are kept under another name.

    Example: invoke db.restore --from latest --database platform --yes
    """
    from infra import tier_choice
    from infra.data import maker
    from infra.data.postgres import backups as postgres_backups
    from infra.data.postgres import clients, restore_plan, scratch
    from infra.data.postgres import restore as postgres_restore
    from infra.data.postgres import verify as postgres_verify

    if not from_:
        raise PlatformError("USAGE", "--from is missing", steps=("invoke db.list", "invoke db.restore --from latest"))
    found = postgres_backups.find(postgres_backups.default_target(context.stack), from_)
    needed = postgres_verify.client_needed(found)
    server = clients.find_server(tier_choice.running_endpoints(context), context.settings, needed)
    plan = restore_plan.plan(server, found, restore_plan.RestoreOrder(words(database), to, despite_differences))
    home = context.stack.home
    said = [*plan.lines(), *maker.lines(home, found)]
    if dry_run:
        restore_plan.check_files(plan)
        return Answer({**plan.data(), "maker": maker.of(home, found)}, lines=tuple(said))
    maker.require_trust(home, found, trust)
    confirm(context, said, yes)
    with events(context, json_stream) as event:
        done = postgres_restore.restore(server, plan, context.stack.scratch, event)
        for text in (*plan.notes, *warnings(done), *scratch.warnings(server.endpoints)):
            context.console.warn(printable(text))
        code = ExitCode.OK if done.whole else ExitCode.PARTIAL
        data = {"path": str(found.path), **vars(done)}
        return ended(context, event, Answer(data, _table(done), _lines(done), exit=int(code)))


def _table(done: Restored) -> Table:
    rows = tuple((printable(d["database"]), str(d["rows"]), printable(d["old"] or "")) for d in done.databases.values())
    return Table(("DATABASE", "ROWS", "KEPT AS"), rows)


def _lines(done: Restored) -> tuple[str, ...]:
    spent = f"loaded in {human_seconds(done.load_seconds)}, compared in {human_seconds(done.check_seconds)}"
    kept = any(d["old"] for d in done.databases.values())
    following = ("Next: check the result, then drop the old databases: invoke db.shell",) if kept else ()
    return (f"{spent}, swapped in {done.swap_ms:.0f} ms", *following)


def warnings(done: Restored) -> list[str]:
    """List what somebody has to know of a restore: what was not restored, differs, or waits."""
    said = [f"{name} was not restored and is unchanged: {why}" for name, why in done.left_out.items()]
    said += [f"{name} differs: {what}" for name, found in done.differences.items() for what in found]
    said += [f"the server refused: {text}: {why}" for text, why in done.refused.items()]
    return said + [
        f"the subscription {subscription} of {name} is disabled; enable it with: alter subscription ... enable"
        for name, subscription in done.disabled
    ]
