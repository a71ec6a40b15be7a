"""Production as a tier: it is read here, and changed by the tasks `prod.*` alone.

PLATFORM_SITE names the site. What would start, stop, remove or overwrite something is refused with the task to use.
"""

from __future__ import annotations

import contextlib
import datetime
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from infra.console import Answer
from infra.context import Context
from infra.errors import PlatformError

if TYPE_CHECKING:
    import re

    from infra.prod.cluster import Cluster
    from infra.tiers.base import LogLine
    from infra.training.contract import Contract

Body = Callable[..., Answer | None]
CONTRACT: ContextVar[Contract | None] = ContextVar("CONTRACT", default=None)
"""The contract of production for the task that runs, with addresses that lead there from this machine."""
CONNECTED = frozenset({"train.list", "train.show", "train.diff"})
"""Tasks that only read from the services: they are the same, through forwards."""
INSTEAD: Mapping[str, str] = {
    "up": "prod.diff SITE, then invoke prod.deploy SITE --plan ID",
    "restart": "prod.diff SITE, then invoke prod.deploy SITE --plan ID",
    "wait": "prod.status SITE",
    "db.backup": "prod.backup SITE",
    "db.verify": "prod.drill SITE",
    "db.restore": "prod.restore SITE --to TIME",
    "snapshot.restore": "prod.restore SITE --to TIME",
    "secrets.rotate": "prod.secrets SITE",
}
"""Refused task -> the one that does it for production."""
NEVER = frozenset({"down", "reset", "trash.restore", "native.down", "compose.down", "kind.down"})
"""Tasks that nothing replaces for production: its data is never removed by a task."""


def reading(name: str, body: Body) -> Body:
    """Return what a task does for production.

    Raises:
        PlatformError: USAGE for a task that changes something, naming the one to use.
    """
    if name in READS:
        return READS[name]
    if name in CONNECTED:
        return _connected(body)
    if name in NEVER:
        why, steps = "no task stops or removes production", ("see docs/production.md",)
        raise PlatformError("USAGE", f"{name} never acts on production", why=why, steps=steps)
    steps = (f"invoke {INSTEAD.get(name, 'prod.status SITE')}",)
    raise PlatformError("USAGE", f"{name} does not act on production, which is only read here", steps=steps)


def site_of(context: Context) -> str:
    """Return the site that is meant. Raises PlatformError USAGE where none is named."""
    name = context.settings.text("PLATFORM_SITE")
    if not name:
        steps = ("set PLATFORM_SITE, e.g. PLATFORM_SITE=prod-eu invoke status --tier production",)
        raise PlatformError("USAGE", "--tier production does not know which site is meant", steps=steps)
    context.console.tier = "production"
    return name


def _status(context: Context, **_: object) -> Answer:
    from infra.tasks import prod_views

    return prod_views.status(context, site_of(context), "")


def _doctor(context: Context, **_: object) -> Answer:
    from infra.tasks import prod_views

    return prod_views.checked(context, site_of(context), live=True, charts="")


def _env(context: Context, shell: str = "", write: str = "", profiles: str = "", **_: object) -> Answer:
    """Print the contract as pods have it: its addresses are those inside the cluster."""
    from infra.prod import connect

    name = site_of(context)
    if write or profiles:
        steps = (f"invoke prod.connect {name} --write FILE keeps a file whose addresses lead there from here",)
        raise PlatformError("USAGE", "the addresses inside the cluster are of no use in a file here", steps=steps)
    values, _hidden = connect.variables(_cluster(context, name))
    context.console.shell = shell
    if context.console.output == "table":
        context.console.output = "env"
    context.console.secrets = ()  # the contract is for programs: it carries its passwords
    return Answer(values, env=values, names=tuple(values))


SOURCES: Mapping[str, tuple[str, str]] = {
    "postgres": ("platform", "platform/data=postgresql"),
    "redis": ("platform", "app.kubernetes.io/name=redis"),
    "temporal": ("temporal", "app.kubernetes.io/name=temporal,app.kubernetes.io/component=server"),
    "temporal-ui": ("temporal", "app.kubernetes.io/name=temporal,app.kubernetes.io/component=web"),
    "mlflow": ("platform", "app.kubernetes.io/name=mlflow,app.kubernetes.io/component=server"),
    "backend": ("platform", "app.kubernetes.io/name=platform,app.kubernetes.io/component=backend"),
    "frontend": ("platform", "app.kubernetes.io/name=platform,app.kubernetes.io/component=frontend"),
    "worker": ("platform", "app.kubernetes.io/name=platform,app.kubernetes.io/component=worker"),
}
"""Service -> namespace and labels of its pods."""


def _logs(
    context: Context, service: list[str], tail: int = 100, follow: bool = False, since: str = "", grep: str = ""
) -> Answer | None:
    from infra.setting_rules import words
    from infra.tasks import log_query, show

    cluster = _cluster(context, site_of(context))
    names = tuple(name for text in service for name in words(text)) or tuple(SOURCES)
    unknown = [name for name in names if name not in SOURCES]
    if unknown:
        steps = (f"the services are: {', '.join(SOURCES)}",)
        raise PlatformError("USAGE", f"no service {unknown[0]!r} in production", steps=steps)
    if follow:
        space, labels = SOURCES[names[0]]
        steps = (f"kubectl --context {cluster.context} logs -f -n {space} -l {labels}",)
        raise PlatformError("USAGE", "logs of production are not followed here", steps=steps)
    earliest = log_query.earliest(since)
    return show.logs(context, _lines(cluster, names, tail, earliest, log_query.pattern(grep)), follow=False)


def _lines(
    cluster: Cluster, names: Sequence[str], tail: int, earliest: float | None, wanted: re.Pattern[str] | None
) -> Iterator[LogLine]:
    """Yield the newest lines of each pod of some services, those of one service together."""
    from infra.tiers.base import LogLine

    moment = [] if earliest is None else [f"--since-time={_rfc3339(earliest)}"]
    for name in names:
        space, labels = SOURCES[name]
        words = ("logs", "-n", space, "-l", labels, "--prefix", "--max-log-requests=50", f"--tail={tail or -1}")
        for line in cluster.run(*words, *moment).out.splitlines():
            if wanted is None or wanted.search(line):
                yield LogLine(name, line)


def _rfc3339(seconds: float) -> str:
    return f"{datetime.datetime.fromtimestamp(seconds, datetime.UTC):%Y-%m-%dT%H:%M:%SZ}"


def _cluster(context: Context, name: str) -> Cluster:
    from infra.prod.site import load
    from infra.tasks.prod_site import cluster

    return cluster(context, load(name, context.settings.root))


def _connected(body: Body) -> Body:
    def run(context: Context, **options: Any) -> Answer | None:
        with contract(context) as found:
            token = CONTRACT.set(found)
            try:
                return body(context, **options)
            finally:
                CONTRACT.reset(token)

    return run


@contextlib.contextmanager
def contract(context: Context) -> Iterator[Contract]:
    """Open forwards to the services of the site for the block; the contract that leads through them.

    Raises:
        PlatformError: NOT_FOUND, UNREACHABLE.
    """
    from infra.data.postgres import scratch
    from infra.prod import connect
    from infra.prod.site import load
    from infra.tasks.prod_site import cluster
    from infra.training import contract as contracts

    site = load(site_of(context), context.settings.root)
    there = cluster(context, site)
    values, hidden = connect.variables(there)
    context.console.secrets += tuple(sorted(hidden))
    with scratch.workspace(context.stack.scratch) as space:
        ca = space / "ca.crt"
        ca.write_text(connect.authority(site, there), encoding="utf-8")
        with connect.opened(there, connect.targets(there, list(values.values()), ())) as forwards:
            yield contracts.read(connect.here(values, forwards, ca))


READS: Mapping[str, Body] = {"status": _status, "doctor": _doctor, "env": _env, "logs": _logs}
"""Tasks that ask production something else than they ask the other tiers."""
