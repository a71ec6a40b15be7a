"""A site of production, rendered, and the way to its cluster: what the tasks `prod.*` share."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from infra.context import Context

if TYPE_CHECKING:
    from infra.kube.helm_cli import Helm
    from infra.prod.cluster import Cluster
    from infra.prod.render import Rendered
    from infra.prod.site import Site

SITE = "a file of sites/, by its name or its path"
CHARTS = "folder with the upstream charts as NAME-VERSION.tgz, where no registry is reached"


def helm(context: Context) -> Helm:
    """Find Helm; no cluster is asked, so it gets no kubeconfig.

    Raises:
        PlatformError: PROGRAM_MISSING.
    """
    import os

    from infra.kube import tools
    from infra.kube.helm_cli import Helm

    found = tools.require(("helm",), context.settings, context.stack.home / "prod" / "tools.json")["helm"]
    return Helm(found.path, found.version[0], Path(os.devnull))


def rendered(context: Context, site: str, charts: str = "") -> Rendered:
    """Render a site.

    Raises:
        PlatformError: NOT_FOUND, SITE_INVALID, PROGRAM_MISSING, UNREACHABLE.
    """
    from infra.prod import render
    from infra.prod.site import load

    folder = Path(charts).expanduser().absolute() if charts else None
    return render.render(load(site, context.settings.root), context.settings.root, helm(context), folder)


def cluster(context: Context, site: Site) -> Cluster:
    """Go to the cluster of a site: context and uid must be what the site says.

    Raises:
        PlatformError: PROGRAM_MISSING, CONTEXT_REFUSED, UNREACHABLE, LOGIN_REFUSED.
    """
    from infra.kube import tools
    from infra.prod.cluster import checked

    found = tools.require(("kubectl",), context.settings, context.stack.home / "prod" / "tools.json")["kubectl"]
    return checked(site, found.path, context.stack.home / "prod" / "cache")
