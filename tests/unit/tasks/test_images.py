"""The tasks `images.*` against registries that really answer, and an engine that gives and takes archives."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import invoke
import pytest

from infra import image_archive, images, registry, settings
from infra.errors import ExitCode, PlatformError
from infra.tasks import images as tasks
from tests.unit.registry_server import INDEX, Registry, digest, running

Run = Callable[..., tuple[int, dict[str, Any]]]
TASKS: dict[str, invoke.Task[Any]] = {str(task.name): task for task in tasks.TASKS}
DEFAULTS: dict[str, Any] = {"output": "json", "json": True, "no_color": False, "debug": False}


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Registry]:
    """Takes the place of Docker Hub."""
    with running() as started:
        started.has = {"library/postgres:18.6", "valkey/valkey:9.1.2", "library/python:3"}
        monkeypatch.setattr(registry, "HUB", started.host)
        monkeypatch.setattr(registry, "BACK_OFF", ())
        yield started


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout whose Compose file names two images."""
    real = settings.load
    monkeypatch.setattr(settings, "load", lambda root=tmp_path, **more: real(root=root, **more))
    monkeypatch.setattr("infra.catalog.PYTHON_IMAGE", "python:3")
    monkeypatch.setenv("PLATFORM_IMAGE_MIRRORS", "127.0.0.1:1")
    (tmp_path / "compose").mkdir()
    text = 'a: "${POSTGRES_IMAGE:-postgres:18.6}"\nb: "${REDIS_IMAGE:-valkey/valkey:9.1.2}"\n'
    (tmp_path / "compose" / "docker-compose.yml").write_text(text, encoding="utf-8")
    return tmp_path


@pytest.fixture
def run(checkout: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    def call(name: str, **options: Any) -> tuple[int, dict[str, Any]]:
        try:
            code = 0
            TASKS[name].body(invoke.Context(), **{**DEFAULTS, **options})
        except invoke.Exit as end:
            code = end.code
        return code, json.loads(capsys.readouterr().out)

    return call


def test_lock_writes_the_digests_that_the_registry_tells(server: Registry, run: Run, checkout: Path) -> None:
    code, answer = run("lock")
    assert code == ExitCode.OK
    written = images.locked(checkout)
    assert written == dict.fromkeys(("postgres:18.6", "valkey/valkey:9.1.2", "python:3"), digest(INDEX))
    assert answer["data"]["images"] == written


def test_lock_writes_nothing_where_an_image_is_gone(server: Registry, run: Run, checkout: Path) -> None:
    server.has.remove("valkey/valkey:9.1.2")
    code, answer = run("lock")
    assert code == ExitCode.SERVICE_FAILED
    assert "valkey/valkey:9.1.2: gone" in answer["error"]["why"]
    assert not (checkout / images.LOCK).exists()


def test_lock_writes_nothing_where_no_registry_answers(run: Run, checkout: Path, server: Registry) -> None:
    (checkout / images.LOCK).write_text(before := images.lock_text({"postgres:18.6": digest(b"old")}))
    server.limited = 10_000
    code, answer = run("lock")
    assert code == ExitCode.DEPENDENCY
    assert "rate limited" in answer["error"]["message"]
    assert (checkout / images.LOCK).read_text() == before


def test_verify_finds_all(server: Registry, run: Run) -> None:
    code, answer = run("verify")
    assert code == ExitCode.OK
    assert {i["setting"]: i["state"] for i in answer["data"]["images"]} == dict.fromkeys(
        ("POSTGRES_IMAGE", "REDIS_IMAGE", "PYTHON_IMAGE"), "there"
    )


def test_verify_names_what_is_gone(server: Registry, run: Run) -> None:
    server.has.remove("library/postgres:18.6")
    code, answer = run("verify")
    assert code == ExitCode.PARTIAL
    assert [i["reference"] for i in answer["data"]["images"] if i["state"] == "gone"] == ["postgres:18.6"]


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """An engine that has one image made here and one from a registry."""
    has: list[dict[str, Any]] = [
        {"Id": "1", "RepoTags": ["mine/postgres:1"], "RepoDigests": None},
        {"Id": "2", "RepoTags": ["theirs/redis:1"], "RepoDigests": ["theirs/redis@sha256:00"]},
    ]
    monkeypatch.setattr("infra.docker_engine.find", lambda: SimpleNamespace(place=None))
    monkeypatch.setattr("infra.docker_engine.ask", lambda place, path: has)
    return has


@pytest.mark.usefixtures("engine")
def test_verify_asks_nobody_for_what_was_made_here(server: Registry, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POSTGRES_IMAGE", "mine/postgres:1")
    monkeypatch.setenv("REDIS_IMAGE", "theirs/redis:1")
    code, answer = run("verify")
    states = {i["setting"]: i["state"] for i in answer["data"]["images"]}
    assert states == {"POSTGRES_IMAGE": "local", "REDIS_IMAGE": "gone", "PYTHON_IMAGE": "there"}
    assert code == ExitCode.PARTIAL


@pytest.mark.usefixtures("engine")
def test_verify_without_a_registry_is_an_error_although_some_were_made_here(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    with running() as stopped:
        monkeypatch.setattr(registry, "HUB", stopped.host)
    monkeypatch.setenv("POSTGRES_IMAGE", "mine/postgres:1")
    assert run("verify")[1]["error"]["code"] == "REGISTRY_UNREACHABLE"


@pytest.mark.usefixtures("engine")
def test_what_the_files_name_is_asked_for_even_if_one_of_that_name_was_made_here(
    server: Registry, run: Run, engine: list[dict[str, Any]]
) -> None:
    engine[0]["RepoTags"] = ["postgres:18.6"]
    assert run("verify")[1]["data"]["images"][0]["state"] == "there"


def test_no_mirror_is_asked_where_none_is_named(server: Registry, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLATFORM_IMAGE_MIRRORS", "")
    asked: set[tuple[str, ...]] = set()
    real = registry.look_up

    def noted(reference: str, mirrors: tuple[str, ...]) -> registry.RegistryAnswer:
        asked.add(mirrors)
        return real(reference, mirrors)

    monkeypatch.setattr(registry, "look_up", noted)
    assert run("verify")[0] == ExitCode.OK
    assert asked == {()}


def test_verify_without_a_registry(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    with running() as stopped:
        monkeypatch.setattr(registry, "HUB", stopped.host)
    code, answer = run("verify")
    assert code == ExitCode.DEPENDENCY
    assert answer["error"]["code"] == "REGISTRY_UNREACHABLE"


def test_list_says_where_from_although_no_engine_answers(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def none() -> None:
        raise PlatformError("DOCKER_MISSING", "Docker is not installed")

    monkeypatch.setattr("infra.docker_engine.find", none)
    monkeypatch.setenv("REDIS_IMAGE", "mirror.example.com/valkey:9")
    code, answer = run("list")
    assert code == ExitCode.OK
    found = {i["setting"]: (i["reference"], i["origin"], i["local"]) for i in answer["data"]["images"]}
    assert found["REDIS_IMAGE"] == ("mirror.example.com/valkey:9", "the environment", None)
    assert found["POSTGRES_IMAGE"] == ("postgres:18.6", "the files", None)


def archive(*names: str) -> bytes:
    """What an engine gives: a tar file with a manifest."""
    kept = io.BytesIO()
    with tarfile.open(fileobj=kept, mode="w") as made:
        content = json.dumps([{"Config": "x", "RepoTags": list(names), "Layers": []}]).encode()
        entry = tarfile.TarInfo("manifest.json")
        entry.size = len(content)
        made.addfile(entry, io.BytesIO(content))
    return kept.getvalue()


class Engine:
    """Gives an archive and takes one, as far as an engine does that over HTTP."""

    base_url, api_version = "http+docker://localhost", "1.41"

    def __init__(self, breaks: bool = False) -> None:
        self.breaks = breaks
        self.names: list[str] = []
        self.taken = b""

    def get(self, url: str, params: list[tuple[str, str]], **_: Any) -> Engine:
        assert url == "http+docker://localhost/v1.41/images/get"
        self.names = [value for _, value in params]
        return self

    status_code = 200

    def iter_content(self, size: int) -> Iterator[bytes]:
        whole = archive(*self.names)
        yield whole[:600]
        if self.breaks:
            raise OSError("the engine went away")
        yield whole[600:]

    def load_image(self, data: Iterator[bytes], quiet: bool) -> Iterator[dict[str, Any]]:
        self.taken = b"".join(data)
        yield {"stream": "Loaded image"}


def test_an_archive_comes_back_as_it_was_written(tmp_path: Path) -> None:
    engine, told = Engine(), list[int]()
    target = tmp_path / "mit Blank é.tar"
    digest_of_file = image_archive.save(engine, ["a:1", "b:2"], target, told.append)
    assert image_archive.contents(target) == ["a:1", "b:2"]
    assert digest(target.read_bytes()) == f"sha256:{digest_of_file}"
    assert told[-1] == target.stat().st_size
    assert image_archive.load(engine, target, told.append) == ["a:1", "b:2"]
    assert engine.taken == target.read_bytes()


def test_an_archive_that_breaks_off_leaves_no_file_and_keeps_the_old_one(tmp_path: Path) -> None:
    target = tmp_path / "images.tar"
    target.write_bytes(b"old")
    with pytest.raises(PlatformError):
        image_archive.save(Engine(breaks=True), ["a:1"], target, lambda done: None)
    assert [p.name for p in tmp_path.iterdir()] == ["images.tar"]
    assert target.read_bytes() == b"old"


@pytest.mark.parametrize("name", ["", "file/images.tar"])
def test_a_place_for_an_archive_is_looked_at_before_it_is_written(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(PlatformError) as caught:
        image_archive.save(Engine(breaks=True), ["a:1"], tmp_path / name, lambda done: None)
    assert caught.value.exit == ExitCode.USAGE
    assert [p.name for p in tmp_path.parent.glob(".*.tmp")] == []


@pytest.mark.parametrize("content", [b"", b"no archive", archive("a:1")[:300], None])
def test_what_is_no_archive_is_not_given_to_the_engine(tmp_path: Path, content: bytes | None) -> None:
    source, engine = tmp_path / "x.tar", Engine()
    if content is not None:
        source.write_bytes(content)
    with pytest.raises(PlatformError) as caught:
        image_archive.load(engine, source, lambda done: None)
    assert caught.value.exit == ExitCode.USAGE
    assert engine.taken == b""
