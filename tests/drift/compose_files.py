"""The Compose files as data, combined the way Compose combines them, without Compose or Docker."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

import yaml

from infra.documents import compose_variables
from infra.settings import ROOT
from tests.drift.repo import read

CORE = "docker-compose.yml"
OBS = "docker-compose.observability.yml"
LIGHT = "docker-compose.light.yml"
ENGINES = {"silo": "", "rustfs": "docker-compose.rustfs.yml", "external": "docker-compose.external-s3.yml"}
PROFILES = ((), ("clearml",))
Service = dict[str, Any]


class Reset:
    """A value tagged `!reset`: what the files before have goes."""


class Override:
    """A value tagged `!override`: it takes the place of what the files before have."""

    def __init__(self, value: Any) -> None:
        self.value = value


class _Loader(yaml.SafeLoader):
    pass


def _override(loader: yaml.SafeLoader, node: yaml.Node) -> Override:
    if isinstance(node, yaml.MappingNode):
        return Override(loader.construct_mapping(node, deep=True))
    if isinstance(node, yaml.SequenceNode):
        return Override(loader.construct_sequence(node, deep=True))
    return Override(loader.construct_scalar(node))  # type: ignore[arg-type]


_Loader.add_constructor("!reset", lambda loader, node: Reset())
_Loader.add_constructor("!override", _override)


@cache
def load(name: str) -> dict[str, Any]:
    """One file, with anchors and merges resolved."""
    loaded: dict[str, Any] = yaml.load(read(f"compose/{name}"), Loader=_Loader)
    return loaded


def names() -> list[str]:
    """All files, the core first."""
    found = sorted(path.name for path in (ROOT / "compose").glob("docker-compose*.yml"))
    return [CORE, *(name for name in found if name != CORE)]


def combinations() -> Iterator[tuple[tuple[str, ...], tuple[str, ...]]]:
    """Every combination of files and profiles that is meant to be used together."""
    for obs, light, engine in itertools.product((False, True), (False, True), ENGINES):
        files = [CORE, *([OBS] if obs else []), *([LIGHT] if light else []), *filter(None, [ENGINES[engine]])]
        for profiles in PROFILES if obs else ((),):
            yield tuple(files), profiles


def combined(files: tuple[str, ...], profiles: tuple[str, ...] = ("clearml",)) -> dict[str, Service]:
    """The services of a combination: those that its profiles leave on."""
    services: dict[str, Service] = {}
    for name in files:
        for service, entry in load(name)["services"].items():
            if isinstance(entry, Reset):
                services.pop(service)
            else:
                services[service] = merged(services.get(service, {}), entry)
    return {n: s for n, s in services.items() if set(s.get("profiles", [])) <= set(profiles)}


def merged(before: Any, after: Any) -> Any:
    """Mappings are merged, lists added to, `command`, `entrypoint` and `test` replaced, tags obeyed."""
    if isinstance(after, Override):
        return after.value
    if isinstance(before, dict) and isinstance(after, dict):
        result = dict(before)
        for key, value in after.items():
            if isinstance(value, Reset):
                result.pop(key, None)
            elif key in ("command", "entrypoint", "test"):
                result[key] = value.value if isinstance(value, Override) else value
            else:
                result[key] = merged(result.get(key), value)
        return result
    return [*before, *after] if isinstance(before, list) and isinstance(after, list) else after


def everything() -> dict[str, Service]:
    """Every service of the core and the observability file, all profiles on."""
    return combined((CORE, OBS))


def variables() -> dict[str, set[str]]:
    """Name -> the defaults that the files give it; one, where they agree."""
    found: dict[str, set[str]] = {}
    for name in names():
        for variable, default in _each(read(f"compose/{name}")):
            found.setdefault(variable, set()).add(default)
    return found


def _each(text: str) -> Iterator[tuple[str, str]]:
    for line in text.splitlines():
        yield from compose_variables(line).items()


def one_shot(service: Mapping[str, Any]) -> bool:
    """Whether a service ends by itself."""
    return str(service.get("restart", "")).startswith("on-failure")


def published(service: Mapping[str, Any]) -> list[tuple[str, str, str, str]]:
    """Address, variable, its default and inner port of every published port."""
    pattern = re.compile(r"([\d.]+):\$\{(\w+):-(\d+)\}:(\d+)")
    found = [pattern.fullmatch(port) for port in service.get("ports", [])]
    assert all(found), f"a port is not written as address:${{SETTING:-number}}:number: {service.get('ports')}"
    return [(m[1], m[2], m[3], m[4]) for m in found if m]


def image(service: Mapping[str, Any]) -> tuple[str, str]:
    """Variable and default reference of a service's image."""
    match = re.fullmatch(r"\$\{(\w+_IMAGE):-([^${}]+|\$\{\w+:-[^${}]+\})\}", service["image"])
    assert match, f"an image that cannot be replaced: {service['image']}"
    return match[1], match[2]
