"""The cluster of a stack: which one is ours, made, mended, stopped, started, deleted."""

from __future__ import annotations

import json
import os
import shutil
import socket
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from infra import shell, stack
from infra.errors import PlatformError
from infra.kube import api, cluster_file, kind_cli, kubeconfig
from infra.kube.api import Api
from infra.kube.cluster_file import Mount
from infra.kube.nodes import Docker, Node
from infra.kube.snapshot import metadata
from infra.kube.tools import Tools
from infra.settings import Settings
from infra.stack import write_atomic
from infra.tiers.base import Context
from infra.waiting import Item, Wait

NAME = "platform"
MARK = "/kind/platform"
"""In the nodes: a directory of this stack's state. Whose cluster it is can be seen by it, even of one half made."""
SLOW_BOOT = "could not find a log line"
"""What kind says when a node has not booted within its 30 seconds (kind pkg/cluster/internal/providers/common)."""
ABSENT, STOPPED, RUNNING, HALF_MADE = "absent", "stopped", "running", "half made"
CREATE_BUDGET, API_BUDGET = 420.0, 120.0
"""Seconds for a new cluster (its node image is there already), and for one that is started again."""


@dataclass
class Cluster:
    """The cluster of one stack; what it is called and made of is kept in `<home>/cluster.json`."""

    context: Context
    home: Path
    docker: Docker = field(default_factory=Docker)

    @property
    def settings(self) -> Settings:
        """The settings of this run."""
        return self.context.settings

    @property
    def kubeconfig(self) -> Path:
        """Our own kubeconfig."""
        return self.home / "kubeconfig"

    @property
    def volumes(self) -> Path:
        """Where the volumes are on this machine."""
        return self.home / "volumes"

    @property
    def mark(self) -> Path:
        """What is mounted into the nodes to tell whose they are."""
        return self.home / "node"

    @property
    def memory(self) -> Path:
        """The file with what is known of the cluster."""
        return self.home / "cluster.json"

    @property
    def record(self) -> dict[str, Any]:
        """What is known of the cluster: name, fingerprint, image, complete, kept."""
        return stack.read_json(self.memory) or {}

    def remember(self, **facts: object) -> None:
        """Add to what is known. Raises PlatformError STATE_UNWRITABLE."""
        try:
            self.home.mkdir(mode=0o700, parents=True, exist_ok=True)
            write_atomic(self.memory, json.dumps(self.record | facts, indent=1) + "\n")
        except OSError as error:
            raise stack.unwritable(self.home, error) from error

    @cached_property
    def file(self) -> dict[str, Any]:
        """kind/cluster.yaml."""
        return cluster_file.load(self.settings.root / "kind" / "cluster.yaml")

    @property
    def name(self) -> str:
        """What it is called: as before; else PLATFORM_STACK or `platform`, with the stack's digits if that is taken."""
        known = self.record.get("name")
        if known:
            return str(known)
        chosen = self.settings.values["PLATFORM_STACK"].text if "PLATFORM_STACK" in self.settings.values else ""
        wanted = chosen or NAME
        others = {n.cluster for n in self.docker.nodes() if not self.is_ours(n)}
        return f"{wanted}-{self.context.stack.name.rsplit('-', 1)[-1]}" if wanted in others else wanted

    def is_ours(self, node: Node) -> bool:
        """Whether a node was made for this stack."""
        source = node.mounts.get(MARK, "")
        return bool(source) and _same(source, self.mark)

    def nodes(self) -> list[Node]:
        """Our nodes, control plane first."""
        name = self.record.get("name")
        found = self.docker.nodes(str(name)) if name else self.docker.nodes()
        return [n for n in found if self.is_ours(n)]

    def state(self, nodes: Sequence[Node] | None = None) -> str:
        """absent, stopped, running or half made, as the containers and our record tell; the API is not asked."""
        found = self.nodes() if nodes is None else nodes
        if not found:
            return ABSENT
        if not self.record.get("complete") or not self.kubeconfig.exists():
            return HALF_MADE
        return RUNNING if all(n.running for n in found) else STOPPED

    def listening(self) -> bool:
        """Whether something listens where our API server should: quick, no program is asked."""
        where = kubeconfig.address(self.kubeconfig) if self.record.get("complete") else None
        if where is None:
            return False
        try:
            with socket.create_connection(where, timeout=1):
                return True
        except OSError:
            return False

    def api(self) -> Api:
        """The API of our cluster, and of no other.

        Raises:
            PlatformError: NOT_RUNNING, CONTEXT_REFUSED.
        """
        if not self.kubeconfig.exists():
            raise PlatformError("NOT_RUNNING", "there is no cluster of this stack", steps=("invoke kind.up",))
        kubeconfig.refuse_others(self.kubeconfig, self.name)
        return api.connect(self.kubeconfig)

    # --- making it

    def ensure(self, tools: Tools, timeout: float | None) -> bool:
        """Have it running, whatever is there: made, mended, started; True when something had to be done.

        Raises:
            PlatformError: what is in the way, with what to do.
        """
        nodes = self.nodes()
        state = self.state(nodes)
        if state == HALF_MADE:
            state = self._mend(tools, nodes)
        if state == ABSENT:
            self._create(tools, timeout)
            return True
        self._say_when_changed()
        if state == STOPPED:
            self.start(nodes)
        self.wait_for_api(timeout, nodes)
        return state != RUNNING

    def outdated(self) -> bool:
        """Whether kind/cluster.yaml, or the node image asked for, is another than the cluster was made from."""
        made_from = self.record.get("fingerprint")
        return bool(made_from) and made_from != cluster_file.fingerprint(self.file, self._image()[0])

    def _say_when_changed(self) -> None:
        if self.outdated():
            steps = "`invoke kind.down --keep-data` and `invoke kind.up` make a new one with the same data"
            self.context.console.warn(
                f"kind/cluster.yaml has changed since the cluster was made, which keeps its ports, mounts and "
                f"node image: {steps}"
            )

    def _image(self) -> tuple[str, str]:
        """The node image to ask for, and a warning."""
        chosen = self.settings.text("KIND_NODE_IMAGE")
        cgroup = "" if chosen else str(self.docker.info().get("CgroupVersion", ""))
        return cluster_file.node_image(self.file, chosen, cgroup)

    def _mend(self, tools: Tools, nodes: Sequence[Node]) -> str:
        """A cluster whose making was cut short, or whose record is lost: taken as it is if it works, else removed."""
        self._await_other_kind()
        self.remember(name=nodes[0].cluster)
        if not all(n.running for n in nodes):
            self.docker.start([n.name for n in nodes if not n.running])
        done = shell.run(
            kind_cli.export_kubeconfig(tools.kind.path, self.name, self.kubeconfig),
            env=tools.kind_environment(self.kubeconfig),
            check=False,
        )
        if done.code == 0 and self._works_soon():
            self.context.console.say("  the cluster was made, but not recorded: it works, so it is used")
            self._adopt(nodes)
            return RUNNING
        if not self.kept and self._holds_data(nodes[0]):
            raise PlatformError(
                "DATA_INCOMPATIBLE",
                f"the cluster {self.name} does not work, and there are volumes in its node",
                why=done.last_line if done.code else "its API server does not answer",
                steps=("invoke kind.logs writes all there is to know", "invoke kind.down --yes puts it away"),
            )
        self.context.console.say("  the cluster was left half made: it is made anew (it holds no data of its own)")
        self.docker.end_containers([n.name for n in nodes])
        self.kubeconfig.unlink(missing_ok=True)
        return ABSENT

    def _await_other_kind(self) -> None:
        """Wait for a `kind create` of a run that was killed: it goes on by itself."""
        import psutil

        for process in psutil.process_iter(["cmdline"]):
            words = process.info["cmdline"] or []
            if {"create", "cluster", str(self.kubeconfig)} <= set(words):
                self.context.console.say("  waiting for the `kind create cluster` that is still at work")
                try:
                    process.wait(CREATE_BUDGET)
                except psutil.TimeoutExpired:
                    process.kill()

    @property
    def kept(self) -> bool:
        """Whether the volumes are on this machine, and so outlive the cluster."""
        return keeps_volumes()

    def _holds_data(self, node: Node) -> bool:
        done = self.docker.execute(node.name, "ls", "-A", cluster_file.VOLUMES, check=False)
        return done.code == 0 and bool(done.out.strip())

    def _works_soon(self, limit: float = 20.0) -> bool:
        end = time.monotonic() + limit
        while time.monotonic() < end:
            link = api.connect(self.kubeconfig)
            try:
                if link.ready() and _nodes_ready(link):
                    return True
            finally:
                link.close()
            time.sleep(0.5)
        return False

    def _create(self, tools: Tools, timeout: float | None) -> None:
        name, (image, warning) = self.name, self._image()
        if warning:
            self.context.console.warn(warning)
        self._prepare()
        body = cluster_file.effective(self.file, name, image, self._mounts())
        config = self.home / "cluster.yaml"
        write_atomic(config, cluster_file.text(body), mode=0o600)
        mark = cluster_file.fingerprint(self.file, image)
        self._fetch_node_image(body)
        self.remember(name=name, fingerprint=mark, image=image, complete=False)
        self.context.console.say(f"  making the cluster {name}")
        argv = kind_cli.create(tools.kind.path, name, config, self.kubeconfig)
        environment = tools.kind_environment(self.kubeconfig)
        try:
            self._follow(shell.spawn(argv, env=environment), timeout)
        except PlatformError as error:
            if SLOW_BOOT not in error.why:
                raise
            self.context.console.say("  the node was slower than kind waits for it: once more")
            self.docker.end_containers([n.name for n in self.nodes()])
            self._follow(shell.spawn(argv, env=environment), timeout)
        self._adopt(self.nodes())
        self._trust()

    def _fetch_node_image(self, body: dict[str, Any]) -> None:
        """Pull the node image before the clock of the cluster starts."""
        from infra.kube import images

        for reference in {str(n["image"]) for n in body["nodes"] if n.get("image")}:
            if not self.docker.image_id(reference):
                self.context.console.say(f"  pulling {reference}")
                images.pull(self.docker, reference, setting="KIND_NODE_IMAGE")

    def _follow(self, run: shell.Child, timeout: float | None) -> None:
        def look() -> list[Item]:
            done = run.result()
            state = "starting" if done is None else "ready" if done.code == 0 else "failed"
            return [Item("cluster", state, _words(run.last_line), budget=timeout or CREATE_BUDGET)]

        try:
            Wait(self.context.console, look, None, "invoke kind.up", sleep=lambda _: time.sleep(0.2)).until_ready()
        except PlatformError as error:
            run.stop()
            done = run.result()
            said = [_words(line) for line in (done.err if done else "").splitlines() if line.strip()]
            raise PlatformError(
                error.code,
                f"the cluster {self.name} could not be made",
                why=next((line for line in said if line.startswith("ERROR")), said[-1] if said else ""),
                steps=("invoke kind.logs writes all there is to know", "invoke doctor --tier kind", "invoke kind.up"),
                details={"log": said[-20:]},
            ) from error
        except BaseException:
            run.stop()
            raise

    def _prepare(self) -> None:
        try:
            for directory in (self.home, self.mark, *([self.volumes] if self.kept else [])):
                directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            (self.mark / "stack").write_text(f"{self.context.stack.name}\n{self.home}\n", encoding="utf-8")
        except OSError as error:
            raise stack.unwritable(self.home, error) from error

    def _mounts(self) -> list[Mount]:
        found = [Mount(self.mark, MARK, read_only=True)]
        found += [Mount(self.volumes, cluster_file.VOLUMES)] if self.kept else []
        bundle = self.settings.text("PLATFORM_CA_BUNDLE")
        return found + ([Mount(_existing(bundle), cluster_file.CERTIFICATE, read_only=True)] if bundle else [])

    def _adopt(self, nodes: Sequence[Node]) -> None:
        os.chmod(self.kubeconfig, 0o600)
        self.remember(complete=True, nodes=[n.id for n in nodes], created=time.time())

    def _trust(self) -> None:
        """Have the nodes trust the authority of the settings, for images that they fetch themselves."""
        if not self.settings.text("PLATFORM_CA_BUNDLE"):
            return
        for node in self.nodes():
            self.docker.execute(node.name, "update-ca-certificates", check=False)
            self.docker.execute(node.name, "systemctl", "restart", "containerd", check=False)

    # --- its life

    def start(self, nodes: Sequence[Node]) -> None:
        """Start a stopped cluster; what waits for it is `wait_for_api`."""
        self.context.console.say(f"  starting the cluster {self.name}")
        self.docker.start([n.name for n in nodes if not n.running])

    def wait_for_api(self, timeout: float | None, nodes: Sequence[Node]) -> None:
        """Block until API server and nodes are ready.

        Raises:
            PlatformError: WAIT_TIMEOUT or SERVICE_FAILED with the last lines of the node.
        """
        link = self.api()

        def look() -> list[Item]:
            if not link.ready():
                return [Item("cluster", "starting", "its API server does not answer yet", budget=API_BUDGET)]
            ready = _nodes_ready(link)
            return [Item("cluster", "ready" if ready else "starting", "its node is not Ready yet", budget=API_BUDGET)]

        try:
            Wait(self.context.console, look, timeout, "invoke kind.up", sleep=lambda _: time.sleep(0.3)).until_ready()
        except PlatformError as error:
            steps = (
                "invoke kind.logs writes all there is to know",
                "invoke kind.down --keep-data, then invoke kind.up",
            )
            log = self.docker.logs(nodes[0].name, 20) if nodes else []
            raise PlatformError(
                error.code, "the cluster does not come up", why=error.why, steps=steps, details={"log": log}
            ) from error
        finally:
            link.close()

    def stop(self) -> bool:
        """Stop the containers; False when none ran."""
        running = [n.name for n in self.nodes() if n.running]
        if running:
            self.docker.stop(running)
        return bool(running)

    def tear_down(self, tools: Tools | None) -> bool:
        """Delete the cluster; volumes on this machine stay. False when there was none."""
        nodes = self.nodes()
        if nodes and tools is not None:
            name = nodes[0].cluster
            argv = kind_cli.delete(tools.kind.path, name, self.kubeconfig)
            shell.run(argv, env=tools.kind_environment(self.kubeconfig), limit=120, check=False)
        left = self.nodes()
        if left:
            self.docker.end_containers([n.name for n in left])
        for file in ("kubeconfig", "cluster.json", "cluster.yaml", "images.json", "services.json"):
            (self.home / file).unlink(missing_ok=True)
        shutil.rmtree(self.mark, ignore_errors=True)
        return bool(nodes)


def keeps_volumes(system: str = sys.platform) -> bool:
    """Whether a directory of this machine can hold volumes: Windows has no owners and modes, which servers need."""
    return system != "win32"


def _same(source: str, path: Path) -> bool:
    """Whether a mount's source is that path; Docker Desktop puts its own prefix before it."""
    return os.path.normcase(source) == os.path.normcase(str(path)) or source.endswith(path.as_posix())


def _existing(bundle: str) -> Path:
    path = Path(bundle).expanduser().resolve()
    if not path.is_file():
        steps = ("name a file with certificates in PEM form",)
        raise PlatformError("SETTING_INVALID", f"PLATFORM_CA_BUNDLE: there is no file {path}", steps=steps)
    return path


def _nodes_ready(link: Api) -> bool:
    try:
        nodes = link.items("/api/v1/nodes")
    except api.NoAnswer:
        return False
    return bool(nodes) and all(_ready(node) for node in nodes)


def _ready(node: Any) -> bool:
    conditions = (node.get("status") or {}).get("conditions") or []
    return bool(metadata(node)) and any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)


def _words(line: str) -> str:
    """A line of kind without its drawings."""
    return "".join(c for c in line if c.isascii() and c.isprintable()).strip()
