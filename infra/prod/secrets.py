"""The Secrets that a site needs: found in what was rendered, compared with the cluster, made where they are absent.

Passwords go from here to the API server on standard input: never on a command line, into a file or a log.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from infra.prod.cluster import Cluster, Object, as_list
from infra.prod.rules.base import pods, title
from infra.prod.site import Site

Where = tuple[str, str]
"""Namespace and name."""
ROTATED = {"cnpg.io/reload": "true"}
"""Label by which CloudNativePG takes over a new password at once."""


@dataclass
class Need:
    """A Secret that is needed: its keys, what uses it, and those of its keys that the cluster has (None: no Secret)."""

    namespace: str
    name: str
    keys: set[str]
    users: list[str]
    there: set[str] | None = None

    @property
    def missing(self) -> set[str]:
        """The keys that are absent."""
        return self.keys - (self.there or set())

    @property
    def state(self) -> str:
        """What to say of it: there, absent, or which keys it lacks."""
        if self.there is None:
            return "absent"
        return f"lacks {', '.join(sorted(self.missing))}" if self.missing else "there"


def needs(objects: Sequence[Object], site: Site) -> list[Need]:
    """Find every Secret that rendered objects name, with the keys that are taken from it."""
    found: dict[Where, Need] = {}
    for namespace, name, key, user in _named(objects):
        need = found.setdefault((namespace, name), Need(namespace, name, set(), []))
        need.keys |= {key} if key else set(recipe_keys(site, need))
        need.users += [user] if user not in need.users else []
    return [found[where] for where in sorted(found)]


def _named(objects: Sequence[Object]) -> Iterator[tuple[str, str, str, str]]:
    for owner, pod in pods(objects):
        for name, key in _of_pod(pod["spec"]):
            yield owner["metadata"].get("namespace", ""), name, key, title(owner)
    for thing in objects:
        for path, name, key in _of_operators(thing.get("spec") or {}, ""):
            if not path.startswith("template."):
                yield thing["metadata"].get("namespace", ""), name, key, title(thing)


def _of_pod(spec: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    yield from ((entry["name"], ".dockerconfigjson") for entry in spec.get("imagePullSecrets") or [])
    for volume in spec.get("volumes") or []:
        if "secret" in volume:
            items = volume["secret"].get("items") or [{"key": ""}]
            yield from ((volume["secret"]["secretName"], item["key"]) for item in items)
    for container in (*(spec.get("initContainers") or []), *spec["containers"]):
        for entry in container.get("env") or []:
            found = (entry.get("valueFrom") or {}).get("secretKeyRef")
            if found:
                yield found["name"], found["key"]
        for entry in container.get("envFrom") or []:
            if "secretRef" in entry:
                yield entry["secretRef"]["name"], ""


LOGIN_FIELDS = ("passwordSecret", "superuserSecret", "secret")


def _of_operators(value: Any, path: str) -> Iterator[tuple[str, str, str]]:
    """Names of Secrets in the objects of CloudNativePG and its plugin, wherever they stand."""
    if isinstance(value, list):
        for inner in value:
            yield from _of_operators(inner, path)
    if not isinstance(value, dict):
        return
    for name, inner in value.items():
        where = f"{path}{name}."
        if isinstance(inner, dict) and name in LOGIN_FIELDS and set(inner) == {"name"}:
            yield from ((where, inner["name"], key) for key in ("username", "password"))
        elif isinstance(inner, dict) and name in ("accessKeyId", "secretAccessKey") and "key" in inner:
            yield where, inner["name"], inner["key"]
        elif name == "imagePullSecrets":
            yield from ((where, entry["name"], ".dockerconfigjson") for entry in inner)
        else:
            yield from _of_operators(inner, where)


def look(cluster: Cluster, wanted: Sequence[Need]) -> None:
    """Ask the cluster which keys are there; no value is kept or shown."""
    asked: list[Object] = [_empty(n.namespace, n.name) for n in wanted]
    live = cluster.live(asked) if asked else {}
    for need in wanted:
        found = live.get(("Secret", need.namespace, need.name))
        need.there = None if found is None else set(found.get("data") or {})


def _empty(namespace: str, name: str) -> Object:
    return {"apiVersion": "v1", "kind": "Secret", "metadata": {"namespace": namespace, "name": name}}


# --- what can be made


@dataclass(frozen=True)
class Recipe:
    """How a Secret is made: key -> what stands in it. `{password:ROLE}` is the password of a role, quoted in URLs."""

    values: Mapping[str, str]
    labels: Mapping[str, str]


def recipe_keys(site: Site, need: Need) -> tuple[str, ...]:
    """Name the keys of a Secret that is taken as a whole."""
    from infra.prod.logins import recipes

    found = recipes(site).get((need.namespace, need.name))
    return tuple(found.values) if found else ()


def generate(site: Site, cluster: Cluster, wanted: Sequence[Need]) -> list[Need]:
    """Make the Secrets that are absent and can be made here; never changes one that is there.

    Passwords of one role are the same everywhere: where one of its Secrets is there already, its password is taken.

    Returns:
        those that were made.
    """
    from infra.prod.logins import recipes

    known = recipes(site)
    due = [n for n in wanted if n.there is None and (n.namespace, n.name) in known]
    if not due:
        return []
    words = _Words(cluster, known)
    made = [_made(n, known[(n.namespace, n.name)], words) for n in due]
    cluster.run("create", "-f", "-", stdin=as_list(made))
    return due


class _Words:
    """Passwords by role: those in the cluster, else new ones."""

    def __init__(self, cluster: Cluster, known: Mapping[Where, Recipe]) -> None:
        self._cluster, self._known = cluster, known
        self._found: dict[str, str] = {}

    def of(self, role: str) -> str:
        if role not in self._found:
            self._found[role] = self._there(role) or secrets.token_urlsafe(24)
        return self._found[role]

    def _there(self, role: str) -> str:
        import base64

        mark = f"{{password:{role}}}"
        for (namespace, name), recipe in self._known.items():
            keys = [key for key, text in recipe.values.items() if text == mark]
            words = ("get", "secret", name, "-n", namespace, "--ignore-not-found", "-o", "json")
            text = self._cluster.run(*words).out if keys else ""
            data = (json.loads(text).get("data") or {}) if text.strip() else {}
            if keys and keys[0] in data:
                return base64.b64decode(data[keys[0]]).decode()
        return ""


def _made(need: Need, recipe: Recipe, words: _Words) -> Object:
    about = {"namespace": need.namespace, "name": need.name, "labels": dict(recipe.labels)}
    texts = {key: _filled(text, words) for key, text in recipe.values.items()}
    login = set(texts) == {"username", "password"}
    kind = "kubernetes.io/basic-auth" if login else "Opaque"
    return {"apiVersion": "v1", "kind": "Secret", "metadata": about, "type": kind, "stringData": texts}


def _filled(text: str, words: _Words) -> str:
    import re

    def replaced(found: re.Match[str]) -> str:
        password = words.of(found[1])
        return password if text == found[0] else quote(password, safe="")

    return re.sub(r"\{password:([a-z_-]+)\}", replaced, text)
