"""A cluster without an engine: containers as data, and what is asked of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from infra.kube.api import NoAnswer
from infra.shell import Result
from infra.tiers.kind.cluster import MARK, KindCluster
from infra.tiers.kind.nodes import Docker, Node
from tests.unit.helpers import context_of


@dataclass(frozen=True)
class Engine(Docker):
    """An engine that has these containers, and notes what is asked of it."""

    there: list[Node] = field(default_factory=list)
    asked: list[tuple[str, ...]] = field(default_factory=list)
    answers: Mapping[str, Result] = field(default_factory=dict)

    def nodes(self, cluster: str = "") -> list[Node]:
        return [n for n in self.there if cluster in ("", n.cluster)]

    def info(self) -> dict[str, Any]:
        return {"CgroupVersion": "2"}

    def execute(self, node: str, *words: str, limit: float = 60.0, check: bool = True) -> Result:
        self.asked.append(("exec", node, *words))
        return self.answers.get(words[0], Result(0, "", ""))

    def start(self, names: Sequence[str]) -> None:
        self.asked.append(("start", *names))

    def stop(self, names: Sequence[str]) -> None:
        self.asked.append(("stop", *names))

    def end_containers(self, names: Sequence[str]) -> None:
        self.asked.append(("rm", *names))
        self.there[:] = [n for n in self.there if n.name not in names]


def cluster_of(root: Path, *nodes: Node, answers: Mapping[str, Result] | None = None, **settings: str) -> KindCluster:
    """The cluster of a stack below `root`, whose engine has these nodes."""
    context = context_of(root, **settings)
    home = root / "state" / "kind"
    home.mkdir(parents=True, exist_ok=True)
    return KindCluster(context, home, Engine(there=list(nodes), answers=answers or {}))


def node(home: Path | None, cluster: str = "platform", state: str = "running", role: str = "control-plane") -> Node:
    """A node; `home` is the tier's part of the state of the stack that it was made for."""
    mounts = {MARK: str(home / "node")} if home else {}
    return Node(f"{cluster}-{role}", f"id-{cluster}-{role}", state, role, cluster, "image", mounts)


@dataclass
class Answers:
    """An API server: lists by path; what is not there is an error of that status."""

    lists: Mapping[str, Sequence[Mapping[str, Any]]] = field(default_factory=dict)
    texts: Mapping[str, str] = field(default_factory=dict)
    other: Callable[[str], int] = lambda _: 404
    closed: bool = False

    def get(self, path: str, **query: str) -> dict[str, Any]:
        """The list, or NoAnswer."""
        if path not in self.lists:
            raise NoAnswer("no such path", self.other(path))
        return {"items": list(self.lists[path])}

    def items(self, path: str, **query: str) -> list[Any]:
        """The items of a list."""
        return list(self.get(path)["items"])

    def text(self, path: str, **query: str) -> str:
        """A text, or NoAnswer."""
        if path not in self.texts:
            raise NoAnswer("no such path", self.other(path))
        return self.texts[path]

    def close(self) -> None:
        """Note that it was closed."""
        self.closed = True
