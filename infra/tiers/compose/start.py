"""Starting: what is pulled, how Compose is called, and which containers give way."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from infra import catalog, docker_engine, endpoints, private, stack
from infra import pull as image_pull
from infra.errors import PlatformError
from infra.tiers import answering, providers
from infra.tiers.compose import cli, data, model, project, state
from infra.tiers.compose.model import ComposePart
from infra.tiers.compose.preflight import as_wanted, changed_mounts, mounts
from infra.tiers.compose.session import A_MOMENT, Applied, Session, make_figures, note
from infra.tiers.compose.wait import run

PATIENCE = 30.0
"""Seconds between a passed health check and an answer to the functional question; usually none."""
UP = ("up", "--detach", "--no-build", "--pull", "never")


def overlay(session: Session) -> tuple[str, ...]:
    """Return the observability services that the files have and that are not left out."""
    left_out = cli.left_out(session.context.settings)
    return tuple(n for n in catalog.OBSERVABILITY if session.model.of(n) and n not in left_out)


def start(session: Session, names: Sequence[str], timeout: float | None) -> None:
    """Pull, start, wait; nothing at all when everything is as wanted."""
    parts = session.parts(names)
    if as_wanted(session, parts, session.containers(A_MOMENT)):
        return
    _prepare(session, names)
    pull(session, parts)
    stale = changed_mounts(session, parts)
    last = session.applied or Applied()
    note(session.home, replace(last, services=tuple(names), fingerprint=""))
    project.claim(session.client, session.project, session.context.stack)
    end_strangers(session, session.glance())
    end_broken(session, parts)
    if parts:  # else all are elsewhere; Compose without a name takes all that the files have
        run(session, parts, timeout, *UP, *(p.name for p in parts))
    if stale:
        run(session, parts, timeout, *UP, "--no-deps", "--force-recreate", *stale)
    answers(session, names)
    made = {name: c.id for name, c in session.containers().items()}
    note(session.home, Applied(tuple(names), session.model.fingerprint, made, mounts(session, parts)))
    _remember_major(session, parts)


def end_broken(session: Session, parts: Sequence[ComposePart]) -> None:
    """Stop containers of an earlier start that crash again and again or are unhealthy.

    Compose starts or recreates them; until then the watch would take their old failure for one of this start.
    """
    there = session.containers()
    for part in parts:
        container = there.get(part.name)
        if container and state.is_broken(part, container):
            session.client.stop(container.id)


def end_strangers(session: Session, there: Sequence[project.Listed]) -> None:
    """Remove containers of services that the files of before had: another engine's, or Temporal's in another form.

    They would hold ports that others need by now; their volumes stay. Containers that none of our files has ever had
    belong to others.
    """
    for container in there:
        if container.part not in session.model.parts and model.owner_of(container.part):
            session.client.stop(container.name)
            session.client.remove_container(container.name)


def recreate(session: Session, names: Sequence[str], timeout: float | None) -> None:
    """Recreate the containers of services, whatever their state; volumes stay."""
    parts = [part for name in names for part in session.model.of(name)]
    if not parts:  # it is elsewhere
        return
    _prepare(session, names)
    pull(session, parts)
    run(session, parts, timeout, *UP, "--no-deps", "--force-recreate", *(p.name for p in parts))


def stop_services(session: Session, names: Sequence[str]) -> tuple[str, ...]:
    """Remove the containers of these services; their data stays. Returns the services that had one."""
    there = session.containers()
    parts = [p.name for name in names for p in session.model.of(name) if p.name in there]
    gone = tuple(n for n in names if any(p.name in there for p in session.model.of(n)))
    if parts:
        session.compose.run("rm", "--stop", "--force", *parts)
    last = session.applied
    if last:
        kept = tuple(n for n in last.services if n not in names)
        note(session.home, replace(last, services=kept))
    return gone


def _prepare(session: Session, names: Sequence[str]) -> None:
    try:
        private.directory(session.home)
    except OSError as error:
        raise stack.unwritable(session.home, error) from error
    make_figures(session.context.settings, session.context.stack.home)
    if "clearml" in names:
        session.make_secret()


def answers(session: Session, names: Sequence[str]) -> None:
    """Give services that are healthy a moment to answer their functional question; what still fails is named later."""
    settings = session.context.settings
    client = providers.postgres_bin(settings).path / f"psql{providers.EXE}"
    ends = endpoints.build(settings, tuple(names), endpoints.external(settings))
    answering.wait(ends, names, client, session.context.console.say, PATIENCE, limit=5.0)


def _remember_major(session: Session, parts: Sequence[ComposePart]) -> None:
    part = next((p for p in parts if p.name == "postgres" and p.volumes), None)
    facts = data.volume_facts(session.client, part.volumes[0]) if part else None
    if part and facts:
        major = data.wanted_major(session.client, part.image)
        session.remember_major(part.volumes[0], str(facts.get("CreatedAt")), major)


def pull(session: Session, parts: Sequence[ComposePart]) -> list[str]:
    """Get the images that are missing; returns which."""
    absent = image_pull.missing([p.image for p in parts], session.images())
    if absent:
        mirrors = session.context.settings.words("PLATFORM_IMAGE_MIRRORS")
        try:
            image_pull.pull(lambda: docker_engine.client(session.engine), absent, mirrors, session.context.console)
        except PlatformError as error:
            raise _without(error, parts, absent) from error
        session.forget_images()
    return absent


def _without(error: PlatformError, parts: Sequence[ComposePart], absent: Sequence[str]) -> PlatformError:
    """Return the error, with how to do without these images where only observability needs them."""
    named = [p.name if p.name in model.OPTIONAL else p.owner for p in parts if p.image in absent]
    lacking = list(dict.fromkeys(named))
    if not {model.owner_of(name) for name in lacking} <= set(catalog.OBSERVABILITY):
        return error
    step = f"or leave it out: PLATFORM_LEAVE_OUT={','.join(lacking)}"
    return PlatformError(error.code, error.what, why=error.why, steps=(*error.steps, step), details=error.details)
