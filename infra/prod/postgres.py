"""PostgreSQL of a site from inside: statements through the primary's own psql, so that no password leaves the cluster.

psql of the operand has TLS and the server's major version, which a psql of this machine need not have.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from infra import shell
from infra.errors import PlatformError
from infra.prod.cluster import Cluster, Object, listed

NAMESPACE, CONTAINER = "platform", "postgres"
RESOURCE, BACKUPS = "clusters.postgresql.cnpg.io", "backups.postgresql.cnpg.io"
PLUGIN = "barman-cloud.cloudnative-pg.io"
"""The plugin that archives and restores; the chart of PostgreSQL names it, too."""
PART = "platform/data"
"""Label of the pods of every Cluster of a site, whatever its name: policies go by it."""


@dataclass(frozen=True)
class SiteServer:
    """A Cluster of CloudNativePG by its name."""

    cluster: Cluster
    name: str

    def live(self) -> Object:
        """Read it. Raises PlatformError NOT_FOUND."""
        found = self.cluster.one(RESOURCE, self.name, NAMESPACE)
        if found is None:
            raise PlatformError("NOT_FOUND", f"there is no Cluster {self.name} in the namespace {NAMESPACE}")
        return found

    def backups(self) -> list[Object]:
        """Return the state of each of its complete backups, the oldest first; `stoppedAt` is in each."""
        items = listed(self.cluster.run("get", BACKUPS, "-n", NAMESPACE, "-o", "json").out)
        mine = [item.get("status") or {} for item in items if item["spec"]["cluster"]["name"] == self.name]
        done = [state for state in mine if state.get("phase") == "completed" and "stoppedAt" in state]
        return sorted(done, key=lambda state: str(state["stoppedAt"]))

    def primary(self) -> str:
        """Return the name of the primary's pod. Raises PlatformError NOT_FOUND or NOT_RUNNING."""
        found = (self.live().get("status") or {}).get("currentPrimary", "")
        if not found:
            raise PlatformError("NOT_RUNNING", f"the Cluster {self.name} has no primary yet")
        return str(found)

    def argv(self, database: str, pod: str = "", first: str = "", **variables: str) -> list[str]:
        """Build the command line of psql in the primary; its script goes to standard input, after the one `first`."""
        given = [word for name, value in variables.items() for word in ("-v", f"{name}={value}")]
        words = ("exec", "-i", "-n", NAMESPACE, pod or self.primary(), "-c", CONTAINER, "--")
        script = [*(("-c", first) if first else ()), "-f", "-"]
        return self.cluster.argv(*words, "psql", "-XqAt", "-v", "ON_ERROR_STOP=1", *given, "-d", database, *script)

    def ask(self, script: str, database: str = "postgres", **variables: str) -> str:
        """Run a script; what it printed. Raises PlatformError SQL_FAILED."""
        done = shell.run(self.argv(database, **variables), stdin=script, check=False, limit=120)
        if done.code:
            raise PlatformError("SQL_FAILED", f"PostgreSQL in {self.name} refused a statement", why=_reason(done))
        return done.out.strip()

    def server_name(self) -> str:
        """Return the name under which it archives, '' where it does not."""
        plugins = self.live()["spec"].get("plugins") or []
        found = [p["parameters"] for p in plugins if p.get("isWALArchiver")]
        return str(found[0].get("serverName") or self.name) if found else ""

    def databases(self) -> list[str]:
        """Return its databases, without the templates and the operator's own."""
        script = "select datname from pg_database where not datistemplate and datname <> 'postgres' order by 1"
        return self.ask(script).split()


def _reason(done: shell.Result) -> str:
    lines = [line for line in done.err.splitlines() if "ERROR" in line or "FATAL" in line]
    return lines[0].strip() if lines else done.last_line


def until(
    what: str,
    look: Callable[[], str],
    budget: float,
    sleep: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> None:
    """Wait until `look` has nothing left to say.

    Raises:
        PlatformError: WAIT_TIMEOUT with what is still missing.
    """
    end, left = clock() + budget, look()
    while left:
        if clock() > end:
            raise PlatformError("WAIT_TIMEOUT", f"{what}: not within {budget:.0f} s", why=left)
        sleep(2.0)
        left = look()


def archived(server: SiteServer, budget: float = 300.0) -> None:
    """Switch to a new WAL file, and wait until everything before it is in the archive.

    Raises:
        PlatformError: WAIT_TIMEOUT, SQL_FAILED.
    """
    # A commit of its own first: a switch on a file without any change since the last one does nothing.
    server.ask("select pg_logical_emit_message(true, 'platform', 'archive');\n")
    wanted = server.ask("select pg_walfile_name(pg_switch_wal());\n")

    def look() -> str:
        last = server.ask("select coalesce(last_archived_wal, '') from pg_stat_archiver;\n")
        return "" if last[:24] >= wanted else f"{wanted} is not archived; the last is {last or 'none'}"

    until("the archive", look, budget)


def recovered(
    name: str,
    live: Object,
    source: str,
    target: Mapping[str, str],
    *,
    instances: int = 1,
    store: str = "",
    labels: Mapping[str, str] | None = None,
) -> Object:
    """Return a Cluster that is made from the archive of another one, and archives nothing itself.

    Args:
        live: the Cluster whose image, sizes and identity it has.
        source: name under which that one archived.
        target: recovery target of CloudNativePG, e.g. `{"targetName": ...}`.
        store: ObjectStore with the archive; default: that of `live`.
    """
    spec = live["spec"]
    kept = {key: spec[key] for key in _KEPT if key in spec}
    parameters = {"barmanObjectName": store or _store(spec), "serverName": source}
    plugin = {"name": PLUGIN, "parameters": parameters}
    return {
        "apiVersion": "postgresql.cnpg.io/v1",
        "kind": "Cluster",
        "metadata": {"name": name, "namespace": NAMESPACE, "labels": dict(labels or {})},
        "spec": {
            **kept,
            "instances": instances,
            "inheritedMetadata": {"labels": {PART: "postgresql"}},
            "enablePDB": False,
            "postgresql": {"parameters": dict((spec.get("postgresql") or {}).get("parameters") or {})},
            "bootstrap": {"recovery": {"source": "origin", "recoveryTarget": dict(target)}},
            "externalClusters": [{"name": "origin", "plugin": plugin}],
        },
    }


_KEPT = (
    *("imageName", "imagePullPolicy", "imagePullSecrets", "postgresUID", "postgresGID", "serviceAccountTemplate"),
    *("storage", "walStorage", "resources", "ephemeralVolumesSizeLimit"),
)


def _store(spec: Mapping[str, Any]) -> str:
    names: Sequence[str] = [p["parameters"]["barmanObjectName"] for p in spec.get("plugins") or []]
    return names[0] if names else ""
