"""The kind tier: a Kubernetes cluster on this machine, one Helm release for each part of the platform."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path

from infra import catalog, docker_engine, endpoints, shell
from infra.endpoints import Endpoints, Login
from infra.errors import PlatformError
from infra.kube import releases
from infra.kube import tools as kube_tools
from infra.kube.helm_cli import Helm
from infra.kube.kubectl_cli import Kubectl
from infra.kube.releases import Wanted
from infra.loglines import LogQuery
from infra.tiers import answering, providers, temporal_login
from infra.tiers.base import Availability, Check, LogLine, Observed, Removal, ServiceStatus, Tier, known_or_why
from infra.tiers.cluster import deploy as cluster_deploy
from infra.tiers.cluster import running as cluster_running
from infra.tiers.cluster.deploy import DeployOutcome
from infra.tiers.cluster.deployed import DeployedServices
from infra.tiers.kind import checks, data, life, queue, repair, tools
from infra.tiers.kind.cluster import TIER, KindCluster
from infra.tiers.kind.deploy import Nodes
from infra.tiers.kind.tools import Tools

CORE = tuple(s.name for s in catalog.SERVICES if s.overlay == catalog.OVERLAY_CORE)


class Kind(Tier):
    """The platform in a Kubernetes cluster on this machine."""

    name = TIER
    _changed: Sequence[str] = ()
    """Releases that `start` has changed."""

    def available(self) -> Availability:
        """Check that kind, kubectl, helm and docker are installed; preflight checks the versions and the engine."""
        absent = kube_tools.missing(self.context.settings) + ([] if docker_engine.has_program() else ["docker"])
        if absent:
            steps = kube_tools.steps([n for n in absent if n != "docker"])
            steps += ("install Docker: https://docs.docker.com/get-started/get-docker/",) if "docker" in absent else ()
            return Availability(False, f"not installed: {', '.join(absent)}", steps)
        return Availability(True, "kind, kubectl and helm are installed", prefer=False)

    @property
    def jobs_kubeconfig(self) -> Path:
        """That of the cluster: a Job reaches the platform by its addresses inside."""
        return self.cluster.kubeconfig

    @cached_property
    def cluster(self) -> KindCluster:
        """The cluster of the stack."""
        return KindCluster(self.context, self.home)

    @cached_property
    def tools(self) -> Tools:
        """The programs. Raises PlatformError PROGRAM_MISSING."""
        return tools.find(self.context.settings, self._tools_seen)

    @property
    def _tools_seen(self) -> Path:
        """The file in which their versions are remembered."""
        return self.home / "tools.json"

    def observed(self) -> Observed:
        """Return what monitoring covers: Alloy comes with Loki, unless it is left out."""
        shipped = "loki" in self.endpoints().services and "alloy" not in releases.left_out(self.context.settings)
        return replace(super().observed(), logs=shipped)

    def programs(self) -> dict[str, str]:
        """Return versions of kind, kubectl and helm, the engine that the nodes run in, and their image."""
        cluster, there = self.cluster, kube_tools.installed(self.context.settings, self._tools_seen)
        shown = {t.name: there[t.name].shown if t.name in there else "not installed" for t in catalog.KUBE_TOOLS}
        engine = known_or_why(lambda: checks.engine(cluster.docker.info()).text)
        return {**shown, "container engine": engine, "node image": str(cluster.record.get("image") or "none yet")}

    @cached_property
    def helm(self) -> Helm:
        """Helm on our cluster."""
        program = self.tools.helm
        return Helm(program.path, program.version[0], self.cluster.kubeconfig)

    @cached_property
    def kubectl(self) -> Kubectl:
        """kubectl on our cluster."""
        return Kubectl(self.tools.kubectl.path, self.cluster.kubeconfig)

    def running(self) -> bool:
        """Return whether the API server of our cluster listens; quick, no program is asked."""
        return self.cluster.listening()

    @property
    def deployed(self) -> DeployedServices:
        """The services whose releases were deployed."""
        return DeployedServices(self.home)

    def shown(self) -> tuple[str, ...]:
        """Return the services that are looked at where none is named: those deployed; the core as long as none is."""
        return self.deployed.names or CORE

    def outdated(self) -> tuple[str, ...]:
        """Return the services whose releases differ from what this checkout would deploy."""
        return tuple(cluster_deploy.outdated(self.cluster, self.deployed.names))

    def endpoints(self) -> Endpoints:
        """Return the ports of kind/cluster.yaml, whatever the settings say; Grafana has a password of its own."""
        built = endpoints.build(self.context.settings, self.shown())
        fixed = {p.setting: p.node_port for p in catalog.CLUSTER_PORTS}
        grafana = built.grafana
        if self.context.settings.origin("GRAFANA_ADMIN_PASSWORD") == "default":
            grafana = Login(grafana.user, catalog.GRAFANA_ON_KIND)
        return replace(built, ports={**built.ports, **fixed}, grafana=grafana)

    def engines(self) -> dict[str, str]:
        """Return the program behind the object stores: the charts' own."""
        return dict.fromkeys(("minio-datasets", "minio-results"), "silo")

    def selection(self, obs: bool, only: Sequence[str]) -> tuple[str, ...]:
        """Return the services of the named releases with their needs, or the core (`obs`: all); and those deployed."""
        out = releases.left_out(self.context.settings)
        every = [s for s in catalog.offered(TIER) if s.overlay == catalog.OVERLAY_CORE or (obs and s.name not in out)]
        wanted = [*only] if only else [s.name for s in every]
        needed = {c.release for c in releases.of_services(wanted)} - {releases.RELEASES_OF[s] for s in wanted}
        names = {*wanted, *(s for release in needed for s in releases.services_of(release))}
        names |= {s for w in wanted for s in data.shared((w,))}
        names |= set(self.deployed.names) if self.cluster.record else set()
        return tuple(s.name for s in catalog.offered(TIER) if s.name in names)

    def preflight(self, names: Sequence[str]) -> list[Check]:
        """Check programs, engine, cgroups, memory, disk, kernel limits and ports."""
        instead = "in a cluster this is a chart value (minio: engine=external), see helm/README.md"
        endpoints.refuse_external(self.context.settings, TIER, instead)
        temporal_login.refuse_unusable(self.context.settings)
        obs = any(n in catalog.OBSERVABILITY for n in names)
        return [checks.programs(self.tools), *checks.machine(self.cluster, obs)]

    def own_answers(self) -> list[Check]:
        """Check the queue of trainings."""
        return queue.checks(self)

    def start(self, names: Sequence[str], timeout: float | None) -> None:
        """Start cluster, images and releases until all are ready; what is there as wanted is left alone."""
        cluster = self.cluster
        fresh = repair.ensure(cluster, self.tools, timeout)
        cluster_deploy.prepare(cluster, self.kubectl)
        wanted = cluster_deploy.wanted(cluster, releases.of_services(names), names)
        done = self.deploy(wanted, timeout)
        self._changed = done.changed
        self.deployed.add(names)
        if fresh or done.waited:
            self._until_they_answer(names, answering.AFTER_START if fresh else answering.PATIENCE)
        if queue.wanted(self):
            queue.bring(self, timeout)

    def deploy(self, wanted: Sequence[Wanted], timeout: float | None, shown: Sequence[Wanted] = ()) -> DeployOutcome:
        """Bring releases to what is wanted; `shown` as for `Nodes`, errors as of `cluster.deploy`."""
        nodes = Nodes(self.cluster, self.tools, self.helm, shown)
        return cluster_deploy.deploy(self.cluster, self.kubectl, self.helm, wanted, timeout, nodes)

    def renew_application(self, timeout: float | None) -> None:
        """Deploy the application again where services have changed: its Secrets hold their logins."""
        cluster = self.cluster
        if not self._changed:
            return
        with cluster.connected() as api:
            there = cluster_deploy.deployed(api)
        charts = [c for c in releases.charts((catalog.OVERLAY_APPS,)) if c.release in there]
        if charts:
            self.deploy(cluster_deploy.wanted(cluster, charts, self.deployed.names), timeout)

    def take_present_builds(self) -> list[str]:
        """Replace pods that run an earlier build of an image than their node has; the releases, ready again.

        Raises:
            PlatformError: as `cluster.deploy`.
        """
        nodes = Nodes(self.cluster, self.tools, self.helm)
        charts = cluster_deploy.with_earlier_builds(self.cluster, nodes)
        if charts:
            cluster_deploy.watch(self.cluster, self.kubectl, self.helm, charts, None, nodes)
        return [chart.release for chart in charts]

    def stop(self) -> bool:
        """Stop the cluster's nodes; everything in it stays, and `up` brings it back."""
        cluster = self.cluster
        return bool(cluster.record) and life.stop(cluster)

    def stop_services(self, names: Sequence[str]) -> tuple[str, ...]:
        """Uninstall their releases, those that run nothing else; volumes and passwords are kept."""
        gone, there = [], self.deployed.names
        for chart in reversed(catalog.CHARTS):
            running = [n for n in releases.services_of(chart.release) if n in there]
            if running and set(running) <= set(names):
                self.uninstall(chart.release, chart.namespace)
                gone += running
        return tuple(n for n in there if n in gone)

    def uninstall(self, release: str, namespace: str) -> None:
        """Uninstall a release; volumes and passwords are kept."""
        shell.run(self.helm.uninstall(release, namespace), limit=300)
        self.deployed.forget([release])

    def restart(self, services: Sequence[str]) -> None:
        """Replace the pods of the services and wait."""
        cluster_running.restart(self.cluster, self.kubectl, services)
        self.wait(services, None)

    def status(self) -> list[ServiceStatus]:
        """Return the deployed services as their pods are."""
        return cluster_running.status(self.cluster, self.shown())

    def processes(self) -> set[tuple[str, int | None]]:
        """Return the services whose pods are ready; what runs in them has no pid here."""
        found = cluster_running.status(self.cluster, self.shown(), memory=False)
        return {(s.name, None) for s in found if s.state == "ready"}

    def wait(self, services: Sequence[str], timeout: float | None) -> None:
        """Block until the services are ready."""
        names = tuple(services) or self.shown()
        cluster_running.wait(self.cluster, self.context.console, names, timeout)
        self._until_they_answer(names, answering.AFTER_START)

    def _until_they_answer(self, names: Sequence[str], patience: float) -> None:
        client = providers.postgres_bin(self.context.settings).path / f"psql{providers.EXE}"
        answering.wait(self.endpoints(), names, client, self.context.console.say, patience)

    def logs(self, services: Sequence[str], query: LogQuery) -> Iterator[LogLine]:
        """Yield the log lines of the services' containers."""
        return cluster_running.logs(self.cluster, tuple(services) or self.shown(), query)

    def removals(self, services: Sequence[str]) -> list[Removal]:
        """Return the volumes that hold something."""
        for other in data.shared(services):
            self.context.console.warn(f"{other} is in the same object store: its buckets are removed, too")
        return data.removals(self.cluster, services)

    def remove(self, removals: Sequence[Removal]) -> None:
        """Empty the volumes."""
        for removal in removals:
            data.remove(self.cluster, removal)

    def stash(self, removal: Removal, into: Path) -> None:
        """Copy a volume into the trash and empty it."""
        data.stash(self.cluster, removal, into)

    def unstash(self, removal: Removal, kept: Path) -> None:
        """Bring it back."""
        data.unstash(self.cluster, removal, kept)

    def require(self) -> KindCluster:
        """Return the cluster if it runs and our kubeconfig points to it: helm and kubectl would follow the kubeconfig.

        Raises:
            PlatformError: NOT_RUNNING, CONTEXT_REFUSED.
        """
        cluster = self.cluster
        cluster.refuse_others()
        if not cluster.listening():
            there = bool(cluster.record)
            text = "the cluster is stopped" if there else "this stack has no cluster"
            steps = ("invoke kind.start" if there else "invoke kind.up", "invoke kind.status")
            raise PlatformError("NOT_RUNNING", text, steps=steps)
        return cluster
