"""Secrets from a store: what External Secrets makes is what prod.secrets would make, to the letter."""

from __future__ import annotations

import base64
import json
import re
from dataclasses import replace
from typing import Any
from urllib.parse import quote

import pytest

from infra.prod import check, external, secrets
from infra.prod import site as sites
from infra.prod.logins import recipes
from infra.settings import ROOT
from tests.unit.prod import things as t
from tests.unit.prod.test_secrets import WORKER, taking

BASE = sites.load("rehearsal", ROOT)
SITE = replace(BASE, says={**BASE.says, "secrets": {"from": "external-secrets", "store": "vault"}})
OBJECTS: Any = [
    taking("platform-credentials"),
    taking("platform-signing", "TRAINING_KEY"),
    taking("temporal-database", "password", "temporal"),
    t.cluster(bootstrap={"initdb": {"secret": {"name": "postgresql-platform"}}}),
    WORKER,
    t.job(template=t.pod(imagePullSecrets=[{"name": "registry"}])),
]
WORD = "p w+d/ü:@%"
"""A password that a URL cannot hold as it is."""


def _made(text: str, values: dict[str, str]) -> str:
    """What the templates of External Secrets give, with Go's urlquery and sprig's replace."""
    plain = re.sub(r"\{\{ \.(\w+) \}\}", lambda m: values[m[1]], text)
    return re.sub(
        r"\{\{ \.(\w+) \| urlquery \| replace \"\+\" \"%20\" \}\}", lambda m: quote(values[m[1]], safe=""), plain
    )


def _by_store(entry: external.Entry) -> str:
    return f"{WORD} {entry[0]} {entry[1]}"


def test_contents_are_those_that_would_be_made_here() -> None:
    made = {o["metadata"]["name"]: o["spec"] for o in external.objects(SITE, OBJECTS)}
    for need in secrets.needs(OBJECTS, SITE):
        spec = made[need.name]
        values = {d["secretKey"]: _by_store((d["remoteRef"]["key"], d["remoteRef"]["property"])) for d in spec["data"]}
        found = {key: _made(text, values) for key, text in spec["target"]["template"]["data"].items()}
        assert need.keys <= set(found)
        assert "{{" not in json.dumps(found)
        known = recipes(SITE)
        roles = {role: _by_store((f"rehearsal/{role}", "password")) for role in ("platform", "training", "temporal")}
        roles |= {role: _by_store((f"rehearsal/{role}", "password")) for role in ("redis", "signing")}
        store = {key: _by_store(("rehearsal/object-store", key)) for key in ("username", "password")}
        encoded = {key: base64.b64encode(text.encode()).decode() for key, text in store.items()}
        words = secrets._Words(known, {("platform", "object-store"): encoded}, roles)
        if need.where in known:
            assert found == words.filled(need.where), need.name


def test_an_external_secret_fits_its_schema_and_names_the_store() -> None:
    made = external.objects(SITE, OBJECTS)
    assert check.schemas(made, "1.34") == []
    assert {o["spec"]["secretStoreRef"]["name"] for o in made} == {"vault"}
    kinds = {o["metadata"]["name"]: o["spec"]["target"]["template"]["type"] for o in made}
    assert kinds["registry"] == "kubernetes.io/dockerconfigjson"
    assert kinds["postgresql-platform"] == "kubernetes.io/basic-auth"
    reload = next(o for o in made if o["metadata"]["name"] == "postgresql-platform")
    assert reload["spec"]["target"]["template"]["metadata"]["labels"] == {"cnpg.io/reload": "true"}


def test_the_store_holds_each_part_once() -> None:
    found = external.entries(SITE, OBJECTS)
    assert len(found) == len(set(found))
    assert ("rehearsal/platform", "password") in found
    assert ("rehearsal/object-store", "username") in found
    assert ("rehearsal/registry", "dockerconfigjson") in found


@pytest.mark.parametrize("part", ["kubernetes", None])
def test_a_site_that_makes_its_secrets_has_no_external_ones(part: str | None) -> None:
    site = replace(BASE, says={**BASE.says, "secrets": {"from": part} if part else {}})
    assert external.objects(site, OBJECTS) == []
