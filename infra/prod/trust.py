"""The authority of PostgreSQL's certificate, for the pods of other namespaces that check it: its public part only."""

from __future__ import annotations

import base64

from infra.prod.cluster import Cluster, Object
from infra.prod.site import Site

NAMESPACE, NAME = "platform", "postgresql-ca"
"""The ConfigMap that the charts mount."""
READERS = ("platform", "temporal", "training")


def copy(site: Site, cluster: Cluster, *names: str) -> bool:
    """Copy the certificates of authorities into a ConfigMap of each namespace that needs them.

    Args:
        names: Clusters whose certificates are to be trusted, e.g. the one that serves and the one that will; default:
            the site's.

    Returns:
        False where there is nothing to copy: another one provides it, or PostgreSQL is not there yet.
    """
    if site.engine("postgres") != "cloudnativepg":
        return False
    texts = [text for name in names or (site.postgresql,) if (text := _authority(cluster, name))]
    if texts:
        spaces = cluster.namespaces()
        cluster.apply([_copy(space, "".join(texts), site) for space in READERS if space in spaces])
    return bool(texts)


def _authority(cluster: Cluster, name: str) -> str:
    """Read the certificate of the authority that CloudNativePG makes for a Cluster; '' where there is none yet."""
    found = cluster.one("secret", f"{name}-ca", NAMESPACE) or {}
    return base64.b64decode((found.get("data") or {}).get("ca.crt", "")).decode("ascii")


def _copy(namespace: str, text: str, site: Site) -> Object:
    about = {"name": NAME, "namespace": namespace, "labels": {"platform/trust": site.name}}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": about, "data": {"ca.crt": text}}
