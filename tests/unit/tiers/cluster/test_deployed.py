"""What is remembered of the services that were deployed."""

from __future__ import annotations

from pathlib import Path

import pytest

from infra.tiers.cluster.deployed import FILE, DeployedServices


@pytest.fixture
def deployed(tmp_path: Path) -> DeployedServices:
    return DeployedServices(tmp_path)


def test_nothing_is_deployed_where_there_is_no_file(deployed: DeployedServices) -> None:
    assert deployed.names == ()


def test_services_come_to_those_that_are_there(deployed: DeployedServices) -> None:
    deployed.add(("redis",))
    deployed.add(("postgres",))
    assert deployed.names == ("postgres", "redis")  # as in the catalogue


def test_what_is_there_is_not_written_again(deployed: DeployedServices, tmp_path: Path) -> None:
    deployed.add(("redis",))
    (tmp_path / FILE).chmod(0o400)
    before = (tmp_path / FILE).stat()
    deployed.add(("redis",))
    assert (tmp_path / FILE).stat().st_mtime_ns == before.st_mtime_ns
    assert (tmp_path / FILE).stat().st_ino == before.st_ino


def test_with_a_release_go_all_its_services(deployed: DeployedServices) -> None:
    deployed.add(("postgres", "minio-datasets", "minio-results"))
    deployed.forget(("minio",))
    assert deployed.names == ("postgres",)


def test_services_of_releases_are_those_deployed_or_all(deployed: DeployedServices) -> None:
    assert deployed.of_releases(("minio", "redis")) == ("minio-datasets", "minio-results", "redis")
    deployed.add(("minio-results",))
    assert deployed.of_releases(("minio", "redis")) == ("minio-results", "redis")


@pytest.mark.parametrize("text", ["", "[1]", '{"services": 5}', '{"services": null}', "\u00ff"])
def test_a_damaged_file_is_none(deployed: DeployedServices, tmp_path: Path, text: str) -> None:
    (tmp_path / FILE).write_text(text, encoding="utf-8")
    assert deployed.names == ()


def test_names_of_another_version_are_left_out(deployed: DeployedServices, tmp_path: Path) -> None:
    (tmp_path / FILE).write_text('{"services": ["redis", "a-service-of-tomorrow"]}')
    assert deployed.names == ("redis",)
