"""Production as a tier: it is read here, and changed by the tasks `prod.*` alone.

PLATFORM_SITE names the site. What would start, stop, remove or overwrite something is refused with the task to use.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from infra.console import Answer
from infra.context import Context
from infra.errors import PlatformError
from infra.tasks import production_site

if TYPE_CHECKING:
    import re

    from infra.prod.cluster import Cluster
    from infra.tiers.base import LogLine

Body = Callable[..., Answer | None]
CONNECTED = frozenset({"train.list", "train.show", "train.diff"})
"""Tasks that only read from the services: they are the same, through forwards."""
INSTEAD: Mapping[str, str] = {
    "up": "prod.diff SITE, then invoke prod.deploy SITE --plan ID",
    "restart": "prod.diff SITE, then invoke prod.deploy SITE --plan ID",
    "wait": "prod.status SITE",
    "db.backup": "prod.backup SITE",
    "db.verify": "prod.drill SITE",
    "db.restore": "prod.restore SITE --to TIME",
    "snapshot.create": "prod.snapshot SITE",
    "snapshot.restore": "prod.restore SITE --snapshot NAME",
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


def _status(context: Context, **_: object) -> Answer:
    from infra.tasks import prod_views

    return prod_views.status(context, production_site.site_of(context), "")


def _doctor(context: Context, **_: object) -> Answer:
    from infra.tasks import prod_views

    return prod_views.checked(context, production_site.site_of(context), live=True, charts="")


def _env(context: Context, shell: str = "", write: str = "", profiles: str = "", **_: object) -> Answer:
    """Print the contract as pods have it: its addresses are those inside the cluster."""
    from infra.prod import connect

    name = production_site.site_of(context)
    if write or profiles:
        steps = (f"invoke prod.connect {name} --write FILE keeps a file whose addresses lead there from here",)
        raise PlatformError("USAGE", "the addresses inside the cluster are of no use in a file here", steps=steps)
    values, _hidden = connect.variables(production_site.cluster(context, name))
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

    cluster = production_site.cluster_of(context)
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


def _connected(body: Body) -> Body:
    def run(context: Context, **options: Any) -> Answer | None:
        with production_site.contract(context) as found:
            token = production_site.CONTRACT.set(found)
            try:
                return body(context, **options)
            finally:
                production_site.CONTRACT.reset(token)

    return run


def _training(name: str) -> Body:
    def run(context: Context, **options: Any) -> Answer | None:
        from infra.tasks import production_train

        body: Body = getattr(production_train, name)
        return body(context, **options)

    return run


READS: Mapping[str, Body] = {
    **{"status": _status, "doctor": _doctor, "env": _env, "logs": _logs},
    **{f"train.{name}": _training(name) for name in ("run", "attach", "cancel", "logs")},
}
"""Tasks that ask production something else than they ask the other tiers."""
