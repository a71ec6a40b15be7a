"""Each service of the catalogue has all its places; what lacks one is named by file."""

from __future__ import annotations

import pytest

from infra import catalog, rows
from tests.drift import compose_files, places


@pytest.mark.parametrize("service", catalog.SERVICES, ids=lambda service: service.name)
def test_no_file_lacks_a_service(service: rows.Service) -> None:
    lacking = places.missing(service)
    if lacking:
        pytest.fail("\n".join(["see 'Add a service' in CONTRIBUTING.md", *lacking]), pytrace=False)


def test_every_container_of_the_compose_files_belongs_to_a_service() -> None:
    parts = {part.name for service in catalog.SERVICES for part in service.parts}
    assert set(compose_files.everything()) - parts == set()


def test_every_secret_belongs_to_a_service() -> None:
    secrets = {name for name, setting in catalog.SETTINGS.items() if setting.kind == "secret"}
    own = {"PLATFORM_NOTIFY"}  # of the worker: the address of a webhook
    assert secrets - own - {name for service in catalog.SERVICES for name in service.secrets} == set()
