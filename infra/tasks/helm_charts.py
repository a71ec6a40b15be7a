"""Charts without a cluster: rendered and checked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from infra import catalog, rows

if TYPE_CHECKING:
    from infra.tiers.kind.tier import Kind

VALUES = ("values.yaml", "values-kind.yaml", "values-production.yaml")


def _charts(name: str) -> list[rows.Chart]:
    from infra.kube import releases

    return [releases.chart(name)] if name else [c for c in catalog.CHARTS if not c.source]


def render(active: Kind, name: str, production: bool, sets: Sequence[str] = ()) -> dict[str, str]:
    """Return each chart rendered, by release. Raises PlatformError USAGE or PROGRAM_FAILED with what Helm says."""
    from infra.kube import releases
    from infra.tiers.kind import images

    helm, made = active.helm, {}
    for chart in _charts(name):
        wanted = releases.wanted(chart, active.context.settings, (), sets, active.cluster.profile)
        if production:
            file = active.context.settings.root / "helm" / chart.release / "values-production.yaml"
            wanted = replace(wanted, deploy=replace(wanted.deploy, values=(str(file),)), stdin="")
        made[chart.release] = images.rendered(wanted, helm)
    return made


def lint(active: Kind, name: str) -> list[dict[str, Any]]:
    """Return the output of Helm's linter for each chart with each values file."""
    from infra import shell

    helm, found = active.helm, list[dict[str, Any]]()
    for chart in _charts(name):
        folder = active.context.settings.root / "helm" / chart.release
        for file in (Path(folder / v) for v in VALUES):
            if file.exists():
                done = shell.run(helm.lint(str(folder), [str(file)]), check=False)
                said = (done.out + done.err).strip()
                found.append({"chart": chart.release, "values": file.name, "ok": done.code == 0, "said": said})
    return found
