"""Production: what is shown of a site, for `prod.*` and for --tier production."""

from __future__ import annotations

from infra.console import Answer, Table
from infra.context import Context
from infra.errors import ExitCode
from infra.tasks.prod_site import cluster, rendered


def status(context: Context, site: str, charts: str) -> Answer:
    """Show a site's health; exit 7 on a failure. Raises PlatformError."""
    from infra.prod import status as found

    made = rendered(context, site, charts)
    lines = found.status(made, cluster(context, made.site))
    failed = any(line.state == "fail" for line in lines)
    table = Table(("about", "state", "detail"), tuple((line.about, line.state, line.text) for line in lines))
    data = {"site": made.site.name, "findings": found.as_data(lines)}
    return Answer(data, table, exit=int(ExitCode.SERVICE_FAILED) if failed else 0)


def checked(context: Context, site: str, live: bool, charts: str) -> Answer:
    """Check a site, also against its cluster; exit 4 when something is wrong. Raises PlatformError."""
    from infra.prod.check import check

    made = rendered(context, site, charts)
    found, unknown = check(made)
    notes = [f"not checked against a schema: {kind}" for kind in unknown]
    if live:
        from infra.prod.live import check as asked

        more, said_of_cluster = asked(made, cluster(context, made.site))
        found, notes = [*found, *more], [*notes, *said_of_cluster]
    for note in notes:
        context.console.warn(note)
    rows = tuple((f.rule, f.object, f.text) for f in found)
    fine = f"{len(made.objects)} objects fit every schema and rule{', and the cluster' if live else ''}"
    said = f"{len(found)} findings" if found else fine
    data = {"site": made.site.name, "findings": [vars(f) for f in found], "unchecked": unknown, "notes": notes}
    exit_code = int(ExitCode.PREFLIGHT) if found else 0
    return Answer(data, Table(("rule", "object", "what is wrong"), rows), (said,), exit=exit_code)
