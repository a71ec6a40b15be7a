from __future__ import annotations

import json
from pathlib import Path

import pytest

from infra import catalog, images
from infra.errors import ExitCode, PlatformError
from tests.unit.helpers import settings_of

DIGEST = "sha256:" + "a" * 64
FILE = """\
services:
  postgres: {image: "${POSTGRES_IMAGE:-postgres:18.6}"}
  redis: {image: "${REDIS_IMAGE:-valkey/valkey:9.1.2}"}
  minio-setup: {image: "${BUCKETS_IMAGE:-${MINIO_IMAGE:-pgsty/silo:RELEASE.1}}"}
"""


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout with a Compose file."""
    (tmp_path / "compose").mkdir()
    (tmp_path / "compose" / "docker-compose.yml").write_text(FILE, encoding="utf-8")
    return tmp_path


def lock(checkout: Path, text: str) -> None:
    (checkout / images.LOCK).write_text(text, encoding="utf-8")


def test_the_files_own_the_references(checkout: Path) -> None:
    assert images.references(settings_of(checkout)) == {
        "POSTGRES_IMAGE": "postgres:18.6",
        "REDIS_IMAGE": "valkey/valkey:9.1.2",
        "MINIO_IMAGE": "pgsty/silo:RELEASE.1",
        "PYTHON_IMAGE": catalog.PYTHON_IMAGE,
    }
    assert images.replaced(settings_of(checkout)) == {}


def test_the_lock_adds_digests_and_a_setting_wins(checkout: Path) -> None:
    lock(checkout, images.lock_text({"postgres:18.6": DIGEST, "valkey/valkey:9.1.2": DIGEST}))
    found = images.references(settings_of(checkout, REDIS_IMAGE="mirror.example.com/valkey:9"))
    assert found["POSTGRES_IMAGE"] == f"postgres:18.6@{DIGEST}"
    assert found["REDIS_IMAGE"] == "mirror.example.com/valkey:9"
    assert found["MINIO_IMAGE"] == "pgsty/silo:RELEASE.1", "not in the lock"


def test_it_is_said_where_a_reference_comes_from(checkout: Path) -> None:
    lock(checkout, images.lock_text({"postgres:18.6": DIGEST}))
    origins = {i.setting: i.origin for i in images.images(settings_of(checkout, REDIS_IMAGE="x:1"))}
    assert origins["POSTGRES_IMAGE"] == str(images.LOCK)
    assert (origins["REDIS_IMAGE"], origins["MINIO_IMAGE"]) == ("the environment", "the files")


def test_an_image_from_an_archive_stands_for_its_digest(checkout: Path) -> None:
    lock(checkout, images.lock_text({"postgres:18.6": DIGEST}))
    settings = settings_of(checkout)
    assert images.references(settings, {"postgres:18.6"})["POSTGRES_IMAGE"] == "postgres:18.6"
    both = {"postgres:18.6", f"postgres@{DIGEST}"}
    assert images.references(settings, both)["POSTGRES_IMAGE"] == f"postgres:18.6@{DIGEST}"


def test_only_what_differs_from_the_files_is_passed_on(checkout: Path) -> None:
    lock(checkout, images.lock_text({"postgres:18.6": DIGEST}))
    settings = settings_of(checkout, BUCKETS_IMAGE="curl:1", MINIO_IMAGE="pgsty/silo:RELEASE.1")
    assert images.replaced(settings) == {"POSTGRES_IMAGE": f"postgres:18.6@{DIGEST}", "BUCKETS_IMAGE": "curl:1"}


@pytest.mark.parametrize(
    "text",
    ["{", "[]", "{}", '{"format": 2, "images": {}}', '{"format": 1, "images": {"postgres:18.6": "sha256:short"}}'],
)
def test_a_damaged_lock_is_refused(checkout: Path, text: str) -> None:
    lock(checkout, text)
    with pytest.raises(PlatformError) as caught:
        images.references(settings_of(checkout))
    assert caught.value.exit == ExitCode.USAGE
    assert "images.lock.json" in caught.value.what


def test_a_lock_reads_as_it_was_written(checkout: Path) -> None:
    lock(checkout, images.lock_text({"b:1": DIGEST, "a:1": DIGEST}))
    assert images.locked(checkout) == {"a:1": DIGEST, "b:1": DIGEST}
    assert json.loads(images.lock_text({}))["format"] == images.FORMAT


@pytest.mark.parametrize(
    ("values", "there", "absent"),
    [
        ({}, {"TEMPORAL_IMAGE", "MINIO_IMAGE"}, {"TEMPORAL_DEV_IMAGE", "RUSTFS_IMAGE", "BUCKETS_IMAGE"}),
        ({"PLATFORM_LIGHT": "yes"}, {"TEMPORAL_DEV_IMAGE"}, {"TEMPORAL_IMAGE", "TEMPORAL_UI_IMAGE"}),
        ({"PLATFORM_S3_ENGINE": "rustfs"}, {"RUSTFS_IMAGE"}, {"MINIO_IMAGE"}),
        ({"BUCKETS_IMAGE": "curl:1"}, {"BUCKETS_IMAGE", "MINIO_IMAGE"}, {"MLFLOW_IMAGE"}),
    ],
)
def test_what_the_core_needs(tmp_path: Path, values: dict[str, str], there: set[str], absent: set[str]) -> None:
    names = set(images.needed(settings_of(tmp_path, **values)))
    assert there <= names
    assert not absent & names


def test_clearml_is_not_needed_unless_it_is_asked_for(tmp_path: Path) -> None:
    settings = settings_of(tmp_path)
    asked = set(images.needed(settings, obs=True, clearml=True)) - set(images.needed(settings, obs=True))
    assert asked == {"CLEARML_IMAGE", "ELASTICSEARCH_IMAGE", "MONGO_IMAGE", "CLEARML_REDIS_IMAGE"}
