"""Releases on their way into the cluster: each starts when what it needs is ready, and all are watched side by side.

A state machine that is polled: it starts Helm, never waits, and says for each release how far it is and why not
further. `infra.waiting` shows that and ends it at the first one that is hopeless.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from infra import shell
from infra.console import Console
from infra.kube import snapshot, verdict
from infra.kube.api import Api, NoAnswer, Object
from infra.kube.helm_cli import Helm
from infra.kube.kubectl_cli import Kubectl
from infra.kube.releases import Deployed, Wanted
from infra.kube.snapshot import Snapshot, metadata
from infra.kube.trouble import describe
from infra.kube.verdict import FAILED, READY, STARTING, Verdict
from infra.waiting import Item

BUDGET = 300.0
"""Seconds that a release may take from the time when what it needs is ready; what is hopeless ends earlier."""
PAUSE = 0.3
"""Seconds between two looks at the cluster."""
PATIENCE = 30.0
"""Seconds that the API server may be silent."""

Start = Callable[..., shell.Child]


@dataclass
class _Progress:
    wanted: Wanted
    running: shell.Child | None = None
    healing: bool = False
    began: float = 0.0
    error: str = ""
    applied: bool = False
    restarts: dict[tuple[str, str], int] | None = None
    last: Verdict = field(default_factory=lambda: Verdict(STARTING, "not begun"))


@dataclass
class Rollout:
    """Some releases and how far they are.

    Args:
        deployed: what Helm has in the cluster now; a release with the same hash is only watched.
        busy: whether another run of Helm works on the cluster.
        held: why a release must not start yet, '' when it may.
        earlier: the image of which a pod runs an earlier build, '' when its node has no other under that name.
    """

    api: Api
    helm: Helm
    wanted: Sequence[Wanted]
    deployed: Mapping[str, Deployed]
    console: Console
    notes: Path
    busy: Callable[[], bool] = lambda: False
    kubectl: Kubectl | None = None
    held: Callable[[str], str] = lambda _: ""
    earlier: Callable[[Object], str] = lambda _: ""
    start: Start = shell.spawn
    clock: Callable[[], float] = time.time
    began: float = field(default_factory=time.time)
    changed: list[str] = field(default_factory=list)
    waited: bool = False
    """True when anything was changed, or was there as wanted but not ready: it may not answer for a moment more."""
    _known: dict[str, _Progress] = field(default_factory=dict)
    _silent: float | None = None
    _replaced: set[str] = field(default_factory=set)
    _renewed: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self._known = {w.name: _Progress(w) for w in self.wanted}

    def poll(self) -> list[Item]:
        """Look, start what can start, and say how each release does."""
        found = self._look()
        if found is not None:
            for progress in self._known.values():
                progress.last = self._step(progress, found)
        return [self._item(progress) for progress in self._known.values()]

    def stop(self) -> None:
        """End the runs of Helm that still go on; each marks its release as failed."""
        for progress in self._known.values():
            if progress.running is not None:
                progress.running.stop()

    def _look(self) -> Snapshot | None:
        try:
            found = snapshot.take(self.api)
        except NoAnswer:
            self._silent = self._silent or self.clock()
            if self.clock() - self._silent > PATIENCE:
                raise
            return None
        self._silent = None
        return found

    def _ready(self, name: str) -> bool:
        return name not in self._known or self._known[name].last.state == READY

    def _step(self, progress: _Progress, found: Snapshot) -> Verdict:
        if progress.error:
            return progress.last
        waits = [n for n in progress.wanted.chart.needs if not self._ready(n)]
        if waits and progress.running is None and not progress.applied:
            return Verdict("waiting", f"for {', '.join(waits)}")
        if not progress.applied:
            held = self.held(progress.wanted.name) if progress.running is None else ""
            return Verdict("waiting", held) if held else self._deploying(progress, found)
        return self._watch(progress, found, waits)

    def _deploying(self, progress: _Progress, found: Snapshot) -> Verdict:
        if progress.running is None:
            return self._begin(progress)
        done = progress.running.result()
        if done is None:
            return self._during(progress, found)
        progress.running = None
        if done.code != 0:
            return self._failed(progress, cause(done, progress.wanted.name), found)
        if progress.healing:
            progress.healing, progress.began = False, self.clock()
            return self._upgrade(progress)
        progress.applied = True
        return Verdict(STARTING, "applied")

    def _begin(self, progress: _Progress) -> Verdict:
        progress.began = self.clock()
        wanted, known = progress.wanted, self.deployed.get(progress.wanted.name)
        if known is None:
            return self._upgrade(progress)
        if known.pending:
            if self.busy():
                return Verdict(STARTING, "another helm run is working on it")
            return self._heal(progress, known)
        if known.status == "deployed" and known.fingerprint == wanted.fingerprint:
            progress.applied = True
            return Verdict(STARTING, "looking")
        return self._upgrade(progress)

    def _heal(self, progress: _Progress, known: Deployed) -> Verdict:
        """Repair after a run of Helm that was killed: back to the last good revision, or remove one that never was."""
        name, namespace = known.name, known.namespace
        if known.last_good:
            argv, what = self.helm.rollback(name, namespace, known.last_good), f"back to revision {known.last_good}"
        else:
            argv, what = self.helm.uninstall(name, namespace), "installed again; its volumes are kept"
        self.console.say(f"  {name} was left {known.status} by a run that was killed: {what}")
        progress.running, progress.healing = self.start(argv), True
        return Verdict(STARTING, f"{known.status}: {what}")

    def _upgrade(self, progress: _Progress) -> Verdict:
        wanted = progress.wanted
        self.changed.append(wanted.name)
        self.waited = True
        progress.running = self.start(self.helm.upgrade(wanted.deploy), stdin=wanted.stdin)
        return Verdict(STARTING, "helm upgrade --install")

    def _during(self, progress: _Progress, found: Snapshot) -> Verdict:
        """Judge while Helm runs (it waits for its hooks): only what it has made since can be blamed."""
        mine = found.of_release(progress.wanted.name, progress.wanted.chart.namespace)
        self._replace_stuck(mine)
        fresh = [p for p in mine.pods if _made(p) >= progress.began - 2 and not snapshot.outdated(p, mine)]
        jobs = [j for j in mine.jobs if _made(j) >= progress.began - 2]
        seen = verdict.judge(Snapshot((), (), jobs, fresh, mine.claims, mine.events, mine.nodes))
        if seen.state == FAILED and progress.running is not None and not progress.healing:
            progress.running.stop()
            progress.running = None
            return self._blame(progress, seen, mine)
        return Verdict(STARTING, seen.detail) if fresh else progress.last

    def _watch(self, progress: _Progress, found: Snapshot, waits: Sequence[str]) -> Verdict:
        mine = found.of_release(progress.wanted.name, progress.wanted.chart.namespace)
        self._replace_stuck(mine)
        if progress.restarts is None and not waits:
            old = [p for p in mine.pods if _made(p) < self.began - 2]
            progress.restarts = verdict.restarts_of(old)
            current = [pod for pod in old if not snapshot.outdated(pod, mine)]
            self._try_now(current)
            self._take_present_build(progress.wanted.name, current)
        if going := [metadata(p)["name"] for p in mine.pods if metadata(p)["uid"] in self._renewed]:
            return Verdict(STARTING, f"{', '.join(going)} is being replaced")
        seen = verdict.judge(mine, progress.restarts)
        self.waited |= seen.state != READY
        if seen.state != FAILED:
            return seen
        if waits:  # it may well crash until they are there
            return Verdict(STARTING, f"{seen.detail}; waits for {', '.join(waits)}")
        return self._blame(progress, seen, mine)

    def _replace_stuck(self, mine: Snapshot) -> None:
        """Delete broken pods of an earlier version: a StatefulSet waits for them forever, and goes on without them."""
        for pod in mine.pods:
            about = metadata(pod)
            alone = Snapshot((), (), (), [pod], (), mine.events)
            broken = snapshot.outdated(pod, mine) and verdict.judge(alone).state == FAILED
            if broken and about["uid"] not in self._replaced:
                self._recreate(pod, "belongs to an earlier version and is broken")

    def _try_now(self, pods: Sequence[Object]) -> None:
        """Delete pods that wait minutes after crashes: the cause may be fixed by now, or shows in seconds."""
        for pod in pods:
            crashes = verdict.crashes_of(pod)
            if crashes and metadata(pod).get("ownerReferences"):
                self._recreate(pod, f"has crashed {crashes} times")

    def _take_present_build(self, release: str, pods: Sequence[Object]) -> None:
        """Delete pods of an earlier build of their image: for Kubernetes nothing has changed."""
        for pod in pods:
            image = self.earlier(pod) if self.kubectl else ""
            if image:
                self._recreate(pod, f"runs an earlier build of {image}")
                self._renewed.add(metadata(pod)["uid"])
                self.waited = True
                self.changed += [] if release in self.changed else [release]

    def _recreate(self, pod: Object, why: str) -> None:
        about = metadata(pod)
        if self.kubectl is None:
            return
        self._replaced.add(about["uid"])
        self.console.say(f"  {about['name']} {why}; recreating it")
        self.start(self.kubectl.delete([f"pod/{about['name']}"], about["namespace"]))

    def _blame(self, progress: _Progress, seen: Verdict, mine: Snapshot) -> Verdict:
        describe(self.api, seen, mine, self._note(progress.wanted.name))
        progress.error = seen.detail
        return seen

    def _failed(self, progress: _Progress, text: str, found: Snapshot) -> Verdict:
        """Explain a failure of Helm itself; where a pod of its hooks is the reason, that one is blamed."""
        mine = found.of_release(progress.wanted.name, progress.wanted.chart.namespace)
        seen = verdict.judge(mine)
        if seen.state == FAILED and seen.pod:
            return self._blame(progress, seen, mine)
        progress.error = text
        return Verdict(FAILED, text)

    def _note(self, name: str) -> Path:
        return self.notes / f"{name}.txt"

    def _item(self, progress: _Progress) -> Item:
        wanted, last = progress.wanted, progress.last
        log = self._note(wanted.name) if progress.error and self._note(wanted.name).exists() else None
        return Item(wanted.name, last.state, last.detail, wanted.chart.needs, BUDGET, log=log)


def _made(thing: Object) -> float:
    """Return when an object was created, in seconds since 1970."""
    import calendar

    text = metadata(thing).get("creationTimestamp") or ""
    return float(calendar.timegm(time.strptime(text, "%Y-%m-%dT%H:%M:%SZ"))) if text else 0.0


def cause(done: shell.Result, release: str) -> str:
    """Pick from Helm's output why it failed, without what it says of others and itself."""
    lines = [line.strip() for line in done.err.splitlines() if line.strip()]
    errors = [line for line in lines if line.lower().startswith("error:")] or lines[-1:]
    start = lines.index(errors[-1]) if errors else 0
    text = " ".join(lines[start : start + 6]) or f"helm ended with {done.code}"
    return text.removeprefix("Error: ").replace("UPGRADE FAILED: ", "").replace("INSTALLATION FAILED: ", "") or release
