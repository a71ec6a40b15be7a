"""A change of one release's values, watched until it is ready, and the watch after a rollback."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from infra.errors import PlatformError

if TYPE_CHECKING:
    from infra.kube.helm_cli import Deploy
    from infra.kube.releases import Deployed
    from infra.tiers.kind.tier import Kind


@dataclass(frozen=True)
class UpgradeOrder:
    """The change: values as `key=value` and in files; whether a failure is undone; seconds (None: budget)."""

    sets: tuple[str, ...]
    files: tuple[str, ...]
    back: bool
    forget: bool
    timeout: float | None


def upgrade(active: Kind, known: Deployed, order: UpgradeOrder) -> None:
    """Carry it out; the caller holds the stack's lock.

    Raises:
        PlatformError: USAGE; SERVICE_FAILED or WAIT_TIMEOUT with the reason.
    """
    from infra.kube import releases
    from infra.tiers.cluster import deploy as cluster_deploy
    from infra.tiers.cluster import overrides as cluster_overrides

    cluster = active.require()
    if order.forget:
        cluster_overrides.override(cluster, known.name, ())
    if not (order.sets or order.files or order.forget):
        raise PlatformError("USAGE", "nothing to change", steps=(f"invoke helm.upgrade {known.name} --set key=value",))
    services = active.deployed.names
    base = cluster_deploy.wanted(cluster, [releases.chart(known.name)], services)[0]
    every = tuple(cluster_overrides.merged(base.deploy.sets, order.sets))
    base = releases.wanted(base.chart, active.context.settings, services, every, cluster.profile)
    whole = _changed(base.deploy, order, reuse=False)
    mark = releases.fingerprint(Path(base.deploy.chart), base.stdin, (str(time.time_ns()), *whole.sets))
    shown = releases.Wanted(base.chart, whole, base.stdin, mark)  # what is rendered to learn the images
    wanted = shown
    if not order.forget:  # else from the values files again, plus what is given now
        wanted = releases.Wanted(base.chart, _changed(base.deploy, order, reuse=True), "", mark)
    try:
        active.deploy([wanted], order.timeout, shown=[shown])
    except PlatformError as error:
        if order.back and known.last_good and error.code in ("SERVICE_FAILED", "WAIT_TIMEOUT"):
            raise _undone(active, known, error) from error
        raise
    _answering(active, (known.name,), order.timeout)
    if order.sets:
        cluster_overrides.override(cluster, known.name, order.sets)


def go_back(active: Kind, known: Deployed, revision: int, timeout: float | None) -> None:
    """Roll a release back to a revision and wait until it is ready; the caller holds the stack's lock.

    Helm's own --rollback-on-failure waits forever for a StatefulSet whose pod is broken; the watch replaces that pod.
    """
    from infra import shell

    shell.run(active.helm.rollback(known.name, known.namespace, revision), limit=320)
    watch(active, known.name, timeout)
    _answering(active, (known.name,), timeout)


def _answering(active: Kind, names: Sequence[str], timeout: float | None) -> None:
    """Wait until the services of releases answer: their new pods may be ready before the way to them leads there."""
    services = active.deployed.of_releases(names)
    if services:
        active.wait(services, timeout)


def _undone(active: Kind, known: Deployed, error: PlatformError) -> PlatformError:
    active.context.console.say(f"  {known.name} failed; rolling back to revision {known.last_good}", "warn")
    go_back(active, known, known.last_good, None)
    steps = (f"{known.name} is ready again as it was at revision {known.last_good}", *error.steps[:1])
    return PlatformError(error.code, error.what, why=error.why, steps=steps, details=error.details)


def roll_out(active: Kind, names: Sequence[str], timeout: float | None) -> list[str]:
    """Bring releases to what the checkout says; those that were changed. The caller holds the stack's lock."""
    from infra.kube import releases
    from infra.tiers.cluster import deploy as cluster_deploy

    cluster = active.require()
    deployed = active.deployed
    services = deployed.of_releases(names)
    every = {*services, *deployed.names}
    wanted = cluster_deploy.wanted(cluster, [releases.chart(n) for n in names], tuple(every))
    cluster_deploy.prepare(cluster, active.kubectl)
    done = active.deploy(wanted, timeout)
    deployed.add(services)
    if done.waited:
        _answering(active, names, timeout)
    return done.changed


def _changed(base: Deploy, order: UpgradeOrder, reuse: bool) -> Deploy:
    from dataclasses import replace

    files = tuple(str(_file(name)) for name in order.files)
    kept = () if reuse else base.values
    sets = order.sets if reuse else base.sets
    timeout = order.timeout or base.timeout
    return replace(base, values=(*kept, *files), sets=sets, reuse=reuse, timeout=timeout)


def _file(name: str) -> Path:
    path = Path(name).expanduser().absolute()
    if not path.is_file():
        raise PlatformError("USAGE", f"there is no file {path}", steps=("give a YAML file with values",))
    return path


def watch(active: Kind, name: str, timeout: float | None) -> None:
    """Wait for a release as it is in the cluster, whatever it was made from."""
    from infra.kube import releases
    from infra.tiers.cluster import deploy as cluster_deploy

    cluster = active.require()
    cluster_deploy.watch(cluster, active.kubectl, active.helm, [releases.chart(name)], timeout)
