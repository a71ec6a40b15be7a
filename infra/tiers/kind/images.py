"""The images that releases need, and their way into the nodes: pulled once by the host, loaded where missing."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from infra import docker_engine, images, pull, shell, stack
from infra.console import Console
from infra.errors import PlatformError
from infra.kube.helm_cli import Helm
from infra.kube.releases import Wanted, misfit
from infra.kube.rollout import cause
from infra.references import full, short
from infra.tiers.kind import cli, loading
from infra.tiers.kind.cluster import KindCluster
from infra.tiers.kind.loading import Streams
from infra.tiers.kind.node_images import Listed, NodeImages
from infra.tiers.kind.nodes import Docker, Node
from infra.tiers.kind.tools import Tools

RENDERED = 60
"""Number of release states to remember the images of."""


def named_in(rendered: str) -> list[str]:
    """Return the images that rendered manifests name, each once, in their order."""
    found = re.findall(r"^[ \t]*(?:- )?image:[ \t]*[\"']?([^\s\"'#]+)", rendered, re.MULTILINE)
    return list(dict.fromkeys(found))


def clients() -> Any:
    """Make a client of the SDK for the engine that runs the nodes."""
    return docker_engine.client(docker_engine.find())


@dataclass(frozen=True)
class Supply:
    """Images for one cluster; `memory` is a file with what was found out before.

    `locked` has digests by reference, `settings` the setting that replaces each of them; `client` makes a client of the
    engine's SDK, which pulls, also from `mirrors`.
    """

    docker: Docker
    tools: Tools
    cluster: str
    nodes: Sequence[Node]
    memory: Path
    kubeconfig: Path
    console: Console
    locked: Mapping[str, str] = field(default_factory=dict)
    settings: Mapping[str, str] = field(default_factory=dict)
    mirrors: Sequence[str] = ()
    client: Callable[[], Any] = clients

    @cached_property
    def content(self) -> NodeImages:
        """The images in the nodes."""
        return NodeImages(self.docker)

    def needed(self, wanted: Sequence[Wanted], helm: Helm) -> list[str]:
        """Return the images of releases, each once."""
        return list(dict.fromkeys(image for images in self.needed_by(wanted, helm).values() for image in images))

    def needed_by(self, wanted: Sequence[Wanted], helm: Helm) -> dict[str, list[str]]:
        """Find the images of each release by rendering the charts that have changed. Raises PlatformError USAGE."""
        known: dict[str, list[str]] = (stack.read_json(self.memory) or {}).get("needed", {})
        fresh = [w for w in wanted if w.fingerprint not in known]
        with ThreadPoolExecutor(max_workers=4) as pool:
            texts = list(pool.map(lambda w: rendered(w, helm), fresh))
        known |= {w.fingerprint: named_in(text) for w, text in zip(fresh, texts, strict=True)}
        if fresh:
            self._remember(needed=dict(list(known.items())[-RENDERED:]))
        return {w.name: known[w.fingerprint] for w in wanted}

    def bring(self, references: Sequence[str]) -> list[str]:
        """Load what is missing in a node or is another image by now; returns what was loaded.

        Raises:
            PlatformError: IMAGE_UNAVAILABLE or REGISTRY_UNREACHABLE for an image that nobody gives.
        """
        load = self.plan(references)
        load.carry(load.missing)
        return list(load.missing)

    def plan(self, references: Sequence[str]) -> Load:
        """Plan what has to be loaded, in the order given; the host has all of it afterwards. Raises as `bring`."""
        here, there = self.docker.image_ids(), self._there()
        ids = {r: here.get(r) or here.get(short(r)) or "" for r in references}
        ids |= {r: self.docker.image_id(r) for r, found in ids.items() if not found}
        ids |= self._pull([r for r in references if not ids[r] and not self._everywhere(r, there)])
        noted = self._noted()
        needed = [r for r in references if ids[r] and not self._same(r, ids[r], there, noted)]
        if needed:
            self.console.say(f"  loading {len(needed)} image{'s' if len(needed) > 1 else ''} into the cluster")
        return Load(self, needed, ids)

    def note(self, loaded: Mapping[str, str]) -> None:
        """Remember as what the nodes know images that have just been loaded: image ids of the host by reference.

        Nodes know an image by other digests than some engines do; what comes afterwards may fail.
        """
        self.content.forget()
        there = self._there()
        seen = {r: sorted(frozenset.intersection(*(n.get(full(r), frozenset()) for n in there))) for r in loaded}
        fresh = {r: {"host": loaded[r], "nodes": digests} for r, digests in seen.items() if digests}
        self._remember(nodes=self._node_ids(), loaded={**self._noted(), **fresh})

    def load(self, references: Sequence[str], streams: Streams) -> None:
        """Load images into every running node; kind loads what our own way cannot, since it knows more engines."""
        running = [node.name for node in self.nodes if node.running]
        left = {image for node in running for image in loading.into(self.docker, node, references, streams)}
        rest = [image for image in references if image in left]
        if rest and not streams.ended:
            argv = cli.load(self.tools.kind.path, self.cluster, rest)
            shell.run(argv, env=self.tools.kind_environment(self.kubeconfig), limit=900)

    def _there(self) -> list[Listed]:
        """Return the images of each node that runs."""
        return [self.content.of(node.name) for node in self.nodes if node.running]

    def _everywhere(self, reference: str, there: Sequence[Listed]) -> bool:
        return bool(there) and all(full(reference) in node for node in there)

    def _same(self, reference: str, image: str, there: Sequence[Listed], noted: Mapping[str, Any]) -> bool:
        """Tell whether every node has that image of the host, by its id or by what was seen after it was loaded."""
        note = noted.get(reference) or {}
        known = {image, *(note.get("nodes", ()) if note.get("host") == image else ())}
        return bool(there) and all(known & node.get(full(reference), frozenset()) for node in there)

    def _node_ids(self) -> list[str]:
        return sorted(node.id for node in self.nodes)

    def _noted(self) -> dict[str, Any]:
        """Return what was noted of images that were loaded into exactly these nodes."""
        memory = stack.read_json(self.memory) or {}
        found = memory.get("loaded") if memory.get("nodes") == self._node_ids() else None
        return {r: note for r, note in found.items() if isinstance(note, dict)} if isinstance(found, dict) else {}

    def _remember(self, **facts: object) -> None:
        known = (stack.read_json(self.memory) or {}) | facts
        stack.write_atomic(self.memory, json.dumps(known, indent=1) + "\n", sync=False)

    def _pull(self, references: Sequence[str]) -> dict[str, str]:
        if references:
            digests = {reference: self.locked.get(short(reference), "") for reference in references}
            settings = {reference: self.settings.get(short(reference), "..._IMAGE") for reference in references}
            pull.pull(self.client, references, self.mirrors, self.console, digests, settings)
        return {r: self.docker.image_id(r) for r in references}


@dataclass(frozen=True)
class Load:
    """Images on their way into the nodes: those that are missing there, and the host's ids of all."""

    way: Supply
    missing: Sequence[str]
    ids: Mapping[str, str]
    streams: Streams = field(default_factory=Streams)

    def carry(self, references: Iterable[str]) -> None:
        """Load those of them that are missing."""
        wanted = set(references)
        some = [r for r in self.missing if r in wanted]
        if some:
            self.way.load(some, self.streams)
            if not self.streams.ended:
                self.way.note({r: self.ids[r] for r in some if self.ids.get(r)})


def rendered(wanted: Wanted, helm: Helm) -> str:
    """Return a release's manifests.

    Raises:
        PlatformError: USAGE with the value that its chart refuses or misses; PROGRAM_FAILED.
    """
    argv = helm.template(wanted.deploy)
    done = shell.run(argv, stdin=wanted.stdin, limit=60, check=False)
    if done.code == 0:
        return done.out
    why = cause(done, wanted.name)
    if "schema" in why or "execution error" in why:
        raise misfit(wanted.name, why.partition(" Use --debug")[0])
    steps = (shell.typed(*argv),)
    raise PlatformError("PROGRAM_FAILED", f"the release {wanted.name} cannot be rendered", why=why, steps=steps)


def supply(cluster: KindCluster, tools: Tools) -> Supply:
    """Return what brings images into the nodes of a cluster."""
    settings, memory = cluster.settings, cluster.home / "images.json"
    return Supply(
        cluster.docker,
        tools,
        cluster.name,
        cluster.nodes(),
        memory,
        cluster.kubeconfig,
        cluster.context.console,
        images.locked(settings.root),
        {reference: setting for setting, reference in images.references(settings).items()},
        settings.words("PLATFORM_IMAGE_MIRRORS"),
    )
