"""Container images: which, are they there, pull, lock, check, carry to a machine without a network."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from infra.console import Answer, Table, human_bytes
from infra.context import Context
from infra.errors import ExitCode, PlatformError
from infra.tasks.command import command

if TYPE_CHECKING:
    from infra import images, registry
    from infra.docker_engine import Engine

AT_ONCE = 8
HEARTBEAT = 5.0
"""Seconds between lines of progress."""
OBS = "include the observability images (MLflow, Loki, Alloy, Prometheus, Grafana, exporters)"
CLEARML = "include the images of ClearML"


@command("list", log=False)
def list_(context: Context) -> Answer:
    """List every image: setting, reference, its source, and whether Docker has it.

    Example: invoke images.list
    """
    from infra import images

    local = _local_or_none()
    rows, data = [], []
    for image in images.images(context.settings, local or ()):
        here = None if local is None else not _absent([image.reference], local)
        data.append({**vars(image), "local": here})
        rows.append((image.setting, image.reference, image.origin, "?" if here is None else "yes" if here else "no"))
    lines = () if local is not None else ("no Docker engine answers, so it is unknown which images are local",)
    names = tuple(str(entry["reference"]) for entry in data)
    return Answer({"images": data}, Table(("setting", "reference", "from", "local"), tuple(rows)), lines, names=names)


@command(help={"obs": OBS, "clearml": CLEARML})
def pull(context: Context, obs: bool = False, clearml: bool = False) -> Answer:
    """Pull the compose tier's images that Docker does not have, several at once.

    Example: invoke images.pull --obs
    """
    from infra import docker_engine
    from infra import pull as image_pull

    engine = docker_engine.find()
    local = _local(engine)
    wanted = _wanted(context, local, obs, clearml)
    absent = _absent(wanted, local)
    mirrors = _mirrors(context)
    if absent:
        image_pull.pull(lambda: docker_engine.client(engine), absent, mirrors, context.console)
    lines = (f"{len(absent)} pulled, {len(wanted) - len(absent)} were already present",)
    return Answer({"pulled": absent, "present": [r for r in wanted if r not in absent]}, lines=lines)


@command()
def lock(context: Context) -> Answer:
    """Ask the registries for the digest of each image and write compose/images.lock.json.

    From then on compose and kind use exactly these. Nothing is written unless all of them could be asked.

    Example: invoke images.lock
    """
    from infra import images, registry

    found = _asked(context, list(dict.fromkeys(images.declared(context.settings.root).values())))
    _refuse_unreachable([f for f in found if f.state in (registry.UNREACHABLE, registry.LIMITED)], found)
    gone = [f for f in found if f.state != registry.THERE]
    if gone:
        raise PlatformError(
            "IMAGE_UNAVAILABLE",
            f"nothing was locked: {len(gone)} of {len(found)} images are not available",
            why="; ".join(f"{f.reference}: {f.state} ({f.why})" for f in gone),
            steps=("replace them, e.g. POSTGRES_IMAGE=... in .env", "invoke images.verify"),
            details={"images": [vars(f) for f in gone]},
        )
    return _lock_written(context, {f.reference: f.digest for f in found})


def _lock_written(context: Context, digests: dict[str, str]) -> Answer:
    from infra import images
    from infra.stack import write_atomic

    path = context.settings.root / images.LOCK
    before = images.locked(context.settings.root) if path.exists() else {}
    write_atomic(path, images.lock_text(digests))
    rows = tuple((ref, digest, _change(before.get(ref), digest)) for ref, digest in digests.items())
    data = {"path": str(path), "images": digests}
    return Answer(data, Table(("reference", "digest", ""), rows), (f"wrote {path}",))


def _change(before: str | None, now: str) -> str:
    return "new" if before is None else "as before" if before == now else "changed"


@command()
def verify(context: Context) -> Answer:
    """Check with the registries that each image in use still exists and still matches its lock.

    An image that was built on this machine, and that a setting names, is in no registry: nobody is asked for it.

    Example: invoke images.verify
    """
    from infra import images, registry

    locked = images.locked(context.settings.root)
    used = [i for i in images.images(context.settings) if i.setting not in images.BUILT_HERE]
    made = _made_here() & {i.reference for i in used if i.reference == context.settings.text(i.setting)}
    found = {ref: registry.RegistryAnswer(ref, registry.LOCAL, why="built on this machine") for ref in made}
    found |= {f.reference: f for f in _asked(context, [r for r in _each(used) if r not in made])}
    if made != found.keys() and all(
        f.state in (registry.UNREACHABLE, registry.LIMITED, registry.LOCAL) for f in found.values()
    ):
        asked = [f for f in found.values() if f.state != registry.LOCAL]
        _refuse_unreachable(asked, asked)
    rows = [(i.setting, i.reference, found[i.reference].state, _note(found[i.reference], locked)) for i in used]
    gone = [f for f in found.values() if f.state in (registry.GONE, registry.REFUSED)]
    unclear = [f for f in found.values() if f.state in (registry.UNREACHABLE, registry.LIMITED)]
    code = ExitCode.PARTIAL if gone else ExitCode.DEPENDENCY if unclear else ExitCode.OK
    table = Table(("setting", "reference", "state", ""), tuple(rows))
    data = {"images": [{"setting": i.setting, **vars(found[i.reference])} for i in used]}
    return Answer(data, table, _verdict(found, gone, unclear), names=tuple(f.reference for f in gone), exit=int(code))


def _each(used: Sequence[images.Image]) -> list[str]:
    return list(dict.fromkeys(i.reference for i in used))


def _made_here() -> set[str]:
    """Return the images that Docker never pulled from a registry or pushed to one; none without an engine."""
    from infra import docker_engine

    try:
        listed = docker_engine.ask(docker_engine.find().place, "/images/json")
    except (PlatformError, OSError, ValueError):
        return set()
    alone = [image for image in listed if not image.get("RepoDigests")]
    return {tag for image in alone for tag in image.get("RepoTags") or ()}


def _verdict(found: dict[str, Any], gone: list[Any], unclear: list[Any]) -> tuple[str, ...]:
    from infra import registry

    own = sum(f.state == registry.LOCAL for f in found.values())
    if not gone and not unclear:
        return (f"all {len(found)} images are available{f', {own} of them built on this machine' if own else ''}",)
    lines = [f"{f.reference} is no longer available: replace it in .env (see .env.example)" for f in gone]
    return (*lines, *(f"{f.reference} could not be checked: {f.why}" for f in unclear))


def _note(finding: registry.RegistryAnswer, locked: dict[str, str]) -> str:
    from infra import registry

    if finding.state != registry.THERE:
        return finding.why
    known = locked.get(finding.reference)
    return (
        "its tag now points to another image than the locked one"
        if known not in (None, finding.digest)
        else finding.digest[:19]
    )


@command(help={"path": "file to write", "obs": OBS, "clearml": CLEARML})
def bundle(context: Context, path: str = "platform-images.tar", obs: bool = False, clearml: bool = False) -> Answer:
    """Write the images to one file, for a machine without network access; they must be local.

    Example: invoke images.bundle --obs --path images.tar
    """
    from infra import docker_engine, image_archive, shell

    engine = docker_engine.find()
    local = _local(engine)
    wanted = [r.partition("@")[0] for r in _wanted(context, local, obs, clearml)]
    absent = _absent(wanted, local)
    if absent:
        steps = (f"invoke images.pull{' --obs' if obs else ''}{' --clearml' if clearml else ''}",)
        raise PlatformError("NOT_FOUND", f"not local: {', '.join(absent)}", steps=steps)
    target = Path(path).expanduser().absolute()
    client = docker_engine.client(engine)
    digest = image_archive.save(client, wanted, target, _progress(context, "written"))
    size = target.stat().st_size
    lines = (
        f"wrote {target}: {len(wanted)} images, {human_bytes(size)}",
        f"SHA-256 {digest}",
        f"there: {shell.typed('invoke', 'images.load', '--path', target.name)}",
    )
    return Answer({"path": str(target), "bytes": size, "sha256": digest, "images": wanted}, lines=lines)


@command(help={"path": "file written by images.bundle"})
def load(context: Context, path: str = "platform-images.tar") -> Answer:
    """Load the images of a file into Docker.

    Example: invoke images.load --path images.tar
    """
    from infra import docker_engine, image_archive

    engine = docker_engine.find()
    source = Path(path).expanduser().absolute()
    loaded = image_archive.load(docker_engine.client(engine), source, _progress(context, "read"))
    local = _local(engine)
    absent = _absent(_wanted(context, local, False, False), local)
    lines = [f"{len(loaded)} images are local now"]
    lines += [f"the core still lacks {r}" for r in absent] or [
        "the core has all the images it needs: invoke compose.up"
    ]
    return Answer({"images": loaded, "missing": absent}, lines=tuple(lines), names=tuple(loaded))


TASKS = (list_, pull, lock, verify, bundle, load)


def _wanted(context: Context, local: set[str], obs: bool, clearml: bool) -> list[str]:
    from infra import images

    chosen = images.references(context.settings, local)
    return list(dict.fromkeys(chosen[name] for name in images.needed(context.settings, obs, clearml)))


def _mirrors(context: Context) -> tuple[str, ...]:
    return context.settings.words("PLATFORM_IMAGE_MIRRORS")


def _asked(context: Context, references: Sequence[str]) -> list[registry.RegistryAnswer]:
    from concurrent.futures import ThreadPoolExecutor

    from infra import registry

    mirrors = _mirrors(context)
    context.console.say(f"  asking registries for {len(references)} images", "dim")
    with ThreadPoolExecutor(AT_ONCE) as pool:
        return list(pool.map(lambda reference: registry.look_up(reference, mirrors), references))


def _refuse_unreachable(bad: list[registry.RegistryAnswer], asked: list[registry.RegistryAnswer]) -> None:
    from infra import registry

    if not bad:
        return
    limited = any(f.state == registry.LIMITED for f in bad)
    raise PlatformError(
        "REGISTRY_UNREACHABLE",
        f"{'rate limited' if limited else 'no answer'} for {len(bad)} of {len(asked)} images; nothing was changed",
        why="; ".join(dict.fromkeys(f"{f.where}: {f.why}" for f in bad)),
        steps=(
            "try again later, or set PLATFORM_IMAGE_MIRRORS"
            if limited
            else "try again where the registries can be reached; behind a proxy set HTTPS_PROXY",
        ),
        details={"images": [vars(f) for f in bad]},
    )


def _local(engine: Engine) -> set[str]:
    """Return the engine's images, as name:tag and name@digest."""
    from infra import docker_engine
    from infra import pull as image_pull

    return set(image_pull.tags(docker_engine.ask(engine.place, "/images/json")))


def _absent(references: Sequence[str], local: set[str]) -> list[str]:
    from infra import pull as image_pull

    return image_pull.missing(references, dict.fromkeys(local, ""))


def _local_or_none() -> set[str] | None:
    from infra import docker_engine

    try:
        return _local(docker_engine.find())
    except PlatformError:
        return None


def _progress(context: Context, verb: str) -> Callable[[int], None]:
    last = time.monotonic()

    def note(done: int) -> None:
        nonlocal last
        if time.monotonic() - last >= (1.0 if context.console.live else HEARTBEAT):
            last = time.monotonic()
            context.console.say(f"  {human_bytes(done)} {verb}", "dim")

    return note
