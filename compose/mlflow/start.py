"""Make MLflow's schema, bring its tables to this MLflow's version, then become MLflow's server.

MLflow's tables would collide with the platform's in one schema. Where the database is, and the login, come by libpq's
variables (PGHOST, PGUSER, PGPASSWORD ...): no password on the command line, and none that a URL would have to escape.
Its metrics are at /metrics, where its image has the package for that, as -full has.
"""

import os
import subprocess
import sys
from contextlib import closing
from importlib.util import find_spec
from pathlib import Path

import psycopg2
from alembic.script import ScriptDirectory
from alembic.util import CommandError

SCHEMA = "mlflow"
URI = f"postgresql+psycopg2://?options=-csearch_path%3D{SCHEMA}"
NEWER = 8
"""Exit status: the tables are those of a newer MLflow."""
METRICS = "/dev/shm/mlflow-metrics"
"""Numbers of its processes, in memory."""


def version(cursor) -> str:
    """Return the version that the tables have; '' where there are none yet: the server makes them."""
    cursor.execute("SELECT to_regclass(%s)", [f"{SCHEMA}.alembic_version"])
    if cursor.fetchone()[0] is None:
        return ""
    cursor.execute(f"SELECT version_num FROM {SCHEMA}.alembic_version")
    found = cursor.fetchone()
    return found[0] if found else ""


def bring_up_to_date(there: str) -> None:
    """Bring tables of an earlier MLflow to this one's version; refuse those of a newer one, to which nothing leads."""
    package = Path(find_spec("mlflow").submodule_search_locations[0])
    known = ScriptDirectory(str(package / "store" / "db_migrations"))
    if there == known.get_current_head():
        return
    try:
        known.get_revision(there)
    except CommandError:
        sys.stderr.write(f"MLflow's tables have version {there}, which this MLflow does not know: it is too old\n")
        sys.exit(NEWER)
    subprocess.run(["mlflow", "db", "upgrade", URI], check=True)


def main() -> None:
    """Idempotent: runs at every start of the container."""
    with closing(psycopg2.connect("")) as opened, opened as connection, connection.cursor() as cursor:
        cursor.execute(f"CREATE SCHEMA IF NOT EXISTS {SCHEMA}")
        there = version(cursor)
    if there:
        bring_up_to_date(there)
    os.environ["MLFLOW_BACKEND_STORE_URI"] = URI
    metrics = ["--expose-prometheus", METRICS] if find_spec("prometheus_flask_exporter") else []
    options = ["--host", "0.0.0.0", "--port", "5000", "--workers", "1", "--serve-artifacts", *metrics]
    os.execvp("mlflow", ["mlflow", "server", *options])


main()
