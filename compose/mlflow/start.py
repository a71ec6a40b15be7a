"""Make MLflow's schema, bring its tables to this MLflow's version, then become MLflow's server.

MLflow's tables would collide with the platform's in one schema. Where the database is, and the login, come by libpq's
variables (PGHOST, PGUSER, PGPASSWORD ...): no password on the command line, and none that a URL would have to escape.
Its metrics are at /metrics, where its image has the package for that, as -full has.
"""

import hashlib
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
USER = "admin"
NO_LOGINS = 9
"""Exit status: a login is wanted, and this image of MLflow cannot have one."""


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


def with_login(password: str) -> list[str]:
    """Have the server want a login: its only user has this password. Return the options for that.

    MLflow keeps users beside its other tables, and would read the password at its very first start alone.
    """
    if find_spec("flask_wtf") is None:
        sys.stderr.write("this image of MLflow has no logins: it lacks Flask-WTF, which mlflow[auth] brings\n")
        sys.exit(NO_LOGINS)
    file = Path("/tmp/auth.ini")
    escaped = URI.replace("%", "%%")
    file.write_text(f"[mlflow]\ndefault_permission = READ\ndatabase_uri = {escaped}\n")
    os.environ["MLFLOW_AUTH_CONFIG_PATH"] = str(file)
    os.environ["MLFLOW_AUTH_ADMIN_USERNAME"], os.environ["MLFLOW_AUTH_ADMIN_PASSWORD"] = USER, password
    # For forms of its pages; the same for as long as the password is.
    os.environ["MLFLOW_FLASK_SERVER_SECRET_KEY"] = hashlib.sha256(f"mlflow forms {password}".encode()).hexdigest()
    from mlflow.server.auth.sqlalchemy_store import SqlAlchemyStore

    store = SqlAlchemyStore()
    store.init_db(URI)
    if store.has_user(USER) and not store.authenticate_user(USER, password):
        store.update_user(USER, password=password)
    return ["--app-name", "basic-auth"]


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
    password = os.environ.pop("MLFLOW_LOGIN_PASSWORD", "")
    os.execvp("mlflow", ["mlflow", "server", *options, *(with_login(password) if password else [])])


main()
