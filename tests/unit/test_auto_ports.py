from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from infra import auto_ports, catalog
from infra.errors import PlatformError
from infra.stack import Stack, remembered_settings
from tests.unit.helpers import free_port, settings_of

INTERNAL = "MINIO_DATASETS_INTERNAL_PORT"


@pytest.fixture
def taken() -> Iterator[int]:
    """A port that something listens on."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield int(server.getsockname()[1])


def test_a_taken_port_moves_to_a_later_one_that_is_free(tmp_path: Path, taken: int) -> None:
    found = auto_ports.moves(settings_of(tmp_path, REDIS_PORT=str(taken)), [taken])
    assert int(found.pop("REDIS_PORT")) > taken
    assert found == {}


def test_a_block_moves_as_a_whole_whichever_of_its_ports_are_taken(tmp_path: Path) -> None:
    settings = settings_of(tmp_path, MINIO_DATASETS_INTERNAL_PORT="40000")
    found = auto_ports.moves(settings, [40003, 40007])
    assert list(found) == [INTERNAL]
    assert int(found[INTERNAL]) > 40003


def test_a_block_keeps_clear_of_every_other_setting(tmp_path: Path) -> None:
    near = {"MINIO_DATASETS_INTERNAL_PORT": "40000", "REDIS_PORT": "40015", "POSTGRES_PORT": "50032"}
    first = int(auto_ports.moves(settings_of(tmp_path, **near), [40000])[INTERNAL])
    assert not {40015, 50032} & set(catalog.SETTINGS[INTERNAL].ports(first))


def test_a_block_moves_when_its_port_far_away_is_taken(tmp_path: Path) -> None:
    settings = settings_of(tmp_path, MINIO_DATASETS_INTERNAL_PORT="40000")
    assert list(auto_ports.moves(settings, [50007])) == [INTERNAL]


def test_a_port_that_no_setting_names_moves_nothing(tmp_path: Path) -> None:
    assert auto_ports.moves(settings_of(tmp_path), [free_port()]) == {}


def test_a_port_that_moved_moves_again_but_not_one_that_the_user_has_set(tmp_path: Path) -> None:
    home = Stack("moved", tmp_path / "home")
    error = PlatformError("PORT_TAKEN", "taken", details={"checks": [{"id": "port.6379"}]})
    first, found = auto_ports.move(settings_of(tmp_path), home, error)
    again = PlatformError("PORT_TAKEN", "taken", details={"checks": [{"id": f"port.{found['REDIS_PORT']}"}]})
    second, later = auto_ports.move(first, home, again)
    assert int(later["REDIS_PORT"]) > int(found["REDIS_PORT"])
    assert remembered_settings(home)["REDIS_PORT"] == later["REDIS_PORT"] == str(second.port("REDIS_PORT"))
    with pytest.raises(PlatformError):
        auto_ports.move(settings_of(tmp_path, REDIS_PORT="6379"), home, error)
