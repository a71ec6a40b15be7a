"""The steps that make a machine ready for clusters of kind, and what tests must know of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from tests.rig import cache, parts
from tests.rig.kind import node, programs, tools

Piece = tuple[str, Callable[[], bool], Callable[[Path], None]]
"""Name, whether it is ready, and the work: as the steps of tests.rig.up."""


def pieces() -> Iterator[Piece]:
    """All that `--kind` adds, in order: the programs first, since everything is made from them."""
    for name, program in programs.ALL.items():
        yield name, _is_built(name, program), _build(name, program)
    yield "kind-tools", tools.present, tools.make
    yield "kind-node", node.present, node.build
    yield "kind-guard", guarded, guard


def guarded() -> bool:
    """Whether the machine's firewall holds back what a cluster sends."""
    return cache.output([tools.directory() / "guard", "check"]) is not None


def guard(log: Path) -> None:
    """Set the machine's guard; root only. `kind create cluster` of our directory does it as well.

    Raises:
        RigProblem: it cannot be set.
    """
    cache.run([tools.directory() / "guard", "set"], log)


def values() -> dict[str, str]:
    """Settings, where everything for them is there."""
    if not (tools.present() and node.present()):
        return {}
    return {
        "PLATFORM_KIND_BIN": str(tools.directory()),
        "KIND_NODE_IMAGE": node.REFERENCE,
        "PLATFORM_RIG_HELM3": str(tools.directory(3)),
    }


def _is_built(name: str, program: programs.Program) -> Callable[[], bool]:
    return lambda: cache.path("parts", parts.folder_name(program, name)).exists()


def _build(name: str, program: programs.Program) -> Callable[[Path], None]:
    def work(log: Path) -> None:
        parts.ready(program, name, log)

    return work
