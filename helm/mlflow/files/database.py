"""MLflow's tables: `prepare` makes them, or brings them to the version of this MLflow; `wait` waits for that.

Where the database is, and the login, come by libpq's variables (PGHOST, PGUSER, PGPASSWORD, PGSSLMODE ...): no password
on the command line, and none that a URL would have to escape. MLflow's tables have a schema of their own.
"""

import os
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import psycopg2
from alembic.script import ScriptDirectory
from alembic.util import CommandError

SCHEMA = os.environ["MLFLOW_SCHEMA"]
URI = f"postgresql+psycopg2://?options=-csearch_path%3D{SCHEMA}"
LOCK = 0x6D6C666C6F77
"""Number of PostgreSQL's advisory lock: one program at a time changes the tables."""
REFUSALS = 20
"""Refused logins in a row, a second apart, after which this is taken for an earlier password."""
NEWER = 8
"""Exit status: the tables are those of a newer MLflow."""


def revisions():
    """The versions of the tables that this MLflow knows."""
    package = find_spec("mlflow").submodule_search_locations[0]
    return ScriptDirectory(str(Path(package) / "store" / "db_migrations"))


def connect():
    """A connection, as soon as the server gives one; ends where the login is refused for long.

    The container that follows has the password that the Secret has by then.
    """
    refused = 0
    while True:
        try:
            return psycopg2.connect("", connect_timeout=5)
        except psycopg2.OperationalError as error:
            print(error, flush=True)
            refused = refused + 1 if "password authentication failed" in str(error) else 0
        if refused >= REFUSALS:
            sys.exit("the login is refused")
        time.sleep(1)


def version(connection):
    """The version that the tables have; '' when there are none."""
    with connection, connection.cursor() as cursor:
        cursor.execute("SELECT to_regclass(%s)", [f'"{SCHEMA}".alembic_version'])
        if cursor.fetchone()[0] is None:
            return ""
        cursor.execute(f'SELECT version_num FROM "{SCHEMA}".alembic_version')
        found = cursor.fetchone()
        return found[0] if found else ""


def refuse_newer(known, there):
    """End where the tables are those of a newer MLflow: there is no way back but a restore."""
    try:
        known.get_revision(there)
    except CommandError:
        sys.stderr.write(f"MLflow's tables have version {there}, which this MLflow does not know: it is too old\n")
        sys.exit(NEWER)


def prepare():
    """Make the tables, or bring them to the newest version; nothing where they have it."""
    known, connection = revisions(), connect()
    with connection, connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_lock(%s)", [LOCK])  # of the session: it outlives the transaction
        cursor.execute(f'CREATE SCHEMA IF NOT EXISTS "{SCHEMA}"')
    there = version(connection)
    if not there:
        from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

        SqlAlchemyStore(URI, "mlflow-artifacts:/")
    elif there != known.get_current_head():
        refuse_newer(known, there)
        subprocess.run(["mlflow", "db", "upgrade", URI], check=True)
    print(f"the tables have version {version(connection)}", flush=True)
    connection.close()


def wait():
    """Block until the tables have the version of this MLflow."""
    known, connection = revisions(), connect()
    while (there := version(connection)) != known.get_current_head():
        if there:
            refuse_newer(known, there)
        print(f"waiting for version {known.get_current_head()} of the tables, they have {there or 'none'}", flush=True)
        time.sleep(2)
    connection.close()


if __name__ == "__main__":
    {"prepare": prepare, "wait": wait}[sys.argv[1]]()
