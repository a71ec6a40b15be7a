"""What is found before anything is started: ports, images, data of another version, settings, line ends."""

from __future__ import annotations

import contextlib
import io
import os
import socket
import subprocess
import tarfile
from pathlib import Path
from typing import Any

import pytest

from infra.settings import ROOT
from tests.faults.compose.conftest import error, project
from tests.faults.conftest import Victim
from tests.smoke import containers
from tests.smoke.stage import Stage


def started(engine: Any, victim: Victim) -> list[str]:
    """Names of the project's containers."""
    return [c["Names"][0] for c in containers.of_project(engine, project(victim))]


def with_env(victim: Victim, **values: str) -> Victim:
    """The same platform with other settings."""
    return Victim(Stage(victim.stage.tier, victim.stage.home, {**victim.stage.env, **values}, victim.stage.root))


def test_port_of_a_process_names_it(fresh: Victim, engine: Any, listener: int) -> None:
    done = with_env(fresh, REDIS_PORT=str(listener)).invoke("up", "--json")
    assert done.returncode == 4
    assert error(done)["code"] == "PORT_TAKEN"
    assert f"pid {os.getpid()}" in done.stderr + done.stdout
    assert "REDIS_PORT" in done.stderr + done.stdout
    assert started(engine, fresh) == []


def test_port_of_another_container_names_it(fresh: Victim, engine: Any) -> None:
    port, name = int(fresh.env["REDIS_PORT"]), f"{project(fresh)}-other"
    host = engine.create_host_config(port_bindings={6379: ("127.0.0.1", port)})
    image = fresh.env.get("REDIS_IMAGE", "valkey/valkey:9.1.2")
    box = engine.create_container(image, name=name, host_config=host, ports=[6379], command=["sleep", "300"])["Id"]
    try:
        engine.start(box)
        done = fresh.invoke("up", "--json")
        assert (done.returncode, error(done)["code"]) == (4, "PORT_TAKEN")
        assert f"container {name}" in done.stdout
        assert started(engine, fresh) == []
    finally:
        engine.remove_container(box, force=True)


def test_auto_ports_moves_and_remembers(fresh: Victim) -> None:
    plain = {k: v for k, v in fresh.env.items() if k != "REDIS_PORT"}
    with socket_on(6379):
        victim = Victim(Stage("compose", fresh.stage.home, plain, ROOT))
        done = victim.invoke("compose.up", "--auto-ports", "--service", "redis")
        assert done.returncode == 0, done.stderr
        assert "REDIS_PORT=" in done.stderr
        moved = victim.contract["REDIS_URL"].split(":")[-1].split("/")[0]
        assert moved != "6379"
        again = victim.invoke("compose.up", "--service", "redis")
        assert again.returncode == 0, again.stderr
        doctor = victim.invoke("compose.doctor")
        assert "REDIS_PORT (an earlier run, saved in" in doctor.stdout


def socket_on(port: int) -> contextlib.AbstractContextManager[object]:
    """A listener on that port, or nothing where another process has it already: it is taken either way."""
    try:
        return socket.create_server(("127.0.0.1", port))
    except OSError:
        return contextlib.nullcontext()


@pytest.mark.parametrize("image", ["registry.invalid/no/such:1", "127.0.0.1:9/no/such:1"])
def test_image_that_no_registry_gives_ends_soon_with_its_error(fresh: Victim, engine: Any, image: str) -> None:
    done = with_env(fresh, REDIS_IMAGE=image).invoke("up", "--json", timeout=60)
    found = error(done)
    assert (done.returncode, found["code"]) == (5, "REGISTRY_UNREACHABLE")
    assert image in found["message"]
    assert found["why"]
    assert started(engine, fresh) == []


def test_volume_of_an_older_major_is_refused_and_untouched(fresh: Victim, engine: Any) -> None:
    volume = f"{project(fresh)}_postgres_platform_data"
    image = fresh.env.get("POSTGRES_IMAGE", "pgvector/pgvector:0.8.6-pg18-trixie")
    engine.create_volume(volume)
    put(engine, volume, image, {"16/docker/PG_VERSION": b"16\n", "16/docker/keep": b"rows"})
    done = fresh.invoke("up", "--json")
    assert (done.returncode, error(done)["code"]) == (8, "DATA_INCOMPATIBLE")
    assert "PostgreSQL 16" in error(done)["message"]
    assert started(engine, fresh) == []
    assert content(engine, volume, image, "16/docker/keep") == b"rows"


def put(engine: Any, volume: str, image: str, files: dict[str, bytes]) -> None:
    """Write files into a volume."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        for name, data in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    with holding(engine, volume, image) as box:
        engine.put_archive(box, "/v", packed.getvalue())


def content(engine: Any, volume: str, image: str, name: str) -> bytes:
    """Read a file from a volume."""
    with holding(engine, volume, image) as box:
        packed = b"".join(engine.get_archive(box, f"/v/{name}")[0])
    with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
        file = archive.extractfile(archive.getmembers()[0])
        assert file is not None
        return file.read()


class holding:  # noqa: N801 - used like a function
    """A container with the volume at /v that is never started."""

    def __init__(self, engine: Any, volume: str, image: str) -> None:
        host = engine.create_host_config(binds={volume: {"bind": "/v", "mode": "rw"}})
        self.engine, self.box = engine, engine.create_container(image, command=["none"], host_config=host)["Id"]

    def __enter__(self) -> str:
        return str(self.box)

    def __exit__(self, *_: object) -> None:
        self.engine.remove_container(self.box, force=True, v=True)


@pytest.mark.parametrize(
    ("line", "code", "said"),
    [
        ("POSTGRES_PROT=5555", "SETTING_UNKNOWN", "POSTGRES_PORT"),
        ("POSTGRES_PORT=fivethousand", "SETTING_INVALID", "is not a port"),
        ("this is no setting", "SETTINGS_UNREADABLE", "is not NAME=value"),
    ],
)
def test_settings_that_do_not_fit_are_refused(clone: Path, fresh: Victim, line: str, code: str, said: str) -> None:
    (clone / ".env").write_text(f"{line}\n", encoding="utf-8")
    env = {k: v for k, v in fresh.env.items() if k != "POSTGRES_PORT"}
    done = Stage("compose", fresh.stage.home, env, clone).invoke("compose.up", "--json")
    assert (done.returncode, error(done)["code"]) == (2, code)
    assert said in done.stdout + done.stderr


def test_env_file_that_cannot_be_read_is_named(clone: Path, fresh: Victim) -> None:
    (clone / ".env").write_bytes(b"POSTGRES_USER=\xff\xfe\n")
    done = Stage("compose", fresh.stage.home, fresh.env, clone).invoke("compose.up", "--json")
    assert (done.returncode, error(done)["code"]) == (2, "SETTINGS_UNREADABLE")
    assert str(clone / ".env") in error(done)["message"]


def test_windows_line_ends_in_a_mounted_file_are_named(clone: Path, fresh: Victim, engine: Any) -> None:
    script = clone / "compose" / "minio" / "buckets.sh"
    script.write_bytes(script.read_bytes().replace(b"\n", b"\r\n"))
    done = Stage("compose", fresh.stage.home, fresh.env, clone).invoke("compose.up", "--json")
    assert (done.returncode, error(done)["code"]) == (4, "PREFLIGHT_FAILED")
    assert "compose/minio/buckets.sh" in done.stdout
    assert started(engine, fresh) == []


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A clone of the repository with what is not committed yet left out."""
    target = tmp_path / "clone"
    subprocess.run(["git", "clone", "--quiet", str(ROOT), str(target)], check=True, timeout=120)
    return target
