"""Checks before a start: can all of it work, and is anything to be done at all?"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

from infra import catalog, references
from infra.tiers import temporal_login
from infra.tiers.base import Check
from infra.tiers.compose import checks, cli, data, external, model, project
from infra.tiers.compose.model import ComposePart
from infra.tiers.compose.session import A_MOMENT, Applied, Session
from infra.tiers.compose.state import Container


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


def check_data(session: Session, parts: Sequence[ComposePart], there: Mapping[str, Container]) -> None:
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


def as_wanted(session: Session, parts: Sequence[ComposePart], there: Mapping[str, Container]) -> bool:
    """Return whether all containers are those that were last made for these very settings and files, and do well."""
    last = session.applied
    if last is None or last.fingerprint != session.model.fingerprint:
        return False
    images = session.images()
    return all(_well(p, there.get(p.name), last, images) for p in parts) and not changed_mounts(session, parts)


def _well(part: ComposePart, container: Container | None, last: Applied, images: Mapping[str, str]) -> bool:
    if container is None or last.containers.get(part.name) != container.id:
        return False
    if images.get(references.short(part.image), container.image) != container.image:
        return False  # the tag names another image by now
    if part.ends:
        return container.state == "exited" and container.code == 0
    return container.state == "running" and container.health in ("", "healthy")


def changed_mounts(session: Session, parts: Sequence[ComposePart]) -> list[str]:
    """Return the parts whose mounted files are others than when they were started; Compose itself does not see that."""
    last = session.applied
    before = last.mounts if last else {}
    now = mounts(session, parts)
    return [name for name, digest in now.items() if before.get(name, digest) != digest]


def mounts(session: Session, parts: Sequence[ComposePart]) -> dict[str, str]:
    """Return the digest of each part's mounted files."""
    root = session.context.settings.root
    return {p.name: model.mounts_digest(p, root) for p in parts if p.mounts}
