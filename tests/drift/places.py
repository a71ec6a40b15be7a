"""Where a service of the catalogue has to stand: each function names the files that lack it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import yaml

from infra import catalog, documents, endpoints, health, korean, probes, rows, settings
from infra.data.snapshot import create
from infra.kube import releases
from infra.prod import values as prod_values
from infra.rows import Service
from infra.settings import ROOT
from infra.tiers import providers
from infra.tiers.native import services as native
from tests.drift import compose_files
from tests.drift.repo import READMES, read
from tests.rig import recipes

COMPOSE_FILE = {catalog.OVERLAY_CORE: compose_files.CORE, catalog.OVERLAY_OBS: compose_files.OBS}
CHART_FILES = ("Chart.yaml", "values.yaml", "values-kind.yaml", "values-production.yaml", "values.schema.json")


def missing(service: Service) -> list[str]:
    """The files that lack something of a service, each with what it lacks."""
    return [place for check in CHECKS for place in check(service)]


def _offered(service: Service, tier: str) -> bool:
    """Whether a tier runs it; else a Gap of the catalogue says why not."""
    return service.name not in {gap.feature for gap in catalog.gaps(tier)}


def catalogue(service: Service) -> Iterator[str]:
    """Settings, images, releases and ports of the cluster that its row names."""
    named = {*(service.login or ()), *service.secrets, *(name for _, name in service.values)}
    yield from (f"infra/catalog.py: no setting {name}" for name in sorted(named - set(catalog.SETTINGS)))
    yield from (f"infra/catalog.py: {n} is no secret" for n in service.secrets if n not in _of_kind("secret"))
    images = {part.image for part in service.parts}
    yield from (f"infra/catalog.py: no image {name} in IMAGES" for name in sorted(images - set(catalog.IMAGES)))
    if not service.parts and _offered(service, "compose"):
        yield f"infra/catalog.py: {service.name} has no parts"
    if _offered(service, "kind"):
        yield from _of_the_cluster(service)


def _of_kind(kind: str) -> set[str]:
    return {name for name, setting in catalog.SETTINGS.items() if setting.kind == kind}


def _of_the_cluster(service: Service) -> Iterator[str]:
    if service.release not in {chart.release for chart in catalog.CHARTS}:
        yield f"infra/catalog.py: no release {service.release or 'of ' + service.name} in CHARTS"
    known = {port.setting for port in catalog.CLUSTER_PORTS}
    lacking = [port.setting for port in service.ports if port.setting not in known]
    yield from (f"infra/catalog.py: no {setting} in CLUSTER_PORTS" for setting in lacking)


def questions(service: Service) -> Iterator[str]:
    """How it is asked whether it works, and the lines that applications get."""
    try:
        ends = endpoints.build(settings.load(ROOT / "nowhere", environ={}), (service.name,))
    except KeyError as error:
        yield f"infra/endpoints.py: {error}"
        return
    try:
        health.probe(ends, service.name, Path("psql"))
    except KeyError as error:
        yield f"infra/health.py: nothing for a question of the kind {error}"
    if service.question.kind not in probes.KINDS:
        yield f"infra/probes.py: no question of the kind {service.question.kind}"
    try:
        endpoints.contract(ends)
    except KeyError as error:
        if error.args[0] in {variable.name for variable in service.contract}:
            yield f"infra/endpoints.py: nothing makes {error}"


def passwords(service: Service) -> Iterator[str]:
    """A password of its own reaches who asks it, the applications and the release; no URL is secret without one."""
    for variable in service.contract:
        if variable.role and variable.secret and not service.password:
            yield f"infra/catalog.py: {variable.name} is secret, but {service.name} has no password for its URL"
    if service.question.kind == "redis" and not service.password:
        yield f"infra/catalog.py: {service.name} has no password, which a Redis may want"
    if not service.password or service.password not in catalog.SETTINGS:
        return
    told = settings.load(ROOT / "nowhere", environ={service.password: "p-of-its-own"})
    ends = endpoints.build(told, (service.name,))
    if service.question.kind in probes.KINDS and "p-of-its-own" not in str(health.probe(ends, service.name, Path("x"))):
        yield f"infra/health.py: {service.name} is not asked with {service.password}"
    lines = endpoints.contract(ends)
    yield from (
        f"infra/endpoints.py: {variable.name} lacks {service.password}"
        for variable in service.contract
        if variable.secret and variable.name in lines and "p-of-its-own" not in lines[variable.name]
    )
    if service.release and "p-of-its-own" not in str(releases.values(service.release, told)):
        yield f"infra/catalog.py: no value of the release {service.release} is {service.password}"


def documentation(service: Service) -> Iterator[str]:
    """The generated tables and examples, the Korean title, the written copy of the contract."""
    if service.title not in korean.TEXTS:
        yield f"infra/korean.py: no text for {service.title!r}"
    numbers = [f":{port.default}" for port in service.ports]
    for name in READMES:
        rows = [line for line in read(name).splitlines() if line.startswith("|")]
        if not any(all(number in row for number in numbers) for row in rows):
            yield f"{name}: no row in the table of services (nox -s update-docs)"
    wanted = {*(port.setting for port in service.ports), *(part.image for part in service.parts)}
    for name in (documents.ENV_EXAMPLE, documents.COMPOSE_ENV_EXAMPLE):
        written = set(re.findall(r"^#([A-Z][A-Z0-9_]*)=", read(name), re.MULTILINE))
        yield from (f"{name}: no {setting} (nox -s update-docs)" for setting in sorted(wanted - written))
    copy = read("tests/drift/test_contract.py")
    lines = {f'"{variable.name}"': variable.name for variable in service.contract}
    yield from (f"tests/drift/test_contract.py: no {name}" for text, name in lines.items() if text not in copy)
    if service.overlay == catalog.OVERLAY_CORE and f'"{service.name}": {{' not in copy:
        yield f"tests/drift/test_contract.py: no ports of {service.name}"


def compose(service: Service) -> Iterator[str]:
    """Its containers, with the image and the published ports that its row names."""
    if not _offered(service, "compose"):
        return
    path = f"compose/{COMPOSE_FILE[service.overlay]}"
    plain = [part for part in service.parts if part.only in ("", "full", "silo")]
    there = compose_files.everything()
    yield from (f"{path}: no service {part.name}" for part in plain if part.name not in there)
    found = [(part, there[part.name]) for part in plain if part.name in there]
    for part, entry in found:
        if part.image not in re.findall(r"\$\{(\w+)", entry["image"]):
            yield f"{path}: {part.name} has not the image {part.image}"
    yield from _of_containers(service, path, found)
    published = {(v, default) for _, entry in found for _, v, default, _ in compose_files.published(entry)}
    for port in service.ports:
        if (port.setting, str(port.default)) not in published:
            yield f"{path}: {port.setting} is not published"


def _of_containers(service: Service, path: str, found: list[tuple[rows.Part, dict[str, Any]]]) -> Iterator[str]:
    """The volumes that the row speaks of; the settings that its release gets, too."""
    for part, entry in found:
        named = [str(volume) for volume in entry.get("volumes", []) if not str(volume).startswith((".", "/", "$"))]
        if part.volume and not named:
            yield f"{path}: {part.name} has no volume"
        if named and part.section is not None and not service.keeps:
            yield f"{path}: {part.name} has a volume, and infra/catalog.py says that {service.name} keeps nothing"
    text = " ".join(str(entry) for _, entry in found)
    for setting in dict.fromkeys(setting for _, setting in service.values):
        if found and f"${{{setting}" not in text:
            yield f"{path}: no container of {service.name} gets {setting}"


def native_tier(service: Service) -> Iterator[str]:
    """Its program, and how that is started."""
    if not _offered(service, "native"):
        return
    if service.overlay == catalog.OVERLAY_OBS:
        if service.name not in native.OVERLAY:
            yield f"infra/tiers/native/services.py: no {service.name} in OVERLAY"
        return
    if service.program not in providers.SERVERS:
        yield f"infra/tiers/providers.py: no program {service.program!r} in SERVERS"
    if service.program not in native.MAKERS:
        yield f"infra/tiers/native/services.py: nothing starts {service.program!r} (MAKERS)"


def copies(service: Service) -> Iterator[str]:
    """What copies its data, where it keeps some that nothing else has."""
    if service.overlay == catalog.OVERLAY_CORE and service.keeps and service.name not in create.COPIED:
        yield f"infra/data/snapshot/create.py: no part of a snapshot holds the data of {service.name} (COPIED)"


def charts(service: Service) -> Iterator[str]:
    """Its chart with images, volumes, values and ports; kind's mapping; the same as plain manifests."""
    if not _offered(service, "kind"):
        return
    folder = f"helm/{service.release or service.name}"
    yield from (f"{folder}/{name}: not there" for name in CHART_FILES if not (ROOT / folder / name).exists())
    if not list((ROOT / folder / "templates").glob("*.yaml")):
        yield f"{folder}/templates: not there"
    values = _yaml(f"{folder}/values.yaml")
    paths = [f"{path}.ref" for path in releases.images(service.release)] if service.release else []
    paths += [f"{path}.storageClass" for path in releases.volumes(service.release)]
    paths += [path for path, _ in service.values]
    yield from (f"{folder}/values.yaml: no {path}" for path in paths if values and not _has(values, path.split(".")))
    known = {port.setting: port for port in catalog.CLUSTER_PORTS}
    for port in (known[p.setting] for p in service.ports if p.setting in known):
        yield from _numbered(port, folder)


def _numbered(port: rows.ClusterPort, folder: str) -> Iterator[str]:
    number = str(port.node_port)
    if (ROOT / folder / "values-kind.yaml").exists() and number not in read(f"{folder}/values-kind.yaml"):
        yield f"{folder}/values-kind.yaml: no NodePort {number}"
    if number not in read("kind/cluster.yaml"):
        yield f"kind/cluster.yaml: no mapping of {number}"
    files = [path for path in (ROOT / "k8s").rglob("*.yaml") if number in path.read_text(encoding="utf-8")]
    if not files:
        yield f"k8s/{port.namespace}/services: no Service with the NodePort {number}"
    for path in files:
        index = path.with_name("kustomization.yaml")
        if not index.exists() or path.name not in index.read_text(encoding="utf-8"):
            yield f"{index.relative_to(ROOT).as_posix()}: no {path.name}"


def _yaml(path: str) -> dict[str, Any]:
    return dict(yaml.safe_load(read(path))) if (ROOT / path).exists() else {}


def _has(tree: Any, path: list[str]) -> bool:
    return not path or (isinstance(tree, dict) and path[0] in tree and _has(tree[path[0]], path[1:]))


def applications(service: Service) -> Iterator[str]:
    """The contract's lines in the cluster; logins are in Secrets."""
    if not _offered(service, "kind") and not service.contract:
        return
    template = read("helm/platform/templates/_helpers.tpl")
    raw = {secret: read(f"k8s/platform/{'secret' if secret else 'configmap'}-backend.yaml") for secret in (True, False)}
    for variable in service.contract:
        if f"{variable.name}:" not in template:
            yield f"helm/platform/templates/_helpers.tpl: no {variable.name}"
        always = service.name not in catalog.OPTIONAL_NAMES  # the plain manifests bring no tracker
        if always and f"{variable.name}:" not in raw[variable.secret]:
            yield f"k8s/platform/{'secret' if variable.secret else 'configmap'}-backend.yaml: no {variable.name}"
        if variable.secret and f"{variable.name}:" in raw[False]:
            yield f"k8s/platform/configmap-backend.yaml: {variable.name} holds a login"


def of_the_platforms_chart(service: Service) -> Iterator[str]:
    """The release of the applications waits for it and gets its password."""
    if service.overlay != catalog.OVERLAY_CORE or not service.contract or not _offered(service, "kind"):
        return
    chart = releases.chart("platform")
    if service.release not in chart.needs:
        yield f"infra/catalog.py: no {service.release} in what the release platform needs"
    secret = {setting for _, setting in service.values} & _of_kind("secret")
    lacking = secret - {setting for _, setting in chart.values}
    yield from (f"infra/catalog.py: no {setting} in the values of the release platform" for setting in sorted(lacking))
    values = _yaml("helm/platform/values.yaml")
    paths = [path for path, setting in chart.values if setting in secret]
    yield from (f"helm/platform/values.yaml: no {path}" for path in paths if not _has(values, path.split(".")))


def production(service: Service) -> Iterator[str]:
    """Its release has a wave, those who may connect are named, its logins are made."""
    if not service.release:
        return
    if service.release not in {name for wave in prod_values.OWN for name in wave.releases}:
        yield f"infra/prod/values.py: no {service.release} in a wave (OWN)"
    if f'"{service.release}"' not in read("infra/prod/network.py"):
        yield f"infra/prod/network.py: nobody may connect to {service.release}"
    makers = read("infra/prod/logins.py")
    for variable in service.contract:
        if variable.secret and variable.name not in makers and "_STORAGE_" not in variable.name:
            yield f"infra/prod/logins.py: nothing makes {variable.name}"


def tests(service: Service) -> Iterator[str]:
    """Its stand-in image, and a test against a running platform."""
    known = {name for recipe in recipes.RECIPES for name in recipe.settings} | set(recipes.WITHOUT)
    lacking = dict.fromkeys(part.image for part in service.parts if part.image not in known)
    yield from (f"tests/rig/recipes.py: no recipe for {name}, and no reason (WITHOUT)" for name in lacking)
    smoke = "".join(path.read_text(encoding="utf-8") for path in sorted((ROOT / "tests/smoke").rglob("*.py")))
    if not re.search(rf"[\"'(]{re.escape(service.name)}[\"')]", smoke):
        yield f"tests/smoke: no test names {service.name}"


CHECKS: tuple[Callable[[Service], Iterator[str]], ...] = (
    *(catalogue, questions, passwords, documentation, compose, native_tier, copies),
    *(charts, applications, of_the_platforms_chart, production, tests),
)
