"""The kind tier: a Kubernetes cluster on this machine, one Helm release for each part of the platform."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from infra import catalog, endpoints, shell, stack
from infra.endpoints import Endpoints, Login
from infra.errors import PlatformError
from infra.kube import cluster_file, releases, snapshot, tools
from infra.kube.api import Api, NoAnswer, unreachable
from infra.kube.helm_cli import Helm
from infra.kube.kubectl_cli import Kubectl
from infra.kube.tools import Tools
from infra.settings import Settings
from infra.tiers import (
    answering,
    kind_checks,
    kind_data,
    kind_deploy,
    kind_life,
    kind_repair,
    kind_services,
    providers,
    temporal_login,
)
from infra.tiers.base import Availability, Check, Context, LogLine, Removal, ServiceStatus
from infra.tiers.kind_cluster import Cluster
from infra.waiting import Wait

NAME = "kind"
CORE = tuple(s.name for s in catalog.SERVICES if s.overlay == catalog.OVERLAY_CORE)


@dataclass
class Kind:
    """The verbs of `infra.tiers.base.Tier` on a cluster."""

    name: str = NAME

    def available(self, settings: Settings) -> Availability:
        """Whether kind, kubectl, helm and docker are installed; versions and the engine are looked at by preflight."""
        absent = tools.missing(settings) + ([] if shell.find("docker") else ["docker"])
        if absent:
            steps = tools.steps([n for n in absent if n != "docker"])
            steps += ("install Docker: https://docs.docker.com/get-started/get-docker/",) if "docker" in absent else ()
            return Availability(False, f"not installed: {', '.join(absent)}", steps)
        return Availability(True, "kind, kubectl and helm are installed", prefer=False)

    def home(self, context: Context) -> Path:
        """State of this tier."""
        return context.stack.tier_home(NAME)

    def cluster(self, context: Context) -> Cluster:
        """The cluster of the stack."""
        return Cluster(context, self.home(context))

    def tools(self, context: Context) -> Tools:
        """The programs. Raises PlatformError PROGRAM_MISSING."""
        return tools.find(context.settings, self.home(context) / "tools.json")

    def programs(self, context: Context) -> dict[str, str]:
        """Their versions, for people and bug reports. Raises PlatformError PROGRAM_MISSING."""
        found = self.tools(context)
        return {p.name: p.shown for p in (found.kind, found.kubectl, found.helm)}

    def helm(self, context: Context) -> Helm:
        """Helm on our cluster."""
        program = self.tools(context).helm
        return Helm(program.path, program.version[0], self.cluster(context).kubeconfig)

    def kubectl(self, context: Context) -> Kubectl:
        """kubectl on our cluster."""
        return Kubectl(self.tools(context).kubectl.path, self.cluster(context).kubeconfig)

    def running(self, context: Context) -> bool:
        """Whether the API server of our cluster listens; quick, no program is asked."""
        return self.cluster(context).listening()

    def deployed(self, context: Context) -> tuple[str, ...]:
        """The services whose releases were deployed last."""
        found = (stack.read_json(self.home(context) / "services.json") or {}).get("services") or []
        return tuple(s.name for s in catalog.offered(NAME) if s.name in found)

    def endpoints(self, context: Context) -> Endpoints:
        """The ports of kind/cluster.yaml, whatever the settings say of ports; Grafana has a password of its own."""
        built = endpoints.build(context.settings, self.deployed(context) or CORE)
        fixed = {p.setting: p.node_port for p in catalog.CLUSTER_PORTS}
        grafana = built.grafana
        if context.settings.origin("GRAFANA_ADMIN_PASSWORD") == "default":
            grafana = Login(grafana.user, catalog.GRAFANA_ON_KIND)
        return replace(built, ports={**built.ports, **fixed}, grafana=grafana)

    def engines(self, context: Context) -> dict[str, str]:
        """The charts' own engine, silo, has no gaps worth naming."""
        return {}

    def selection(self, context: Context, obs: bool, only: Sequence[str]) -> tuple[str, ...]:
        """The services of the named ones' releases with what they need, or core (`obs`: all); and what is there."""
        out = releases.left_out(context.settings)
        every = [s for s in catalog.offered(NAME) if s.overlay == catalog.OVERLAY_CORE or (obs and s.name not in out)]
        wanted = [*only] if only else [s.name for s in every]
        needed = {c.release for c in releases.of_services(wanted)} - {releases.RELEASES_OF[s] for s in wanted}
        names = {*wanted, *(s for release in needed for s in releases.services_of(release))}
        names |= {s for w in wanted for s in kind_data.shared((w,))}
        names |= set(self.deployed(context)) if self.home(context).is_dir() and self.cluster(context).record else set()
        return tuple(s.name for s in catalog.offered(NAME) if s.name in names)

    def preflight(self, context: Context, names: Sequence[str]) -> list[Check]:
        """Programs, engine, cgroups, memory, disk, limits of the kernel, ports."""
        instead = "in a cluster it is a value of charts (minio: engine=external), see helm/README.md"
        endpoints.refuse_external(context.settings, NAME, instead)
        temporal_login.refuse_unusable(context.settings)
        cluster = self.cluster(context)
        programs = ", ".join(f"{name} {version}" for name, version in self.programs(context).items())
        if cluster.listening():  # it is there and runs: what a new one would need is no question
            root = str(cluster.record.get("dockerRoot", ""))
            return [Check("tools", "ok", programs), kind_checks.room(root, context.stack.home)]
        info = cluster.docker.info()
        obs = any(catalog.service(n).overlay == catalog.OVERLAY_OBS for n in names)
        checks = [Check("tools", "ok", programs), kind_checks.engine(info), kind_checks.memory(info, obs)]
        checks += [kind_checks.disk(info, context.stack.home), *kind_checks.inotify()]
        checks += [kind_checks.cgroup(cluster.file, context.settings.text("KIND_NODE_IMAGE"), info)]
        if not any(node.running for node in cluster.nodes()):
            checks += kind_checks.node_ports(cluster_file.node_ports(cluster.file), cluster.docker)
        return checks

    def start(self, context: Context, names: Sequence[str], timeout: float | None) -> None:
        """Cluster, images, releases, until all are ready; what is there as wanted is left alone."""
        cluster, found = self.cluster(context), self.tools(context)
        fresh = kind_repair.ensure(cluster, found, timeout)
        kind_deploy.prepare(cluster, self.kubectl(context))
        wanted = kind_deploy.wanted(cluster, releases.of_services(names), names)
        changed = kind_deploy.deploy(cluster, found, self.helm(context), wanted, timeout)
        self.record(context, names)
        if fresh or changed:
            self._until_they_answer(context, names, answering.AFTER_START if fresh else answering.PATIENCE)

    def record(self, context: Context, names: Sequence[str]) -> None:
        """Services that have been deployed, beside those that were."""
        self._write(context, {*self.deployed(context), *names})

    def of_releases(self, context: Context, names: Sequence[str]) -> tuple[str, ...]:
        """The services of some releases: those that were deployed of them, or all."""
        there = self.deployed(context)
        found = []
        for name in names:
            every = releases.services_of(name)
            found += [s for s in every if s in there] or list(every)
        return tuple(found)

    def forget(self, context: Context, gone: Sequence[str]) -> None:
        """Services whose releases have been removed."""
        self._write(context, {s for s in self.deployed(context) if releases.RELEASES_OF[s] not in gone})

    def _write(self, context: Context, names: set[str]) -> None:
        body = {"services": [s.name for s in catalog.offered(NAME) if s.name in names]}
        if body != stack.read_json(self.home(context) / "services.json"):
            stack.write_atomic(self.home(context) / "services.json", json.dumps(body) + "\n", sync=False)

    def stop(self, context: Context) -> bool:
        """Stop the cluster's nodes; everything in it stays, and `up` brings it back."""
        cluster = self.cluster(context)
        return bool(cluster.record) and kind_life.stop(cluster)

    def restart(self, context: Context, services: Sequence[str]) -> None:
        """Replace the pods of the services and wait."""
        kubectl = self.kubectl(context)
        with self._cast(context) as (_, who):
            workloads = [w for s in services for w in who.workloads(s)]
        argvs = {
            tuple(kubectl.restart(snapshot.metadata(w)["namespace"], kind_services.workload_name(w))) for w in workloads
        }
        for argv in sorted(argvs):
            shell.run(argv)
        self.wait(context, services, None)

    def status(self, context: Context) -> list[ServiceStatus]:
        """The deployed services as their pods are."""
        with self._cast(context) as (api, who):
            used = kind_services.memory(api)
            return [kind_services.status(s, who, used) for s in self.deployed(context) or CORE]

    def wait(self, context: Context, services: Sequence[str], timeout: float | None) -> None:
        """Block until the services are ready."""
        names = tuple(services) or self.deployed(context) or CORE
        with self._api(context) as api:
            Wait(
                context.console, lambda: kind_services.items(api, names), timeout, "invoke kind.up", sleep=_pause
            ).until_ready()
        self._until_they_answer(context, names, answering.AFTER_START)

    def _until_they_answer(self, context: Context, names: Sequence[str], patience: float) -> None:
        client = providers.postgres_bin(context.settings).path / f"psql{providers.EXE}"
        answering.wait(self.endpoints(context), names, client, context.console.say, patience)

    def logs(self, context: Context, services: Sequence[str], tail: int, follow: bool) -> Iterator[LogLine]:
        """What the services' containers say."""
        names = tuple(services) or self.deployed(context) or CORE
        with self._cast(context) as (api, who):
            yield from kind_services.logs(api, kind_services.sources(names, who), tail, follow)

    def removals(self, context: Context, services: Sequence[str]) -> list[Removal]:
        """The volumes that hold something."""
        for other in kind_data.shared(services):
            context.console.warn(f"{other} is in the same object store: its buckets go, too")
        return kind_data.removals(self.cluster(context), services)

    def remove(self, context: Context, removals: Sequence[Removal]) -> None:
        """Empty the volumes."""
        for removal in removals:
            kind_data.remove(self.cluster(context), removal)

    def stash(self, context: Context, removal: Removal, into: Path) -> None:
        """Copy a volume into the trash and empty it."""
        kind_data.stash(self.cluster(context), removal, into)

    def unstash(self, context: Context, removal: Removal, kept: Path) -> None:
        """Bring it back."""
        kind_data.unstash(self.cluster(context), removal, kept)

    @contextlib.contextmanager
    def _api(self, context: Context) -> Iterator[Api]:
        """The cluster's API; its silence is an error for people."""
        api = self.cluster(context).api()
        try:
            yield api
        except NoAnswer as error:
            raise unreachable(error) from error
        finally:
            api.close()

    @contextlib.contextmanager
    def _cast(self, context: Context) -> Iterator[tuple[Api, kind_services.Cast]]:
        with self._api(context) as api:
            yield api, kind_services.cast(api, snapshot.take(api))

    def pod(self, context: Context, service: str) -> tuple[str, str]:
        """Namespace and name of a pod that runs a service.

        Raises:
            PlatformError: NOT_RUNNING.
        """
        with self._cast(context) as (_, who):
            for pod in who.pods(service):
                return str(snapshot.metadata(pod)["namespace"]), str(snapshot.metadata(pod)["name"])
        raise PlatformError("NOT_RUNNING", f"{service} has no pod", steps=("invoke kind.up", "invoke kind.status"))

    def require(self, context: Context) -> Cluster:
        """The cluster, provided that it runs and that our kubeconfig leads to it: helm and kubectl would follow it.

        Raises:
            PlatformError: NOT_RUNNING, CONTEXT_REFUSED.
        """
        cluster = self.cluster(context)
        cluster.refuse_others()
        if not cluster.listening():
            there = bool(cluster.record)
            text = "the cluster is stopped" if there else "there is no cluster of this stack"
            steps = ("invoke kind.start" if there else "invoke kind.up", "invoke kind.status")
            raise PlatformError("NOT_RUNNING", text, steps=steps)
        return cluster


def _pause(_: float) -> None:
    time.sleep(0.3)
