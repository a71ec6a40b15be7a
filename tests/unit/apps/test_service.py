"""Running the application on this machine: what the supervisor is given."""

from __future__ import annotations

import json
from pathlib import Path

from infra import endpoints, stack
from infra.app import service
from tests.unit.helpers import settings_of

CORE = ("postgres", "redis", "temporal", "minio-datasets", "minio-results")


def test_specs_hold_the_contract_and_listen_on_this_machine_only(tmp_path: Path) -> None:
    found = settings_of(tmp_path, BACKEND_PORT="18000", FRONTEND_PORT="18001", POSTGRES_PASSWORD="s3cret-word")
    values = endpoints.contract(endpoints.build(found, CORE))
    backend, frontend = service.specs(found, stack.of(found), values, {"A": "b"}, "job", {"TRAINING_KEY": "k"})
    assert {name: backend.env[name] for name in values} == values
    assert (backend.env["APP_HOST"], backend.env["APP_PORT"]) == ("127.0.0.1", "18000")
    assert (backend.env["TRAINING_RUNNER"], json.loads(backend.env["SERVICE_LINKS"])) == ("job", {"A": "b"})
    assert (backend.env["TRAINING_KEY"], "TRAINING_KEY" in frontend.env) == ("k", False)
    assert frontend.env["BACKEND_URL"] == "http://127.0.0.1:18000"
    assert "s3cret-word" not in json.dumps([*backend.argv, *frontend.argv, frontend.env])


def test_addresses_name_the_page_where_there_is_one(tmp_path: Path) -> None:
    ends = endpoints.build(settings_of(tmp_path), (*CORE, "clearml"))
    with_console = service.addresses(ends, {"minio-datasets": "minio"})
    without = service.addresses(ends, {"minio-datasets": "rclone"})
    assert with_console["Temporal"] == "http://127.0.0.1:8233"
    assert with_console["ClearML"] == "http://127.0.0.1:8080"
    assert with_console["Object store, datasets"] == "http://127.0.0.1:9001"
    assert without["Object store, datasets"] == "127.0.0.1:9000"


def test_nothing_to_stop_is_no_failure(tmp_path: Path) -> None:
    assert service.stop(stack.of(settings_of(tmp_path))) is False
