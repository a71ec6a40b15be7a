"""Jobs, experiments and metrics in the database `platform`."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TypeVar

from infra import database
from infra.training.contract import Contract, connect_database
from infra.training.patience import BUDGET, patiently

if TYPE_CHECKING:
    import psycopg

T = TypeVar("T")

FINAL = ("succeeded", "failed", "cancelled")

_COLUMNS = """
    j.id, e.name, j.state, j.command, j.config, j.attempt, j.epochs, j.error, j.last_lines, j.val_accuracy,
    j.heldout_accuracy, j.weights, j.report, j.tracking, j.created_at, j.started_at, j.finished_at,
    (SELECT max(m.epoch) FROM metrics m WHERE m.job_id = j.id), to_jsonb(j) ->> 'note'
"""
_SELECT = f"SELECT {_COLUMNS} FROM jobs j JOIN experiments e ON e.id = j.experiment_id"

_ADD = """
WITH wanted AS (
    INSERT INTO experiments (name) VALUES (%(experiment)s)
    ON CONFLICT (name) DO UPDATE SET name = excluded.name RETURNING id
)
INSERT INTO jobs (id, experiment_id, command, config, epochs, record)
SELECT %(id)s, wanted.id, %(command)s, %(config)s, %(epochs)s, %(record)s FROM wanted
ON CONFLICT (id) DO NOTHING
"""
# The lock on the job's row makes a write and a newer try exclude each other.
_RECORD = """
WITH mine AS (
    SELECT id FROM jobs WHERE id = %(id)s AND attempt = %(attempt)s AND NOT state = ANY(%(final)s) FOR SHARE
), given AS (
    SELECT * FROM unnest(%(epochs)s::int[], %(names)s::text[], %(values)s::float8[]) AS t (epoch, name, value)
), written AS (
    INSERT INTO metrics (job_id, epoch, name, value)
    SELECT mine.id, given.epoch, given.name, given.value FROM mine, given
    ON CONFLICT (job_id, epoch, name) DO UPDATE SET value = excluded.value, at = excluded.at
)
SELECT id FROM mine
"""


_PASSING = ("08", "25006", "40", "53", "55P03", "57")
"""SQLSTATEs of what passes: connections, a server that is just a copy, conflicts, resources, locks, a start or stop."""


class Superseded(Exception):
    """The job has ended or a newer try runs it: this one may not write any more and has to stop."""


@dataclass(frozen=True)
class Job:
    """A training as the database knows it; times are UTC; `epoch` is the last one with metrics.

    `note` is what one in a cluster waits for.
    """

    id: str
    experiment: str
    state: str
    command: str | None
    config: Mapping[str, Any]
    attempt: int
    epochs: int | None
    error: str | None
    last_lines: str | None
    val_accuracy: float | None
    heldout_accuracy: float | None
    weights: str | None
    report: str | None
    tracking: Mapping[str, Mapping[str, str]]
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    epoch: int | None
    note: str | None = None

    @property
    def final(self) -> bool:
        """Return whether it has ended."""
        return self.state in FINAL

    @property
    def sweep(self) -> str:
        """Return the sweep that it is a training of; '' for none."""
        return str(self.config.get("sweep", ""))

    @property
    def workers(self) -> int:
        """Return the number of processes that train together."""
        return int(self.config.get("workers", 1))

    @property
    def seconds(self) -> float:
        """From the order to the end, or till now."""
        return ((self.finished_at or datetime.now(UTC)) - self.created_at).total_seconds()


@dataclass(frozen=True)
class Metric:
    """One number of one epoch."""

    epoch: int
    name: str
    value: float
    at: datetime


@dataclass(frozen=True)
class Row:
    """A metric that is to be written."""

    epoch: int
    name: str
    value: float


class Jobs:
    """All statements on these tables. Each may be repeated, so a lost connection is simply made again.

    Raises (every method):
        Unavailable: PostgreSQL did not answer for the whole budget.
        psycopg.Error: it answered with an error, e.g. a refused login or missing tables.
    """

    def __init__(self, contract: Contract, budget: float = BUDGET) -> None:
        self._contract, self._budget = contract, budget
        self._connection: psycopg.Connection[tuple[Any, ...]] | None = None

    def close(self) -> None:
        """Close the connection; the next statement would open another."""
        if self._connection is not None:
            with contextlib.suppress(Exception):
                self._connection.close()
        self._connection = None

    def migrate(self) -> list[int]:
        """Bring the tables up to date; the numbers of the migrations applied now.

        Raises:
            PlatformError: DATA_INCOMPATIBLE.
        """
        from infra.provision.migrate import migrate

        return self._patient(migrate)

    def add(
        self,
        job: str,
        experiment: str,
        command: str | None,
        config: Mapping[str, Any],
        epochs: int | None,
        record: Mapping[str, Any] | None = None,
    ) -> None:
        """Note a new job as queued, and its experiment where that is new."""
        values = {"id": job, "experiment": experiment, "command": command, "epochs": epochs}
        values["record"] = json.dumps(record or {}).replace("\\u0000", "")  # which PostgreSQL's jsonb cannot hold
        self._run(_ADD, {**values, "config": json.dumps(config)})

    def get(self, job: str) -> Job | None:
        """Return a job, or None."""
        return next(iter(self._jobs(f"{_SELECT} WHERE j.id = %(id)s", {"id": job})), None)

    def newest(self, limit: int, experiment: str = "") -> list[Job]:
        """Return the newest jobs, newest first; of one experiment where it is named."""
        only = "WHERE e.name = %(experiment)s" if experiment else ""
        values = {"limit": limit, "experiment": experiment}
        return self._jobs(f"{_SELECT} {only} ORDER BY j.created_at DESC, j.id LIMIT %(limit)s", values)

    def record_of(self, job: str) -> dict[str, Any]:
        """Return what was recorded with a job; {} for one of an earlier version, whose table may lack the column."""
        rows = self._run("SELECT to_jsonb(j) -> 'record' FROM jobs j WHERE id = %(id)s", {"id": job})
        return dict(rows[0][0] or {}) if rows else {}

    def extremes(self, jobs: Sequence[str]) -> list[tuple[str, str, float, float]]:
        """Return the least and the greatest value of each metric of some jobs, of those that are numbers."""
        sql = """
            SELECT job_id, name, min(value), max(value) FROM metrics
            WHERE job_id = ANY(%(ids)s) AND value > '-Infinity' AND value < 'Infinity' GROUP BY job_id, name
        """
        return [(str(j), str(n), float(a), float(b)) for j, n, a, b in self._run(sql, {"ids": list(jobs)})]

    def trials(self, sweep: str) -> list[Job]:
        """Return the trainings of a sweep, in the order of their ids."""
        return self._jobs(f"{_SELECT} WHERE j.config->>'sweep' = %(sweep)s ORDER BY j.id", {"sweep": sweep})

    def last_values(self, sweep: str, metric: str) -> dict[str, float]:
        """Return, by training of a sweep, the last value of a metric."""
        sql = """
            SELECT DISTINCT ON (m.job_id) m.job_id, m.value FROM metrics m JOIN jobs j ON j.id = m.job_id
            WHERE j.config->>'sweep' = %(sweep)s AND m.name = %(metric)s ORDER BY m.job_id, m.epoch DESC
        """
        return dict(self._run(sql, {"sweep": sweep, "metric": metric}))

    def unfinished(self) -> int:
        """Count the jobs that are queued, in preparation or running."""
        sql = "SELECT count(*) FROM jobs WHERE NOT state = ANY(%(final)s)"
        return int(self._run(sql, {"final": list(FINAL)})[0][0])

    def prepare(self, job: str) -> bool:
        """Set a job to preparing; False when it has ended (or is unknown)."""
        sql = "UPDATE jobs SET state = 'preparing' WHERE id = %(id)s AND NOT state = ANY(%(final)s) RETURNING id"
        return bool(self._run(sql, {"id": job, "final": list(FINAL)}))

    def claim(self, job: str) -> int | None:
        """Begin a new try: running, with the next attempt number, which is returned; None when it has ended."""
        sql = """
            UPDATE jobs SET state = 'running', attempt = attempt + 1, started_at = coalesce(started_at, now())
            WHERE id = %(id)s AND NOT state = ANY(%(final)s) RETURNING attempt
        """
        rows = self._run(sql, {"id": job, "final": list(FINAL)})
        return int(rows[0][0]) if rows else None

    def record(self, job: str, attempt: int, epoch: int, metrics: Mapping[str, float]) -> None:
        """Write (or overwrite) an epoch's metrics; with none it only asks whether the try is still the current one.

        Raises:
            Superseded: it is not.
        """
        self.record_rows(job, attempt, [Row(epoch, name, value) for name, value in metrics.items()])

    def record_rows(self, job: str, attempt: int, rows: Sequence[Row]) -> None:
        """Write (or overwrite) metrics of several epochs, each name of an epoch once. Raises as `record`."""
        columns: Any = list(zip(*((r.epoch, r.name, r.value) for r in rows), strict=True)) or [(), (), ()]
        values = dict(zip(("epochs", "names", "values"), map(list, columns), strict=True))
        if not self._run(_RECORD, {"id": job, "attempt": attempt, "final": list(FINAL), **values}):
            raise Superseded(f"job {job} is no longer at attempt {attempt}")

    def set_epochs(self, job: str, attempt: int, epochs: int) -> None:
        """Note how many epochs there will be, as a program of the user's said."""
        sql = "UPDATE jobs SET epochs = %(epochs)s WHERE id = %(id)s AND attempt = %(attempt)s"
        self._run(sql, {"id": job, "attempt": attempt, "epochs": epochs})

    def set_result(self, job: str, attempt: int, **columns: object) -> None:
        """Note what a try has made: columns out of val_accuracy, weights, report, tracking.

        Raises:
            Superseded: the try is not the current one.
        """
        columns = {k: json.dumps(v) if k == "tracking" else v for k, v in columns.items()}
        known = ("val_accuracy", "weights", "report", "tracking")
        sets = ", ".join(f"{name} = %({name})s" for name in known if name in columns)
        sql = f"""
            UPDATE jobs SET {sets}
            WHERE id = %(id)s AND attempt = %(attempt)s AND NOT state = ANY(%(final)s) RETURNING id
        """
        if not self._run(sql, {"id": job, "attempt": attempt, "final": list(FINAL), **columns}):
            raise Superseded(f"job {job} is no longer at attempt {attempt}")

    def set_standing(self, job: str, state: str, note: str) -> None:
        """Note where a training in a cluster stands and what it waits for; one that has ended keeps its state.

        So does one whose pod has just said that it runs.
        """
        sql = """
            UPDATE jobs SET state = CASE WHEN state = 'running' AND %(state)s::text = 'admitted' THEN state
                            ELSE %(state)s::text END,
                            note = nullif(%(note)s, '')
            WHERE id = %(id)s AND NOT state = ANY(%(final)s)
        """
        self._run(sql, {"id": job, "state": state, "note": note.replace("\0", ""), "final": list(FINAL)})

    def set_heldout(self, job: str, accuracy: float) -> None:
        """Note the accuracy on held-out images, 0 to 1."""
        self._run("UPDATE jobs SET heldout_accuracy = %(a)s WHERE id = %(id)s", {"id": job, "a": accuracy})

    def finish(self, job: str, state: str, error: str = "", last_lines: str = "") -> None:
        """Set the final state; a job that has one keeps it."""
        sql = """
            UPDATE jobs SET state = %(state)s, error = nullif(%(error)s, ''), last_lines = nullif(%(lines)s, ''),
                            finished_at = now(), note = NULL
            WHERE id = %(id)s AND NOT state = ANY(%(final)s)
        """
        # PostgreSQL's text cannot hold the null character, which a program's output can.
        texts = {"error": error.replace("\0", ""), "lines": last_lines.replace("\0", "")}
        self._run(sql, {"id": job, "state": state, "final": list(FINAL), **texts})

    def metrics(self, job: str) -> list[Metric]:
        """Return all metrics of a job by epoch and name."""
        sql = "SELECT epoch, name, value, at FROM metrics WHERE job_id = %(id)s ORDER BY epoch, name"
        return [Metric(*row) for row in self._run(sql, {"id": job})]

    def last_metrics(self, job: str) -> dict[str, float]:
        """Return the metrics of the last epoch that has any."""
        sql = """
            SELECT name, value FROM metrics WHERE job_id = %(id)s
            AND epoch = (SELECT max(epoch) FROM metrics WHERE job_id = %(id)s) ORDER BY name
        """
        return dict(self._run(sql, {"id": job}))

    def _jobs(self, sql: str, values: Mapping[str, object]) -> list[Job]:
        return [Job(*row) for row in self._run(sql, values)]

    def _run(self, sql: str, values: Mapping[str, object]) -> Sequence[tuple[Any, ...]]:
        def ask(connection: psycopg.Connection[tuple[Any, ...]]) -> Sequence[tuple[Any, ...]]:
            cursor = connection.execute(sql.encode(), values)
            return cursor.fetchall() if cursor.description else []

        return self._patient(ask)

    def _patient(self, ask: Callable[[psycopg.Connection[tuple[Any, ...]]], T]) -> T:
        def attempt() -> T:
            try:
                self._connection = self._connection or connect_database(self._contract)
                return ask(self._connection)
            except Exception:
                self.close()
                raise

        return patiently(attempt, temporary, "PostgreSQL", self._budget)


def temporary(error: Exception) -> bool:
    """Return whether PostgreSQL may well answer a little later: it is away, starting or stopping."""
    import psycopg

    if not isinstance(error, (psycopg.OperationalError, psycopg.InterfaceError)):
        return False
    # An answer with an SQLSTATE is one: what is too long, say, will be so again.
    if isinstance(error, psycopg.Error) and error.sqlstate and not error.sqlstate.startswith(_PASSING):
        return False
    return not database.sqlstate(error).startswith(("28", "3D", "42"))  # a login, a database, a right to it
