from __future__ import annotations

import csv
import os
from dataclasses import replace
from pathlib import Path

import pytest

from infra import catalog
from infra.errors import PlatformError
from infra.settings import Settings
from infra.tiers import providers
from infra.tiers.native import object_store
from infra.tiers.native.object_store import Command, StorePlan, check_layout, command, directories, recorded
from infra.tiers.providers import Program
from tests.unit.helpers import settings_of

SECRET = "pa\"ss' wörd$%"
DATA = Path("/data dir/한글,'x\"")


def plan(secret_key: str = SECRET, origins: tuple[str, ...] = ()) -> StorePlan:
    address = ("minio-datasets", "127.0.0.1", 9000, 9001)
    return StorePlan(*address, "minioadmin", secret_key, data=DATA / "s", cache=DATA / "cache", origins=origins)


def built(engine: str, made: StorePlan | None = None) -> Command:
    return command(Program(Path(f"/bin/{engine}"), engine, "PATH"), made or plan())


def after(argv: list[str], flag: str) -> str:
    return argv[argv.index(flag) + 1]


@pytest.mark.parametrize("engine", providers.S3_ENGINES)
def test_every_engine_can_be_run_and_shows_no_secret(engine: str) -> None:
    made = built(engine)
    assert made.argv[0] == f"/bin/{engine}"
    assert SECRET not in " ".join(made.argv), "arguments can be seen by every user of the machine"
    assert any(SECRET.replace('"', "") in v.replace('"', "") for v in made.env.values())


@pytest.mark.parametrize("engine", providers.S3_ENGINES)
def test_every_engine_listens_on_the_loopback_address_alone(engine: str) -> None:
    said = " ".join(built(engine).argv)
    assert "127.0.0.1" in said
    assert "0.0.0.0" not in said
    assert "9000" in said


LABELS = "http://127.0.0.1:8888"


@pytest.mark.parametrize("engine", ["minio", "silo", "rustfs"])
def test_only_the_console_and_named_pages_may_call_a_store(engine: str) -> None:
    """Without an origin for these engines, every page of the web may."""
    own, named = built(engine), built(engine, plan(origins=(LABELS, "https://labels.example")))
    name = "RUSTFS_CORS_ALLOWED_ORIGINS" if engine == "rustfs" else "MINIO_API_CORS_ALLOW_ORIGIN"
    assert own.env[name] == "http://127.0.0.1:9001,http://localhost:9001"
    assert named.env[name] == f"{own.env[name]},{LABELS},https://labels.example"


def test_rclone_and_versitygw_allow_as_many_pages_as_they_can(tmp_path: Path) -> None:
    assert "--allow-origin" not in built("rclone").argv
    assert after(built("rclone", plan(origins=(LABELS,))).argv, "--allow-origin") == LABELS
    one, two = (settings_of(tmp_path, PLATFORM_S3_ORIGINS=o) for o in (LABELS, f"{LABELS}, https://labels.example/"))
    assert two.origins() == (LABELS, "https://labels.example")
    object_store.check_origins("rclone", one)
    object_store.check_origins("minio", two)
    for engine, settings in (("rclone", two), ("versitygw", one)):
        with pytest.raises(PlatformError) as caught:
            object_store.check_origins(engine, settings)
        assert caught.value.code == "SETTING_INVALID"
        assert engine in caught.value.what


@pytest.mark.parametrize("engine", [e for e in providers.S3_ENGINES if e != "rclone"])
def test_every_engine_keeps_its_data_where_it_is_told(engine: str) -> None:
    assert any(word.endswith(str(DATA / "s")) for word in built(engine).argv)


def test_rclone_is_configured_by_its_environment() -> None:
    made = built("rclone")
    assert made.argv[1:3] == ["serve", "s3"]
    assert after(made.argv, "--addr") == "127.0.0.1:9000"
    assert made.argv[-1] == "store:"
    assert made.env["RCLONE_CONFIG_STORE_REMOTE"] == str(DATA / "s"), "as it is, whatever its letters"
    assert made.env["RCLONE_CONFIG_STORE_TYPE"] == "hasher"
    assert "--no-cleanup" in made.argv


@pytest.mark.parametrize("secret", ["plain-key", 'with"quote', "with space ", "wörd", "back\\slash", "a'b"])
def test_rclone_reads_its_key_as_csv(secret: str) -> None:
    line = built("rclone", plan(secret_key=secret)).env["RCLONE_AUTH_KEY"]
    assert next(csv.reader([line])) == [f"minioadmin,{secret}"]


@pytest.mark.parametrize("engine", ["minio", "silo"])
def test_minio_and_silo(engine: str) -> None:
    made = built(engine)
    assert after(made.argv, "--address") == "127.0.0.1:9000"
    assert after(made.argv, "--console-address") == "127.0.0.1:9001"
    assert (made.env["MINIO_ROOT_USER"], made.env["MINIO_ROOT_PASSWORD"]) == ("minioadmin", SECRET)
    assert after(made.argv, "--config-dir").startswith(str(DATA / "cache")), "not in the user's home"


def test_versitygw_keeps_versions_beside_the_data() -> None:
    made = built("versitygw")
    assert after(made.argv, "--versioning-dir") == str(DATA / "minio-datasets-versions")
    assert after(made.argv, "--port") == "127.0.0.1:9000"
    assert made.env == {"ROOT_ACCESS_KEY": "minioadmin", "ROOT_SECRET_KEY": SECRET}
    needed = directories(Program(Path("/x"), "versitygw", "PATH"), plan())
    assert DATA / "minio-datasets-versions" in needed


def test_rustfs() -> None:
    made = built("rustfs")
    assert after(made.argv, "--console-address") == "127.0.0.1:9001"
    assert made.env["RUSTFS_SECRET_KEY"] == SECRET


def weed(signing_key: str = "") -> Command:
    return built("weed", replace(plan(), internal_port=19000, signing_key=signing_key))


def flags(made: Command) -> dict[str, str]:
    return dict(word.removeprefix("-").partition("=")[::2] for word in made.argv if "=" in word)


def test_weed_listens_on_the_ports_of_its_block_and_nowhere_else() -> None:
    found = flags(weed())
    used = {int(found[name]) for name in object_store.WEED_PORTS}
    assert used == {*range(19000, 19009), 29007} == set(catalog.SETTINGS["MINIO_DATASETS_INTERNAL_PORT"].ports(19000))
    assert int(found["admin.port.grpc"]) == int(found["admin.port"]) + 10_000, "its workers look for it there"
    assert found["s3.port"] == "9000"
    assert {found[name] for name in ("ip", "ip.bind", "metricsIp")} == {"127.0.0.1"}


def test_weed_answers_no_web_page_and_reports_to_nobody() -> None:
    found = flags(weed())
    assert found["disableHttp"] == "true", "else a form of any web page deletes a bucket by way of its master"
    assert (found["s3.allowedOrigins"], found["filer.allowedOrigins"]) == ("", "")
    assert found["master.telemetry"] == "false"


def test_weed_makes_no_bucket_by_a_write_and_deletes_none_that_is_full() -> None:
    found = flags(weed())
    assert (found["s3.autoCreateBucket"], found["s3.allowDeleteBucketNotEmpty"]) == ("false", "false")


def test_the_tokens_of_weed_come_from_the_key_of_the_stack() -> None:
    tokens = {n: v for n, v in weed(signing_key="a").env.items() if n.startswith("WEED_JWT_")}
    assert len(set(tokens.values())) == 4
    assert all(len(v) == 64 for v in tokens.values())
    assert not set(tokens.values()) & set(weed(signing_key="b").env.values())


def test_a_new_store_lists_its_objects_in_one_database_and_an_old_one_as_it_began(tmp_path: Path) -> None:
    def lists() -> tuple[str | None, str]:
        made = built("weed", replace(plan(), internal_port=19000, data=tmp_path)).env
        return made.get("WEED_LEVELDB_DIR"), made["GOMEMLIMIT"]

    (tmp_path / "filerldb2").mkdir()  # which it makes in any case
    assert lists() == (str(tmp_path / "filerldb"), "256MiB")
    (tmp_path / "filerldb2" / "00").mkdir()
    assert lists() == (None, "400MiB")
    (tmp_path / "filerldb").mkdir()
    assert lists() == (str(tmp_path / "filerldb"), "256MiB"), "an empty list that an earlier version has made since"


def test_what_the_parts_of_a_store_share_is_made_once_and_is_private(tmp_path: Path) -> None:
    def found() -> tuple[str, str]:
        object_store.ensure_secrets(tmp_path, "weed")
        return object_store.signing_key(tmp_path), object_store.certificate_file(tmp_path).read_text()

    made = found()
    assert (len(made[0]), found()) == (64, made)
    assert {f.stat().st_mode & 0o777 for f in tmp_path.iterdir()} == {0o600} or os.name == "nt"


def test_other_engines_need_no_certificate(tmp_path: Path) -> None:
    object_store.ensure_secrets(tmp_path, "rclone")
    assert [f.name for f in tmp_path.iterdir()] == ["store-key"]


def test_the_parts_of_weed_show_each_other_the_certificate_of_the_stack() -> None:
    file = DATA / "with blank.pem"
    made = built("weed", replace(plan(), internal_port=19000, certificate=file)).env
    assert made["WEED_GRPC_CA"] == str(file)
    servers = {name.split(".")[0].upper() for name in object_store.WEED_PORTS if name.endswith("grpc")}
    assert {made[f"WEED_GRPC_{server}_{which}"] for server in servers for which in ("CERT", "KEY")} == {str(file)}


@pytest.mark.parametrize("engine", providers.S3_ENGINES)
def test_data_and_cache_are_made_for_every_engine(engine: str) -> None:
    assert {DATA / "s", DATA / "cache"} <= set(directories(Program(Path("/x"), engine, "PATH"), plan()))


# --- whose data it is


def settings(tmp_path: Path) -> Settings:
    return settings_of(tmp_path)


def test_the_engine_that_writes_is_noted(tmp_path: Path) -> None:
    assert recorded(tmp_path) == ""
    object_store.record(tmp_path, "rclone")
    assert recorded(tmp_path) == "rclone"


@pytest.mark.parametrize("note", [b"\xff\xfe{", b"rclon", b"rclone\nminio"])
def test_a_damaged_note_is_not_guessed(tmp_path: Path, note: bytes) -> None:
    (tmp_path / "store-engine").write_bytes(note)
    with pytest.raises(PlatformError) as caught:
        recorded(tmp_path)
    assert caught.value.code == "DATA_INCOMPATIBLE"
    assert str(tmp_path / "store-engine") in caught.value.what
    assert (tmp_path / "store-engine").read_bytes() == note


def refused(home: Path, engine: str) -> PlatformError:
    with pytest.raises(PlatformError) as caught:
        check_layout(home, Program(Path("/x"), engine, "PATH"), "the environment")
    return caught.value


@pytest.mark.parametrize(("noted", "engine"), [("rclone", "minio"), ("minio", "rclone"), ("versitygw", "weed")])
def test_an_engine_that_would_show_empty_stores_is_refused(tmp_path: Path, noted: str, engine: str) -> None:
    object_store.record(tmp_path, noted)
    error = refused(tmp_path, engine)
    assert (error.code, error.exit) == ("DATA_INCOMPATIBLE", 8)
    assert error.details == {"data": noted, "program": engine}
    assert f"PLATFORM_S3_SERVER={noted}" in error.steps[0]
    assert "the environment" in error.why
    assert recorded(tmp_path) == noted, "nothing is touched"


@pytest.mark.parametrize(
    ("noted", "engine"), [("rclone", "rclone"), ("minio", "silo"), ("silo", "minio"), ("", "weed")]
)
def test_an_engine_that_can_read_the_data_is_let_in(tmp_path: Path, noted: str, engine: str) -> None:
    if noted:
        object_store.record(tmp_path, noted)
    check_layout(tmp_path, Program(Path("/x"), engine, "PATH"), "default")
