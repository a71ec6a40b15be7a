"""Which services share data in a cluster, and whose volume is whose."""

from __future__ import annotations

import pytest

from infra.tiers import kind_data
from infra.tiers.kind_data import Volume


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
    assert kind_data.shared(named) == others


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
