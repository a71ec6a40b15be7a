"""The Compose tier: the platform as containers. Questions go to the engine, actions to `docker compose`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property
from http.client import HTTPException
from pathlib import Path

from infra import catalog, docker_engine, endpoints, pull
from infra.docker_engine import Engine
from infra.endpoints import Endpoints
from infra.errors import PlatformError
from infra.loglines import LogQuery
from infra.tiers.base import Availability, Check, LogLine, Observed, Removal, ServiceStatus, Tier, known_or_why
from infra.tiers.compose import cli, data, model, project
from infra.tiers.compose import logs as compose_logs
from infra.tiers.compose import preflight as compose_preflight
from infra.tiers.compose import start as compose_start
from infra.tiers.compose import status as compose_status
from infra.tiers.compose import wait as compose_wait
from infra.tiers.compose.session import A_MOMENT, NAME, Session, applied

CORE = tuple(s.name for s in catalog.SERVICES if s.overlay == catalog.OVERLAY_CORE)


class Compose(Tier):
    """The platform as containers of Docker Compose."""

    name = NAME

    @cached_property
    def session(self) -> Session:
        """Return what this run knows of the engine and the files."""
        return Session(self.context)

    def available(self) -> Availability:
        """Tell whether an engine answers; preferred only where no image of the core would have to be pulled."""
        try:
            engine = docker_engine.find()
        except PlatformError as error:
            return Availability(False, f"{error.what}; {error.why}".removesuffix("; "), error.steps, error.code)
        try:
            absent = self._absent(engine)
        except PlatformError as error:
            return Availability(True, f"{engine.text} answers, but {error.what}", error.steps, prefer=False)
        if absent:
            reason = f"{engine.text} answers, but {len(absent)} of the core images are not present ({absent[0]} ...)"
            return Availability(True, reason, ("invoke compose.up pulls them",), prefer=False)
        return Availability(True, f"{engine.text} answers, and all images are present")

    def _absent(self, engine: Engine) -> list[str]:
        found = docker_engine.ask(engine.place, "/v1.41/images/json")
        parts = self.session.parts(CORE)
        return pull.missing([p.image for p in parts], pull.tags(found))

    def running(self) -> bool:
        """Return whether a container of this stack runs; without an engine's socket nothing is asked."""
        settings, home = self.context.settings, self.context.stack
        for place in docker_engine.places():
            try:
                seen = project.everything(place)
            except (OSError, ValueError, HTTPException):
                continue
            name = project.name(settings, home, seen)
            return any(c.project == name and c.runs for c in seen)
        return False

    def selection(self, obs: bool, only: Sequence[str]) -> tuple[str, ...]:
        """Return the named services and what they need, else the core (with `obs` the overlay); and what runs now."""
        session = self.session
        overlay = compose_start.overlay(session) if obs else ()
        wanted = set(catalog.with_needs(only)) if only else {*CORE, *overlay}
        running = {model.owner_of(c.part) for c in session.containers(A_MOMENT).values() if c.up}
        return tuple(s.name for s in catalog.offered(NAME) if s.name in wanted | running)

    def preflight(self, names: Sequence[str]) -> list[Check]:
        """Check engine, Compose, ports, images, memory, disk, version of the data, line endings."""
        return compose_preflight.preflight(self.session, names)

    def start(self, names: Sequence[str], timeout: float | None) -> None:
        """Pull what is missing, let Compose start what is not as wanted, wait until it is ready."""
        compose_start.start(self.session, names, timeout)

    def stop(self) -> bool:
        """Remove the containers and the network; volumes stay."""
        session = self.session
        found = session.glance()
        (session.home / "applied.json").unlink(missing_ok=True)
        if not found:
            return False
        compose_start.end_strangers(session, found)
        session.compose.run("down")
        return any(c.runs for c in found)

    def restart(self, services: Sequence[str]) -> None:
        """Restart and wait."""
        session = self.session
        there = session.containers()
        parts = [p.name for name in services for p in session.model.of(name) if p.name in there and not p.ends]
        if parts:  # else they are elsewhere; Compose without a name takes all
            session.compose.run("restart", *parts)
        self.wait(services, None)

    def processes(self) -> set[tuple[str, int | None]]:
        """Return the names and pids of what runs: enough to tell whether `up` has changed anything."""
        return {(c.part, c.pid) for c in self.session.containers().values() if c.up}

    def outdated(self) -> tuple[str, ...]:
        """Return the services whose containers differ from what this checkout would start."""
        return compose_status.outdated(self.session)

    def status(self) -> list[ServiceStatus]:
        """Return the services with what their containers say."""
        session = self.session
        return compose_status.status(session, self.endpoints(), self.engines())

    def wait(self, services: Sequence[str], timeout: float | None) -> None:
        """Block until the services (all that were started, if none is named) are ready."""
        session = self.session
        names = services or self.endpoints().services
        compose_wait.wait(session, session.parts(names), timeout)
        compose_start.answers(session, names)

    def logs(self, services: Sequence[str], query: LogQuery) -> Iterator[LogLine]:
        """Return the lines of the containers' logs."""
        return compose_logs.lines(self.session, services, query)

    def endpoints(self) -> Endpoints:
        """Return 127.0.0.1 and the ports of the settings, for the services that were started, or core if none was."""
        found = applied(self.home)
        names = found.services if found and found.services else CORE
        settings = self.context.settings
        made = endpoints.build(settings, names, endpoints.external(settings))
        return replace(made, mlflow=endpoints.mlflow_login(settings))

    def engines(self) -> dict[str, str]:
        """Return the program behind the object stores, and Temporal's kind."""
        store = cli.store(self.context.settings)
        found = dict.fromkeys(("minio-datasets", "minio-results"), store)
        return found | ({"temporal": "development server"} if self.context.settings.light else {})

    def programs(self) -> dict[str, str]:
        """Return the versions of the engine and Docker Compose."""
        engine = known_or_why(lambda: docker_engine.find().text)
        return {"container engine": engine, "Docker Compose": known_or_why(cli.version)}

    def removals(self, services: Sequence[str]) -> list[Removal]:
        """Return the volumes, with their sizes."""
        session = self.session
        for name in set(services) & set(endpoints.external(self.context.settings)):
            self.context.console.warn(f"{name} is an external S3 service and is not touched")
        return data.removals(session.client, session.model, services)

    def remove(self, removals: Sequence[Removal]) -> None:
        """Remove volumes."""
        session = self.session
        for removal in removals:
            session.client.remove_volume(removal.volume)

    def stash(self, removal: Removal, into: Path) -> None:
        """Copy a volume into the trash, then remove it."""
        session = self.session
        image = data.some_image(session.client, data.image_of(session.model, removal.volume))
        data.stash(session.client, removal, into, image)

    def unstash(self, removal: Removal, kept: Path) -> None:
        """Make the volume again and fill it."""
        session = self.session
        image = data.some_image(session.client, data.image_of(session.model, removal.volume))
        data.unstash(session.client, removal, kept, image)

    def observed(self) -> Observed:
        """Judge by the containers that run: exporters are no services of the catalogue."""
        return compose_status.observed(self.session)

    def stop_services(self, names: Sequence[str]) -> tuple[str, ...]:
        """Remove their containers."""
        return compose_start.stop_services(self.session, names)

    @contextmanager
    def paused(self, name: str) -> Iterator[None]:
        """Stop its container for the block."""
        try:
            self.session.compose.run("stop", name)
            yield
        finally:
            self.session.compose.run("start", name)
            self.wait((name,), None)
