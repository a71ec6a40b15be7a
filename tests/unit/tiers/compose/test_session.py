from __future__ import annotations

import sys
from pathlib import Path

import pytest

from infra.data.postgres import metrics as postgres_metrics
from infra.docker_engine import Engine, EnginePlace
from infra.errors import PlatformError
from infra.tiers.compose.session import SECRET, Session, applied, make_figures, mounted
from tests.unit.helpers import context_of, settings_of

USUAL = EnginePlace("unix:///var/run/docker.sock", "its default socket")


def test_backups_write_their_figures_where_prometheus_looks(tmp_path: Path) -> None:
    found = mounted(settings_of(tmp_path), tmp_path / "state", USUAL)
    assert Path(found["PLATFORM_METRICS_DIR"]) == tmp_path / "state" / postgres_metrics.FILE.parent
    assert not (tmp_path / "state").exists(), "a question makes nothing"
    make_figures(settings_of(tmp_path), tmp_path / "state")
    assert Path(found["PLATFORM_METRICS_DIR"]).is_dir(), "else the engine makes it, as root"


def test_a_folder_of_the_users_is_named_from_the_checkout(tmp_path: Path) -> None:
    found = mounted(settings_of(tmp_path, PLATFORM_METRICS_DIR="figures"), tmp_path / "state", USUAL)
    assert found["PLATFORM_METRICS_DIR"] == str(tmp_path / "figures")


def test_a_folder_that_cannot_be_made_is_said(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("a file")
    with pytest.raises(PlatformError):
        make_figures(settings_of(tmp_path), tmp_path / "state")


@pytest.mark.parametrize(
    ("url", "socket"),
    [
        ("unix:///run/user/1000/docker.sock", "/run/user/1000/docker.sock"),
        ("unix:///run/podman/podman.sock", "/run/podman/podman.sock"),
        ("unix:///" + "home/me/.docker/desktop/docker.sock", None),
        ("tcp://127.0.0.1:2375", None),
    ],
)
def test_the_socket_is_named_where_it_is_on_this_system(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, url: str, socket: str | None
) -> None:
    monkeypatch.setattr(sys, "platform", "linux")
    assert mounted(settings_of(tmp_path), tmp_path, EnginePlace(url, "x")).get("PLATFORM_DOCKER_SOCKET") == socket
    monkeypatch.setattr(sys, "platform", "darwin")
    assert "PLATFORM_DOCKER_SOCKET" not in mounted(settings_of(tmp_path), tmp_path, EnginePlace(url, "x"))


def test_a_socket_that_the_user_names_wins(tmp_path: Path) -> None:
    settings = settings_of(tmp_path, PLATFORM_DOCKER_SOCKET="/run/mine.sock")
    assert "PLATFORM_DOCKER_SOCKET" not in mounted(settings, tmp_path, USUAL)


def asking(root: Path, **values: str) -> Session:
    """A session as each run has its own, with an engine that is not asked."""
    session = Session(context_of(root, **values))
    session.__dict__ |= {"engine": Engine(USUAL, "28.0", (1, 41)), "project": "platform"}
    return session


def test_clearmls_secret_is_private_to_the_stack_and_stays(tmp_path: Path) -> None:
    first = asking(tmp_path)
    assert first.compose.environ["CLEARML_SECRET"] == "devpass", "nothing was started yet"
    first.home.mkdir(parents=True)
    first.make_secret()
    made = first.compose.environ["CLEARML_SECRET"]
    assert len(made) == 48
    assert sys.platform == "win32" or (first.home / SECRET).stat().st_mode & 0o777 == 0o600
    later = asking(tmp_path)
    later.make_secret()
    assert later.compose.environ["CLEARML_SECRET"] == made


def test_a_damaged_secret_is_made_anew(tmp_path: Path) -> None:
    session = asking(tmp_path)
    session.home.mkdir(parents=True)
    (session.home / SECRET).write_bytes(b"\xff\xfe{")
    assert session.compose.environ["CLEARML_SECRET"] == "devpass"
    session.make_secret()
    assert len(session.compose.environ["CLEARML_SECRET"]) == 48


def test_a_secret_that_the_user_has_set_wins(tmp_path: Path) -> None:
    session = asking(tmp_path, CLEARML_SECRET="mine")
    session.home.mkdir(parents=True)
    session.make_secret()
    assert not (session.home / SECRET).exists()
    assert session.compose.environ["CLEARML_SECRET"] == "mine"


@pytest.mark.parametrize("text", ["", "[1]", '{"services": 5}', '{"containers": 7}', '{"mounts": "x"}'])
def test_a_damaged_note_of_what_was_started_is_none(tmp_path: Path, text: str) -> None:
    (tmp_path / "applied.json").write_text(text, encoding="utf-8")
    assert applied(tmp_path) is None
