"""Checks of a site against its cluster: what only the API server can say. Nothing is changed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from infra.kube.api import NoAnswer
from infra.prod import diff, room
from infra.prod.cluster import Cluster
from infra.prod.init import DEFAULT
from infra.prod.render import Rendered
from infra.prod.rules import Violation
from infra.prod.rules.base import of_kind

Question = Callable[[Rendered, Cluster], Iterator[Violation | str]]
"""Asks a cluster; yields findings, and notes as text."""


def check(rendered: Rendered, cluster: Cluster) -> tuple[list[Violation], list[str]]:
    """Find what would keep a site from running on its cluster, and note what could not be asked or may be right.

    Raises:
        PlatformError: UNREACHABLE, LOGIN_REFUSED.
    """
    found: list[Violation] = []
    notes: list[str] = []
    for about, question in QUESTIONS.items():
        try:
            answers = list(question(rendered, cluster))
            found += [one for one in answers if not isinstance(one, str)]
            notes += [one for one in answers if isinstance(one, str)]
        except NoAnswer as error:  # e.g. a user who may not read nodes
            notes.append(f"not known: {about} ({str(error)[:150]})")
    return found, notes


def _version(rendered: Rendered, cluster: Cluster) -> Iterator[Violation | str]:
    said = cluster.get("/version")
    there, wanted = f"{said['major']}.{str(said['minor']).rstrip('+')}", rendered.site.kubernetes
    if there != wanted:
        text = f"the cluster is Kubernetes {there}, manifests are rendered for {wanted}: set cluster.version"
        yield Violation("version", f"site {rendered.site.name}", text)


def _kinds(rendered: Rendered, cluster: Cluster) -> Iterator[Violation | str]:
    """Yield the kinds that the cluster does not know, and that no wave brings."""
    brought = {d["spec"]["names"]["kind"] for d in of_kind(rendered.objects, "CustomResourceDefinition")}
    kinds = {(o["apiVersion"], o["kind"]): o for o in rendered.objects if o["kind"] not in brought}
    for (api, kind), thing in sorted(kinds.items()):
        if not cluster.has_kind(thing):
            text = "the cluster does not know this kind: install its operator, or say `operators: install`"
            yield Violation("definition", f"{api} {kind}", text)


def _storage(rendered: Rendered, cluster: Cluster) -> Iterator[Violation | str]:
    classes = {c["metadata"]["name"]: c for c in cluster.items("/apis/storage.k8s.io/v1/storageclasses")}
    wanted = str(rendered.site.part("storage").get("class", ""))
    marked = [c for c in classes.values() if (c["metadata"].get("annotations") or {}).get(DEFAULT) == "true"]
    if wanted and wanted not in classes:
        text = f"there is no such class; the classes are: {', '.join(sorted(classes)) or 'none'}"
        yield Violation("storage-class", f"StorageClass {wanted}", text)
    elif not wanted and not marked:
        yield Violation("storage-class", "storage.class", "the site names none, and the cluster has no default class")
    elif not (classes[wanted] if wanted else marked[0]).get("allowVolumeExpansion"):
        yield f"volumes of the class {wanted or 'by default'} cannot grow: it lacks allowVolumeExpansion"


def _route(rendered: Rendered, cluster: Cluster) -> Iterator[Violation | str]:
    route = rendered.site.part("route")
    if route["kind"] == "gateway":
        space, _, name = str(route["parent"]).partition("/")
        path = f"/apis/gateway.networking.k8s.io/v1/namespaces/{space}/gateways/{name}"
        yield from _condition(cluster, path, f"Gateway {space}/{name}", "Programmed")
    if route["kind"] == "ingress":
        name = route["class"]
        yield from _condition(cluster, f"/apis/networking.k8s.io/v1/ingressclasses/{name}", f"IngressClass {name}")
        path, issuer = "/apis/cert-manager.io/v1/clusterissuers", route["issuer"]
        yield from _condition(cluster, f"{path}/{issuer}", f"ClusterIssuer {issuer}", "Ready")


def _secret_store(rendered: Rendered, cluster: Cluster) -> Iterator[Violation | str]:
    if name := rendered.site.part("secrets").get("store"):
        path = f"/apis/external-secrets.io/v1/clustersecretstores/{name}"
        yield from _condition(cluster, path, f"ClusterSecretStore {name}", "Ready")


def _condition(cluster: Cluster, path: str, name: str, wanted: str = "") -> Iterator[Violation | str]:
    """Yield a finding when an object is absent, or does not have a condition."""
    try:
        thing = cluster.get(path)
    except NoAnswer as error:
        if error.status != 404:
            raise
        yield Violation("present", name, "it is not in the cluster")
        return
    conditions = {c["type"]: c for c in (thing.get("status") or {}).get("conditions") or []}
    state = conditions.get(wanted, {})
    if wanted and state.get("status") != "True":
        text = str(state.get("message") or "no word of its controller")
        yield Violation("present", name, f"it is not {wanted.lower()}: {text}")


def _dry_run(rendered: Rendered, cluster: Cluster) -> Iterator[Violation | str]:
    """Yield the objects that the API server refuses; those of an absent namespace or kind are not asked about."""
    for change in diff.plan(rendered, cluster).refused:
        yield Violation("dry-run", change.object, "; ".join(change.fields))


QUESTIONS: Mapping[str, Question] = {
    "its version": _version,
    "its definitions": _kinds,
    "its storage classes": _storage,
    "its routes": _route,
    "its secret stores": _secret_store,
    "the room of its nodes": room.check,
    "a dry run": _dry_run,
}
"""Questions to the cluster; one that has no answer ends no other."""
