"""Production: a site file becomes plain YAML, which is checked, compared with its cluster and applied to it."""

from __future__ import annotations

import functools
from pathlib import Path

from infra.console import Answer, Table
from infra.context import Context
from infra.errors import ExitCode, PlatformError
from infra.tasks import prod_connect, prod_smoke, prod_snapshot, prod_views
from infra.tasks.command import command
from infra.tasks.prod_site import CHARTS, SITE, cluster, helm, rendered


@command(
    log=False,
    help={
        "site": SITE,
        "to": "folder that becomes exactly what was rendered",
        "gitops": "also what makes argocd or flux apply it, wave by wave",
        "repository": "with --gitops: address of the Git repository that will hold it",
        "revision": "with --gitops: its branch",
        "path": "with --gitops: path of the folder in the repository",
        "charts": CHARTS,
    },
)
def render(
    context: Context,
    site: str,
    to: str,
    gitops: str = "",
    repository: str = "",
    revision: str = "main",
    path: str = "",
    charts: str = "",
) -> Answer:
    """Write a site as plain YAML: a folder for each wave, with a kustomization, and the images' digests.

    Example: invoke prod.render example --to rendered
    """
    from infra.prod import gitops as controllers
    from infra.prod.render import write

    made, target = rendered(context, site, charts), Path(to).expanduser().absolute()
    held = controllers.Repository(repository, revision, path)
    files = write(made, target, controllers.files(made, gitops, held) if gitops else None)
    open_ones = [r for r in made.references() if r not in made.digests]
    if open_ones:
        context.console.warn(f"{len(open_ones)} images have no digest: invoke prod.lock {made.site.name}")
    waves = {name: len(things) for name, things in made.waves.items()}
    table = Table(("wave", "objects"), tuple((name, str(count)) for name, count in waves.items()))
    data = {"site": made.site.name, "to": str(target), "files": files, "waves": waves, "hash": made.hash}
    said = (f"written to {target}", f"next: invoke prod.check {made.site.name}")
    return Answer(data, table, said, names=tuple(files))


@command(log=False, help={"site": SITE, "live": "also ask its cluster; nothing is changed there", "charts": CHARTS})
def check(context: Context, site: str, live: bool = False, charts: str = "") -> Answer:
    """Check a site, with schemas and rules or also against its cluster; exit 4 when something is wrong.

    Example: invoke prod.check example --live
    """
    return prod_views.checked(context, site, live, charts)


@command(log=False, help={"site": SITE, "charts": CHARTS})
def lock(context: Context, site: str, charts: str = "") -> Answer:
    """Ask the registries for the digests of a site's images, and keep them beside the site file.

    Example: invoke prod.lock example
    """
    from infra import registry, stack
    from infra.prod import images

    made = rendered(context, site, charts)
    findings = [registry.look_up(reference) for reference in made.references()]
    missing = [f for f in findings if f.state != registry.THERE]
    if missing:
        problems = [f"{f.reference}: {f.state} {f.why}".strip() for f in missing]
        steps = ("log in is not supported here: copy digests by hand into the file, or open the registry for reading",)
        raise PlatformError(
            "IMAGE_UNAVAILABLE", f"{len(missing)} images have no digest", steps=steps, details={"problems": problems}
        )
    stack.write_atomic(made.site.lock, images.lock_text({f.reference: f.digest for f in findings}))
    rows = tuple((f.reference, f.digest) for f in findings)
    return Answer({"file": str(made.site.lock), "images": dict(rows)}, Table(("image", "digest"), rows))


@command(log=False, help={"site": SITE, "charts": CHARTS})
def diff(context: Context, site: str, charts: str = "") -> Answer:
    """Ask the cluster what applying a site would change, and print the id of that plan; nothing is changed.

    Example: invoke prod.diff example
    """
    from infra.prod import diff as diffs

    made = rendered(context, site, charts)
    plan = diffs.plan(made, cluster(context, made.site))
    rows = [(c.wave, c.action, c.object, "; ".join(c.fields)) for c in plan.changes if c.action != diffs.SAME]
    said = [f"{len(plan.todo)} changes, {len(plan.refused)} refused; plan {plan.id}"]
    said += [f"next: invoke prod.deploy {site} --plan {plan.id}"] if plan.todo and not plan.refused else []
    data = {"site": made.site.name, "plan": plan.id, "changes": [vars(c) for c in plan.changes]}
    table = Table(("wave", "action", "object", "fields"), tuple(rows))
    return Answer(data, table, tuple(said), exit=int(ExitCode.PREFLIGHT) if plan.refused else 0)


@command(
    help={
        "site": SITE,
        "plan": "id that prod.diff printed: the confirmation; another state of files or cluster is refused",
        "timeout": "seconds that a wave may take, migrations not counted",
        "charts": CHARTS,
    }
)
def deploy(context: Context, site: str, plan: str, timeout: float = 900.0, charts: str = "") -> Answer:
    """Apply exactly the plan with that id, wave by wave; a wave that fails is taken back.

    Example: invoke prod.deploy example --plan 0123456789ab
    """
    from infra.prod.check import check as checked
    from infra.prod.deploy import Deployment

    made = rendered(context, site, charts)
    wrong, _ = checked(made)
    if wrong:
        problems = [f"{f.rule}: {f.object} {f.text}" for f in wrong[:10]]
        what = f"{made.site.name} breaks {len(wrong)} rules; nothing was changed"
        steps = (f"invoke prod.check {site}",)
        raise PlatformError("PREFLIGHT_FAILED", what, steps=steps, details={"problems": problems})
    there, notes = cluster(context, made.site), context.stack.home / "prod" / "trouble"
    waves = Deployment(made, there, context.console, notes, timeout or 900.0).run(plan)
    return Answer(
        {"site": made.site.name, "waves": waves}, lines=(f"deployed: {', '.join(waves)}",), names=tuple(waves)
    )


@command(
    help={"site": SITE, "generate": "make those that are absent and can be made; none is changed", "charts": CHARTS}
)
def secrets(context: Context, site: str, generate: bool = False, charts: str = "") -> Answer:
    """List the Secrets of a site: which keys, what uses them, whether the cluster has them; never their contents.

    Example: invoke prod.secrets example --generate
    """
    from infra.prod import external, trust
    from infra.prod import secrets as found

    made = rendered(context, site, charts)
    if generate and external.used(made.site):
        steps = (f"invoke prod.secrets {site} lists what the store must hold",)
        raise PlatformError("USAGE", f"{made.site.name} takes its Secrets from a store: none is made here", steps=steps)
    wanted = found.needs(made.objects, made.site)
    there = cluster(context, made.site)
    found.look(there, wanted)
    fresh = found.generate(made.site, there, wanted) if generate else []
    if generate:
        trust.copy(made.site, there)
    found.look(there, wanted)
    rows = tuple((n.namespace, n.name, n.state, ", ".join(sorted(n.keys)), ", ".join(n.users)) for n in wanted)
    table = Table(("namespace", "secret", "state", "keys", "used by"), rows)
    lacking = [n for n in wanted if n.state != "there"]
    said = [f"{len(wanted) - len(lacking)} of {len(wanted)} are there", *(f"made: {n.name}" for n in fresh)]
    entries = external.entries(made.site, made.objects) if external.used(made.site) else []
    said += [f"the store must hold: {name}, property {part}" for name, part in entries]
    data = {"site": made.site.name, "secrets": found.shown(wanted), "made": [n.name for n in fresh]}
    data |= {"store": [{"entry": name, "property": part} for name, part in entries]}
    return Answer(data, table, tuple(said), exit=int(ExitCode.NOTHING) if lacking else 0)


@command(log=False, help={"site": SITE, "charts": CHARTS})
def status(context: Context, site: str, charts: str = "") -> Answer:
    """Show a site's health: waves, nodes, replication, archive, backups, certificates; exit 7 on a failure.

    Example: invoke prod.status example
    """
    return prod_views.status(context, site, charts)


@command(
    help={"name": "name of the new site", "cluster_context": "context of the kubeconfig that leads to its cluster"}
)
def init(context: Context, name: str, cluster_context: str) -> Answer:
    """Look at a cluster and write a new site file from what it has.

    Example: invoke prod.init prod-eu eks-prod
    """
    from infra.kube import tools
    from infra.prod import init as new
    from infra.prod.cluster import Cluster

    found = tools.require(("kubectl",), context.settings, context.stack.home / "prod" / "tools.json")["kubectl"]
    there = new.look(Cluster(found.path, cluster_context, context.stack.home / "prod" / "cache"))
    path = context.settings.root / "sites" / f"{name}.yaml"
    text = new.text(name, cluster_context, there)
    new.write(path, text)
    open_ones = text.count("CHANGE-ME")
    said = (f"wrote {path}; {open_ones} values are yours to say", f"next: edit it, then invoke prod.check {name}")
    return Answer({"file": str(path), "open": open_ones, "found": vars(there)}, lines=said, names=(str(path),))


@command(help={"site": SITE, "charts": CHARTS})
def backup(context: Context, site: str, charts: str = "") -> Answer:
    """Back up PostgreSQL of a site now, to its archive; the backups on schedule go on as they are.

    Example: invoke prod.backup example
    """
    from infra.prod import backup as backups

    made = rendered(context, site, charts)
    there, found = cluster(context, made.site), backups.clusters(made.objects)
    if not found:
        raise PlatformError("USAGE", "PostgreSQL of this site is backed up by who runs it: it is external")
    name = backups.make(there, found[0])
    return Answer({"site": made.site.name, "backup": name}, lines=(f"made: {name}",), names=(name,))


@command(help={"site": SITE, "timeout": "seconds that the recovery may take"})
def drill(context: Context, site: str, timeout: float = 3600.0) -> Answer:
    """Restore the archive into a scratch Cluster, compare every table with the original, and remove it again.

    Example: invoke prod.drill example
    """
    from infra.prod import drill as drills
    from infra.prod import lease
    from infra.prod.site import load

    here = load(site, context.settings.root)
    there = cluster(context, here)
    with lease.held(there):
        done = drills.run(there, here.postgresql, context.console.say, timeout)
    said = f"{done.tables} tables with {done.rows} rows are the same in what was restored"
    return Answer({"site": here.name, **vars(done)}, lines=(said,))


@command(
    help={
        "site": SITE,
        "to": "time to restore PostgreSQL to, RFC 3339 with a time zone, e.g. 2026-11-29T10:00:00Z",
        "snapshot": "bring this snapshot of a laptop into the site instead: its name, or latest",
        "identity": "with --snapshot: file with the private key, where it is encrypted",
        "trust": "with --snapshot: bring one that was made elsewhere",
        "yes": "do it; without, the plan is shown",
    }
)
def restore(
    context: Context,
    site: str,
    to: str = "",
    snapshot: str = "",
    identity: str = "",
    trust: bool = False,
    yes: bool = False,
) -> Answer:
    """Restore PostgreSQL to a time, into a new Cluster that takes over, or bring a snapshot in; the old data stays.

    Example: invoke prod.restore example --to 2026-11-29T10:00:00Z --yes
    """
    import json
    import time

    if bool(to) == bool(snapshot):
        steps = ("--to TIME for a time in the archive", "--snapshot NAME for a laptop's snapshot")
        raise PlatformError("USAGE", "say what to restore: either --to or --snapshot", steps=steps)
    if snapshot:
        return prod_snapshot.brought(context, site, snapshot, identity, trust, yes)
    from infra.prod import lease
    from infra.prod import render as renders
    from infra.prod import restore as restores
    from infra.prod.site import load

    here = load(site, context.settings.root)
    there = cluster(context, here)
    due = restores.plan(here, there, to)
    file = tuple(f"  {key}: {json.dumps(value)}" for key, value in due.entries().items())
    if yes:
        with lease.held(there):
            make = functools.partial(renders.release, root=context.settings.root, helm=helm(context))
            restores.run(here, there, due, lambda s: make(s, name="postgresql"), context.console.say, time.sleep)
    said = f"{due.new} {'serves' if yes else 'would serve'}, as {due.cluster} was at {restores.stamp(due.to)}"
    next_ = (f"write into {here.path}, below postgres:", *file) if yes else ("nothing was changed; to do it: --yes",)
    data = {"site": here.name, "done": yes, "from": due.cluster, "to": restores.stamp(due.to), "new": due.new}
    return Answer({**data, "postgres": due.entries()}, lines=(said, *next_), names=(due.new,))


TASKS = (
    *(init, render, check, lock, secrets, diff, deploy, status, prod_smoke.smoke, backup, drill, restore),
    *(prod_snapshot.snapshot, prod_connect.connect),
)
