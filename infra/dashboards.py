"""The queries of the Grafana dashboards, as their data sources would be asked: for checks, without Grafana."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FOLDER = Path("compose/obs/grafana/dashboards")
"""In the checkout."""
PROMETHEUS, LOKI, POSTGRES = "prometheus", "loki", "postgres"
"""Uids of the provisioned data sources."""
INTERVALS = ("$__rate_interval", "$__interval", "$__range", "$__auto")
PERIOD = "1m"
"""Stands for Grafana's intervals: six scrapes."""


@dataclass(frozen=True)
class Query:
    """One query: dashboard, panel and data source (a uid); `text` with Grafana's variables, `runnable` without."""

    dashboard: str
    panel: str
    source: str
    text: str
    runnable: str


def boards(root: Path) -> dict[str, dict[str, Any]]:
    """Return the dashboards of a checkout, by file name.

    Raises:
        ValueError: a file is no JSON.
    """
    paths = sorted((root / FOLDER).glob("*.json"))
    return {path.name: json.loads(path.read_text(encoding="utf-8")) for path in paths}


def queries(board: Mapping[str, Any]) -> Iterator[Query]:
    """Yield every query of a dashboard."""
    values = {str(v["name"]): v for v in board.get("templating", {}).get("list", ())}
    for panel in board["panels"]:
        for target in panel["targets"]:
            source = str(target["datasource"]["uid"])
            text = str(target.get("rawSql") or target.get("expr") or "")
            yield Query(str(board["title"]), str(panel["title"]), source, text, _runnable(text, source, values))


def _runnable(text: str, source: str, variables: Mapping[str, Mapping[str, Any]]) -> str:
    """Replace Grafana's macros and variables: intervals by a minute, a choice by all that can be chosen."""
    for name in INTERVALS:
        text = text.replace(name, PERIOD)
    text = re.sub(r"\$__timeFilter\(([^()]+)\)", r"\1 BETWEEN now() - interval '1 day' AND now()", text)
    for name, variable in variables.items():
        every = _every(variable, source)
        text = re.sub(rf"\$\{{{name}(:\w+)?\}}|\${name}\b", lambda _, every=every: every, text)  # type: ignore[misc]
    return text


def _every(variable: Mapping[str, Any], source: str) -> str:
    if variable["type"] == "textbox":
        return ""
    return str(variable["query"]) if source == POSTGRES else str(variable.get("allValue") or ".+")
