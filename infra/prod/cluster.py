"""The cluster of a site, reached through the user's kubeconfig, which is read and never written.

kubectl does the asking: it alone knows every way in which people log in to clusters.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

from infra import shell
from infra.errors import PlatformError
from infra.kube.api import NoAnswer
from infra.kube.kubectl_cli import OWNER
from infra.prod.site import Site

Object = dict[str, Any]
LIMIT = 60.0
"""Seconds for one question."""
_AWAY = ("connection refused", "i/o timeout", "no such host", "unable to connect", "was refused", "TLS handshake")

_NO_CONTEXT = ("does not exist", "context was not found")
"""kubectl says the one or the other, as its command asks for the server or not."""


@dataclass(frozen=True)
class Cluster:
    """A cluster by its context; `cache` is our directory for what kubectl remembers of its API."""

    kubectl: str
    context: str
    cache: Path
    _groups: dict[str, frozenset[str]] = field(default_factory=dict, repr=False, compare=False)

    def argv(self, *words: str) -> list[str]:
        """Build a command line of kubectl that leads to this cluster."""
        return [self.kubectl, "--context", self.context, "--cache-dir", str(self.cache), *words]

    def run(self, *words: str, stdin: str | None = None, check: bool = True, limit: float = LIMIT) -> shell.Result:
        """Run kubectl.

        Raises:
            PlatformError: CONTEXT_REFUSED, UNREACHABLE, LOGIN_REFUSED, or PROGRAM_FAILED.
        """
        done = shell.run(self.argv(*words), stdin=stdin, check=False, limit=limit)
        if done.code and (wrong := self._trouble(done)):
            raise wrong
        if done.code and check:
            steps = (shell.typed(*self.argv(*words)),)
            raise PlatformError("PROGRAM_FAILED", f"kubectl {words[0]} failed", why=done.last_line, steps=steps)
        return done

    def _trouble(self, done: shell.Result) -> PlatformError | None:
        """Tell why the cluster as such was not reached; None for another failure."""
        text, look = done.err, f"kubectl --context {self.context} get nodes"
        if any(word in text for word in _NO_CONTEXT) and "context" in text:
            what, code = f"there is no context {self.context!r} in the kubeconfig", "CONTEXT_REFUSED"
            steps: tuple[str, ...] = (
                "kubectl config get-contexts",
                "set cluster.context in the site file, or KUBECONFIG",
            )
        elif any(word in text for word in ("Unauthorized", "must be logged in", "getting credentials")):
            what, code, steps = (
                f"{self.context} refused the login",
                "LOGIN_REFUSED",
                (f"log in again, then try: {look}",),
            )
        elif any(word.lower() in text.lower() for word in _AWAY):
            what, code, steps = f"{self.context} does not answer", "UNREACHABLE", (look,)
        else:
            return None
        return PlatformError(code, what, why=done.last_line, steps=steps)

    def get(self, path: str, **query: str) -> dict[str, Any]:
        """Read the object or list at a path of the API. Raises NoAnswer."""
        body = json.loads(self._raw(path, query))
        return body if isinstance(body, dict) else {}

    def items(self, path: str, **query: str) -> list[dict[str, Any]]:
        """Read the items of a list. Raises NoAnswer."""
        return list(self.get(path, **query).get("items") or [])

    def text(self, path: str, **query: str) -> str:
        """Read what stands at a path as text, e.g. a pod's log. Raises NoAnswer."""
        return self._raw(path, query)

    def _raw(self, path: str, query: Mapping[str, str]) -> str:
        words = f"?{urlencode(query, quote_via=quote)}" if query else ""
        try:
            done = self.run("get", "--raw", f"{path}{words}", check=False)
        except PlatformError as error:
            raise NoAnswer(f"{error.what}: {error.why}") from error
        if done.code:
            status = 404 if "NotFound" in done.err or "could not find" in done.err else 500
            raise NoAnswer(done.last_line, status)
        return done.out

    def live(self, objects: Sequence[Object]) -> dict[tuple[str, str, str], Object]:
        """Read those of some objects that are there, by `key`; kinds that the cluster does not know are not there."""
        found: dict[tuple[str, str, str], Object] = {}
        asked = [o for o in objects if self.has_kind(o)]
        if asked:
            text = self.run("get", "--ignore-not-found", "-o", "json", "-f", "-", stdin=as_list(asked), limit=180).out
            found = {key(o): o for o in listed(text)}
        return found

    def one(self, kind: str, name: str, namespace: str) -> Object | None:
        """Read one object; None where it is not there.

        Raises:
            PlatformError: as `run`.
        """
        found = listed(self.run("get", kind, name, "-n", namespace, "--ignore-not-found", "-o", "json").out)
        return found[0] if found else None

    def has_kind(self, thing: Object) -> bool:
        """Tell whether the cluster knows the kind of an object in its version; asked once for each group."""
        api = str(thing["apiVersion"])
        if api not in self._groups:
            with contextlib.suppress(NoAnswer):
                found = self.get(f"/apis/{api}" if "/" in api else f"/api/{api}").get("resources") or []
                self._groups[api] = frozenset(r["kind"] for r in found)
        return thing["kind"] in self._groups.get(api, frozenset())

    def namespaces(self) -> set[str]:
        """Read the names of all namespaces. Raises PlatformError UNREACHABLE."""
        try:
            return {o["metadata"]["name"] for o in self.items("/api/v1/namespaces")}
        except NoAnswer as error:
            raise PlatformError("UNREACHABLE", f"{self.context} does not answer", why=str(error)) from error

    def dry_run(self, objects: Sequence[Object]) -> shell.Result:
        """Ask the server what would become of some objects; nothing is changed."""
        words = ("apply", "--server-side", "--force-conflicts", "--field-manager", OWNER, "--dry-run=server")
        return self.run(*words, "-o", "json", "-f", "-", stdin=as_list(objects), check=False, limit=180)

    def apply(self, objects: Sequence[Object]) -> None:
        """Apply objects. Raises PlatformError PROGRAM_FAILED; some may have been applied then."""
        words = ("apply", "--server-side", "--force-conflicts", "--field-manager", OWNER, "-f", "-")
        self.run(*words, stdin=as_list(objects), limit=300)

    def delete(self, objects: Sequence[Object]) -> None:
        """Delete objects; those that are not there are no error."""
        if objects:
            self.run("delete", "--ignore-not-found", "--wait=false", "-f", "-", stdin=as_list(objects), limit=120)


def listed(text: str) -> list[Object]:
    """Read the objects that kubectl printed: a list, one alone, or for one that is not there `{}` or nothing at all."""
    body = json.loads(text) if text.strip() else {}
    return list(body["items"]) if "items" in body else [body] if "metadata" in body else []


def as_list(objects: Sequence[Object]) -> str:
    """Pack objects into one text for kubectl."""
    return json.dumps({"apiVersion": "v1", "kind": "List", "items": list(objects)}, default=str)


def key(thing: Mapping[str, Any]) -> tuple[str, str, str]:
    """Identify an object: kind with its group, namespace, name."""
    about = thing["metadata"]
    group = str(thing["apiVersion"]).rpartition("/")[0]
    return (f"{thing['kind']}.{group}".rstrip("."), about.get("namespace", ""), about["name"])


def checked(site: Site, kubectl: str, cache: Path) -> Cluster:
    """Go to the cluster of a site, once context and uid are what the site says.

    Raises:
        PlatformError: CONTEXT_REFUSED, UNREACHABLE, LOGIN_REFUSED.
    """
    cluster = Cluster(kubectl, site.context, cache)
    uid = uid_of(cluster)
    if uid != site.uid:
        raise PlatformError(
            "CONTEXT_REFUSED",
            f"the context {site.context} leads to another cluster than {site.name} names; nothing was changed",
            why=f"its uid is {uid}, the site file says {site.uid}",
            steps=("kubectl config get-contexts", f"correct cluster.uid in {site.path}, if this is the right cluster"),
        )
    return cluster


def uid_of(cluster: Cluster) -> str:
    """Read what identifies a cluster: the uid of its namespace kube-system."""
    body = json.loads(cluster.run("get", "namespace", "kube-system", "-o", "json").out)
    return str(body["metadata"]["uid"])
