"""Passwords of a private stack, see `invoke up --private`."""

from __future__ import annotations

from infra.console import Answer
from infra.context import Context
from infra.errors import PlatformError
from infra.tasks.command import ANY, command, words


@command(
    tier=ANY,
    iterable=("service",),
    help={
        "service": "service whose password changes; repeatable, or comma-separated; default: all",
        "timeout": "total time limit in seconds; 0: each service's own limit",
    },
)
def rotate(context: Context, service: list[str], timeout: float = 0.0) -> Answer:
    """Give services of a private stack new random passwords while they run.

    Example: invoke secrets.rotate -s postgres
    """
    from infra import catalog, lifecycle, logins, tier_choice
    from infra.tasks import verbs

    if context.settings.text("PLATFORM_PRIVATE") != "yes":
        raise PlatformError(
            "USAGE",
            "this stack is not private: its passwords are the documented ones, or your own",
            steps=("invoke up --private", "or change your own passwords in .env"),
        )
    choice = verbs.choose(context, quiet=True)
    tier_choice.known_services(words(service), choice.tier)
    running = tier_choice.require_running(choice).endpoints().services
    names = words(service) or running
    ours = logins.free(context.settings, context.stack)
    settings = tuple(dict.fromkeys(n for name in names for n in catalog.service(name).generated if n in ours))
    lifecycle.up(choice, None, timeout or None, rotate=settings)
    done = f"changed: {', '.join(settings)}" if settings else "nothing to change: these passwords are your own, or none"
    lines = (done, "Next: invoke env, for programs of your own")
    return Answer({"rotated": list(settings)}, lines=lines, names=settings)


TASKS = (rotate,)
