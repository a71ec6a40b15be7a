"""The volumes of a cluster: which there are, away into the trash and back, through the node's container.

The node need not run: an engine reads and writes the files of a stopped container as well. A volume's directory has a
fixed name (kind/storage-class.yaml), and only its contents go: the claims of the charts stay bound.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from infra import catalog, private, stack
from infra.errors import PlatformError
from infra.kube import releases
from infra.kube.snapshot import INSTANCE, Object, metadata
from infra.stack import write_atomic
from infra.tiers.base import Removal
from infra.tiers.cluster import services as cluster_services
from infra.tiers.kind.cluster import KEPT_CLASS, KindCluster
from infra.tiers.kind.cluster_file import VOLUMES
from infra.tiers.kind.nodes import Node

ARCHIVE, DIRECTORY = "volume.tar", "data"
_CHUNK = 1 << 20


@dataclass(frozen=True)
class Volume:
    """A claim of a release and its directory below VOLUMES."""

    namespace: str
    claim: str
    release: str

    @property
    def directory(self) -> str:
        """The directory's name."""
        return f"{self.namespace}-{self.claim}"

    @property
    def services(self) -> tuple[str, ...]:
        """The services whose data it holds: the one that its claim is named after, or all of its release."""
        every, own = releases.services_of(self.release), self.claim.removeprefix("data-")
        return (own,) if own in every else every

    @property
    def path(self) -> str:
        """Return its path in the node."""
        return f"{VOLUMES}/{self.directory}"


def parse(claims: Sequence[Object]) -> list[Volume]:
    """Return the volumes that claims of our storage class stand for."""
    found = [
        Volume(metadata(c)["namespace"], metadata(c)["name"], (metadata(c).get("labels") or {}).get(INSTANCE, ""))
        for c in claims
        if c["spec"].get("storageClassName") == KEPT_CLASS
    ]
    return sorted(found, key=lambda v: (v.namespace, v.claim))


def remember(cluster: KindCluster, found: Sequence[Volume]) -> None:
    """Keep the list for when the cluster does not run."""
    body = [vars(v) for v in found]
    with contextlib.suppress(OSError):
        write_atomic(cluster.home / "volumes.json", json.dumps({"volumes": body}) + "\n", sync=False)


def known(cluster: KindCluster) -> list[Volume]:
    """Return the volumes that there were when the cluster was last seen."""
    body = (stack.read_json(cluster.home / "volumes.json") or {}).get("volumes") or []
    return [Volume(entry["namespace"], entry["claim"], entry["release"]) for entry in body]


def removals(cluster: KindCluster, services: Sequence[str]) -> list[Removal]:
    """Return the volumes of services (all if none is named) that hold something."""
    node = next(iter(cluster.nodes()), None)
    found = []
    for volume in known(cluster):
        of = volume.services
        if services and not set(services) & set(of):
            continue
        size = _size(cluster, node, volume)
        if size is not None:
            name = next((s for s in of if s in services), of[0] if of else volume.release)
            found.append(Removal(name, None, size, volume.directory))
    return found


def shared(services: Sequence[str]) -> list[str]:
    """Return running services that lose their data with the named ones, as both are one Kubernetes Service."""
    asked = {cluster_services.places(name) for name in services} - {()}
    return sorted(
        s.name for s in catalog.SERVICES if s.name not in services and cluster_services.places(s.name) in asked
    )


def _size(cluster: KindCluster, node: Node | None, volume: Volume) -> int | None:
    """Return the bytes of a volume; None when it is empty or not there."""
    if cluster.kept:
        directory = cluster.volumes / volume.directory
        if not directory.is_dir():
            return None
        size, entries = _measured(directory)
        return size if entries else None
    if node is not None and node.running:
        done = cluster.docker.execute(node.name, "du", "-sb", volume.path, check=False)
        return int(done.out.split()[0]) if done.code == 0 else None
    return 0 if node is not None else None


def _measured(directory: Path) -> tuple[int, int]:
    """Return the bytes and number of entries below a directory, as far as this user may see."""
    size = entries = 0
    for parent, folders, files in os.walk(directory):
        entries += len(folders) + len(files)
        for name in files:
            with contextlib.suppress(OSError):
                size += os.lstat(os.path.join(parent, name)).st_size
    return size, entries


def stash(cluster: KindCluster, removal: Removal, into: Path) -> None:
    """Copy a volume into the trash, then empty it.

    Raises:
        PlatformError: it could not be copied (it is in its place then), or not be emptied.
    """
    volume, node = _volume(cluster, removal), next(iter(cluster.nodes()), None)
    try:
        if node is None:
            os.rename(cluster.volumes / volume.directory, into / DIRECTORY)
            return
        unfinished = into / f".{ARCHIVE}"
        with _engine() as engine:
            stream, _ = engine.get_archive(node.name, volume.path, chunk_size=_CHUNK)
            _write(unfinished, stream)
        os.replace(unfinished, into / ARCHIVE)
    except OSError as error:
        raise stack.unwritable(into, error) from error
    empty(node, volume)


def unstash(cluster: KindCluster, removal: Removal, kept: Path) -> None:
    """Bring a volume back.

    Raises:
        PlatformError: NOT_FOUND when nothing whole is kept; NOT_RUNNING when there is no cluster to bring it to.
    """
    volume, node = _volume(cluster, removal), next(iter(cluster.nodes()), None)
    archive, directory = kept / ARCHIVE, kept / DIRECTORY
    try:
        if directory.is_dir() and node is None:
            private.directory(cluster.volumes)
            os.rename(directory, cluster.volumes / volume.directory)
            return
        if not archive.is_file():
            raise PlatformError("NOT_FOUND", f"{archive} no longer exists", steps=("invoke trash.list",))
        if node is None:
            steps = ("create a cluster with invoke kind.up, then run the same command again",)
            raise PlatformError("NOT_RUNNING", "there is no cluster to restore the volume to", steps=steps)
        with _engine() as engine, archive.open("rb") as file:
            engine.put_archive(node.name, VOLUMES, file)
    except OSError as error:
        raise stack.unwritable(kept, error) from error


def remove(cluster: KindCluster, removal: Removal) -> None:
    """Empty a volume permanently."""
    volume, node = _volume(cluster, removal), next(iter(cluster.nodes()), None)
    if node is not None:
        empty(node, volume)
        return
    try:
        shutil.rmtree(cluster.volumes / volume.directory)
    except OSError as error:
        raise stack.unwritable(cluster.volumes, error) from error


def empty(node: Node, volume: Volume) -> None:
    """Remove what is in a volume; by a helper of the node's own image, which works while the node is stopped.

    Raises:
        PlatformError: PROGRAM_FAILED.
    """
    with _engine() as engine:
        made = engine.create_container(
            image=node.image,
            entrypoint=["find", volume.path, "-mindepth", "1", "-delete"],
            command=[],
            network_disabled=True,
            host_config=engine.create_host_config(volumes_from=[node.name], network_mode="none"),
        )
        try:
            engine.start(made["Id"])
            code = int(engine.wait(made["Id"], timeout=600)["StatusCode"])
            said = engine.logs(made["Id"]).decode("utf-8", "replace").strip()
        finally:
            engine.remove_container(made["Id"], force=True, v=False)
    if code:
        raise PlatformError("PROGRAM_FAILED", f"the volume {volume.directory} could not be emptied", why=said[-300:])


def _volume(cluster: KindCluster, removal: Removal) -> Volume:
    found = next((v for v in known(cluster) if v.directory == removal.volume), None)
    if found is None:
        raise PlatformError("NOT_FOUND", f"there is no volume {removal.place}", steps=("invoke kind.status",))
    return found


@contextlib.contextmanager
def _engine() -> Iterator[Any]:
    """Open a client of the engine, whose errors are raised as ours."""
    import docker
    import requests

    from infra import docker_engine

    client = docker_engine.client(docker_engine.find(), limit=600)
    try:
        yield client
    except (docker.errors.APIError, requests.RequestException) as error:
        raise PlatformError("PROGRAM_FAILED", "Docker rejected the request", why=str(error)) from error
    finally:
        client.close()


def _write(path: Path, stream: Iterator[bytes]) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        for part in stream:
            file.write(part)
        file.flush()
        os.fsync(file.fileno())
