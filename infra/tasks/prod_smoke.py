"""Production: the contract of a deployed site, tried from inside its cluster."""

from __future__ import annotations

from infra.console import Answer, Table
from infra.context import Context
from infra.errors import ExitCode
from infra.tasks.command import command
from infra.tasks.prod_site import CHARTS, SITE, cluster, rendered


@command(
    help={
        "site": SITE,
        "training": "also run a training of one epoch; it stays in the lists of trainings",
        "timeout": "seconds until everything must have been asked",
        "charts": CHARTS,
    }
)
def smoke(context: Context, site: str, training: bool = False, timeout: float = 600.0, charts: str = "") -> Answer:
    """Try everything that applications use, from a pod inside the cluster; exit 7 when something does not work.

    Example: invoke prod.smoke example --training
    """
    from infra.prod import smoke as found

    made = rendered(context, site, charts)
    checks = found.run(cluster(context, made.site), made.objects, training, timeout or found.BUDGET)
    wrong = [c for c in checks if not c.ok]
    table = Table(("", "state", "why"), tuple((c.check, "ok" if c.ok else "fail", c.why) for c in checks))
    said = f"{len(checks) - len(wrong)} of {len(checks)} work"
    data = {"site": made.site.name, "checks": [vars(c) for c in checks]}
    return Answer(data, table, (said,), exit=int(ExitCode.SERVICE_FAILED) if wrong else 0)
