"""Which services share data in a cluster, and whose volume is whose."""

from __future__ import annotations

from pathlib import Path

import pytest

from infra.errors import PlatformError
from infra.tiers.base import Removal
from infra.tiers.kind import data
from infra.tiers.kind.cluster import KindCluster
from infra.tiers.kind.data import Volume
from tests.unit.kube import objects as o
from tests.unit.tiers.kind.fakes import cluster_of


@pytest.mark.parametrize(
    ("named", "others"),
    [
        (("minio-results",), ["minio-datasets"]),
        (("minio-results", "minio-datasets"), []),
        (("loki",), []),
        (("postgres", "clearml"), []),
        ((), []),
    ],
)
def test_only_the_one_object_store_is_two_services(named: tuple[str, ...], others: list[str]) -> None:
    assert data.shared(named) == others


@pytest.mark.parametrize(
    ("volume", "services"),
    [
        (Volume("observability", "data-loki", "observability"), ("loki",)),
        (Volume("platform", "data-minio", "minio"), ("minio-datasets", "minio-results")),
        (Volume("platform", "data-postgresql", "postgresql"), ("postgres",)),
    ],
)
def test_a_volume_is_of_the_service_it_is_named_after(volume: Volume, services: tuple[str, ...]) -> None:
    assert volume.services == services


KEPT = {"storageClassName": "platform-kept"}


def with_volumes(root: Path, *volumes: Volume, filled: tuple[str, ...] = ()) -> KindCluster:
    """A cluster that had these volumes when it was last seen; those named hold 4 bytes each."""
    made = cluster_of(root)
    data.remember(made, volumes)
    for volume in volumes:
        (made.volumes / volume.directory).mkdir(parents=True)
        if volume.claim in filled:
            (made.volumes / volume.directory / "file").write_bytes(b"1234")
    return made


POSTGRES = Volume("platform", "data-postgresql", "postgresql")
STORE = Volume("platform", "data-minio", "minio")


def test_volumes_are_the_claims_of_our_storage_class() -> None:
    ours = o.claim("data-redis", **KEPT)
    assert data.parse([o.claim("other", storageClassName="standard"), ours]) == [
        Volume("platform", "data-redis", "redis")
    ]


def test_what_was_seen_last_is_known_when_nothing_runs(tmp_path: Path) -> None:
    assert data.known(with_volumes(tmp_path, STORE, POSTGRES)) == [STORE, POSTGRES]
    assert data.known(cluster_of(tmp_path / "another")) == []


def test_only_volumes_that_hold_something_would_be_removed(tmp_path: Path) -> None:
    made = with_volumes(tmp_path, POSTGRES, STORE, filled=("data-postgresql",))
    assert data.removals(made, ()) == [Removal("postgres", None, 4, POSTGRES.directory)]


@pytest.mark.parametrize(
    ("asked", "named"),
    [(("minio-results",), ["minio-results"]), ((), ["postgres", "minio-datasets"]), (("redis",), [])],
)
def test_a_shared_volume_is_called_as_it_was_asked_for(
    tmp_path: Path, asked: tuple[str, ...], named: list[str]
) -> None:
    made = with_volumes(tmp_path, POSTGRES, STORE, filled=("data-postgresql", "data-minio"))
    assert [r.service for r in data.removals(made, asked)] == named


def test_without_a_cluster_a_volume_moves_into_the_trash_and_back(tmp_path: Path) -> None:
    made = with_volumes(tmp_path, POSTGRES, filled=("data-postgresql",))
    removal, trash = data.removals(made, ())[0], tmp_path / "trash"
    trash.mkdir()
    data.stash(made, removal, trash)
    assert data.removals(made, ()) == []
    data.unstash(made, removal, trash)
    assert (made.volumes / POSTGRES.directory / "file").read_bytes() == b"1234"


def test_without_a_cluster_a_volume_can_go_for_ever(tmp_path: Path) -> None:
    made = with_volumes(tmp_path, POSTGRES, filled=("data-postgresql",))
    data.remove(made, data.removals(made, ())[0])
    assert data.removals(made, ()) == []


def test_a_trash_that_is_empty_by_now_is_said(tmp_path: Path) -> None:
    made = with_volumes(tmp_path, POSTGRES)
    with pytest.raises(PlatformError) as caught:
        data.unstash(made, Removal("postgres", None, 4, POSTGRES.directory), tmp_path / "nothing")
    assert caught.value.code == "NOT_FOUND"


def test_an_archive_needs_a_cluster_to_go_back_to(tmp_path: Path) -> None:
    made = with_volumes(tmp_path, POSTGRES)
    (tmp_path / data.ARCHIVE).write_bytes(b"")
    with pytest.raises(PlatformError) as caught:
        data.unstash(made, Removal("postgres", None, 4, POSTGRES.directory), tmp_path)
    assert caught.value.code == "NOT_RUNNING"
    assert "invoke kind.up" in caught.value.steps[0]


def test_a_volume_that_nobody_knows_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PlatformError) as caught:
        data.remove(with_volumes(tmp_path, POSTGRES), Removal("redis", None, 1, "platform-data-redis"))
    assert caught.value.code == "NOT_FOUND"
