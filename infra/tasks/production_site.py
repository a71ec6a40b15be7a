"""The site that --tier production is about: its name, its cluster, its contract as it is reached from here."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar
from typing import TYPE_CHECKING

from infra.context import Context
from infra.errors import PlatformError

if TYPE_CHECKING:
    from infra.prod.cluster import Cluster
    from infra.training.contract import Contract

CONTRACT: ContextVar[Contract | None] = ContextVar("CONTRACT", default=None)
"""The contract of production for the task that runs, with addresses that lead there from this machine."""


def site_of(context: Context) -> str:
    """Return the site that is meant. Raises PlatformError USAGE where none is named."""
    name = context.settings.text("PLATFORM_SITE")
    if not name:
        steps = ("set PLATFORM_SITE, e.g. PLATFORM_SITE=prod-eu invoke status --tier production",)
        raise PlatformError("USAGE", "--tier production does not know which site is meant", steps=steps)
    context.console.tier = "production"
    return name


def cluster_of(context: Context) -> Cluster:
    """Go to the cluster of the site that is meant. Raises PlatformError."""
    return cluster(context, site_of(context))


def cluster(context: Context, name: str) -> Cluster:
    """Go to the cluster of a site by its name. Raises PlatformError."""
    from infra.prod.site import load
    from infra.tasks import prod_site

    return prod_site.cluster(context, load(name, context.settings.root))


@contextlib.contextmanager
def contract(context: Context) -> Iterator[Contract]:
    """Open forwards to the services of the site for the block; the contract that leads through them.

    Raises:
        PlatformError: NOT_FOUND, UNREACHABLE.
    """
    from infra.data.postgres import scratch
    from infra.prod import connect
    from infra.prod.site import load
    from infra.tasks import prod_site
    from infra.training import contract as contracts

    site = load(site_of(context), context.settings.root)
    there = prod_site.cluster(context, site)
    values, hidden = connect.variables(there)
    context.console.secrets += tuple(sorted(hidden))
    with scratch.workspace(context.stack.scratch) as space:
        ca = space / "ca.crt"
        ca.write_text(connect.authority(site, there), encoding="utf-8")
        wanted = connect.targets(there, list(values.values()), ())
        with connect.kept(there, wanted, lambda text: None) as forwards:
            yield contracts.read(connect.here(values, forwards, ca))
