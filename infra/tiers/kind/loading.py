"""Images of this machine into a node: several streams from `docker save` to the node's `ctr`, no file between them.

Unpacking is what takes long, and one import unpacks one layer after the other; as many imports at once as there are
processors take half the time and less. `kind load` writes all images into one file first, and imports that.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from infra import docker_engine, pipes
from infra.pipes import Pipe
from infra.tiers.kind.nodes import Docker

LANES = 4
"""At most so many streams: each holds parts of layers in memory, and the engine writes to one disk."""
LIMIT = 900.0
"""Seconds for one stream."""
SNAPSHOTTER = "overlayfs"
"""The snapshotter that containerd unpacks with unless its configuration says otherwise."""


def lanes(sizes: Mapping[str, int], count: int) -> list[list[str]]:
    """Split images into this many non-empty groups of about the same size; the order within a group is kept.

    Args:
        sizes: bytes by image.
        count: the most groups there may be, at least 1.
    """
    groups: list[list[str]] = [[] for _ in range(max(1, min(count, len(sizes))))]
    load = [0] * len(groups)
    for image in sorted(sizes, key=lambda name: -sizes[name]):
        lightest = load.index(min(load))
        groups[lightest].append(image)
        load[lightest] += sizes[image] or 1
    order = list(sizes)
    return [sorted(group, key=order.index) for group in groups if group]


@dataclass
class Streams:
    """Streams under way, which can be ended from another thread; once ended none begins any more."""

    running: list[Pipe] = field(default_factory=list)
    ended: bool = False

    def end(self) -> None:
        """End them at once."""
        self.ended = True
        for pipe in self.running:
            pipe.stop()


def into(docker: Docker, node: str, references: Sequence[str], streams: Streams) -> list[str]:
    """Load images into a node; returns those that could not be loaded in this way."""
    if not references or streams.ended:
        return []
    unpacker = _snapshotter(docker, node)
    groups = lanes(docker.image_sizes(references), min(LANES, os.cpu_count() or 1))
    try:
        streams.running.clear()
        for group in groups:
            streams.running.append(pipes.start(*_programs(node, group, unpacker), env=docker.environ))
        done = [pipe.result(LIMIT) for pipe in streams.running]
    except BaseException:
        streams.end()
        raise
    return [image for group, result in zip(groups, done, strict=True) if result.code for image in group]


def _programs(node: str, group: Sequence[str], unpacker: str) -> tuple[list[str], list[str]]:
    importing = ["ctr", "--namespace", "k8s.io", "images", "import", "--digests", "--snapshotter", unpacker, "-"]
    return docker_engine.command("save", *group), docker_engine.command("exec", "--interactive", node, *importing)


def _snapshotter(docker: Docker, node: str) -> str:
    said = docker.execute(node, "containerd", "config", "dump", check=False).out
    return named(said)


def named(configuration: str) -> str:
    """Return the snapshotter that containerd's configuration names for Kubernetes."""
    found = re.search(r"^\s*snapshotter\s*=\s*[\"']([\w.-]+)[\"']", configuration, re.MULTILINE)
    return found[1] if found else SNAPSHOTTER
