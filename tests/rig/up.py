"""Make a bare Debian machine ready for the container tiers: `python -m tests.rig.up [--kind] [--operators] ...`.

Installs and starts Docker, adds Compose and builds a stand-in for each image that no registry can give. All of it is
kept by content under PLATFORM_RIG_CACHE (default ~/.cache/platform-infra-rig), so a second run changes nothing.
With --kind also the node image and the programs of a kind cluster (a quarter of an hour the first time), with
--operators what the rehearsal of production and the queue of trainings have on it (a quarter of an hour more).
What tests must know is written to `rig.env` there. Ends with 1 where a step failed; the other steps are done then.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.rig import cache, compose_versions, engine, env_file, images, operators, recipes
from tests.rig.kind import up as kind

Work = Callable[[Path], None]


@dataclass(frozen=True)
class Step:
    """A piece of work with its log; `ready` tells that there is nothing to do, `vital` that nothing can follow it."""

    name: str
    ready: Callable[[], bool]
    work: Work
    vital: bool = False


def steps(with_kind: bool = False, with_operators: bool = False) -> list[Step]:
    """All steps, in order."""
    return [
        Step("packages", lambda: not engine.missing(), engine.install, vital=True),
        Step("engine", engine.answers, engine.start, vital=True),
        Step("compose", lambda: bool(engine.compose_version()), engine.install_compose),
        *(image_step(recipe) for recipe in (recipes.BASE, *recipes.RECIPES)),
        *(compose_step(version) for version in compose_versions.PROGRAMS),
        *(Step(name, ready, work) for name, ready, work in (kind.pieces() if with_kind else ())),
        *(image_step(recipe) for recipe in (operators.OPERATORS if with_operators else ())),
        *((Step("charts", operators.packed, operators.pack),) if with_operators else ()),
    ]


def image_step(recipe: recipes.Recipe) -> Step:
    """The step that makes one image."""

    def work(log: Path) -> None:
        images.build(recipe, log)

    return Step(recipe.name, lambda: images.present(recipe), work, vital=not recipe.base)


def compose_step(version: str) -> Step:
    """The step that builds another version of Compose."""

    def work(log: Path) -> None:
        compose_versions.make(version, log)

    return Step(f"compose-{version}", lambda: compose_versions.program(version).exists(), work)


def perform(step: Step) -> bool:
    """Do a step and print a line; False where it failed."""
    log = cache.folder("logs") / f"{step.name}.log"
    begin = time.monotonic()
    try:
        if step.ready():
            say(f"{step.name}: ready")
            return True
        say(f"{step.name}: making it...")
        log.unlink(missing_ok=True)
        step.work(log)
    except (cache.RigProblem, OSError) as problem:
        say(f"{step.name}: FAILED: {problem}")
        return False
    say(f"{step.name}: made in {time.monotonic() - begin:.0f} s")
    return True


def perform_all(chosen: Sequence[Step]) -> list[str]:
    """Do the steps; the names of those that failed. Nothing follows a vital one that fails."""
    failed: list[str] = []
    for step in chosen:
        if not perform(step):
            failed.append(step.name)
            if step.vital:
                break
    return failed


def say(text: str) -> None:
    """One line of progress."""
    print(f"rig: {text}", flush=True)


def select(known: Sequence[Step], only: Sequence[str]) -> list[Step]:
    """The steps to do: all, or the vital ones and those named."""
    return [step for step in known if not only or step.vital or step.name in only]


def main(argv: Sequence[str]) -> int:
    """Prepare, write rig.env, report."""
    known = steps("--kind" in argv, "--operators" in argv)
    parser = argparse.ArgumentParser("python -m tests.rig.up", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--kind", action="store_true", help="also what a kind cluster needs")
    parser.add_argument("--operators", action="store_true", help="also the operators of the rehearsal")
    parser.add_argument("--only", action="append", default=[], choices=[s.name for s in known], metavar="NAME")
    parser.add_argument("--list", action="store_true", help="the names of the steps")
    options = parser.parse_args(argv)
    if options.list:
        print("\n".join(step.name for step in known))
        return 0
    with cache.alone():
        cache.clear_scratch()
        failed = perform_all(select(known, options.only))
        written = env_file.write()
    say(f"settings are in {written}")
    if failed:
        say(f"not made: {', '.join(failed)}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
