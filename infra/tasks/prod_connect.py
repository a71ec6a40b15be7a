"""Production: port-forwards and the contract's variables for people."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from infra.console import Answer, Table, env_lines
from infra.context import Context
from infra.errors import ExitCode
from infra.tasks.command import command
from infra.tasks.prod_site import SITE, cluster

if TYPE_CHECKING:
    from infra.prod.cluster import Cluster
    from infra.prod.connect import Forward
    from infra.prod.site import Site


@command(
    help={
        "site": SITE,
        "write": "file for the variables, which only you can read; default: in the stack's directory",
        "yes": "replace a file that was not written by this tool; the old one is kept beside it",
    }
)
def connect(context: Context, site: str, write: str = "", yes: bool = False) -> None:
    """Open ports that lead to the services of a site, and write the variables that lead there; ends with Ctrl-C.

    Example: invoke prod.connect example --write ../app/.env
    """
    from infra import private
    from infra.prod.site import load

    here = load(site, context.settings.root)
    there = cluster(context, here)
    own = context.stack.home / "prod"
    private.directory(own)
    target = Path(write).expanduser().absolute() if write else own / f"{here.name}.env"
    try:
        connected(context, here, there, target, yes)
    except KeyboardInterrupt:  # the usual way to end it: nothing went wrong
        raise SystemExit(int(ExitCode.INTERRUPTED)) from None


def connected(context: Context, site: Site, there: Cluster, target: Path, yes: bool) -> None:
    """Open forwards, write the variables to a file, and keep both until Ctrl-C, which comes as KeyboardInterrupt.

    Raises:
        PlatformError: NOT_FOUND, UNREACHABLE, CONFIRMATION_NEEDED, USAGE.
    """
    from infra.prod import connect as found

    values, hidden = found.variables(there)
    context.console.secrets += tuple(sorted(hidden))
    ca = target.with_name(f"{target.name}.ca.crt")
    with found.opened(there, found.targets(there, list(values.values()))) as forwards:
        env = found.here(values, forwards, ca)
        texts = {target: "\n".join(env_lines(env)) + "\n", ca: found.authority(site, there)}
        with _files(context, texts, yes):
            context.console.answer(_answer(context, target, env, forwards))
            found.keep(there, forwards, context.console.say)


def _answer(context: Context, target: Path, env: Mapping[str, str], forwards: list[Forward]) -> Answer:
    """Show addresses, and each password as a mask: they are in the file."""
    from infra.prod.connect import HOST, PAGES

    pages = [f"{n}: http://{HOST}:{f.local}" for n, page in PAGES.items() for f in forwards if f.target == page]
    rows = tuple((name, context.console.mask(text)) for name, text in env.items())
    said = (*pages, f"the variables are in {target}; Ctrl-C ends the connection and removes that file")
    return Answer({"file": str(target), "env": dict(env)}, Table(("variable", "value"), rows), said, env=env)


@contextlib.contextmanager
def _files(context: Context, texts: Mapping[Path, str], yes: bool) -> Iterator[None]:
    """Write files that only the user can read, and remove them at the end: their addresses lead nowhere then."""
    from infra.tasks import show

    made: list[Path] = []
    try:
        for path, text in texts.items():
            show.written(context, text, str(path), yes)
            made.append(path)
        yield
    finally:
        for path in made:
            with contextlib.suppress(OSError):
                path.unlink()
