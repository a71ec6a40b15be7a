"""The authority of PostgreSQL's certificate, for the pods of other namespaces that check it: its public part only."""

from __future__ import annotations

import base64

from infra.prod.cluster import Cluster, Object
from infra.prod.site import Site

SECRET, NAMESPACE, NAME = "postgresql-ca", "platform", "postgresql-ca"
"""The Secret that CloudNativePG makes, and the ConfigMap that the charts mount."""
READERS = ("platform", "temporal", "training")


def copy(site: Site, cluster: Cluster) -> bool:
    """Copy the certificate of the authority into a ConfigMap of each namespace that needs it.

    Returns:
        False where there is nothing to copy: another one provides it, or PostgreSQL is not there yet.
    """
    if site.engine("postgres") != "cloudnativepg":
        return False
    words = ("get", "secret", SECRET, "-n", NAMESPACE, "--ignore-not-found", "-o", r"jsonpath={.data.ca\.crt}")
    found = cluster.run(*words).out.strip()
    if found:
        text = base64.b64decode(found).decode("ascii")
        cluster.apply([_copy(space, text, site) for space in READERS if space in cluster.namespaces()])
    return bool(found)


def _copy(namespace: str, text: str, site: Site) -> Object:
    about = {"name": NAME, "namespace": namespace, "labels": {"platform/trust": site.name}}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": about, "data": {"ca.crt": text}}
