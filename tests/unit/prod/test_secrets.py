"""Secrets of a site: which, whether they are there, and those that are made; on a cluster that is played."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from infra.prod import secrets as module
from infra.prod import site as sites
from infra.settings import ROOT
from tests.unit.prod import things as t
from tests.unit.prod.played import Played

SITE = sites.load("rehearsal", ROOT)


def taking(name: str, key: str = "", namespace: str = "platform") -> dict[str, Any]:
    """A Deployment that takes one key of a Secret, or all."""
    one = {"env": [{"name": "A", "valueFrom": {"secretKeyRef": {"name": name, "key": key}}}]}
    found = t.deployment(t.pod(t.container(**(one if key else {"envFrom": [{"secretRef": {"name": name}}]}))))
    found["metadata"]["namespace"] = namespace
    return found


NAMED = [
    {"name": "TRAINING_NAMESPACE", "value": "training"},
    {"name": "TRAINING_SECRET", "value": "training-credentials"},
]
WORKER = t.deployment(t.pod(t.container(env=NAMED)))


def secret(cluster: Played, name: str, namespace: str = "platform", **texts: str) -> None:
    data = {key: base64.b64encode(text.encode()).decode() for key, text in texts.items()}
    cluster.put({**t.thing("Secret", name=name, namespace=namespace), "data": data})


def made(cluster: Played, name: str) -> dict[str, str]:
    """What was given to the API server for a Secret."""
    return next(dict(o["stringData"]) for o in cluster.has.values() if o["metadata"]["name"] == name)


def generated(cluster: Played, *objects: dict[str, Any]) -> list[str]:
    wanted = module.needs(objects, SITE)
    module.look(cluster, wanted)
    return [need.name for need in module.generate(SITE, cluster, wanted)]


def test_every_way_to_name_a_secret_is_found() -> None:
    volume = {"name": "x", "secret": {"secretName": "by-volume", "items": [{"key": "ca.crt", "path": "ca.crt"}]}}
    objects = [
        taking("by-key", "password"),
        t.job(template=t.pod(volumes=[volume], imagePullSecrets=[{"name": "registry"}])),
        t.cluster(bootstrap={"initdb": {"secret": {"name": "owner"}}}),
        t.thing("ObjectStore", {"s3": {"accessKeyId": {"name": "keys", "key": "ID"}}}, "barmancloud.cnpg.io/v1"),
    ]
    found = {n.name: n.keys for n in module.needs(objects, SITE)}
    assert found == {
        "by-key": {"password"},
        "by-volume": {"ca.crt"},
        "registry": {".dockerconfigjson"},
        "owner": {"username", "password"},
        "keys": {"ID"},
    }


def test_users_and_state_are_said() -> None:
    cluster = Played()
    secret(cluster, "half", username="x")
    wanted = module.needs([taking("half", "username"), taking("half", "password"), taking("none", "a")], SITE)
    module.look(cluster, wanted)
    assert [(n.name, n.state, n.users) for n in wanted] == [
        ("half", "lacks password", ["Deployment platform/server"]),
        ("none", "absent", ["Deployment platform/server"]),
    ]


def test_a_password_is_the_same_wherever_its_role_is_named() -> None:
    cluster = Played()
    secret(cluster, "object-store", username="key", password="word")
    names = generated(cluster, taking("postgresql-platform", "password"), taking("platform-credentials"))
    assert names == ["platform-credentials", "postgresql-platform"]
    password = made(cluster, "postgresql-platform")["password"]
    assert len(password) >= 24
    assert (
        f"postgresql://platform:{password}@postgresql.platform:5432/platform?sslmode=verify-full"
        in (made(cluster, "platform-credentials")["DATABASE_URL"])
    )
    labels = next(o["metadata"]["labels"] for o in cluster.has.values() if o["metadata"]["name"] == names[1])
    assert labels == {"cnpg.io/reload": "true"}


def test_a_copy_takes_the_password_that_is_there() -> None:
    cluster = Played()
    secret(cluster, "postgresql-temporal", username="temporal", password="old")
    assert generated(cluster, taking("temporal-database", "password", "temporal")) == ["temporal-database"]
    assert made(cluster, "temporal-database") == {"username": "temporal", "password": "old"}


def test_one_that_is_there_is_never_changed() -> None:
    cluster = Played()
    secret(cluster, "postgresql-platform", username="other")
    assert generated(cluster, taking("postgresql-platform", "password")) == []
    assert cluster.log == []


def test_what_people_must_give_is_not_made_up() -> None:
    cluster = Played()
    assert generated(cluster, taking("object-store", "username"), WORKER) == []
    secret(cluster, "object-store", username="key", password="a/b")
    assert generated(cluster, WORKER) == ["training-credentials"]
    texts = made(cluster, "training-credentials")
    assert texts["EXTERNAL_STORAGE_SECRET_KEY"] == "a/b"
    assert texts["DATABASE_URL"].startswith("postgresql://training:")


def test_a_password_inside_a_url_is_quoted() -> None:
    cluster = Played()
    secret(cluster, "object-store", username="key", password="word")
    secret(cluster, "redis-credentials", password="a/b@c")
    generated(cluster, taking("platform-credentials"))
    assert made(cluster, "platform-credentials")["REDIS_URL"] == "redis://:a%2Fb%40c@redis-master.platform:6379/0"


@pytest.mark.parametrize("site", ["example", "rehearsal"])
def test_nothing_of_a_secret_is_shown(site: str) -> None:
    cluster = Played()
    secret(cluster, "postgresql-platform", username="platform", password="hidden-word")
    wanted = module.needs([taking("postgresql-platform", "password")], sites.load(site, ROOT))
    module.look(cluster, wanted)
    assert "hidden-word" not in str(module.shown(wanted))
    assert "hidden-word" not in repr(wanted)
