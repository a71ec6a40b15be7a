"""What a site needs: quantities, and the pods that stay."""

from __future__ import annotations

import pytest

from infra.kube.quantity import quantity
from infra.prod import cost
from tests.unit.prod import things as t

GIB = 1024**3


@pytest.mark.parametrize(
    ("text", "value"), [("500m", 0.5), ("2", 2), ("1.5Gi", 1.5 * GIB), ("2560Mi", 2.5 * GIB), ("1e3", 1000), (3, 3)]
)
def test_quantities_are_read(text: object, value: float) -> None:
    assert quantity(text) == value


@pytest.mark.parametrize("text", ["", "Gi", "5 Gi", "5Q", "-1"])
def test_what_is_no_quantity_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="no quantity"):
        quantity(text)


def test_replicas_count_and_jobs_do_not() -> None:
    found = cost.of([t.deployment(replicas=3), t.job()])
    assert (len(found.shares), found.cpu, found.memory) == (3, 3, 3 * GIB)


def test_every_instance_has_what_archives_beside_it() -> None:
    asked = {"resources": {"requests": {"cpu": "50m", "memory": "128Mi"}, "limits": {"memory": "512Mi"}}}
    store = t.thing("ObjectStore", {"instanceSidecarConfiguration": asked}, "barmancloud.cnpg.io/v1")
    server = {"requests": {"cpu": "1", "memory": "4Gi"}, "limits": {"memory": "4Gi"}}
    found = cost.of([t.cluster(resources=server), store])
    assert len(found.shares) == 3
    assert found.largest == cost.Share(1.05, 4.125 * GIB, 4.5 * GIB)
    assert found.most == 3 * 4.5 * GIB
