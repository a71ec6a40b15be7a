"""Checks of a site that need no cluster: schemas of Kubernetes and of operators, rules, who reaches whom."""

from __future__ import annotations

import functools
import importlib.util
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from infra.prod import network, reach, rules
from infra.prod.render import Rendered
from infra.prod.rules import Violation
from infra.prod.rules.base import of_kind, title

Object = Mapping[str, Any]
SCHEMAS = Path(__file__).parent / "schemas"
"""Schemas of definitions that operators bring: `<group>_<kind>_<version>.json`."""


def check(rendered: Rendered) -> tuple[list[Violation], list[str]]:
    """Find everything that is wrong with a rendered site, and say what could not be checked."""
    found = [*schemas(rendered.objects, rendered.site.kubernetes), *rules.findings(rendered.objects)]
    policies = of_kind(rendered.objects, "NetworkPolicy")
    unlike = reach.differences(policies, network.flows(rendered.site))
    found += [Violation("reach", "NetworkPolicies", text) for text in unlike]
    return found, unchecked(rendered.objects, rendered.site.kubernetes)


def schemas(objects: Sequence[Object], version: str) -> list[Violation]:
    """Find what does not fit its schema, unknown keys included.

    Args:
        version: minor version of Kubernetes, e.g. 1.34.
    """
    found = []
    for thing in objects:
        schema = _validator(thing["apiVersion"], thing["kind"], version)
        for error in schema.iter_errors(json.loads(json.dumps(thing, default=str))) if schema else ():
            where = ".".join(map(str, error.absolute_path))
            found.append(Violation("schema", title(thing), f"{where}: {error.message}"[:300]))
    return found


def unchecked(objects: Sequence[Object], version: str) -> list[str]:
    """Name the kinds whose schema is not known here."""
    kinds = {(thing["apiVersion"], thing["kind"]) for thing in objects}
    return sorted(f"{api} {kind}" for api, kind in kinds if _validator(api, kind, version) is None)


@functools.cache
def _validator(api: str, kind: str, version: str) -> Any | None:
    for documents in (_of_operators(api, kind), _of_kubernetes(api, kind, version)):
        if documents:
            return _made(documents)
    return None


def _made(documents: Sequence[Any]) -> Any:
    from jsonschema import Draft202012Validator  # type: ignore[import-untyped]
    from referencing import Registry, Resource

    known = Registry()
    for document in documents if len(documents) > 1 else ():  # a schema that stands alone has no name
        known = Resource.from_contents(document) @ known
    return Draft202012Validator(documents[0], registry=known)


def _of_operators(api: str, kind: str) -> list[Any]:
    group, _, version = api.rpartition("/")
    path = SCHEMAS / f"{group}_{kind.lower()}_{version}.json"
    if not path.is_file():
        return []
    return [{"$schema": "https://json-schema.org/draft/2020-12/schema", **json.loads(path.read_text("utf-8"))}]


def _of_kubernetes(api: str, kind: str, version: str) -> list[Any]:
    """Return the schemas of the package kubernetes-validate, which belongs to requirements/dev.txt."""
    package = importlib.util.find_spec("kubernetes_validate")
    if package is None or package.origin is None:
        return []
    folder = Path(package.origin).parent / "kubernetes-json-schema" / f"v{version}.0-local-strict"
    group, _, level = api.rpartition("/")
    short = f"{group.partition('.')[0]}-{level}" if group else level
    paths = [folder / f"{kind.lower()}-{short}.json", folder / "_definitions.json"]
    return [_read(path) for path in paths] if paths[0].is_file() else []


@functools.cache
def _read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def grouped(findings: Sequence[Violation]) -> Iterator[tuple[str, list[Violation]]]:
    """Group findings by their rule, in their order."""
    for rule in dict.fromkeys(f.rule for f in findings):
        yield rule, [f for f in findings if f.rule == rule]
