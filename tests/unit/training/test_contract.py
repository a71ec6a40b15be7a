from __future__ import annotations

import pytest

from infra import catalog, endpoints, settings
from infra.errors import PlatformError
from infra.training import contract


def values() -> dict[str, str]:
    return endpoints.contract(endpoints.build(settings.load(environ={}), ("postgres", "mlflow")))


def test_it_is_read_from_the_environment_and_nothing_else_is() -> None:
    found = contract.read({**values(), "PLATFORM_TIER": "native", "POSTGRES_PASSWORD": "x"})
    assert set(found.values) == {n for n in catalog.CONTRACT_NAMES if not n.startswith("CLEARML_")}
    assert found.datasets.endpoint.endswith(":9000")
    assert found.results.endpoint.endswith(":9002")
    assert found.backends == ("database", "mlflow")


def test_missing_names_are_all_named() -> None:
    given = values()
    del given["REDIS_URL"], given["TEMPORAL_HOST"]
    with pytest.raises(PlatformError, match="REDIS_URL, TEMPORAL_HOST") as caught:
        contract.read(given)
    assert caught.value.code == "USAGE"


def test_a_tracker_without_an_address_is_none() -> None:
    given = {**values(), "OBSERVABILITY_BACKENDS": "database,mlflow,clearml"}
    found = contract.read(given)
    assert (found.backends, found.absent_backends) == (("database", "mlflow"), ("clearml",))
    del given["MLFLOW_TRACKING_URI"]
    assert contract.read(given).absent_backends == ("mlflow", "clearml")


def test_secrets_are_not_in_its_repr() -> None:
    given = {**values(), "INTERNAL_STORAGE_SECRET_KEY": "hush-hush"}
    found = contract.read(given)
    assert "hush" not in repr(found) + repr(found.results)


def test_the_login_for_mlflow_is_there_only_where_it_wants_one() -> None:
    assert contract.read(values()).mlflow_login is None
    given = {**values(), **dict(zip(catalog.MLFLOW_LOGIN, ("admin", "hush-hush-hush"), strict=True))}
    assert contract.read(given).mlflow_login == ("admin", "hush-hush-hush")
