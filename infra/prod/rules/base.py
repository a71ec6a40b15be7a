"""The parts of rules: pure functions over rendered objects, and ways to look into these."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Object = Mapping[str, Any]
Objects = Sequence[Object]
Broken = Iterator[tuple[Object, str]]
"""Objects that break a rule, each with what is wrong."""
WORKLOADS = ("Deployment", "StatefulSet", "DaemonSet", "Job", "CronJob", "Pod")
RESTRICTED = ("platform", "temporal", "training")
"""Namespaces under Pod Security `restricted`, whose pods are all ours."""


@dataclass(frozen=True)
class Guard:
    """The same rule for the API server: an expression of CEL that is true for objects that keep it.

    `resources` are the kinds that it looks at: API group -> plurals.
    """

    resources: Mapping[str, tuple[str, ...]]
    expression: str


@dataclass(frozen=True)
class Rule:
    """A rule: its name, what it demands, the function that finds what breaks it, perhaps a guard in the cluster."""

    name: str
    demand: str
    find: Callable[[Objects], Broken]
    guard: Guard | None = None


def title(thing: Object) -> str:
    """Name an object: kind, namespace and name."""
    about = thing["metadata"]
    where = f"{about['namespace']}/" if about.get("namespace") else ""
    return f"{thing['kind']} {where}{about['name']}"


def of_kind(objects: Objects, *kinds: str) -> list[Object]:
    """Select objects by kind."""
    return [thing for thing in objects if thing["kind"] in kinds]


def pods(objects: Objects) -> Iterator[tuple[Object, Object]]:
    """Iterate over pod templates, each with the object that makes pods of it."""
    for thing in of_kind(objects, *WORKLOADS):
        spec = thing["spec"]
        spec = spec["jobTemplate"]["spec"] if thing["kind"] == "CronJob" else spec
        yield thing, thing if thing["kind"] == "Pod" else spec["template"]


def containers(objects: Objects) -> Iterator[tuple[Object, Object]]:
    """Iterate over containers, each with the object that its pod comes from."""
    for owner, pod in pods(objects):
        for found in (*(pod["spec"].get("initContainers") or []), *pod["spec"]["containers"]):
            yield owner, found


def texts(value: Any) -> Iterator[str]:
    """Iterate over every text inside an object."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        yield from (text for inner in value.values() for text in texts(inner))
    elif isinstance(value, list | tuple):
        yield from (text for inner in value for text in texts(inner))


def ours(thing: Object) -> bool:
    """Tell whether it is in a namespace under Pod Security `restricted`."""
    return thing["metadata"].get("namespace") in RESTRICTED


def same_namespace(a: Object, b: Object) -> bool:
    """Tell whether two objects are in the same namespace."""
    return bool(a["metadata"].get("namespace") == b["metadata"].get("namespace"))


SERVERS: Mapping[str, tuple[str, ...]] = {"apps": ("deployments", "statefulsets"), "batch": ("jobs",)}
"""Kinds of objects that guards look at where a rule is about pods."""


def every_container(condition: str) -> str:
    """Return an expression that holds where a condition on `c` does for all containers of a pod template."""
    pod = "object.spec.template.spec"
    first = f"(!has({pod}.initContainers) || {pod}.initContainers.all(c, {condition}))"
    return f"{pod}.containers.all(c, {condition}) && {first}"
