"""The removal of a cluster: what is deleted, what is kept, and how to undo it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from infra.console import Answer, human_bytes
from infra.errors import PlatformError
from infra.tasks.command import confirm

if TYPE_CHECKING:
    from infra.tiers.base import Removal
    from infra.tiers.kind.cluster import KindCluster
    from infra.tiers.kind.tier import Kind


def down(active: Kind, keep_data: bool, no_backup: bool, yes: bool) -> Answer:
    """Delete the cluster; the caller holds the stack's lock.

    Raises:
        PlatformError: CONFIRMATION_NEEDED, or what the snapshot raises; the cluster is untouched then.
    """
    from infra.tiers.kind import life as kind_life
    from infra.training import service as training

    cluster = active.cluster
    if not cluster.nodes():
        return _nothing(cluster)
    if keep_data:
        _require_kept(cluster)
        active.context.console.say(f"  the volumes are kept in {cluster.volumes}")
        training.stop_worker(active.context.stack)
        kind_life.stop(cluster)
        kind_life.tear_down(cluster, active.tools)
        return _answer("deleted, its volumes are kept", kept=str(cluster.volumes))
    removals = active.removals(())
    _consent(active, cluster, removals, no_backup, yes)
    back = "" if no_backup or not removals else _way_back(active, removals)
    training.stop_worker(active.context.stack)
    kind_life.stop(cluster)
    for removal in active.removals(()):
        active.remove([removal])
    kind_life.tear_down(cluster, active.tools)
    return _answer("deleted with its volumes", back=back)


def _nothing(cluster: KindCluster) -> Answer:
    volumes = [p.name for p in cluster.volumes.iterdir()] if cluster.volumes.is_dir() else []
    kept = (
        (f"volumes of an earlier cluster are in {cluster.volumes}: the next invoke kind.up uses them",)
        if volumes
        else ()
    )
    return Answer({"deleted": False, "kept": "", "back": ""}, lines=("this stack has no cluster", *kept))


def _answer(text: str, kept: str = "", back: str = "") -> Answer:
    lines = (f"the cluster is {text}", *((f"to undo: {back}",) if back else ()), "Next: invoke kind.up")
    return Answer({"deleted": True, "kept": kept, "back": back}, lines=lines)


def _require_kept(cluster: KindCluster) -> None:
    if not cluster.kept:
        raise PlatformError(
            "USAGE",
            "on this system the volumes are inside the cluster and are deleted with it",
            steps=("invoke kind.stop keeps everything", "invoke kind.down takes a snapshot first"),
        )


def _consent(active: Kind, cluster: KindCluster, removals: list[Removal], no_backup: bool, yes: bool) -> None:
    plan = [
        f"This deletes the cluster {cluster.name} with its volumes:" if removals else f"This deletes {cluster.name}:"
    ]
    plan += [f"  {r.service:<16} {human_bytes(r.size):>8}  {r.place}" for r in removals]
    plan += [f"  first {_how(active)}"] if removals and not no_backup else []
    plan += ["  (--keep-data keeps the volumes on this machine)"] if removals else []
    if no_backup and removals and not yes:
        steps = ("add --yes to delete it permanently", "or omit --no-backup")
        raise PlatformError("CONFIRMATION_NEEDED", "nothing was changed: --no-backup needs --yes", steps=steps)
    confirm(active.context, plan, yes or not removals)


def _how(active: Kind) -> str:
    if active.running():
        return "a snapshot of everything is taken and verified"
    return "the volumes are copied to the trash, since the cluster is not running"


def _way_back(active: Kind, removals: list[Removal]) -> str:
    """Take a snapshot of a running platform; move the volumes of a stopped one to the trash. Returns how to undo it."""
    from infra.data import trash
    from infra.data.snapshot import create as snapshot

    if active.running():
        kept = snapshot.keep(active, "kind-down", "before kind.down deleted the cluster")
        return f"invoke kind.up, then invoke snapshot.restore {kept.path.name} --tier kind"
    entries = trash.put(active, removals, "kind.down")
    return "; ".join(f"invoke trash.restore {e.name}" for e in entries)
