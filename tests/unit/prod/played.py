"""A cluster that is played: what it has, what it was asked, what kubectl would say."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from infra import shell
from infra.errors import PlatformError
from infra.kube.api import NoAnswer
from infra.prod.cluster import Cluster, key
from infra.prod.render import Rendered
from infra.prod.site import Site

Object = dict[str, Any]
UID = "6f0c1d2e-0000-4000-8000-000000000000"
SITE = Site(
    Path("sites/example.yaml"), {"site": "example", "cluster": {"context": "prod", "uid": UID}, "size": "small"}
)
MADE = "2026-11-25T12:00:00Z"


@dataclass(frozen=True)
class Played(Cluster):
    """A cluster as kubectl shows it: objects by key, and a log of what was done to it."""

    kubectl: str = "kubectl"
    context: str = "prod"
    cache: Path = Path("cache")
    has: dict[tuple[str, str, str], Object] = field(default_factory=dict)
    log: list[str] = field(default_factory=list)
    refuses: dict[str, str] = field(default_factory=dict)
    becomes: Callable[[Object], None] = lambda thing: None

    def __post_init__(self) -> None:
        for name in ("default", "kube-system"):
            self.put({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "uid": UID}})

    def put(self, thing: Object) -> Object:
        about = {**thing["metadata"], "uid": UID, "resourceVersion": "1", "creationTimestamp": MADE}
        self.has[key(thing)] = {**thing, "metadata": about}
        return self.has[key(thing)]

    def has_kind(self, thing: Object) -> bool:
        return True

    def run(self, *words: str, stdin: str | None = None, check: bool = True, limit: float = 0.0) -> shell.Result:
        given = json.loads(stdin) if stdin else {}
        things = given.get("items", [given]) if given else []
        done = getattr(self, f"_{words[0]}")(words, things)
        if done.code and check:
            raise PlatformError("PROGRAM_FAILED", f"kubectl {words[0]} failed", why=done.last_line)
        return done  # type: ignore[no-any-return]

    def _get(self, words: Sequence[str], things: list[Object]) -> shell.Result:
        if words[1] == "--raw":
            return self._raw_list(words[2])
        if things:
            found = [self.has[key(t)] for t in things if key(t) in self.has]
            return _said({"kind": "List", "items": found})
        if "-l" in words:
            label, _, value = words[words.index("-l") + 1].partition("=")
            return _said(
                {"items": [o for o in self.has.values() if (o["metadata"].get("labels") or {}).get(label) == value]}
            )
        kind, name = words[1].partition(".")[0].rstrip("s"), words[2]
        if name.startswith("-"):
            return _said({"items": [o for o in self.has.values() if o["kind"].lower() == kind]})
        found = [o for o in self.has.values() if o["kind"].lower() == kind and o["metadata"]["name"] == name]
        if found and words[-1].startswith("jsonpath"):
            return shell.Result(
                0, str(found[0]["data"][words[-1].partition("data.")[2].rstrip("}").replace("\\", "")]), ""
            )
        return _said(found[0]) if found else shell.Result(0, "", "")

    def _raw_list(self, path: str) -> shell.Result:
        kind = path.partition("?")[0].rpartition("/")[2].rstrip("s")
        return _said({"items": [o for o in self.has.values() if o["kind"].lower() == kind]})

    def _apply(self, words: Sequence[str], things: list[Object]) -> shell.Result:
        for thing in things:
            why = self.refuses.get(thing["metadata"]["name"])
            if why:
                return shell.Result(1, "", f"error: {why}")
        dry = "--dry-run=server" in words
        made = [self._merged(t) for t in things]
        if not dry:
            for thing in made:
                self.log.append(f"apply {thing['kind']} {thing['metadata']['name']}")
                live = self.put(thing)
                live["metadata"]["generation"] = live["metadata"].get("generation", 0) + 1
                self.becomes(live)
        return _said({"kind": "List", "items": made})

    def _merged(self, thing: Object) -> Object:
        before = copy.deepcopy(self.has.get(key(thing), {}))
        return {**before, **thing, "metadata": {**before.get("metadata", {}), **thing["metadata"]}}

    def _create(self, words: Sequence[str], things: list[Object]) -> shell.Result:
        if any(key(thing) in self.has for thing in things):
            return shell.Result(1, "", "AlreadyExists")
        for thing in things:
            self.log.append(f"create {thing['kind']} {thing['metadata']['name']}")
            self.becomes(self.put(thing))
        return shell.Result(0, "", "")

    def _replace(self, words: Sequence[str], things: list[Object]) -> shell.Result:
        self.has[key(things[0])] = things[0]
        return shell.Result(0, "", "")

    def _delete(self, words: Sequence[str], things: list[Object]) -> shell.Result:
        names = [(t["kind"], t["metadata"]["name"]) for t in things] or [(words[1].capitalize(), words[2])]
        for name in names:
            self.log.append(f"delete {name[0]} {name[1]}")
            for known in [k for k, o in self.has.items() if (o["kind"], o["metadata"]["name"]) == name]:
                del self.has[known]
        return shell.Result(0, "", "")


@dataclass(frozen=True)
class Silent(Played):
    """A cluster that does not answer questions of the API."""

    def get(self, path: str, **query: str) -> dict[str, Any]:
        raise NoAnswer("connection refused")


def _said(body: Any) -> shell.Result:
    return shell.Result(0, json.dumps(body), "")


def rendered(**waves: Sequence[Object]) -> Rendered:
    return Rendered(SITE, {name: tuple(things) for name, things in waves.items()})


def deployment(name: str = "server", image: str = "server:1", replicas: int = 1) -> Object:
    labels = {"app": name, "platform/site": "example"}
    template = {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "server", "image": image}]}}
    spec = {"replicas": replicas, "selector": {"matchLabels": {"app": name}}, "template": template}
    about = {"name": name, "namespace": "default", "labels": labels}
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": about, "spec": spec}


def job(name: str = "schema-1", migration: bool = True) -> Object:
    labels = {"platform/site": "example"} | ({"platform/migration": "schema"} if migration else {})
    spec = {"selector": {"matchLabels": {"job": name}}, "template": {"metadata": {"labels": {"job": name}}}}
    about = {"name": name, "namespace": "default", "labels": labels}
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": about, "spec": spec}


def settles(thing: Object) -> None:
    """What controllers make of an object: it becomes ready at once."""
    about, replicas = thing["metadata"], thing.get("spec", {}).get("replicas", 1)
    if thing["kind"] == "Deployment":
        counts = dict.fromkeys(("readyReplicas", "updatedReplicas", "replicas"), replicas)
        thing["status"] = {**counts, "observedGeneration": about.get("generation", 1)}
    elif thing["kind"] == "Job":
        thing["status"] = {"succeeded": 1}
    elif thing["kind"] == "Backup":
        thing["status"] = {"phase": "completed"}
