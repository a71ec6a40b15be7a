"""Rules for pods: images, limits, privileges, spread, disruption, volumes."""

from __future__ import annotations

from infra.prod.rules.base import (
    SERVERS,
    Broken,
    Guard,
    Objects,
    Rule,
    containers,
    every_container,
    of_kind,
    ours,
    pods,
    same_namespace,
    title,
)


def _digest(objects: Objects) -> Broken:
    for owner, container in containers(objects):
        if "@sha256:" not in container["image"]:
            yield owner, f"{container['name']}: the image {container['image']} has no digest"
    for thing in of_kind(objects, "Cluster"):
        if "@sha256:" not in thing["spec"].get("imageName", ""):
            yield thing, f"the image {thing['spec'].get('imageName', 'of the operator')} has no digest"


def _limits(objects: Objects) -> Broken:
    wanted = (("requests", "cpu"), ("requests", "memory"), ("limits", "memory"))
    for owner, container in containers(objects):
        known = container.get("resources") or {}
        missing = [f"{part}.{kind}" for part, kind in wanted if not (known.get(part) or {}).get(kind)]
        if missing:
            yield owner, f"{container['name']} has no {', '.join(missing)}"
    for thing in of_kind(objects, "Cluster"):
        if not (thing["spec"].get("resources") or {}).get("limits", {}).get("memory"):
            yield thing, "has no limits.memory"


def _restricted(objects: Objects) -> Broken:
    for owner, pod in pods(objects):
        if not ours(owner):
            continue
        spec = pod["spec"]
        context = spec.get("securityContext") or {}
        if not context.get("runAsNonRoot"):
            yield owner, "may run as root"
        if (context.get("seccompProfile") or {}).get("type") != "RuntimeDefault":
            yield owner, "has no seccomp profile"
        if any(spec.get(key) for key in ("hostNetwork", "hostPID", "hostIPC")):
            yield owner, "uses a namespace of the node"
    for owner, container in containers(objects):
        context = container.get("securityContext") or {}
        if not ours(owner):
            continue
        if context.get("allowPrivilegeEscalation") is not False or context.get("privileged"):
            yield owner, f"{container['name']} may gain privileges"
        if "ALL" not in ((context.get("capabilities") or {}).get("drop") or []):
            yield owner, f"{container['name']} keeps capabilities"


def _spread(objects: Objects) -> Broken:
    for thing in of_kind(objects, "Deployment", "StatefulSet"):
        spec = thing["spec"]["template"]["spec"]
        apart = ((spec.get("affinity") or {}).get("podAntiAffinity") or {}) or spec.get("topologySpreadConstraints")
        if thing["spec"].get("replicas", 1) > 1 and not apart:
            yield thing, "has several replicas that may all be on one node"
    for thing in of_kind(objects, "Cluster"):
        about = thing["spec"].get("affinity") or {}
        apart = about.get("enablePodAntiAffinity") and about.get("podAntiAffinityType") == "required"
        if thing["spec"].get("instances", 1) > 1 and not apart:
            yield thing, "has several instances that may be on one node: set podAntiAffinityType: required"


def _budget(objects: Objects) -> Broken:
    for budget in of_kind(objects, "PodDisruptionBudget"):
        spec = budget["spec"]
        wanted = (spec.get("selector") or {}).get("matchLabels") or {}
        for owner, pod in pods(of_kind(objects, "Deployment", "StatefulSet")):
            labels = pod["metadata"].get("labels") or {}
            if not wanted or not wanted.items() <= labels.items() or not same_namespace(owner, budget):
                continue
            replicas = int(owner["spec"].get("replicas", 1))
            least, most = spec.get("minAvailable"), spec.get("maxUnavailable")
            if (isinstance(least, int) and least >= replicas) or most in (0, "0%") or least == "100%":
                yield budget, f"lets no pod of {title(owner)} go: nodes cannot be drained"


def _deadlock(objects: Objects) -> Broken:
    alone = {
        (c["metadata"].get("namespace"), c["metadata"]["name"])
        for c in of_kind(objects, "PersistentVolumeClaim")
        if set(c["spec"].get("accessModes") or []) <= {"ReadWriteOnce", "ReadWriteOncePod"}
    }
    for thing in of_kind(objects, "Deployment"):
        volumes = thing["spec"]["template"]["spec"].get("volumes") or []
        claims = [v["persistentVolumeClaim"]["claimName"] for v in volumes if "persistentVolumeClaim" in v]
        rolling = (thing["spec"].get("strategy") or {}).get("type", "RollingUpdate") == "RollingUpdate"
        for claim in claims:
            if rolling and (thing["metadata"].get("namespace"), claim) in alone:
                yield thing, f"replaces its pod while the old one holds the volume {claim}: use strategy Recreate"


_DIGEST_GUARD = Guard(SERVERS, every_container("c.image.contains('@sha256:')"))
_LIMITS_GUARD = Guard(
    SERVERS,
    every_container(
        "has(c.resources) && has(c.resources.requests) && has(c.resources.limits) && 'cpu' in c.resources.requests"
        " && 'memory' in c.resources.requests && 'memory' in c.resources.limits"
    ),
)
_SPREAD_GUARD = Guard(
    {"apps": ("deployments", "statefulsets")},
    "!has(object.spec.replicas) || object.spec.replicas <= 1"
    " || has(object.spec.template.spec.topologySpreadConstraints)"
    " || (has(object.spec.template.spec.affinity) && has(object.spec.template.spec.affinity.podAntiAffinity))",
)

RULES: tuple[Rule, ...] = (
    Rule("image-digest", "every image has its digest", _digest, _DIGEST_GUARD),
    Rule("limits", "every container has requests and a limit of memory", _limits, _LIMITS_GUARD),
    Rule("restricted", "pods fit Pod Security `restricted`", _restricted),
    Rule("spread", "several replicas are on several nodes", _spread, _SPREAD_GUARD),
    Rule("budget", "disruption budgets let a pod go", _budget),
    Rule("volume-deadlock", "no rolling update of a pod that holds a ReadWriteOnce volume", _deadlock),
)
