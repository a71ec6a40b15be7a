"""The cluster on this machine (kind): up, down, and everything about it that is no Helm release."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import invoke

from infra.console import SHELLS, Answer, human_bytes
from infra.context import Context
from infra.errors import PlatformError
from infra.tasks import verbs
from infra.tasks.command import command, confirm, words

if TYPE_CHECKING:
    from infra.tiers.kind.tier import Kind

SERVICE = verbs.SERVICE


def the_tier(context: Context) -> Kind:
    """Return the kind tier, for tasks that work on nothing else.

    Raises:
        PlatformError: TIER_UNAVAILABLE.
    """
    from infra.tiers.kind.tier import Kind

    verbs.choose(context, quiet=True)  # refuses where it cannot run
    return Kind(context)


@command(
    tier="kind",
    iterable=("service",),
    help={
        "service": "start only this service's release and what it needs; repeatable, or comma-separated",
        "obs": "also start MLflow, Prometheus, Loki and Grafana; remembered",
        "no_obs": verbs.NO_OBS,
        "private": verbs.PRIVATE,
        "no_private": verbs.NO_PRIVATE,
        "apps": "also deploy the backend and the frontend",
        "queue": "also JobSet and Kueue, with a queue of trainings; remembered",
        "no_queue": "remove the queue, and start without it from now on",
        "timeout": "total time limit in seconds; 0: each service's own limit",
    },
)
def up(
    context: Context,
    service: list[str],
    obs: bool = False,
    no_obs: bool = False,
    apps: bool = False,
    private: bool = False,
    no_private: bool = False,
    queue: bool = False,
    no_queue: bool = False,
    timeout: float = 0.0,
) -> Answer:
    """Create or repair the cluster, deploy all releases and wait until everything works; idempotent.

    Example: invoke kind.up --obs
    """
    from infra import stack
    from infra.tasks import helm_upgrade, kind_queue, show

    context = verbs.with_logins(context, private, no_private)
    kind_queue.wish(the_tier(context), queue, no_queue)
    started = verbs.brought_up(context, words(service), verbs.observability(obs, no_obs), timeout)
    answer = show.started(started)
    if apps:
        active = the_tier(started.tier.context)
        with verbs.interruptible("invoke kind.up --apps"), stack.lock(context.stack, "kind.up"):
            helm_upgrade.roll_out(active, ("platform",), timeout or None)
            kind_queue.fit(active, timeout or None)
    return answer


@command(
    tier="kind",
    help={
        "keep_data": "keep the volumes on this machine; the next cluster gets the same data",
        "no_backup": "do not take a snapshot before the data is deleted; needs --yes",
        "yes": "skip the confirmation prompt",
    },
)
def down(context: Context, keep_data: bool = False, no_backup: bool = False, yes: bool = False) -> Answer:
    """Delete the cluster; with --keep-data its volumes are kept, otherwise a snapshot is taken first.

    Example: invoke kind.down --keep-data
    """
    from infra import stack
    from infra.tasks import kind_down

    with stack.lock(context.stack, "kind.down"):
        return kind_down.down(the_tier(context), keep_data, no_backup, yes)


@command(tier="kind", help={"timeout": "seconds, 0: budgets"})
def start(context: Context, timeout: float = 0.0) -> Answer:
    """Start a stopped cluster again, as after a reboot, and wait until its services are ready.

    Example: invoke kind.start
    """
    from infra import stack
    from infra.tiers.kind import life as kind_life

    active = the_tier(context)
    cluster = active.cluster
    with stack.lock(context.stack, "kind.start"):
        nodes = cluster.nodes()
        if not nodes:
            raise PlatformError("NOT_RUNNING", "this stack has no cluster", steps=("invoke kind.up",))
        kind_life.start(cluster, nodes)
        kind_life.wait_for_api(cluster, timeout or None, nodes)
        active.wait((), timeout or None)
    return Answer({"started": cluster.name}, lines=(f"the cluster {cluster.name} runs and its services are ready",))


@command(tier="kind")
def stop(context: Context) -> Answer:
    """Stop the cluster and keep everything in it.

    Example: invoke kind.stop
    """
    from infra import lifecycle

    stopped = lifecycle.down(verbs.choose(context, quiet=True))
    text = "stopped; everything in the cluster is kept" if stopped else "no cluster was running"
    return Answer({"stopped": stopped}, lines=(text, "Next: invoke kind.start"))


@command(tier="kind", log=False, help={"why": "show only the root cause", "show_secrets": "show passwords"})
def status(context: Context, why: bool = False, show_secrets: bool = False) -> Answer:
    """Show the cluster and the services in it; exit 0 ready, 7 degraded, 9 stopped.

    Example: invoke kind.status
    """
    from infra import status_report
    from infra.tasks import kind_queue, show
    from infra.tiers.kind.cluster import HALF_MADE

    choice = verbs.choose(context, quiet=True)
    cluster = the_tier(context).cluster
    nodes = cluster.nodes()
    found = status_report.report(choice.tier)
    if show_secrets:
        context.console.secrets = ()
    answer = show.status(choice, found, why, show_secrets)
    state = cluster.state(nodes)
    about: dict[str, Any] = {
        "name": cluster.name if nodes or cluster.record else "",
        "state": state,
        "kubeconfig": str(cluster.kubeconfig),
        "changed": cluster.outdated(),
        "nodes": [{"name": n.name, "state": n.state, "image": n.image} for n in nodes],
    }
    shown = ", ".join(f"{n.name} ({n.state}, {n.image.partition('@')[0]})" for n in nodes)
    none = "there is no cluster. Next: invoke kind.up"
    lines: tuple[str, ...] = ()
    lines += (
        (f"cluster {about['name']}: {'incomplete' if state == HALF_MADE else state}; {shown}",) if nodes else (none,)
    )
    lines += ("kind/cluster.yaml has changed since; the changes need a new cluster",) if about["changed"] else ()
    queued = kind_queue.line(the_tier(context))
    lines += (queued,) if queued else ()
    about["queue"] = queued
    body = {**answer.data, "cluster": about} if isinstance(answer.data, dict) else answer.data
    return replace(answer, data=body, lines=(*(() if why else lines), *answer.lines))


@command(
    tier="kind",
    iterable=("image",),
    help={"image": "image in the host's Docker (repeatable, or comma-separated); default: all that the releases need"},
)
def load(context: Context, image: list[str]) -> Answer:
    """Load images into the cluster where missing or changed, and replace the pods that run an earlier build.

    Example: invoke kind.load --image platform-backend:dev
    """
    from infra import stack
    from infra.kube import releases
    from infra.tiers.cluster import deploy as cluster_deploy
    from infra.tiers.kind import images as kind_images

    active = the_tier(context)
    cluster = active.require()
    with stack.lock(context.stack, "kind.load"):
        way = kind_images.supply(cluster, active.tools)
        there = active.deployed.names
        charts = releases.of_services(there)
        names = words(image) or way.needed(cluster_deploy.wanted(cluster, charts, there), active.helm)
        loaded = way.bring(names)
        renewed = active.take_present_builds()
    others = [name for name in names if name not in loaded]
    rest = f"already in the cluster: {', '.join(others) or 'none'}"
    more = (f"pods replaced: {', '.join(renewed)}",) if renewed else ()
    lines = (f"loaded: {', '.join(loaded) or 'nothing'}", rest, *more)
    return Answer({"loaded": loaded, "there": others, "renewed": renewed}, lines=lines, names=tuple(loaded))


@command(tier="kind", help={"to": "directory to write to; default: <state>/kind/report-<time>"})
def logs(context: Context, to: str = "") -> Answer:
    """Collect a diagnostic report of the cluster: nodes, pods, events, releases, checks.

    Example: invoke kind.logs
    """
    from infra.tiers.kind import report as kind_report

    path, parts = kind_report.write(the_tier(context), to)
    lines = (f"wrote {path} ({human_bytes(kind_report.size(path))})", *(f"  {name}: {text}" for name, text in parts))
    return Answer({"path": str(path), "parts": dict(parts)}, lines=lines, names=(str(path),))


@command(tier="kind", log=False, help={"shell": f"print a command for this shell: {', '.join(SHELLS)}"})
def kubeconfig(context: Context, shell: str = "") -> Answer:
    """Print where the cluster's kubeconfig is; your own is never touched.

    Example: eval "$(invoke kind.kubeconfig --shell sh)"
    """
    if shell and shell not in SHELLS:
        raise PlatformError("USAGE", f"unknown shell {shell!r}", steps=(f"use one of {', '.join(SHELLS)}",))
    cluster = the_tier(context).cluster
    if not cluster.kubeconfig.exists():
        raise PlatformError("NOT_RUNNING", "this stack has no cluster", steps=("invoke kind.up",))
    context.console.shell = shell
    if shell:
        context.console.output = "env"
    path = str(cluster.kubeconfig)
    body = {"path": path, "context": f"kind-{cluster.name}"}
    return Answer(body, lines=(path,), env={"KUBECONFIG": path}, names=(path,))


@command(
    tier="kind",
    log=False,
    help={"service": "open the shell in the pod of this service"},
)
def shell(context: Context, service: str = "") -> Answer | None:
    """Open a shell in which kubectl and helm use the cluster, or a shell in a service's pod.

    Example: invoke kind.shell --service postgres
    """
    from infra.tasks import kind_shell

    active = the_tier(context)
    code = kind_shell.open_shell(active, service)
    return Answer(None, exit=code) if code else None


@command("clean-raw", tier="kind", help={"yes": "skip the confirmation prompt"})
def clean_raw(context: Context, yes: bool = False) -> Answer:
    """Remove objects applied by kubectl before Helm took over; volumes and Helm's objects are kept.

    Example: invoke kind.clean-raw
    """
    from infra import stack
    from infra.tiers.cluster import raw as cluster_raw

    active = the_tier(context)
    active.require()
    with stack.lock(context.stack, "kind.clean-raw"):
        found = cluster_raw.find(active.cluster)
        if not found:
            return Answer({"removed": []}, lines=("nothing was deployed by raw manifests",))
        shown = [f"  {thing.namespace:<14} {thing.name}" for thing in found]
        confirm(context, ["This removes from the cluster what kubectl applied and Helm does not manage:", *shown], yes)
        cluster_raw.remove(active.kubectl, found)
    names = tuple(f"{t.namespace}/{t.name}" for t in found)
    return Answer({"removed": list(names)}, lines=(f"removed: {', '.join(names)}",), names=names)


_OWN: tuple[invoke.Task[Any], ...] = (up, down, start, stop, status, load, logs, kubeconfig, shell, clean_raw)
TASKS = (*_OWN, *(t for t in verbs.tasks("kind") if t.name not in {own.name for own in _OWN}))
