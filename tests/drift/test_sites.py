"""The sites of the checkout, rendered as they would be deployed: they fit every schema and keep every rule."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest

from infra import documents
from infra.errors import PlatformError
from infra.kube.helm_cli import Helm
from infra.prod import check, images, logins, network, secrets, values
from infra.prod import render as renders
from infra.prod import site as sites
from infra.prod.logins import recipes
from infra.prod.render import Rendered
from infra.prod.rules import base
from infra.settings import ROOT
from infra.training import job_manifest
from infra.training.request import Request
from scripts import write_docs
from tests.drift import manifests as m
from tests.drift.repo import read

SITES = ("example", "rehearsal")
DIGEST = "sha256:" + "0" * 64
NOT_RENDERED = (network.POSTGRES, network.TRAINING, network.DATABASES, network.BUCKETS, network.SMOKE)
"""Pods that operators and tasks make, or that a site need not have."""


def _helm() -> Helm:
    if not m.helm():
        pytest.skip("helm is not installed: charts cannot be rendered")
    return Helm(m.helm(), 4, Path("none"))


@cache
def rendered(name: str) -> Rendered:
    """A site with a made-up digest for each of its images."""
    site, helm = sites.load(name, ROOT), _helm()
    first = renders.render(site, ROOT, helm)
    digests = dict.fromkeys(first.references(), DIGEST)
    finished = {w: tuple(_pinned(thing, digests) for thing in things) for w, things in first.waves.items()}
    return Rendered(site, finished, digests)


def _pinned(thing: renders.Object, digests: dict[str, str]) -> renders.Object:
    for place, key in images.slots(thing):
        place[key] = images.pinned(str(place[key]), digests)
    return thing


@pytest.mark.parametrize("name", SITES)
def test_nothing_breaks_a_rule_or_a_schema(name: str) -> None:
    found, unknown = check.check(rendered(name))
    assert found == []
    assert unknown == []


@pytest.mark.parametrize("name", SITES)
def test_two_renderings_are_the_same_bytes(name: str, tmp_path: Path) -> None:
    site, helm = sites.load(name, ROOT), _helm()
    first, second = (renders.render(site, ROOT, helm) for _ in range(2))
    assert first.files() == second.files()
    names = renders.write(first, tmp_path / "out")
    assert sorted(p.relative_to(tmp_path / "out").as_posix() for p in (tmp_path / "out").rglob("*.*")) == sorted(names)


@pytest.mark.parametrize("name", SITES)
def test_waves_come_in_the_order_of_what_they_need(name: str) -> None:
    waves = list(rendered(name).waves)
    assert waves == sorted(waves)
    assert waves[0] == values.BASE.name


@pytest.mark.parametrize("name", SITES)
def test_every_secret_can_be_made_or_is_said_to_be_yours(name: str) -> None:
    yours = {"object-store", "postgresql-backup", "registry", "redis-credentials", "alertmanager-config"}
    site = rendered(name).site
    wanted = {need.where for need in secrets.needs(rendered(name).objects, site)}
    unknown = {where for where in wanted if where not in recipes(site) and where[1] not in yours}
    assert unknown == set()
    assert all(need.keys for need in secrets.needs(rendered(name).objects, site))


@pytest.mark.parametrize("name", SITES)
def test_every_server_is_an_end_of_a_flow(name: str) -> None:
    """A new workload that no flow names could reach nothing, and a label that changed would cut everything off."""
    flows = network.flows(rendered(name).site)
    ends = [peer for flow in flows for peer in (flow.source, flow.target)]
    for owner, pod in base.pods(rendered(name).objects):
        space, labels = owner["metadata"]["namespace"], pod["metadata"]["labels"]
        named = [p for p in ends if p.namespace == space and dict(p.labels).items() <= labels.items()]
        assert named, base.title(owner)
    for peer in ends:
        if peer.labels and peer not in NOT_RENDERED:
            there = [p["metadata"]["labels"] for _, p in base.pods(rendered(name).objects)]
            assert any(dict(peer.labels).items() <= labels.items() for labels in there), peer.name


def test_a_site_names_the_secret_with_what_is_called_at_the_end_of_a_training() -> None:
    site = sites.load(SITES[0], ROOT)
    assert "notify" not in values.values(site, "platform")
    told = replace(site, says={**site.says, "training": {**site.part("training"), "notify": "hooks"}})
    assert values.values(told, "platform")["notify"] == {"existingSecret": "hooks"}
    objects = renders.render(told, ROOT, _helm()).objects
    assert ("platform", "hooks") in {need.where for need in secrets.needs(objects, told)}


@pytest.mark.parametrize("name", SITES)
def test_logs_of_trainings_are_in_a_directory_of_the_worker_itself(name: str) -> None:
    """Root owns the directory of a volume: a program that is not root cannot make that private."""
    found = [c for _, c in base.containers(rendered(name).objects) if c["name"] == "worker"]
    assert found
    for container in found:
        (where,) = (Path(e["value"]) for e in container["env"] if e["name"] == "TRAINING_LOG_DIR")
        volumes = [Path(mount["mountPath"]) for mount in container["volumeMounts"]]
        assert where not in volumes
        assert any(volume in where.parents for volume in volumes)


def test_pods_of_trainings_are_those_of_the_table() -> None:
    made = job_manifest.manifest(Request("a-1", epochs=1, dataset="d"), job_manifest.Shape(), 0)
    labels = made["spec"]["template"]["metadata"]["labels"]
    assert dict(network.TRAINING.labels).items() <= labels.items()


def test_a_folder_of_somebody_else_is_not_written_to(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("x")
    with pytest.raises(PlatformError, match="is not empty"):
        renders.write(rendered("rehearsal"), tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["mine.txt"]


def test_the_costs_of_the_page_are_those_of_the_charts() -> None:
    page, helm = read(documents.PRODUCTION), _helm()
    assert page == documents.with_section(page, "cost", write_docs.costs(helm.program)), "nox -s update-docs"


def test_secrets_of_the_rotation_runbook_are_those_of_the_recipes() -> None:
    rows = [line for line in read(documents.PRODUCTION).splitlines() if line.startswith("| `")]
    for role in logins.ROLES:
        said = next(row.split("|")[2] for row in rows if row.startswith(f"| `{role}` |"))
        holding = {
            where
            for where, recipe in recipes(sites.load("rehearsal", ROOT)).items()
            if any(f"{{password:{role}}}" in text for text in recipe.values.values())
        }
        assert {tuple(name.strip(" `").split("/")) for name in said.split(",")} == holding, role
