"""Trainings of a site, read through the user's kubeconfig, whatever way of logging in it has; nothing is changed."""

from __future__ import annotations

from infra.catalog import TRAINING_NAMESPACE
from infra.kube.api import NoAnswer
from infra.prod.cluster import Cluster
from infra.training.cluster import Away, JobCluster, Refused


class SiteJobs(JobCluster):
    """Jobs and pods of a site's trainings; only what reads works."""

    def __init__(self, cluster: Cluster) -> None:
        """Ask this cluster."""
        self._cluster, self.namespace = cluster, TRAINING_NAMESPACE

    def _ask(self, method: str, path: str, body: str | None = None, **query: str) -> bytes:
        if method != "GET" or body is not None:
            raise Refused(405, "a site's trainings are only read here")
        try:
            return self._cluster.text(path, **query).encode()
        except NoAnswer as error:
            if error.status == 404:
                raise Refused(404, str(error)) from error
            raise Away(str(error)) from error
