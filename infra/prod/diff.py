"""Changes that applying a site would make, as the API server itself says, and the id of exactly that plan."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from infra.errors import PlatformError
from infra.prod import cluster as clusters
from infra.prod.cluster import Cluster, Object, key
from infra.prod.render import SITE, Rendered
from infra.prod.rules.base import title

CREATE, CHANGE, SAME, REFUSED, LEFT_OVER = "create", "change", "same", "refused", "left over"
Live = Mapping[tuple[str, str, str], Object]
_SERVER = ("managedFields", "resourceVersion", "generation", "uid", "creationTimestamp", "selfLink")
_NOT_OURS = ("kubectl.kubernetes.io/last-applied-configuration", "deployment.kubernetes.io/revision")


@dataclass(frozen=True)
class Change:
    """The change to one object: an action, and the fields that differ (or why it is refused)."""

    wave: str
    object: str
    action: str
    fields: tuple[str, ...] = ()


@dataclass(frozen=True)
class Plan:
    """The changes of a site, and the id by which this plan and no other is confirmed."""

    id: str
    changes: tuple[Change, ...]

    @property
    def todo(self) -> list[Change]:
        """The changes that would do something."""
        return [c for c in self.changes if c.action in (CREATE, CHANGE)]

    @property
    def refused(self) -> list[Change]:
        """List what the API server refuses."""
        return [c for c in self.changes if c.action == REFUSED]


def plan(rendered: Rendered, cluster: Cluster) -> Plan:
    """Compare a site with its cluster; nothing is changed.

    Raises:
        PlatformError: UNREACHABLE, LOGIN_REFUSED, PROGRAM_FAILED.
    """
    live, places = cluster.live(rendered.objects), cluster.namespaces()
    changes = [c for wave, things in rendered.waves.items() for c in _wave(wave, things, live, places, cluster)]
    changes += _left_over(rendered, cluster)
    return Plan(_id(rendered, live, clusters.uid_of(cluster)), tuple(changes))


def _id(rendered: Rendered, live: Live, uid: str) -> str:
    """Hash of the files, the cluster, and what is in it of them; status is left out, which changes by itself."""
    digest = hashlib.sha256(f"{rendered.hash}\0{uid}\0".encode())
    for name in sorted(live):
        digest.update(json.dumps([name, plain(live[name])], sort_keys=True).encode())
    return digest.hexdigest()[:12]


def plain(thing: Object) -> Object:
    """Leave out of an object what the server keeps in it for itself."""
    about = {k: v for k, v in thing["metadata"].items() if k not in _SERVER}
    notes = {k: v for k, v in (about.get("annotations") or {}).items() if k not in _NOT_OURS}
    about |= {"annotations": notes} if "annotations" in about else {}
    return {**{k: v for k, v in thing.items() if k not in ("status", "metadata")}, "metadata": about}


def _wave(wave: str, things: Sequence[Object], live: Live, places: set[str], cluster: Cluster) -> Iterator[Change]:
    """Yield the changes of one wave. Objects are asked for together, and one by one where the server refuses some."""
    new = [t for t in things if t["metadata"].get("namespace", "default") not in places or not cluster.has_kind(t)]
    yield from (Change(wave, title(t), CREATE) for t in new)
    known = [t for t in things if t not in new]
    done = cluster.dry_run(known) if known else None
    if done is not None and done.code == 0:
        yield from (_change(wave, after, live) for after in clusters.listed(done.out))
        return
    for thing in known:
        alone = cluster.dry_run([thing])
        if alone.code:
            yield Change(wave, title(thing), REFUSED, (alone.last_line,))
        else:
            yield from (_change(wave, after, live) for after in clusters.listed(alone.out))


def _change(wave: str, after: Object, live: Live) -> Change:
    if key(after) not in live:
        return Change(wave, title(after), CREATE)
    fields = tuple(differences(plain(live[key(after)]), plain(after)))
    return Change(wave, title(after), CHANGE if fields else SAME, fields)


def differences(before: Any, after: Any, path: str = "") -> Iterator[str]:
    """Name the fields that differ, with their values where these are short."""
    if isinstance(before, dict) and isinstance(after, dict):
        for name in sorted(before.keys() | after.keys()):
            inner = f"{path}.{name}" if path else name
            yield from differences(before.get(name), after.get(name), inner)
    elif isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        for place, (old, new) in enumerate(zip(before, after, strict=True)):
            yield from differences(old, new, f"{path}[{place}]")
    elif before != after:
        yield f"{path}: {_short(before)} -> {_short(after)}"


def _short(value: Any) -> str:
    text = "nothing" if value is None else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _left_over(rendered: Rendered, cluster: Cluster) -> list[Change]:
    """List objects of the site that are in the cluster and no longer rendered; they are shown, never removed here."""
    kinds = "deployment,statefulset,job,service,configmap,networkpolicy,poddisruptionbudget,ingress"
    words = ("get", kinds, "--all-namespaces", "-l", f"{SITE}={rendered.site.name}", "-o", "json")
    wanted = {key(thing) for thing in rendered.objects}
    found = [o for o in clusters.listed(cluster.run(*words).out) if key(o) not in wanted]
    return [Change("", title(o), LEFT_OVER) for o in found]


def stale(wanted: str, found: Plan, site: str) -> PlatformError:
    """Describe that a plan which was confirmed is no longer the one that would be carried out."""
    return PlatformError(
        "PLAN_STALE",
        f"the plan {wanted} is out of date; nothing was changed",
        why=f"files or cluster have changed since: the plan is {found.id} now",
        steps=(f"invoke prod.diff {site}", f"invoke prod.deploy {site} --plan {found.id}"),
    )
