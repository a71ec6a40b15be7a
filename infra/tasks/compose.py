"""Docker Compose: the verbs on the compose tier, and what only containers have."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from infra.console import MASK, Answer, Table
from infra.context import Context
from infra.errors import PlatformError, nearest
from infra.tasks import verbs
from infra.tasks.command import command, words

if TYPE_CHECKING:
    from infra.tiers.compose.session import Session
    from infra.tiers.compose.state import Container

TIER = "compose"


@command(
    tier=TIER,
    help={
        "service": "start only this service and what it needs; repeatable, or comma-separated",
        "obs": "also start MLflow, Loki, Prometheus, Grafana and ClearML; remembered",
        "no_obs": verbs.NO_OBS,
        "no_clearml": "with --obs: leave out ClearML",
        "light": "use Temporal's development server instead of the full one; remembered",
        "private": verbs.PRIVATE,
        "no_private": verbs.NO_PRIVATE,
        "force_recreate": "recreate the containers of this service; its data is kept",
        "auto_ports": "choose free ports where the usual ones are taken, and remember them",
        "timeout": "total time limit in seconds; 0: each service's own limit",
    },
    iterable=("service",),
)
def up(
    context: Context,
    service: list[str],
    obs: bool = False,
    no_obs: bool = False,
    no_clearml: bool = False,
    light: bool = False,
    force_recreate: str = "",
    auto_ports: bool = False,
    private: bool = False,
    no_private: bool = False,
    timeout: float = 0.0,
) -> Answer:
    """Start the platform in containers and wait until it works; a second call changes nothing.

    Example: invoke compose.up --obs --no-clearml
    """
    _known(context, words(service), words([force_recreate]))
    context = verbs.with_logins(context, private, no_private)
    if light:
        context = _remember(context, PLATFORM_LIGHT="yes")
    if no_clearml:
        context = verbs.leave_out(context, "clearml")
    if force_recreate:
        _recreate(context, words([force_recreate]), timeout)
    return verbs.started(context, words(service), verbs.observability(obs, no_obs), auto_ports, timeout)


def _known(context: Context, *names: tuple[str, ...]) -> None:
    """Refuse unknown services before anything is remembered or done."""
    from infra import tier_choice

    for some in names:
        tier_choice.known_services(some, tier_choice.tier_of(TIER, context))


def _remember(context: Context, **values: str) -> Context:
    """Remember the settings that an option stands for; return this run with them."""
    from infra import stack

    changed = context.with_values(values, "the command line")
    stack.remember_settings(context.stack, **values)
    return changed


def _recreate(context: Context, names: tuple[str, ...], timeout: float) -> None:
    from infra import stack
    from infra.tiers.compose import start as compose_start

    session = _session(context)
    with stack.lock(context.stack, "up"):
        compose_start.recreate(session, names, timeout or None)


def _session(context: Context) -> Session:
    from infra.tiers.compose.session import Session

    context.console.tier = TIER
    return Session(context)


@command(
    tier=TIER,
    help={"volumes": "also move the data to the trash; see invoke trash.list", "yes": "skip the confirmation prompt"},
)
def down(context: Context, volumes: bool = False, yes: bool = False) -> Answer:
    """Remove the containers and keep the data; with --volumes the data is moved to the trash.

    Example: invoke compose.down
    """
    from infra import lifecycle

    if volumes:
        return verbs.removed(context, (), no_backup=False, yes=yes)
    stopped = lifecycle.down(verbs.choose(context, quiet=True))
    text = "stopped; the data is kept" if stopped else "nothing was running"
    return Answer({"stopped": stopped}, lines=(text, "Next: invoke compose.up"))


@command(tier=TIER, log=False)
def ps(context: Context) -> Answer:
    """List the containers with state, health, image and restarts.

    Example: invoke compose.ps
    """
    session = _session(context)
    found = sorted(session.containers().values(), key=lambda c: c.part)
    rows = tuple((c.part, c.name, _state(c), _image(session, c.part), str(c.restarts or "")) for c in found)
    data = [{k: v for k, v in vars(c).items() if k not in ("image", "directory")} for c in found]
    table = Table(("SERVICE", "CONTAINER", "STATE", "IMAGE", "RESTARTS"), rows) if found else None
    lines = () if found else (f"no container of the project {session.project}. Next: invoke compose.up",)
    return Answer(data, table, lines, names=_names(found))


def _names(found: list[Container]) -> tuple[str, ...]:
    return tuple(c.name for c in found)


def _state(container: Container) -> str:
    ended = f" ({container.code})" if container.state == "exited" else ""
    return f"{container.state}{ended}{f' ({container.health})' if container.health else ''}"


def _image(session: Session, part: str) -> str:
    return session.model.parts[part].image if part in session.model.parts else ""


@command(tier=TIER, help={"obs": "also pull the images of the observability services"})
def pull(context: Context, obs: bool = False) -> Answer:
    """Pull the missing images.

    Example: invoke compose.pull --obs
    """
    from infra.tiers.compose import start as compose_start
    from infra.tiers.compose.tier import CORE

    session = _session(context)
    names = (*CORE, *(compose_start.overlay(session) if obs else ()))
    got = compose_start.pull(session, session.parts(names))
    text = f"pulled: {', '.join(got)}" if got else "all images are present"
    return Answer({"pulled": got}, lines=(text,), names=tuple(got))


@command(tier=TIER, log=False)
def config(context: Context) -> Answer | None:
    """Print the Compose configuration that results from the files and settings, with passwords hidden.

    Example: invoke compose.config
    """
    from infra import catalog

    compose = _session(context).compose
    # Replaced beforehand: in what comes back they are quoted, and a dollar is doubled.
    known = {n: s.default for n, s in catalog.SETTINGS.items() if s.kind == "secret"}
    hidden = {n: MASK for n, default in known.items() if compose.environ.get(n, default) != default}
    done = replace(compose, environ={**compose.environ, **hidden}).run("config", limit=30, check=False)
    if done.code:
        raise PlatformError("SETTING_INVALID", "Docker Compose cannot read its files", why=done.last_line)
    return Answer({"config": done.out}, lines=tuple(done.out.splitlines()))


@command(
    "exec",
    tier=TIER,
    log=False,
    help={"service": "the service", "run_": "command to run, e.g. 'ls -l /'; default: a shell"},
)
def exec_(context: Context, service: str = "postgres", run_: str = "sh") -> Answer | None:
    """Run a command in a container, by default a shell.

    Example: invoke compose.exec --service redis --run 'redis-cli info memory'
    """
    return _inside(context, service, _split(run_) or ["sh"])


@command(tier=TIER, log=False, help={"database": "database to open", "query": "SQL to run instead of opening a prompt"})
def psql(context: Context, database: str = "platform", query: str = "") -> Answer | None:
    """Open psql in the PostgreSQL container.

    Example: invoke compose.psql --database users
    """
    words_ = ["psql", "-U", context.settings.text("POSTGRES_USER"), "-d", database, *(["-c", query] if query else [])]
    return _inside(context, "postgres", words_)


@command(tier=TIER, log=False, help={"run_": "Redis command to run instead of opening a prompt, e.g. ping"})
def redis(context: Context, run_: str = "") -> Answer | None:
    """Open redis-cli in the Redis container.

    Example: invoke compose.redis --run ping
    """
    asked = _split(run_)
    return _inside(context, "redis", ["redis-cli", *(["-e", *asked] if asked else [])])  # -e: it fails where they fail


def _split(text: str) -> list[str]:
    """Return the words of a command. Raises PlatformError USAGE for quotes that do not end."""
    try:
        return shlex.split(text)
    except ValueError as error:
        steps = ("close the quotes, e.g. --run 'ls \"a b\"'",)
        raise PlatformError("USAGE", f"--run {text!r} is not a valid command", why=str(error), steps=steps) from error


def _inside(context: Context, service: str, argv: list[str]) -> Answer | None:
    """Run a program in a running container, on this terminal where there is one."""
    import sys

    from infra import docker_engine, shell

    there = _session(context).containers()
    container = there.get(service)
    if container is None or not container.up:
        raise _not_running(service, there)
    terminal = ["-it"] if sys.stdin.isatty() and sys.stdout.isatty() else ["-i"]
    command = docker_engine.command("exec", *terminal, container.name, *argv)
    code = shell.attached(command, env=_session(context).compose.environ)
    return Answer(None, exit=code) if code else None


def _not_running(service: str, there: Mapping[str, Container]) -> PlatformError:
    steps = ("invoke compose.ps", "invoke compose.up")
    if service in there:
        ended = f"it ended with exit code {there[service].code}"
        return PlatformError("NOT_RUNNING", f"the container of {service} is not running", why=ended, steps=steps)
    if not there:
        return PlatformError("NOT_RUNNING", "the platform is not running", steps=("invoke compose.up",))
    named = f"the containers are: {', '.join(sorted(there))}"
    return PlatformError(
        "NOT_RUNNING", f"there is no container for {service!r}", steps=(*nearest(service, there), named)
    )


_OWN = ("up", "down")
TASKS = (
    up,
    down,
    *(task for task in verbs.tasks(TIER) if task.name not in _OWN),
    *(ps, pull, config, exec_, psql, redis),
)
