"""The services of the catalogue in a cluster: which pods run them, how they do, what they say."""

from __future__ import annotations

import calendar
import contextlib
import queue
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from infra import catalog
from infra.kube import releases, snapshot, verdict
from infra.kube.api import Api, NoAnswer, Object
from infra.kube.snapshot import Snapshot, matches, metadata
from infra.kube.verdict import containers
from infra.loglines import LogQuery
from infra.tiers.base import LogLine, ServiceStatus
from infra.waiting import Item

BUDGET = 300.0
"""Seconds that a service may take."""
Where = tuple[str, str]
"""Namespace and name of a Service of Kubernetes."""


def places(service: str) -> tuple[Where, ...]:
    """Return the Kubernetes Services behind a service's ports."""
    known = {p.setting: (p.namespace, p.name) for p in catalog.CLUSTER_PORTS}
    found = [known[p.setting] for p in catalog.service(service).ports if p.setting in known]
    return tuple(dict.fromkeys(found))


@dataclass(frozen=True)
class Cast:
    """Pods and workloads by service at one moment: a snapshot and the selectors of all Services."""

    found: Snapshot
    selectors: Mapping[Where, Mapping[str, str]]

    def pods(self, service: str) -> list[Object]:
        """Return the pods of a service, without those of earlier versions and those that end."""
        wanted = [(where[0], self.selectors.get(where)) for where in places(service)]
        return [p for p in self.found.pods if any(matches(s, n, p) for n, s in wanted) and not _ending(p)]

    def workloads(self, service: str) -> list[Object]:
        """Return the Deployments and the like that make these pods."""
        wanted = [(where[0], self.selectors.get(where)) for where in places(service)]
        return [w for w in self.found.workloads if any(_serves(w, n, s) for n, s in wanted)]


def _serves(workload: Object, namespace: str, selector: Mapping[str, str] | None) -> bool:
    labels = ((workload["spec"].get("template") or {}).get("metadata") or {}).get("labels") or {}
    same = metadata(workload)["namespace"] == namespace
    return selector is not None and bool(selector) and same and selector.items() <= labels.items()


def _ending(pod: Object) -> bool:
    return bool(metadata(pod).get("deletionTimestamp")) or (pod.get("status") or {}).get("phase") in ("Succeeded",)


def cast(api: Api, found: Snapshot) -> Cast:
    """Ask for the Services and their selectors. Raises NoAnswer."""
    known = {(metadata(s)["namespace"], metadata(s)["name"]): s["spec"].get("selector") or {} for s in _services(api)}
    return Cast(found, known)


def _services(api: Api) -> list[Object]:
    return [s for n in catalog.NAMESPACES for s in api.items(f"/api/v1/namespaces/{n}/services")]


def memory(api: Api) -> dict[Where, int]:
    """Return the bytes that each pod uses (working set), as the kubelets count; {} where they do not tell."""
    found: dict[Where, int] = {}
    with contextlib.suppress(NoAnswer):
        for node in api.items("/api/v1/nodes"):
            summary = api.get(f"/api/v1/nodes/{metadata(node)['name']}/proxy/stats/summary")
            for pod in summary.get("pods") or []:
                used = (pod.get("memory") or {}).get("workingSetBytes")
                if used:
                    found[(pod["podRef"]["namespace"], pod["podRef"]["name"])] = int(used)
    return found


def status(service: str, who: Cast, used: Mapping[Where, int]) -> ServiceStatus:
    """Judge a service: state and reason of its release, restarts, memory and age of its pods."""
    release = releases.RELEASES_OF[service]
    chart = releases.chart(release)
    pods, workloads = who.pods(service), who.workloads(service)
    if not workloads:
        return ServiceStatus(service, "stopped", f"the release {release} is not in the cluster")
    if all(w["spec"].get("replicas") == 0 for w in workloads):
        return ServiceStatus(service, "stopped", "scaled to 0")
    mine = who.found.of_release(release, chart.namespace)
    only = Snapshot(workloads, mine.sets, (), pods, mine.claims, mine.events, mine.nodes)
    seen = verdict.judge(only)
    held = sum(used.get((metadata(p)["namespace"], metadata(p)["name"]), 0) for p in pods)
    return ServiceStatus(
        service,
        seen.state,
        seen.detail,
        memory=held or None,
        restarts=sum(int(s.get("restartCount", 0)) for p in pods for s in containers(p)),
        since=min((_since(p) for p in pods), default=None),
    )


def items(api: Api, names: Sequence[str]) -> list[Item]:
    """Return the services as a wait sees them; a silence of the API server is no end of it."""
    try:
        who = cast(api, snapshot.take(api))
    except NoAnswer as error:
        return [Item(name, "starting", str(error), budget=BUDGET) for name in names]
    found = [status(name, who, {}) for name in names]
    return [Item(s.name, "starting" if s.state == "stopped" else s.state, s.detail, budget=BUDGET) for s in found]


def _since(pod: Object) -> float:
    text = (pod.get("status") or {}).get("startTime") or metadata(pod).get("creationTimestamp") or ""
    return float(calendar.timegm(time.strptime(text, "%Y-%m-%dT%H:%M:%SZ"))) if text else time.time()


def workload_name(workload: Object) -> str:
    """Name a workload as kubectl does, e.g. `deployment/temporal`."""
    return f"{workload['kind'].lower()}/{metadata(workload)['name']}"


# --- logs


@dataclass(frozen=True)
class LogSource:
    """A container whose log is read, and the service it belongs to."""

    service: str
    namespace: str
    pod: str
    container: str

    @property
    def path(self) -> str:
        """Return the path of its log in the API."""
        return f"/api/v1/namespaces/{self.namespace}/pods/{self.pod}/log"


def sources(services: Sequence[str], who: Cast) -> list[LogSource]:
    """Return the containers of services, each once (two services may be one release)."""
    found, seen = [], set()
    for service in services:
        for pod in who.pods(service):
            about = metadata(pod)
            for container in pod["spec"]["containers"]:
                key = (about["namespace"], about["name"], container["name"])
                if key not in seen:
                    seen.add(key)
                    found.append(LogSource(service, *key))
    return found


def logs(api: Api, known: Sequence[LogSource], query: LogQuery) -> Iterator[LogLine]:
    """Yield the wanted lines of each, then those that come."""
    which = {"tailLines": str(query.tail)} if query.tail > 0 and not query.pattern else {}
    if query.since is not None:
        which["sinceTime"] = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(query.since))
    for source in known:
        with contextlib.suppress(NoAnswer):
            text = api.text(source.path, container=source.container, **which)
            yield from (LogLine(source.service, line) for line in query.last(text.splitlines()))
    if query.follow:
        yield from (line for line in _followed(api, known) if query.matches(line.text))


def _followed(api: Api, known: Sequence[LogSource]) -> Iterator[LogLine]:
    lines: queue.Queue[LogLine | None] = queue.Queue()
    for source in known:
        threading.Thread(target=_pump, args=(api, source, lines), daemon=True).start()
    ended = 0
    while ended < len(known):
        line = lines.get()
        if line is None:
            ended += 1
        else:
            yield line


def _pump(api: Api, source: LogSource, lines: queue.Queue[LogLine | None]) -> None:
    with contextlib.suppress(NoAnswer):
        for text in api.lines(source.path, container=source.container, follow="true", sinceSeconds="1"):
            lines.put(LogLine(source.service, text))
    lines.put(None)
