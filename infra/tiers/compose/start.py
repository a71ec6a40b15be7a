"""Starting: what is checked first, what is pulled, how Compose is called, what is waited for, and why it failed."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from infra import catalog, docker_engine, endpoints, private, references, stack
from infra import pull as image_pull
from infra.errors import PlatformError
from infra.shell import Running
from infra.tiers import answering, providers, temporal_login
from infra.tiers.base import Check
from infra.tiers.compose import checks, cli, data, external, logs, model, project, state
from infra.tiers.compose.model import Part
from infra.tiers.compose.session import A_MOMENT, Applied, Session, make_figures, note
from infra.tiers.compose.state import Container, Watch
from infra.waiting import FAILED, LAST_LINES, READY, Item, Wait, login_steps

PATIENCE = 30.0
"""Seconds between a passed health check and an answer to the functional question; usually none."""
UP = ("up", "--detach", "--no-build", "--pull", "never")
BUDGET = 180.0
"""Seconds that a part may take to become ready; pulls are not counted."""


def overlay(session: Session) -> tuple[str, ...]:
    """Return the observability services that the files have and that are not left out."""
    left_out = cli.left_out(session.context.settings)
    return tuple(n for n in catalog.OBSERVABILITY if session.model.of(n) and n not in left_out)


def preflight(session: Session, names: Sequence[str]) -> list[Check]:
    """Return all findings; raises PlatformError for an engine, Compose or data that cannot be used at all."""
    parts = session.parts(names)
    found = [Check("engine", "ok", session.engine.text)]
    there = session.containers(A_MOMENT)
    if as_wanted(session, parts, there):
        return [*found, Check("containers", "ok", "all are running as requested")]
    if "temporal" in names:
        temporal_login.refuse_unusable(session.context.settings)
    version = cli.version(session.compose.environ)
    found.append(Check("compose", "ok", f"Docker Compose {version}, project {session.project}"))
    check_data(session, parts, there)
    info, listed, settings = session.client.info(), session.listed(), session.context.settings
    claims = checks.claims(settings, parts)
    return [
        *found,
        *_ownership(session, listed),
        *checks.port_checks("127.0.0.1", claims, listed, session.project),
        checks.images(parts, session.images()),
        checks.memory(int(info.get("MemTotal") or 0), parts),
        checks.disk(str(info.get("DockerRootDir") or "")),
        *checks.line_ends(parts, settings.root),
        *(external.checks(settings) if set(names) & set(catalog.EXTERNAL_STORES) else []),
    ]


def _ownership(session: Session, listed: Sequence[project.Listed]) -> list[Check]:
    """Check that the project's containers do not belong to another checkout."""
    own = project.directory(session.context.settings)
    others = {c.directory for c in listed if c.project == session.project and not _same(c.directory, str(own))}
    if not others:
        return []
    text = f"the Compose project {session.project} belongs to another checkout: {others.pop()}"
    remedy = "stop it there, or set PLATFORM_STACK to another name"
    return [Check("project", "fail", text, remedy)]


def _same(one: str, other: str) -> bool:
    return os.path.normcase(os.path.realpath(one)) == os.path.normcase(os.path.realpath(other))


def check_data(session: Session, parts: Sequence[Part], there: Mapping[str, Container]) -> None:
    """Refuse a volume of another major version of PostgreSQL, before anything touches it.

    Raises:
        PlatformError: DATA_INCOMPATIBLE.
    """
    part = next((p for p in parts if p.name == "postgres"), None)
    if part is None or not part.volumes or (there.get("postgres") and there["postgres"].up):
        return
    volume, client = part.volumes[0], session.client
    facts = data.volume_facts(client, volume)
    if facts is None:
        return
    wanted = data.wanted_major(client, part.image)
    if session.seen_major(volume, str(facts.get("CreatedAt"))) == wanted:
        return
    found = data.postgres_major(client, volume, data.some_image(client, part.image))
    data.refuse_other_major(found, wanted, volume)


def as_wanted(session: Session, parts: Sequence[Part], there: Mapping[str, Container]) -> bool:
    """Return whether all containers are those that were last made for these very settings and files, and do well."""
    last = session.applied
    if last is None or last.fingerprint != session.model.fingerprint:
        return False
    images = session.images()
    return all(_well(p, there.get(p.name), last, images) for p in parts) and not changed_mounts(session, parts)


def _well(part: Part, container: Container | None, last: Applied, images: Mapping[str, str]) -> bool:
    if container is None or last.containers.get(part.name) != container.id:
        return False
    if images.get(references.short(part.image), container.image) != container.image:
        return False  # the tag names another image by now
    if part.ends:
        return container.state == "exited" and container.code == 0
    return container.state == "running" and container.health in ("", "healthy")


def changed_mounts(session: Session, parts: Sequence[Part]) -> list[str]:
    """Return the parts whose mounted files are others than when they were started; Compose itself does not see that."""
    last = session.applied
    before = last.mounts if last else {}
    now = mounts(session, parts)
    return [name for name, digest in now.items() if before.get(name, digest) != digest]


def mounts(session: Session, parts: Sequence[Part]) -> dict[str, str]:
    """Return the digest of each part's mounted files."""
    root = session.context.settings.root
    return {p.name: model.mounts_digest(p, root) for p in parts if p.mounts}


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


def end_broken(session: Session, parts: Sequence[Part]) -> None:
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


def _remember_major(session: Session, parts: Sequence[Part]) -> None:
    part = next((p for p in parts if p.name == "postgres" and p.volumes), None)
    facts = data.volume_facts(session.client, part.volumes[0]) if part else None
    if part and facts:
        major = data.wanted_major(session.client, part.image)
        session.remember_major(part.volumes[0], str(facts.get("CreatedAt")), major)


def pull(session: Session, parts: Sequence[Part]) -> list[str]:
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


def _without(error: PlatformError, parts: Sequence[Part], absent: Sequence[str]) -> PlatformError:
    """Return the error, with how to do without these images where only observability needs them."""
    named = [p.name if p.name in model.OPTIONAL else p.owner for p in parts if p.image in absent]
    lacking = list(dict.fromkeys(named))
    if not {model.owner_of(name) for name in lacking} <= set(catalog.OBSERVABILITY):
        return error
    step = f"or leave it out: PLATFORM_LEAVE_OUT={','.join(lacking)}"
    return PlatformError(error.code, error.what, why=error.why, steps=(*error.steps, step), details=error.details)


def run(session: Session, parts: Sequence[Part], timeout: float | None, *words: str) -> None:
    """Let Compose work while the containers are watched; it is ended when one of them has failed."""
    compose = session.compose.start(*words)
    try:
        wait(session, parts, timeout, compose)
    finally:
        if compose.code() is None:
            compose.stop()


def wait(session: Session, parts: Sequence[Part], timeout: float | None, compose: Running | None = None) -> None:
    """Block until all parts are ready.

    Raises:
        PlatformError: SERVICE_FAILED or WAIT_TIMEOUT with the last lines of the culprit's log; what Compose said.
    """
    events = docker_engine.client(session.engine, limit=None)
    with Watch(session.client, events, session.project) as watch:
        try:
            Wait(session.context.console, poller(parts, watch, compose), timeout).until_ready()
        except PlatformError as error:
            raise explained(session, error, watch.last) from error


def poller(parts: Sequence[Part], watch: Watch, compose: Running | None) -> Callable[[], list[Item]]:
    """Return the function that a wait calls again and again."""
    began = time.time()

    def poll() -> list[Item]:
        code = compose.code() if compose else 0
        busy = code is None
        seen = watch.look(force=not busy and not watch.settled)
        watch.settled = not busy
        items = [_item(p, seen.get(p.name), watch, began, busy) for p in parts]
        if code and not any(i.state == FAILED for i in items) and compose:
            raise compose_failed(compose)
        if busy and all(i.state == READY for i in items):
            items[-1] = replace(items[-1], state="starting", detail="Compose is working")
        return items

    return poll


def _item(part: Part, container: Container | None, watch: Watch, began: float, busy: bool) -> Item:
    verdict = state.judged(part, container, began, part.name in watch.oom, busy)
    return state.item(part, container, verdict, BUDGET)


def compose_failed(compose: Running) -> PlatformError:
    """Explain the failure of a run of Compose in which no container has failed."""
    lines = [line for line in compose.lines if line.strip()]
    why = next((x for x in reversed(lines) if "rror" in x or "ailed" in x), lines[-1] if lines else "")
    code = "PORT_TAKEN" if "port is already allocated" in why or "address already in use" in why else "PROGRAM_FAILED"
    steps = ("invoke doctor", "invoke status --why")
    return PlatformError(code, "docker compose could not start it", why=why, steps=steps, details={"log": lines[-20:]})


def explained(session: Session, error: PlatformError, seen: Mapping[str, Container]) -> PlatformError:
    """Return the error with the last log lines of the part that it blames, and with commands that name it."""
    name = str(error.details.get("service", ""))
    container = seen.get(name)
    if not container or error.details.get("log"):
        return error
    log = logs.last(session.client, container, LAST_LINES)
    owner = model.owner_of(name) or name
    steps = tuple(step.replace(f"-s {name}", f"-s {owner}") for step in error.steps)
    details = {**error.details, "log": log, "path": f"docker logs {container.name}"}
    refused = next((line for line in log if "password authentication failed" in line), "")
    if refused:
        what = f"{error.what}: PostgreSQL refuses its login"
        return PlatformError("LOGIN_REFUSED", what, why=error.why, steps=login_steps("postgres"), details=details)
    return PlatformError(error.code, error.what, why=error.why, steps=steps, details=details)
