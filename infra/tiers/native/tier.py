"""The native tier: the platform as plain processes, from wheels, without Docker."""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from infra import catalog, endpoints, ports, private, stack
from infra.endpoints import Endpoints
from infra.errors import PlatformError
from infra.loglines import LogQuery
from infra.provision import ensure
from infra.supervision import client as supervise
from infra.tiers import port_checks, providers
from infra.tiers.base import (
    Availability,
    Check,
    LogLine,
    Observed,
    Removal,
    ServiceStatus,
    TemporalStorage,
    Tier,
    known_or_why,
)
from infra.tiers.native import checks, mlflow_env, object_store, postgres, services, trash
from infra.tiers.native import logs as native_logs
from infra.tiers.native import status as native_status
from infra.tiers.native.services import Builder
from infra.waiting import Item, Wait

NAME = "native"
STORES = ("postgres", *(s.name for s in catalog.SERVICES if s.login == catalog.STORE_LOGIN))
"""Services that hold the databases and buckets."""


class Native(Tier):
    """The platform as plain processes; `home` holds state, data and logs."""

    name = NAME
    from_images = False
    temporal_storage = TemporalStorage.FILE

    def available(self) -> Availability:
        """Tell whether every program is there."""
        try:
            services.programs(self.context.settings, self.home, self.context.stack.name)
        except PlatformError as error:
            return Availability(False, f"{error.what}; {error.why}".removesuffix("; "), error.steps)
        return Availability(True, "needs only this Python environment")

    @property
    def builder(self) -> Builder:
        """Makes the specifications; found out each time, since which programs serve the data changes with the data."""
        found = services.programs(self.context.settings, self.home, self.context.stack.name)
        return Builder(self.context.settings, self.endpoints(), self.home, found)

    def running(self) -> bool:
        """Return whether a supervisor, or a service that lost its supervisor, runs."""
        home = self._mended()
        return supervise.running(home) or bool(supervise.survivors(home))

    def _mended(self) -> Path:
        """Return the home, with the list of wanted services readable."""
        home = self.home
        if supervise.wish(home) is None and (home / supervise.DESIRED).exists():
            supervise.repair_wish(home, self.builder.core())
        return home

    def outdated(self) -> tuple[str, ...]:
        """Return the core services that run by another specification, or another program, than those of today."""
        asked = {spec.name: spec for spec in supervise.desired(self.home)}
        alive = {state.name for state in supervise.survivors(self.home)}
        pairs = [(spec, asked[spec.name]) for spec in self.builder.core() if spec.name in alive & set(asked)]
        changed = {
            new.name for new, old in pairs if replace(new, generation=old.generation).fingerprint != old.fingerprint
        }
        return tuple(sorted({*changed, *supervise.replaced(self.home)}))

    def endpoints(self) -> Endpoints:
        """Return 127.0.0.1 and the ports of the settings, for the services that are wanted, or core if none is."""
        wanted = tuple(s.name for s in supervise.desired(self.home))
        login = endpoints.mlflow_login(self.context.settings)
        return replace(endpoints.build(self.context.settings, wanted or services.CORE), mlflow=login)

    def engines(self) -> dict[str, str]:
        """Return the program behind each service that could be another."""
        store = self.builder.programs.store.engine
        return dict.fromkeys(services.stores(), store)

    @property
    def advice(self) -> str:
        """Name the way to SeaweedFS, where a stack of an earlier version still has its objects in rclone."""
        settings, used = self.context.settings, self.builder.programs.store.engine
        if used != "rclone" or settings.text("PLATFORM_S3_SERVER"):
            return ""
        better = providers.s3_server(settings).engine
        return (
            ""
            if better == used
            else f"The object stores still use {used}; to move them: invoke minio.engine --to {better}"
        )

    def programs(self) -> dict[str, str]:
        """Return the servers: which program, its version, and where it was found."""
        settings, recorded = self.context.settings, object_store.recorded(self.home)

        def told(server: providers.NativeServer) -> str:
            return known_or_why(lambda: providers.describe(server.find(settings, recorded)))

        return {server.title: told(server) for server in providers.SERVERS.values()}

    def selection(self, obs: bool, only: Sequence[str]) -> tuple[str, ...]:
        """Return the named services and what they need, else the core (with `obs` the overlay); and what runs now."""
        lacking = () if providers.prometheus(self.context.settings) else ("prometheus",)
        overlay = [name for name in services.OVERLAY if name not in lacking]
        wanted = set(catalog.with_needs(only)) if only else {*services.CORE, *(overlay if obs else ())}
        wanted |= {s.name for s in supervise.survivors(self.home)}
        return tuple(s.name for s in catalog.offered(NAME) if s.name in wanted)

    def preflight(self, names: Sequence[str]) -> list[Check]:
        """Check programs, data version, ports, disk and memory."""
        endpoints.refuse_external(self.context.settings, NAME, "remove that setting to use the stores on this machine")
        builder = self.builder
        postgres.check_version(builder.programs.postgres, builder.programs.found["postgres"])
        object_store.check_origins(builder.programs.store.engine, builder.settings)
        origin = self.context.settings.origin("PLATFORM_S3_SERVER")
        object_store.check_layout(builder.home, builder.programs.store, origin)
        object_store.refuse_unfinished(builder.home)
        found = checks.programs(builder.programs)
        claims = self._claims(self._mended(), builder, names)
        found += port_checks.ports(ports.conflicts(builder.endpoints.host, claims), self.context.stack.home)
        return [*found, checks.disk(self.context.stack.home), checks.memory("mlflow" in names)]

    def _claims(self, home: Path, builder: Builder, names: Sequence[str]) -> list[ports.Claim]:
        """Return the ports that are wanted and that our own services do not hold already."""
        alive = {s.name: s for s in supervise.survivors(home)}
        argv = {s.name: s.argv for s in supervise.desired(home)}
        moving = {s.name for s in builder.core() if s.name in alive and argv.get(s.name) != s.argv}
        held = {port for name in moving for port in ports.listening(alive[name].pid or 0)}
        claims = builder.claims([n for n in names if n not in alive or n in moving])
        return [claim for claim in claims if claim.port not in held]

    def start(self, names: Sequence[str], timeout: float | None) -> None:
        """Start what is missing; a service that already runs as wanted is left alone."""
        builder, home = self.builder, self.home
        self._prepare(builder, names)
        again = supervise.replaced(home)
        core = [s for s in builder.core() if s.name in names]
        overlay = [n for n in names if n not in services.CORE]
        running = [s for s in supervise.desired(home) if s.name in overlay]
        fresh = "postgres" in names and not builder.programs.postgres.initialised
        if fresh:
            ensure.preload()
            supervise.ensure(home, [s for s in core if s.name != "postgres"], again)
        if "postgres" in names:
            self._make_databases(builder)
        supervise.ensure(home, [*core, *running], () if fresh else again)
        wanted = endpoints.build(self.context.settings, tuple(names))
        if fresh:  # databases and buckets are made while the others still start
            self.wait([s.name for s in core if s.name in STORES], timeout)
            ensure.everything(wanted)
        self.wait([s.name for s in core], timeout)
        if not fresh and set(overlay) - {s.name for s in running}:
            ensure.everything(wanted)
        if overlay:
            supervise.ensure(home, [*core, *self._overlay(overlay)])
            self.wait((), timeout)

    def _make_databases(self, builder: Builder) -> None:
        where, login = builder.programs.postgres, builder.endpoints.postgres
        postgres.install(where, builder.programs.found["postgres"])
        if not where.initialised:
            self.context.console.say("  creating the database directory")
            postgres.initialise(where, builder.home, login.user, login.password)
        postgres.forget_recycled_pid(where)

    def _overlay(self, names: Sequence[str]) -> list[supervise.Spec]:
        builder, specs = self.builder, []
        if "mlflow" in names:
            specs.append(builder.mlflow(mlflow_env.ensure(self.context.settings.root, self.context.console)))
        program = providers.prometheus(self.context.settings)
        if "prometheus" in names and program:
            text = services.prometheus_yaml(builder.targets((*services.CORE, *names)), builder.metrics_logins())
            stack.write_atomic(builder.prometheus_config, text, mode=0o600)
            specs.append(builder.prometheus(program, text))
        return specs

    def _prepare(self, builder: Builder, names: Sequence[str]) -> None:
        """Create the directories and private files that the services expect."""
        try:
            private.directory(builder.home / "data", private.way())
            for directory in (d for name in names for d in builder.directories(name)):
                private.directory(directory)
            for path, text in builder.configs().items():
                stack.write_atomic(path, text, mode=0o600)
            engine = builder.programs.store.engine
            object_store.record(builder.home, engine)
            object_store.ensure_secrets(builder.home, engine)
        except OSError as error:
            raise stack.unwritable(builder.home, error) from error

    def wait(self, names: Sequence[str], timeout: float | None) -> None:
        """Block until the named services (all wanted ones if none is named) are ready."""
        home = self.home
        Wait(self.context.console, lambda: self._items(home, names), timeout).until_ready()

    def _items(self, home: Path, names: Sequence[str]) -> list[Item]:
        supervise.start_supervisor(home)
        # What a supervisor that was killed wrote last is no news.
        states = supervise.states(home) if supervise.supervisor_identity(home) else {}
        specs = [s for s in supervise.desired(home) if not names or s.name in names]
        return [native_status.item(spec, states.get(spec.name)) for spec in specs]

    def stop(self) -> bool:
        """Stop all services in reverse order, then the supervisor."""
        return supervise.stop(self._mended())

    def restart(self, names: Sequence[str]) -> None:
        """Restart and wait."""
        supervise.restart(self.home, names)
        self.wait((), None)

    def status(self) -> list[ServiceStatus]:
        """Return the wanted services with what their processes say."""
        builder, engines, found = self.builder, self.engines(), []
        for spec, state, seen in self._seen():
            moved = _moved(builder, spec) if seen.state == "ready" else ""
            used, engine = native_status.memory(state), engines.get(spec.name, "")
            found.append(replace(seen, detail=moved or seen.detail, memory=used, engine=engine))
        return found

    def processes(self) -> set[tuple[str, int | None]]:
        """Return the ready services with their pids."""
        return {(seen.name, seen.pid) for _, _, seen in self._seen() if seen.state == "ready"}

    def _seen(self) -> list[tuple[supervise.Spec, supervise.State | None, ServiceStatus]]:
        """Return each wanted service: what is asked for, what the supervisor noted, and what that means now."""
        home = self.home
        states, supervised = supervise.known(home), supervise.running(home)
        known = [(spec, states.get(spec.name)) for spec in supervise.desired(home)]
        return [(spec, state, native_status.service(spec, state, supervised)) for spec, state in known]

    def logs(self, names: Sequence[str], query: LogQuery) -> Iterator[LogLine]:
        """Return the lines of the services' log files."""
        return native_logs.lines(self.home / "logs", names, query)

    def observed(self) -> Observed:
        """Name the URLs of all metrics, since Prometheus runs only where it is installed."""
        builder = self.builder
        targets = builder.targets(self.endpoints().services)
        return replace(super().observed(), targets=targets, logins=builder.metrics_logins())

    def stop_services(self, names: Sequence[str]) -> tuple[str, ...]:
        """Stop these services alone and wait until they have ended."""
        home = self._mended()
        gone = tuple(s.name for s in supervise.survivors(home) if s.name in names)
        supervise.ensure(home, [s for s in supervise.desired(home) if s.name not in names])
        supervise.wait_gone(home, gone)
        return gone

    def removals(self, names: Sequence[str]) -> list[Removal]:
        """Return the data directories, with their sizes."""
        builder = self.builder
        known = [s.name for s in catalog.offered(NAME)]
        found = [(name, path) for name in known if not names or name in names for path in builder.data_of(name)]
        return [Removal(name, path, postgres.sizes([path])) for name, path in found if path.exists()]

    def remove(self, removals: Sequence[Removal]) -> None:
        """Remove data directories; what depends on nothing but them (caches) goes too."""
        for removal in removals:
            data = trash.directory(removal)
            # Renamed first: a removal that is cut short leaves no half directory under the real name.
            doomed = data.with_name(f".{data.name}-removed-{time.time_ns()}")
            os.rename(data, doomed)
            shutil.rmtree(doomed, ignore_errors=True)
            self._clear(removal)

    def _clear(self, removal: Removal) -> None:
        """Remove what was of use only beside data that has gone."""
        home, data = self.home, trash.directory(removal)
        for litter in (*_unfinished(data), home / "cache" / removal.service):
            shutil.rmtree(litter, ignore_errors=True)
        if removal.service == "postgres":
            (home / "postgres-data").unlink(missing_ok=True)
        if home not in data.parents:
            _remove_if_empty(data.parent)
        if not any((home / "data" / s.name).exists() for s in catalog.SERVICES if s.login == catalog.STORE_LOGIN):
            (home / "store-engine").unlink(missing_ok=True)

    def stash(self, removal: Removal, into: Path) -> None:
        """Rename the directory into the trash; with a store goes the name of the engine that wrote it."""
        trash.stash(self.home, removal, into)
        self._clear(removal)

    def unstash(self, removal: Removal, kept: Path) -> None:
        """Rename it back."""
        trash.unstash(self.home, removal, kept)


def _moved(builder: Builder, spec: supervise.Spec) -> str:
    """Describe the difference when a service was started with other settings than the present ones; '' when not."""
    question = builder.question(spec.name)
    if question == spec.probe:
        return ""
    port = f" (port {spec.probe['port']})" if spec.probe.get("port") != question.get("port") else ""
    return f"was started with other settings{port}; `invoke up` applies the current ones"


def _unfinished(data: Path) -> list[Path]:
    """List what an initdb, or a removal, that was killed has left beside a data directory."""
    return [p for kind in ("new", "removed") for p in data.parent.glob(f".{data.name}-{kind}-*")]


def _remove_if_empty(directory: Path) -> None:
    with contextlib.suppress(OSError):
        directory.rmdir()
