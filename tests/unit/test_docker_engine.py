from __future__ import annotations

import hashlib
import json
import os
import socket
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from infra import docker_engine
from infra.docker_engine import EnginePlace, find, places
from infra.errors import PlatformError

VERSION = {"Version": "27.1.0", "ApiVersion": "1.46"}


@pytest.fixture
def short(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A directory whose path is short enough for a Unix socket."""
    import tempfile

    with tempfile.TemporaryDirectory(prefix="e", dir="/tmp") as made:
        yield Path(made)


def serve(path: Path, answer: Mapping[str, object], status: str = "200 OK") -> None:
    """An engine that gives the same answer to one question."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen(1)
    body = json.dumps(answer).encode()

    def one() -> None:
        link, _ = listener.accept()
        with link, listener:
            link.recv(65536)
            link.sendall(f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)

    threading.Thread(target=one, daemon=True).start()


def context(home: Path, name: str, url: str) -> None:
    """A context as the program `docker` writes it."""
    folder = home / ".docker" / "contexts" / "meta" / hashlib.sha256(name.encode()).hexdigest()
    folder.mkdir(parents=True)
    (folder / "meta.json").write_text(json.dumps({"Name": name, "Endpoints": {"docker": {"Host": url}}}))
    (home / ".docker" / "config.json").write_text(json.dumps({"currentContext": name}))


def test_docker_host_comes_first(tmp_path: Path) -> None:
    context(tmp_path, "colima", "unix:///c.sock")
    assert places({"DOCKER_HOST": "unix:///x.sock"}, tmp_path) == [EnginePlace("unix:///x.sock", "set by DOCKER_HOST")]


def test_the_current_context_comes_before_known_sockets(tmp_path: Path) -> None:
    context(tmp_path, "colima", "unix:///c.sock")
    assert places({}, tmp_path) == [EnginePlace("unix:///c.sock", "the current context colima")]


@pytest.mark.skipif(os.name == "nt", reason="Windows has pipes")
@pytest.mark.parametrize(
    ("path", "name"),
    [
        (".docker/run/docker.sock", "Docker Desktop"),
        (".rd/docker.sock", "Rancher Desktop"),
        (".colima/default/docker.sock", "Colima"),
        (".orbstack/run/docker.sock", "OrbStack"),
        (".lima/docker/sock/docker.sock", "Lima"),
    ],
)
def test_known_sockets_are_found(tmp_path: Path, path: str, name: str) -> None:
    socket_path = tmp_path / path
    socket_path.parent.mkdir(parents=True)
    socket_path.touch()
    assert EnginePlace(f"unix://{socket_path}", name) in places({}, tmp_path)


def test_podmans_socket_is_found(tmp_path: Path) -> None:
    (tmp_path / "podman").mkdir()
    (tmp_path / "podman" / "podman.sock").touch()
    found = places({"XDG_RUNTIME_DIR": str(tmp_path)}, tmp_path)
    assert EnginePlace(f"unix://{tmp_path / 'podman' / 'podman.sock'}", "Podman") in found


def test_the_engine_that_answers_is_described(short: Path) -> None:
    serve(short / "s", VERSION)
    engine = find({"DOCKER_HOST": f"unix://{short / 's'}"}, short)
    assert (engine.version, engine.api, engine.product) == ("27.1.0", (1, 46), "Docker")
    assert "set by DOCKER_HOST" in engine.text


def test_an_old_engine_is_refused_with_what_to_install(short: Path) -> None:
    serve(short / "s", {"Version": "19.03", "ApiVersion": "1.40"})
    with pytest.raises(PlatformError) as caught:
        find({"DOCKER_HOST": f"unix://{short / 's'}"}, short)
    assert (caught.value.code, caught.value.exit) == ("DOCKER_TOO_OLD", 5)
    assert any("install" in step for step in caught.value.steps)


def test_a_dead_socket_means_stopped(short: Path) -> None:
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(short / "s"))
    listener.close()
    with pytest.raises(PlatformError) as caught:
        find({"DOCKER_HOST": f"unix://{short / 's'}"}, short)
    assert (caught.value.code, caught.value.exit) == ("DOCKER_STOPPED", 5)
    assert str(short / "s") in caught.value.why


def test_no_socket_and_no_program_means_not_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(docker_engine, "known_sockets", lambda environ, home: [])
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(PlatformError) as caught:
        find({}, tmp_path)
    assert (caught.value.code, caught.value.exit) == ("DOCKER_MISSING", 5)


def test_the_program_without_a_socket_means_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / ("docker.exe" if os.name == "nt" else "docker")
    program.touch(mode=0o755)
    monkeypatch.setattr(docker_engine, "known_sockets", lambda environ, home: [])
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(PlatformError) as caught:
        find({}, tmp_path)
    assert caught.value.code == "DOCKER_STOPPED"


def test_a_socket_that_may_not_be_used_is_another_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(place: EnginePlace, path: str) -> object:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(docker_engine, "ask", refuse)
    with pytest.raises(PlatformError) as caught:
        find({"DOCKER_HOST": "unix:///s"}, tmp_path)
    assert (caught.value.code, caught.value.exit) == ("DOCKER_REFUSED", 5)
    assert any("docker" in step and "usermod" in step for step in caught.value.steps)


def test_an_answer_that_is_no_engines_means_stopped(short: Path) -> None:
    serve(short / "s", {"message": "gone"}, "503 Service Unavailable")
    with pytest.raises(PlatformError) as caught:
        find({"DOCKER_HOST": f"unix://{short / 's'}"}, short)
    assert "HTTP 503" in caught.value.why


@pytest.mark.skipif(os.name == "nt", reason="Windows has pipes")
def test_the_docker_program_is_led_to_the_engine_that_answers(short: Path) -> None:
    colima = short / ".colima" / "default" / "docker.sock"
    colima.parent.mkdir(parents=True)
    serve(colima, VERSION)
    (short / ".docker" / "run").mkdir(parents=True)
    (short / ".docker" / "run" / "docker.sock").touch()  # left by an engine that no longer runs
    found = docker_engine.led({}, short)
    if not Path("/var/run/docker.sock").exists():
        assert found == {"DOCKER_HOST": f"unix://{colima}", "DOCKER_CONTEXT": ""}
    assert docker_engine.led({"DOCKER_HOST": f"unix://{colima}"}, short) == {}, "it goes there by itself"


def test_without_an_engine_the_docker_program_says_why(tmp_path: Path) -> None:
    context(tmp_path, "colima", "unix:///c.sock")
    assert docker_engine.led({}, tmp_path) == {}
