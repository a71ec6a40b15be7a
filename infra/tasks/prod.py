"""Production: a site file becomes plain YAML, which is checked, compared with its cluster and applied to it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from infra.console import Answer, Table
from infra.errors import ExitCode, PlatformError
from infra.tasks.command import Run, command

if TYPE_CHECKING:
    from infra.kube.helm_cli import Helm
    from infra.prod.render import Rendered

SITE = "a file of sites/, by its name or its path"
CHARTS = "folder with the upstream charts as NAME-VERSION.tgz, where no registry is reached"


def helm(run: Run) -> Helm:
    """Find Helm; no cluster is asked, so it gets no kubeconfig.

    Raises:
        PlatformError: PROGRAM_MISSING.
    """
    import os

    from infra.kube import tools
    from infra.kube.helm_cli import Helm

    found = tools.require(("helm",), run.settings, run.stack.home / "prod" / "tools.json")["helm"]
    return Helm(found.path, found.version[0], Path(os.devnull))


def rendered(run: Run, site: str, charts: str = "") -> Rendered:
    """Render a site.

    Raises:
        PlatformError: NOT_FOUND, SITE_INVALID, PROGRAM_MISSING, UNREACHABLE.
    """
    from infra.prod import render
    from infra.prod.site import load

    folder = Path(charts).expanduser().absolute() if charts else None
    return render.render(load(site, run.settings.root), run.settings.root, helm(run), folder)


@command(log=False, help={"site": SITE, "to": "folder that becomes exactly what was rendered", "charts": CHARTS})
def render(run: Run, site: str, to: str, charts: str = "") -> Answer:
    """Write a site as plain YAML: a folder for each wave, with a kustomization, and the images' digests.

    Example: invoke prod.render example --to /tmp/example
    """
    from infra.prod.render import write

    made, target = rendered(run, site, charts), Path(to).expanduser().absolute()
    files = write(made, target)
    open_ones = [r for r in made.references() if r not in made.digests]
    if open_ones:
        run.console.warn(f"{len(open_ones)} images have no digest: invoke prod.lock {made.site.name}")
    waves = {name: len(things) for name, things in made.waves.items()}
    table = Table(("wave", "objects"), tuple((name, str(count)) for name, count in waves.items()))
    data = {"site": made.site.name, "to": str(target), "files": files, "waves": waves, "hash": made.hash}
    said = (f"written to {target}", f"next: invoke prod.check {made.site.name}")
    return Answer(data, table, said, names=tuple(files))


@command(log=False, help={"site": SITE, "charts": CHARTS})
def check(run: Run, site: str, charts: str = "") -> Answer:
    """Check a site without its cluster: schemas and rules; exit 4 when something is wrong.

    Example: invoke prod.check example
    """
    from infra.prod.check import check as checked

    made = rendered(run, site, charts)
    found, unknown = checked(made)
    for kind in unknown:
        run.console.warn(f"not checked against a schema: {kind}")
    rows = tuple((f.rule, f.object, f.text) for f in found)
    said = f"{len(found)} findings" if found else f"{len(made.objects)} objects fit every schema and rule"
    data = {"site": made.site.name, "findings": [vars(f) for f in found], "unchecked": unknown}
    exit_code = int(ExitCode.PREFLIGHT) if found else 0
    return Answer(data, Table(("rule", "object", "what is wrong"), rows), (said,), exit=exit_code)


@command(log=False, help={"site": SITE, "charts": CHARTS})
def lock(run: Run, site: str, charts: str = "") -> Answer:
    """Ask the registries for the digests of a site's images, and keep them beside the site file.

    Example: invoke prod.lock example
    """
    from infra import registry, stack
    from infra.prod import images

    made = rendered(run, site, charts)
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


TASKS = (render, check, lock)
