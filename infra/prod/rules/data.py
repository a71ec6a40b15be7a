"""Rules for data and changes: durability, connections, migrations, buckets, traces of other tiers."""

from __future__ import annotations

import re
from collections.abc import Iterator

from infra import catalog
from infra.prod.rules.base import Broken, Guard, Object, Objects, Rule, containers, of_kind, texts, title

TEMPORAL_STORES = 6
"""Pools that one Temporal server with all roles opens: each may hold SQL_MAX_CONNS connections."""
OTHERS = 60
"""Connections of applications, trainings, exporters and people."""


def _connections(objects: Objects) -> Broken:
    for cluster in of_kind(objects, "Cluster"):
        limit = int(((cluster["spec"].get("postgresql") or {}).get("parameters") or {}).get("max_connections", 100))
        sums = {title(owner): most for owner, most in _pools(objects)}
        wanted = sum(sums.values()) + OTHERS
        if wanted > limit:
            shown = ", ".join(f"{name} {most}" for name, most in sums.items())
            yield cluster, f"max_connections is {limit}, and its clients may open {wanted} ({shown}, others {OTHERS})"


def _pools(objects: Objects) -> Iterator[tuple[Object, int]]:
    """Yield each Deployment with the most connections it may hold, one more pod included while it rolls."""
    for owner, container in containers(of_kind(objects, "Deployment")):
        env = {e["name"]: e.get("value", "") for e in container.get("env") or []}
        pods_at_most = int(owner["spec"].get("replicas", 1)) + 1
        if "SQL_MAX_CONNS" in env:
            yield owner, pods_at_most * TEMPORAL_STORES * int(env["SQL_MAX_CONNS"])
        elif "MLFLOW_SQLALCHEMYSTORE_POOL_SIZE" in env:
            each = int(env["MLFLOW_SQLALCHEMYSTORE_POOL_SIZE"]) + int(env.get("MLFLOW_SQLALCHEMYSTORE_MAX_OVERFLOW", 0))
            workers = next((int(a.split("=")[1]) for a in container.get("args") or [] if a.startswith("--workers=")), 1)
            yield owner, pods_at_most * workers * each


def _hook(objects: Objects) -> Broken:
    for thing in objects:
        if "helm.sh/hook" in (thing["metadata"].get("annotations") or {}):
            yield thing, "is a hook of Helm, which kubectl, Argo CD and Flux take in another way or not at all"


def _deadline(objects: Objects) -> Broken:
    for thing in of_kind(objects, "Job"):
        if thing["spec"].get("activeDeadlineSeconds"):
            yield thing, f"is killed after {thing['spec']['activeDeadlineSeconds']} s, half way through its work"
        if thing["spec"].get("ttlSecondsAfterFinished") is not None:
            yield thing, "removes itself, so that applying the files again recreates it"


def _bucket(objects: Objects) -> Broken:
    known = {b.name for b in (*catalog.BUCKETS, *catalog.OBS_BUCKETS)}
    for thing in objects:
        words = {word.removeprefix("s3://") for text in texts(thing) for word in re.split(r"[\s,\"']+", text)}
        if found := sorted(words & known):
            yield thing, f"names the bucket {found[0]}: such names are global, give it a prefix"


def _context(objects: Objects) -> Broken:
    for thing in objects:
        if found := next((t for t in texts(thing) if re.search(r"\b127\.0\.0\.1:3\d{4}\b|platform-kept", t)), None):
            yield thing, f"has something of the kind tier in it: {found[:60]}"


def _durable(objects: Objects) -> Broken:
    for thing in of_kind(objects, "Cluster"):
        said = (thing["spec"].get("postgresql") or {}).get("synchronous") or {}
        if said.get("dataDurability", "required") != "required" or not said.get("number"):
            yield thing, "replicates asynchronously: a lost primary loses acknowledged writes"
        plugins = [p for p in thing["spec"].get("plugins") or [] if p.get("isWALArchiver")]
        if not plugins:
            yield thing, "archives no WAL: there is no backup to restore"


_DURABLE_GUARD = Guard(
    {"postgresql.cnpg.io": ("clusters",)},
    "has(object.spec.postgresql) && has(object.spec.postgresql.synchronous)"
    " && object.spec.postgresql.synchronous.number > 0"
    " && (!has(object.spec.postgresql.synchronous.dataDurability)"
    " || object.spec.postgresql.synchronous.dataDurability == 'required')"
    " && has(object.spec.plugins) && object.spec.plugins.exists(p, has(p.isWALArchiver) && p.isWALArchiver)",
)
_DEADLINE_GUARD = Guard(
    {"batch": ("jobs",)}, "!has(object.spec.activeDeadlineSeconds) && !has(object.spec.ttlSecondsAfterFinished)"
)

RULES: tuple[Rule, ...] = (
    Rule("durable", "PostgreSQL replicates synchronously and archives its WAL", _durable, _DURABLE_GUARD),
    Rule("connections", "clients cannot open more connections than PostgreSQL takes", _connections),
    Rule("helm-hook", "nothing depends on hooks of Helm", _hook),
    Rule("deadline", "no Job is killed by a deadline or removes itself", _deadline, _DEADLINE_GUARD),
    Rule("bucket-name", "bucket names have the site's prefix", _bucket),
    Rule("kind-tier", "nothing of the kind tier", _context),
)
