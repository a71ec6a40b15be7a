"""The Secrets that a site needs: found in what was rendered, compared with the cluster, made where they are absent.

Passwords go from here to the API server on standard input: never on a command line, into a file or a log.
"""

from __future__ import annotations

import base64
import json
import re
import secrets
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

from infra.prod.cluster import Cluster, Object, as_list
from infra.prod.logins import Recipe, Where, recipes
from infra.prod.rules.base import pods, title
from infra.prod.site import Site

PART = re.compile(r"\{(password|secret):([^}]+)\}")
"""A part of a recipe's text that is a password of a role, or stands in another Secret."""
LOGIN_FIELDS = ("passwordSecret", "superuserSecret", "secret")
"""Fields of CloudNativePG's objects that name a Secret with username and password."""


@dataclass
class Need:
    """A Secret that is needed: its keys, what uses it, and those of its keys that the cluster has (None: no Secret)."""

    namespace: str
    name: str
    keys: set[str] = field(default_factory=set)
    users: list[str] = field(default_factory=list)
    there: set[str] | None = None

    @property
    def where(self) -> Where:
        """Namespace and name."""
        return (self.namespace, self.name)

    @property
    def state(self) -> str:
        """Describe its state: unknown keys, there, absent, or which keys it lacks."""
        if self.there is None:
            return "absent"
        missing = self.keys - self.there
        return f"lacks {', '.join(sorted(missing))}" if missing else "there"


def needs(objects: Sequence[Object], site: Site) -> list[Need]:
    """Find every Secret that rendered objects name, with the keys that are taken from it."""
    found: dict[Where, Need] = {}
    known = recipes(site)
    for namespace, name, key, user in _named(objects):
        need = found.setdefault((namespace, name), Need(namespace, name))
        whole = known.get(need.where)
        need.keys |= {key} if key else set(whole.values if whole else ())
        need.users += [user] if user not in need.users else []
    return [found[where] for where in sorted(found)]


def _named(objects: Sequence[Object]) -> Iterator[tuple[str, str, str, str]]:
    """Yield the namespace, name and key ('' for all) of each Secret that is named, and by what."""
    for owner, pod in pods(objects):
        for name, key in _of_pod(pod["spec"]):
            yield owner["metadata"].get("namespace", ""), name, key, title(owner)
        for container in pod["spec"]["containers"]:  # the worker names what its Jobs take
            said = {e["name"]: e.get("value", "") for e in container.get("env") or []}
            if "TRAINING_SECRET" in said:
                yield said["TRAINING_NAMESPACE"], said["TRAINING_SECRET"], "", "trainings"
    for thing in objects:
        for entry in thing.get("imagePullSecrets") or []:
            yield thing["metadata"].get("namespace", ""), entry["name"], ".dockerconfigjson", title(thing)
        if str(thing["apiVersion"]).partition("/")[0].endswith("cnpg.io"):
            for name, key in _of_operators(thing["spec"]):
                yield thing["metadata"].get("namespace", ""), name, key, title(thing)


def _of_pod(spec: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    yield from ((entry["name"], ".dockerconfigjson") for entry in spec.get("imagePullSecrets") or [])
    for volume in spec.get("volumes") or []:
        if "secret" in volume:
            items = volume["secret"].get("items") or [{"key": ""}]
            yield from ((volume["secret"]["secretName"], item["key"]) for item in items)
    for container in (*(spec.get("initContainers") or []), *spec["containers"]):
        taken = [(e.get("valueFrom") or {}).get("secretKeyRef") for e in container.get("env") or []]
        yield from ((ref["name"], ref["key"]) for ref in taken if ref)
        yield from ((e["secretRef"]["name"], "") for e in container.get("envFrom") or [] if "secretRef" in e)


def _of_operators(value: Any) -> Iterator[tuple[str, str]]:
    """Yield Secrets in an object of CloudNativePG or its plugin, wherever they stand."""
    for name, inner in value.items() if isinstance(value, dict) else ():
        if name in LOGIN_FIELDS and isinstance(inner, dict) and set(inner) == {"name"}:
            yield from ((inner["name"], key) for key in ("username", "password"))
        elif name in ("accessKeyId", "secretAccessKey"):
            yield inner["name"], inner["key"]
        elif name == "imagePullSecrets":
            yield from ((entry["name"], ".dockerconfigjson") for entry in inner)
        else:
            yield from _of_operators(inner)
    for inner in value if isinstance(value, list) else ():
        yield from _of_operators(inner)


def look(cluster: Cluster, wanted: Sequence[Need]) -> None:
    """Ask the cluster which keys are there; no value is kept."""
    live = _live(cluster, [need.where for need in wanted])
    for need in wanted:
        need.there = set(live[need.where]) if need.where in live else None


def _live(cluster: Cluster, wanted: Sequence[Where]) -> dict[Where, dict[str, str]]:
    """Return the contents of those Secrets that are there, still encoded."""
    asked = [{"apiVersion": "v1", "kind": "Secret", "metadata": {"namespace": s, "name": n}} for s, n in wanted]
    found = cluster.live(asked) if asked else {}
    return {(space, name): dict(thing.get("data") or {}) for (_, space, name), thing in found.items()}


def generate(site: Site, cluster: Cluster, wanted: Sequence[Need]) -> list[Need]:
    """Make the Secrets that are absent and can be made; one that is there is never changed.

    The password of a role is the same everywhere: where a Secret of it is there already, it is taken from that.

    Returns:
        those that were made; what depends on a Secret that people have to give is left out until that is there.
    """
    known = recipes(site)
    words = _Words(known, _live(cluster, [*known, ("platform", "object-store")]))
    made = {n.where: texts for n in wanted if n.there is None and (texts := words.filled(n.where)) is not None}
    if made:
        bodies = [_secret(where, texts, known[where]) for where, texts in made.items()]
        cluster.run("create", "-f", "-", stdin=as_list(bodies))
    return [need for need in wanted if need.where in made]


@dataclass
class _Words:
    """Passwords by role: those in the cluster, else new ones; and what stands in other Secrets."""

    known: Mapping[Where, Recipe]
    live: Mapping[Where, Mapping[str, str]]
    roles: dict[str, str] = field(default_factory=dict)

    def filled(self, where: Where) -> dict[str, str] | None:
        """Return the texts of a Secret; None when it cannot be made (yet)."""
        recipe = self.known.get(where)
        if recipe is None:
            return None
        names = [name for text in recipe.values.values() for kind, name in PART.findall(text) if kind == "secret"]
        if any(self._other(name) is None for name in names):
            return None
        return {key: self._text(text) for key, text in recipe.values.items()}

    def _text(self, text: str) -> str:
        return PART.sub(lambda found: self._word(found, text), text)

    def _word(self, found: re.Match[str], text: str) -> str:
        word = self._password(found[2]) if found[1] == "password" else str(self._other(found[2]))
        return word if text == found[0] else quote(word, safe="")

    def _password(self, role: str) -> str:
        if role not in self.roles:
            self.roles[role] = self._there(role) or secrets.token_urlsafe(24)
        return self.roles[role]

    def _there(self, role: str) -> str:
        for where, recipe in self.known.items():
            for key, text in recipe.values.items():
                if text == f"{{password:{role}}}" and key in self.live.get(where, {}):
                    return base64.b64decode(self.live[where][key]).decode()
        return ""

    def _other(self, name: str) -> str | None:
        namespace, secret, key = name.split("/")
        data = self.live.get((namespace, secret), {})
        return base64.b64decode(data[key]).decode() if key in data else None


def _secret(where: Where, texts: Mapping[str, str], recipe: Recipe) -> Object:
    kind = "kubernetes.io/basic-auth" if set(texts) == {"username", "password"} else "Opaque"
    about = {"namespace": where[0], "name": where[1], "labels": dict(recipe.labels)}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": about, "type": kind, "stringData": dict(texts)}


def shown(needs: Sequence[Need]) -> list[dict[str, object]]:
    """Return needs as data, without any value."""
    return json.loads(json.dumps([{**vars(n), "keys": sorted(n.keys), "there": n.state} for n in needs], default=list))  # type: ignore[no-any-return]
