"""Proof that observability works: logs arrive, targets answer, dashboards have data, an alert fires and clears."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from infra import dashboards, database
from infra.endpoints import Endpoints, Login
from infra.tiers.base import Check

LOG_LIMIT = 60.0
"""Seconds within which a log line has to be found."""
ALERT_LIMIT = 180.0
"""Seconds for an alert to fire: the rule's `for` (30 s), the scrape and evaluation intervals (10 s each), and room."""
ANSWER_LIMIT = 20.0
_NAME = "platform-obs"
GRAFANA_PROXY = "/api/datasources/proxy/uid"


@dataclass(frozen=True)
class Sources:
    """The way to the data sources: through Grafana where it runs, as its users do, else directly."""

    ends: Endpoints

    @property
    def way(self) -> str:
        """For people."""
        return "through Grafana" if "grafana" in self.ends.services else "directly, since Grafana is not running"

    def get(self, source: str, path: str, **params: str) -> Any:
        """Return the JSON answer of `prometheus` or `loki`.

        Raises:
            requests.RequestException, ValueError: no answer, or not a good one.
        """
        import requests

        if "grafana" in self.ends.services:
            url = f"{self.ends.url('grafana')}{GRAFANA_PROXY}/{source}{path}"
            login = (self.ends.grafana.user, self.ends.grafana.password)
            answer = requests.get(url, params=params, auth=login, timeout=ANSWER_LIMIT)
        else:
            answer = requests.get(f"{self.ends.url(source)}{path}", params=params, timeout=ANSWER_LIMIT)
        if answer.status_code != 200:
            raise ValueError(f"HTTP {answer.status_code}: {answer.text[:200].strip()}")
        return answer.json()


def targets(sources: Sources, absent: Sequence[str]) -> list[Check]:
    """Check that each Prometheus target is up; what was not started has no target that could be.

    Args:
        absent: jobs whose service was not started or was left out.
    """
    found = sources.get("prometheus", "/api/v1/targets", state="active")["data"]["activeTargets"]
    checks = []
    for target in found:
        job, name = str(target["labels"]["job"]), f"target.{target['labels']['job']}.{target['labels']['instance']}"
        if target["health"] == "up":
            checks.append(Check(name, "ok", f"{job} answers Prometheus"))
        elif job in absent:
            checks.append(Check(name, "warn", f"{job} was not started: nothing to check"))
        else:
            error = target.get("lastError") or "it has not been scraped yet"
            checks.append(Check(name, "fail", f"{job} does not answer Prometheus: {error}", f"invoke logs -s {job}"))
    return checks or [Check("targets", "fail", "Prometheus has no targets", "see compose/obs/prometheus")]


def exposed(targets: Mapping[str, str], logins: Mapping[str, Login]) -> list[Check]:
    """Return whether services expose metrics, asked directly: name -> URL, and the logins that some want."""
    return [_exposed(name, url, logins.get(name)) for name, url in targets.items()]


def _exposed(name: str, url: str, login: Login | None) -> Check:
    import requests

    try:
        auth = (login.user, login.password) if login else None
        answer = requests.get(url, auth=auth, timeout=ANSWER_LIMIT)
        series = [line for line in answer.text.splitlines() if line and not line.startswith("#")]
        error = "" if answer.ok and series else f"HTTP {answer.status_code}, {len(series)} series"
    except requests.RequestException as failed:
        error = f"{type(failed).__name__}"
    if error:
        return Check(
            f"metrics.{name}", "fail", f"{name} exposes no metrics at {url}: {error}", f"invoke logs -s {name}"
        )
    return Check(f"metrics.{name}", "ok", f"{name} exposes {len(series)} series at {url}")


def settled(ask: Callable[[], list[Check]], limit: float = 30.0) -> list[Check]:
    """Return the checks once none fails, or as they are after `limit` seconds: a target is asked each ten seconds."""
    end = time.monotonic() + limit
    while True:
        found = ask()
        if time.monotonic() > end or not any(c.status == "fail" for c in found):
            return found
        time.sleep(1)


def logs(sources: Sources, shipped: bool) -> Check:
    """Check that a line which PostgreSQL logs now is found in Loki.

    Args:
        shipped: whether what carries logs to Loki runs.
    """
    if "loki" not in sources.ends.services:
        return Check("logs", "warn", "Loki was not started: logs are only in `invoke logs`", "invoke obs.up")
    if not shipped:
        return Check("logs", "warn", "no logs are shipped to Loki: Alloy is not running", "invoke obs.up")
    mark = f"obs-check-{uuid.uuid4().hex}"
    write_log_line(sources.ends, mark)
    query = f'{{service=~"postgres(ql)?"}} |= "{mark}"'  # the second on Kubernetes
    end = time.monotonic() + LOG_LIMIT
    while time.monotonic() < end:
        since = str(int((time.time() - 300) * 1e9))
        answer = sources.get("loki", "/loki/api/v1/query_range", query=query, start=since, limit="5")
        if answer["data"]["result"]:
            return Check("logs", "ok", f"a line logged by PostgreSQL arrived in Loki ({sources.way})")
        time.sleep(1)
    what = f"a line logged by PostgreSQL did not arrive in Loki within {LOG_LIMIT:.0f} s ({sources.way})"
    return Check("logs", "fail", what, "docker logs of the container alloy")


def found_in_files(ends: Endpoints, search: Callable[[str], bool]) -> Check:
    """Return whether a line that PostgreSQL logs now is found by `invoke logs`.

    Args:
        ends: where PostgreSQL is.
        search: whether the logs have a line with this text.
    """
    mark = f"obs-check-{uuid.uuid4().hex}"
    write_log_line(ends, mark)
    if _until(lambda: search(mark), ANSWER_LIMIT) is None:
        return Check(
            "logs", "fail", f"invoke logs does not find a line that PostgreSQL logged {ANSWER_LIMIT:.0f} s ago"
        )
    return Check("logs", "ok", "a line logged by PostgreSQL is found by invoke logs --since 1m --grep")


def write_log_line(ends: Endpoints, text: str) -> None:
    """Make the server write a line into its log, over a plain connection."""
    from psycopg import sql

    body = sql.SQL("do $$ begin raise log '%', {}; end $$").format(sql.Literal(text))
    with database.session(ends.database_url("postgres"), "write a line into its log", name=_NAME) as link:
        link.execute(body)


@dataclass(frozen=True)
class Outcome:
    """The outcome of a query: an error, or true when it gave data; `unmade`: the first training makes its tables."""

    query: dashboards.Query
    error: str = ""
    data: bool = False
    unmade: bool = False


def board_checks(sources: Sources, root: Path, shipped: bool) -> list[Check]:
    """Return each dashboard's queries, asked of the data sources: do they parse, and do they give data."""
    return [_board(name, board, sources, shipped) for name, board in dashboards.boards(root).items()]


def _board(name: str, board: Mapping[str, Any], sources: Sources, shipped: bool) -> Check:
    asked = [q for q in dashboards.queries(board) if _there(q.source, sources.ends)]
    if not asked:
        return Check(f"dashboard.{name}", "warn", f"{board['title']}: its data sources were not started")
    found = [_asked(query, sources) for query in asked]
    if any(o.unmade for o in found):
        return Check(
            f"dashboard.{name}", "warn", f"{board['title']}: there has been no training yet", "invoke train.run"
        )
    wrong = [o for o in found if o.error]
    if wrong:
        first = wrong[0]
        text = f"{board['title']}, {first.query.panel}: {first.error}"
        return Check(f"dashboard.{name}", "fail", text, f"see compose/obs/grafana/dashboards/{name}")
    expected = [o for o in found if shipped or o.query.source != dashboards.LOKI]
    empty = [o.query.panel for o in expected if not o.data]
    text = (
        f"{board['title']}: {len(found)} queries are valid, {len(expected) - len(empty)} of {len(expected)} return data"
    )
    if expected and len(empty) == len(expected):
        return Check(f"dashboard.{name}", "fail", f"{text}", "invoke train.run produces data for it")
    if empty:
        text += f"; without: {', '.join(dict.fromkeys(empty))}"
    return Check(f"dashboard.{name}", "ok", text)


def _there(source: str, ends: Endpoints) -> bool:
    return source in ends.services or source == dashboards.POSTGRES


def _asked(query: dashboards.Query, sources: Sources) -> Outcome:
    import psycopg
    import requests

    try:
        if query.source == dashboards.POSTGRES:
            return Outcome(query, data=_rows(sources.ends, query.runnable))
        return Outcome(query, data=_series(sources, query))
    except psycopg.errors.UndefinedTable:
        return Outcome(query, unmade=True)
    except (requests.RequestException, ValueError, KeyError, psycopg.Error) as error:
        return Outcome(query, " ".join(str(error).split())[:200] or type(error).__name__)


def _rows(ends: Endpoints, text: str) -> bool:
    with database.connect(ends.database_url("platform"), name=_NAME, autocommit=False) as link:
        link.read_only = True
        return bool(link.execute(text.encode()).fetchall())


def _series(sources: Sources, query: dashboards.Query) -> bool:
    if query.source == dashboards.PROMETHEUS:
        answer = sources.get("prometheus", "/api/v1/query", query=query.runnable)
    else:
        since = str(int((time.time() - 3600) * 1e9))
        answer = sources.get("loki", "/loki/api/v1/query_range", query=query.runnable, start=since, limit="5")
    return bool(answer["data"]["result"])


def alert(sources: Sources, paused: AbstractContextManager[None]) -> Check:
    """Check that a service's alert fires when it is stopped and clears when it is back; always starts it again.

    Args:
        paused: Redis is stopped in its block, and ready again afterwards.
    """
    with paused:
        fired = _until(lambda: "redis" in firing(sources), ALERT_LIMIT)
    if fired is None:
        return Check("alert", "fail", f"no alert within {ALERT_LIMIT:.0f} s after Redis was stopped", "check its rules")
    cleared = _until(lambda: "redis" not in firing(sources), ALERT_LIMIT)
    if cleared is None:
        return Check("alert", "fail", f"the Redis alert is still firing {ALERT_LIMIT:.0f} s after Redis was back")
    return Check("alert", "ok", f"an alert fired {fired:.0f} s after Redis was stopped, and cleared in {cleared:.0f} s")


def firing(sources: Sources) -> set[str]:
    """Return the jobs for which an alert fires now."""
    found = sources.get("prometheus", "/api/v1/alerts")["data"]["alerts"]
    return {str(a["labels"].get("job", "")) for a in found if a["state"] == "firing"}


def _until(reached: Callable[[], bool], limit: float) -> float | None:
    """Return the seconds until something was so; None when it was not within the limit."""
    began = time.monotonic()
    while time.monotonic() - began < limit:
        if reached():
            return time.monotonic() - began
        time.sleep(1)
    return None
