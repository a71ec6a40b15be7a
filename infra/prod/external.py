"""Secrets of a site from External Secrets: an ExternalSecret for each, which takes its parts from the site's store.

The store holds one entry for each login and for each Secret that is yours to give; addresses are made of these inside
the cluster, so that a password stands in the store once. Source: https://external-secrets.io/latest/api/externalsecret/
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from infra.prod.cluster import Object
from infra.prod.logins import Recipe, recipes
from infra.prod.secrets import PART, Need, needs
from infra.prod.site import Site

REFRESH = "1h"
"""Time after which a changed password is taken over at the latest."""
_QUOTED = ' | urlquery | replace "+" "%20"'
"""For a part of a URL: urlquery writes a blank as +, which only a query understands."""
DOCKER = ".dockerconfigjson"
Entry = tuple[str, str]
"""A place in the store: the name of an entry, and the property in it."""


def used(site: Site) -> bool:
    """Tell whether a site takes its Secrets from a store."""
    return str(site.part("secrets").get("from", "")) == "external-secrets"


def objects(site: Site, rendered: Sequence[Object]) -> list[Object]:
    """Return an ExternalSecret for every Secret that objects name; none where the site does not take them so."""
    known = recipes(site)
    return [_external(site, need, known.get(need.where)) for need in needs(rendered, site)] if used(site) else []


def entries(site: Site, rendered: Sequence[Object]) -> list[Entry]:
    """Return everything that the store must hold, sorted."""
    known = recipes(site)
    found = (entry for need in needs(rendered, site) for entry in _texts(site, need, known.get(need.where))[1].values())
    return sorted(set(found))


def _external(site: Site, need: Need, recipe: Recipe | None) -> Object:
    texts, taken = _texts(site, need, recipe)
    labels = dict(recipe.labels) if recipe else {}
    template: dict[str, Any] = {"engineVersion": "v2", "type": _TYPES.get(frozenset(texts), "Opaque"), "data": texts}
    template |= {"metadata": {"labels": labels}} if labels else {}
    data = [{"secretKey": key, "remoteRef": {"key": name, "property": part}} for key, (name, part) in taken.items()]
    spec = {
        "refreshInterval": REFRESH,
        "secretStoreRef": {"kind": "ClusterSecretStore", "name": site.part("secrets")["store"]},
        # A store that is away, or an ExternalSecret that is removed, must not take a login from what is running.
        "target": {"name": need.name, "creationPolicy": "Orphan", "deletionPolicy": "Retain", "template": template},
        "data": data,
    }
    about = {"name": need.name, "namespace": need.namespace}
    return {"apiVersion": "external-secrets.io/v1", "kind": "ExternalSecret", "metadata": about, "spec": spec}


_TYPES = {
    frozenset({"username", "password"}): "kubernetes.io/basic-auth",
    frozenset({DOCKER}): "kubernetes.io/dockerconfigjson",
}
"""Types of Secrets by their keys."""


def _texts(site: Site, need: Need, recipe: Recipe | None) -> tuple[dict[str, str], dict[str, Entry]]:
    """Return the templates of a Secret's keys, and what they take from the store by a name of its own."""
    said = (
        dict(recipe.values) if recipe else {key: f"{{secret:{need.namespace}/{need.name}/{key}}}" for key in need.keys}
    )
    taken: dict[str, Entry] = {}

    def put(found: re.Match[str], text: str) -> str:
        entry = _entry(site, found[1], found[2])
        name = re.sub(r"\W", "_", "_".join(entry)).strip("_")
        taken[name] = entry
        return f"{{{{ .{name}{'' if text == found[0] else _QUOTED} }}}}"

    texts = {key: PART.sub(lambda found, text=text: put(found, text), text) for key, text in sorted(said.items())}  # type: ignore[misc]
    return texts, dict(sorted(taken.items()))


def _entry(site: Site, kind: str, name: str) -> Entry:
    """Return where a part stands in the store: a role's password, or a key of a Secret that is yours to give."""
    if kind == "password":
        return (f"{site.name}/{name}", "password")
    _, secret, key = name.split("/")
    return (f"{site.name}/{secret}", "dockerconfigjson" if key == DOCKER else key)
