"""Make MLflow's schema, then become MLflow's server.

MLflow's tables would collide with the platform's in one schema. Where the database is, and the login, come by libpq's
variables (PGHOST, PGUSER, PGPASSWORD ...): no password on the command line, and none that a URL would have to escape.
Its metrics are at /metrics, where its image has the package for that, as -full has.
"""

import os
from importlib.util import find_spec

import psycopg2

SCHEMA = "mlflow"
METRICS = "/dev/shm/mlflow-metrics"
"""Numbers of its processes, in memory."""


def main() -> None:
    """Idempotent: runs at every start of the container."""
    with psycopg2.connect("") as connection, connection.cursor() as cursor:
        cursor.execute(f"CREATE SCHEMA IF NOT EXISTS {SCHEMA}")
    connection.close()
    os.environ["MLFLOW_BACKEND_STORE_URI"] = f"postgresql+psycopg2://?options=-csearch_path%3D{SCHEMA}"
    metrics = ["--expose-prometheus", METRICS] if find_spec("prometheus_flask_exporter") else []
    options = ["--host", "0.0.0.0", "--port", "5000", "--workers", "1", "--serve-artifacts", *metrics]
    os.execvp("mlflow", ["mlflow", "server", *options])


main()
