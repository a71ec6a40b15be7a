"""Helm releases on the kind tier: deploy, look at, change, take back."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from infra.console import Answer, Table
from infra.context import Context
from infra.errors import ExitCode, PlatformError, nearest
from infra.tasks.command import command, confirm, words
from infra.tasks.kind import the_tier

if TYPE_CHECKING:
    from infra.kube.releases import Deployed
    from infra.tiers.kind.tier import Kind

NAME = "the release"
SET = "chart value as key=value; repeatable"


def _deployed(active: Kind) -> dict[str, Deployed]:
    from infra.tiers.cluster import deploy as cluster_deploy

    with active.require().connected() as api:
        return cluster_deploy.deployed(api)


def _one(active: Kind, name: str) -> Deployed:
    """Return a release that is in the cluster.

    Raises:
        PlatformError: NOT_FOUND with the nearest one.
    """
    found = _deployed(active)
    if name in found:
        return found[name]
    hint = nearest(name, found) or (f"invoke helm.deploy --only {name}",)
    raise PlatformError("NOT_FOUND", f"there is no release {name!r} in the cluster", steps=(*hint, "invoke helm.list"))


def _said(argv: Sequence[str]) -> Any:
    from infra import shell

    return json.loads(shell.run(argv).out or "null")


@command(
    iterable=("only", "set_"),
    help={
        "only": "deploy only this release (repeatable, or comma-separated); default: the core and whatever is deployed",
        "obs": "also observability",
        "apps": "also deploy the backend and the frontend",
        "set_": f"{SET}; kept for later deployments",
        "timeout": "total time limit in seconds; 0: each service's own limit",
    },
)
def deploy(
    context: Context,
    only: list[str],
    set_: list[str],
    obs: bool = False,
    apps: bool = False,
    timeout: float = 0.0,
) -> Answer:
    """Deploy all releases, or some, in dependency order, and wait until they are ready.

    Example: invoke helm.deploy --only temporal
    """
    from infra import catalog, stack
    from infra.kube import releases
    from infra.tasks import helm_upgrade
    from infra.tiers.cluster import overrides as cluster_overrides

    active = the_tier(context)
    names = [releases.chart(n).release for n in words(only)]
    _check_sets(set_, names)
    cluster = active.require()
    with stack.lock(context.stack, "helm.deploy"):
        if not names:
            overlays = {catalog.OVERLAY_CORE, *([catalog.OVERLAY_OBS] if obs else [])}
            overlays |= {catalog.OVERLAY_APPS} if apps else set()
            there = _deployed(active)
            names = [c.release for c in catalog.CHARTS if c.overlay in overlays or c.release in there]
        with cluster_overrides.trying(cluster, names[0], set_):
            changed = helm_upgrade.roll_out(active, names, timeout or None)
    same = [n for n in names if n not in changed]
    lines = (f"deployed: {', '.join(changed) or 'nothing'}", f"already up to date: {', '.join(same) or 'none'}")
    return Answer({"deployed": changed, "unchanged": same}, lines=lines, names=tuple(changed))


def _check_sets(sets: Sequence[str], names: Sequence[str]) -> None:
    for text in sets:
        if "=" not in text:
            raise PlatformError("USAGE", f"{text!r} is not key=value", steps=("e.g. --set image.tag=18.6",))
    if sets and len(names) != 1:
        raise PlatformError("USAGE", "--set needs exactly one release", steps=("name it with --only, or --name",))


@command("list", log=False)
def list_(context: Context) -> Answer:
    """List the releases in the cluster with revision, state and chart.

    Example: invoke helm.list
    """
    active = the_tier(context)
    active.require()
    found = _said(active.helm.releases()) or []
    rows = tuple(tuple(str(r[k]) for k in ("name", "namespace", "revision", "status", "chart")) for r in found)
    lines = () if rows else ("no releases. Next: invoke helm.deploy",)
    table = Table(("RELEASE", "NAMESPACE", "REVISION", "STATUS", "CHART"), rows)
    return Answer(found, table, lines, names=tuple(str(r["name"]) for r in found))


@command(log=False, help={"name": NAME})
def status(context: Context, name: str) -> Answer:
    """Show a release's revision, workloads, pods and what blocks them; exit 7 when not ready.

    Example: invoke helm.status temporal
    """
    from infra.kube import snapshot, verdict
    from infra.kube.trouble import events

    active = the_tier(context)
    known = _one(active, name)
    with active.cluster.connected() as api:
        mine = snapshot.take(api).of_release(known.name, known.namespace)
    seen = verdict.judge(mine)
    pods = [_pod(p) for p in mine.pods]
    rows = tuple((p["name"], p["phase"], str(p["restarts"])) for p in pods)
    head = f"{known.name} in {known.namespace}: revision {known.revision} {known.status}, {seen.state}"
    head += f": {seen.detail}" if seen.detail else ""
    lines = (head, *(events(mine, 8) if seen.state != verdict.READY else ()))
    state = seen.state if known.status == "deployed" else known.status
    body = {**vars(known), "state": state, "detail": seen.detail, "pods": pods, "events": list(lines[1:])}
    good = seen.state == verdict.READY and known.status == "deployed"
    code = ExitCode.OK if good else ExitCode.SERVICE_FAILED
    return Answer(body, Table(("POD", "PHASE", "RESTARTS"), rows), lines, names=(known.name,), exit=int(code))


def _pod(pod: Any) -> dict[str, Any]:
    from infra.kube.snapshot import metadata
    from infra.kube.verdict import containers

    restarts = sum(int(s.get("restartCount", 0)) for s in containers(pod))
    return {"name": metadata(pod)["name"], "phase": (pod.get("status") or {}).get("phase", ""), "restarts": restarts}


@command(
    iterable=("set_", "values"),
    help={
        "name": NAME,
        "set_": f"{SET}; other values are unchanged, and later deployments keep it",
        "values": "YAML file with values; repeatable",
        "back_on_failure": "roll back to the current revision if the new one does not become ready",
        "forget": "discard values set earlier with --set",
        "timeout": "seconds, 0: budget",
    },
)
def upgrade(
    context: Context,
    name: str,
    set_: list[str],
    values: list[str],
    back_on_failure: bool = False,
    forget: bool = False,
    timeout: float = 0.0,
) -> Answer:
    """Change some values of a release, keep the others, and wait until it is ready.

    Example: invoke helm.upgrade postgresql --set parameters.max_connections=300
    """
    from infra import stack
    from infra.tasks import helm_upgrade

    active = the_tier(context)
    with stack.lock(context.stack, "helm.upgrade"):
        known = _one(active, name)
        _check_sets(set_, [name])
        order = helm_upgrade.UpgradeOrder(tuple(set_), tuple(values), back_on_failure, forget, timeout or None)
        helm_upgrade.upgrade(active, known, order)
        now = _one(active, name)
    text = f"{name} is ready at revision {now.revision} (was {known.revision})"
    return Answer({"name": name, "revision": now.revision, "before": known.revision}, lines=(text,), names=(name,))


@command(
    iterable=("name",),
    help={
        "name": f"{NAME}; repeatable, or comma-separated",
        "namespace": "uninstall all releases in this namespace",
        "yes": "skip the confirmation prompt",
    },
)
def uninstall(context: Context, name: list[str], namespace: str = "", yes: bool = False) -> Answer:
    """Remove a release, or all of a namespace; volumes and passwords are kept for the next installation.

    Example: invoke helm.uninstall --name mlflow --yes
    """
    from infra import stack

    active = the_tier(context)
    if bool(words(name)) == bool(namespace):
        raise PlatformError("USAGE", "give either --name or --namespace", steps=("invoke helm.list",))
    with stack.lock(context.stack, "helm.uninstall"):
        chosen = _chosen(active, words(name), namespace)
        if not chosen:
            return Answer({"removed": []}, lines=(f"there is no release in {namespace}",))
        plan = ["This removes from the cluster (volumes and passwords are kept):"]
        confirm(context, [*plan, *(f"  {r.namespace:<14} {r.name}" for r in chosen)], yes)
        for release in reversed(chosen):
            active.uninstall(release.name, release.namespace)
    names = tuple(r.name for r in chosen)
    lines = (f"removed: {', '.join(names)}", f"Next: invoke helm.deploy --only {','.join(names)}")
    return Answer({"removed": list(names)}, lines=lines, names=names)


def _chosen(active: Kind, names: Sequence[str], namespace: str) -> list[Deployed]:
    """Return the releases in the order of the catalogue."""
    from infra import catalog

    found = _deployed(active)
    order = [c.release for c in catalog.CHARTS]
    chosen = [_one(active, n) for n in names] or [r for r in found.values() if r.namespace == namespace]
    return sorted(chosen, key=lambda r: order.index(r.name) if r.name in order else len(order))


@command(log=False, help={"name": NAME})
def history(context: Context, name: str) -> Answer:
    """List the revisions of a release.

    Example: invoke helm.history postgresql
    """
    active = the_tier(context)
    known = _one(active, name)
    found = _said(active.helm.history(known.name, known.namespace)) or []
    rows = tuple((str(r["revision"]), str(r["updated"])[:19], r["status"], r.get("description", "")) for r in found)
    table = Table(("REVISION", "UPDATED", "STATUS", "DESCRIPTION"), rows)
    return Answer(found, table, names=tuple(str(r["revision"]) for r in found))


@command(help={"name": NAME, "revision": "revision number; 0: the previous one", "timeout": "seconds, 0: budget"})
def rollback(context: Context, name: str, revision: str, timeout: float = 0.0) -> Answer:
    """Roll a release back to an earlier revision and wait until it is ready.

    Example: invoke helm.rollback postgresql 1
    """
    from infra import stack
    from infra.tasks import helm_upgrade
    from infra.tiers.cluster import overrides as cluster_overrides

    active = the_tier(context)
    with stack.lock(context.stack, "helm.rollback"):
        known = _one(active, name)
        number = _revision(_said(active.helm.history(known.name, known.namespace)) or [], revision, name)
        cluster_overrides.override(active.cluster, name, ())
        helm_upgrade.go_back(active, known, number, timeout or None)
        now = _one(active, name)
    text = f"{name} is ready again as it was at revision {number} (now revision {now.revision})"
    return Answer({"name": name, "revision": now.revision, "before": known.revision}, lines=(text,), names=(name,))


def _revision(history: Sequence[dict[str, Any]], asked: str, name: str) -> int:
    """Return the number of a revision that there is; for 0 the one before the present one."""
    there = [int(r["revision"]) for r in history]
    if not asked.isdigit():
        raise PlatformError("USAGE", f"{asked!r} is not a revision number", steps=(f"invoke helm.history {name}",))
    if asked == "0" and len(there) > 1:
        return there[-2]
    if int(asked) in there:
        return int(asked)
    text = f"{name} has no {f'revision {asked}' if int(asked) else 'earlier revision'}"
    why, steps = f"there are: {', '.join(map(str, there))}", (f"invoke helm.history {name}",)
    raise PlatformError("NOT_FOUND", text, why=why, steps=steps)


@command(
    log=False,
    help={"name": NAME, "revision": "revision number; 0: the current one", "all": "include the chart's defaults"},
)
def values(context: Context, name: str, revision: int = 0, all: bool = False) -> Answer:
    """Print the values that a release was given.

    Example: invoke helm.values temporal --all
    """
    import yaml

    active = the_tier(context)
    known = _one(active, name)
    found = _said(active.helm.values(known.name, known.namespace, revision, all)) or {}
    return Answer(found, lines=tuple(yaml.safe_dump(found, sort_keys=False).splitlines()))


@command(log=False, help={"name": NAME, "revision": "revision number; 0: the current one"})
def manifest(context: Context, name: str, revision: int = 0) -> Answer:
    """Print the manifests that a release has put into the cluster.

    Example: invoke helm.manifest redis
    """
    from infra import shell

    active = the_tier(context)
    known = _one(active, name)
    text = shell.run(active.helm.manifest(known.name, known.namespace, revision)).out
    return Answer({"manifest": text}, lines=tuple(text.splitlines()))


@command(
    log=False,
    iterable=("set_",),
    help={
        "name": f"{NAME}; default: all charts of the platform",
        "production": "also use values-production.yaml",
        "set_": f"{SET}; e.g. values that production requires you to set",
    },
)
def template(context: Context, set_: list[str], name: str = "", production: bool = False) -> Answer:
    """Render charts without a cluster, as deployed here or, with --production, in production.

    Example: invoke helm.template --name temporal
    """
    from infra.tasks import helm_charts

    _check_sets(set_, [name] if name else [])
    texts = helm_charts.render(the_tier(context), name, production, set_)
    return Answer(texts, lines=tuple(line for text in texts.values() for line in text.splitlines()), names=tuple(texts))


@command(log=False, help={"name": f"{NAME}; default: all charts of the platform"})
def lint(context: Context, name: str = "") -> Answer:
    """Lint the platform's charts with each of their values files; exit 1 when something is wrong.

    Example: invoke helm.lint
    """
    from infra.tasks import helm_charts

    found = helm_charts.lint(the_tier(context), name)
    rows = tuple((f["chart"], f["values"], "ok" if f["ok"] else "wrong") for f in found)
    lines = tuple(line for f in found if not f["ok"] for line in str(f["said"]).splitlines())
    bad = any(not f["ok"] for f in found)
    return Answer(found, Table(("CHART", "VALUES", ""), rows), lines, exit=int(ExitCode.FAILED) if bad else 0)


@command("test", help={"name": NAME})
def check(context: Context, name: str) -> Answer:
    """Run the tests of a release's chart in the cluster.

    Example: invoke helm.test postgresql
    """
    from infra import shell

    active = the_tier(context)
    known = _one(active, name)
    done = shell.run(active.helm.test(known.name, known.namespace), limit=150, check=False)
    said = done.out + (done.err if done.code else "")
    data = {"name": name, "passed": done.code == 0, "said": said}
    return Answer(data, lines=tuple(said.splitlines()), exit=min(done.code, 1))


TASKS = (*(deploy, list_, status, upgrade, uninstall, history, rollback, values, manifest, template, lint, check),)
