from __future__ import annotations

import os
from pathlib import Path

import pytest

from infra import catalog, settings
from infra.errors import ExitCode, PlatformError
from infra.settings import Settings
from tests.unit.helpers import everything, settings_of

SECRET = "hunter2-very-secret"


def load(root: Path, text: str | bytes = "", environ: dict[str, str] | None = None, **flags: str) -> Settings:
    """Settings of a checkout whose .env has this text."""
    (root / ".env").write_bytes(text.encode() if isinstance(text, str) else text)
    return settings.load(root=root, environ=environ or {}, flags=flags)


def refused(root: Path, text: str | bytes = "", environ: dict[str, str] | None = None) -> PlatformError:
    with pytest.raises(PlatformError) as caught:
        load(root, text, environ)
    assert caught.value.exit == ExitCode.USAGE
    return caught.value


# --- where a value comes from


def test_without_anything_every_setting_has_its_default(tmp_path: Path) -> None:
    found = settings_of(tmp_path)
    assert {n: found.text(n) for n in catalog.SETTINGS} == {n: s.default for n, s in catalog.SETTINGS.items()}
    assert {found.origin(n) for n in catalog.SETTINGS} == {"default"}


def test_the_defaults_are_those_of_the_contract(tmp_path: Path) -> None:
    found = settings_of(tmp_path)
    wanted = {"POSTGRES_PORT": 5432, "REDIS_PORT": 6379, "TEMPORAL_PORT": 7233, "TEMPORAL_UI_PORT": 8233}
    wanted |= {"MINIO_DATASETS_PORT": 9000, "MINIO_RESULTS_PORT": 9002, "MLFLOW_PORT": 5000}
    assert {name: found.port(name) for name in wanted} == wanted


def test_env_file_beats_default_and_names_file_and_line(tmp_path: Path) -> None:
    found = load(tmp_path, "# ours\n\nPOSTGRES_PORT=15432\n")
    assert found.port("POSTGRES_PORT") == 15432
    assert found.origin("POSTGRES_PORT") == f"{tmp_path / '.env'}, line 3"


def test_environment_beats_env_file(tmp_path: Path) -> None:
    found = load(tmp_path, "REDIS_PORT=1111\nPOSTGRES_PORT=2222\n", {"REDIS_PORT": "3333"})
    assert (found.port("REDIS_PORT"), found.origin("REDIS_PORT")) == (3333, "the environment")
    assert found.port("POSTGRES_PORT") == 2222


def test_flag_beats_environment(tmp_path: Path) -> None:
    found = load(tmp_path, "TEMPORAL_NAMESPACE=file\n", {"TEMPORAL_NAMESPACE": "env"}, TEMPORAL_NAMESPACE="flag")
    assert (found.text("TEMPORAL_NAMESPACE"), found.origin("TEMPORAL_NAMESPACE")) == ("flag", "the command line")


def test_an_empty_flag_counts_as_not_given(tmp_path: Path) -> None:
    found = load(tmp_path, environ={"PLATFORM_TIER": "native"}, PLATFORM_TIER="")
    assert (found.text("PLATFORM_TIER"), found.origin("PLATFORM_TIER")) == ("native", "the environment")


def test_the_process_environment_is_read_when_none_is_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REDIS_PORT", "7777")
    assert settings.load(root=tmp_path).port("REDIS_PORT") == 7777


def test_a_wrong_value_that_is_overridden_does_no_harm(tmp_path: Path) -> None:
    assert load(tmp_path, "REDIS_PORT=nonsense\n", {"REDIS_PORT": "7000"}).port("REDIS_PORT") == 7000


def test_the_last_of_two_lines_counts(tmp_path: Path) -> None:
    found = load(tmp_path, "REDIS_PORT=1\nREDIS_PORT=2\n")
    assert (found.port("REDIS_PORT"), found.origin("REDIS_PORT")) == (2, f"{tmp_path / '.env'}, line 2")


# --- how the file may be written

LINES = "REDIS_PORT=7001\n# a remark\n\n  \nexport TEMPORAL_PORT=7002\nTEMPORAL_NAMESPACE='a$b'  # remark\n"


@pytest.mark.parametrize("ending", ["\n", "\r\n"], ids=["LF", "CRLF"])
@pytest.mark.parametrize("mark", ["", "\ufeff"], ids=["plain", "BOM"])
def test_line_ends_and_byte_order_marks_of_windows_editors(tmp_path: Path, ending: str, mark: str) -> None:
    found = load(tmp_path, (mark + LINES).replace("\n", ending))
    assert (found.port("REDIS_PORT"), found.port("TEMPORAL_PORT")) == (7001, 7002)
    assert found.text("TEMPORAL_NAMESPACE") == "a$b"
    lines = [found.origin(n).rpartition(" ")[2] for n in ("REDIS_PORT", "TEMPORAL_PORT", "TEMPORAL_NAMESPACE")]
    assert lines == ["1", "5", "6"]


def test_values_are_taken_literally_and_not_expanded(tmp_path: Path) -> None:
    found = load(tmp_path, "POSTGRES_PASSWORD=a$HOME${USER}`x`\n", {"HOME": "/h"})
    assert found.text("POSTGRES_PASSWORD") == "a$HOME${USER}`x`"


def test_no_file_is_no_problem(tmp_path: Path) -> None:
    assert settings_of(tmp_path).port("REDIS_PORT") == 6379


def test_a_file_that_is_not_utf8_is_named(tmp_path: Path) -> None:
    error = refused(tmp_path, b"POSTGRES_USER=\xff\xfe\n")
    assert error.code == "SETTINGS_UNREADABLE"
    assert str(tmp_path / ".env") in error.what


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / ".env").mkdir()
    with pytest.raises(PlatformError) as caught:
        settings_of(tmp_path)
    assert (caught.value.code, caught.value.exit) == ("SETTINGS_UNREADABLE", 2)
    assert str(tmp_path / ".env") in caught.value.what


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("REDIS_PORT=1\nthis is no setting\n", 2),
        ("\n\nREDIS_PORT\n", 3),
        ("REDIS_PORT=1\n\nPOSTGRES_PASSWORD='never closed\n", 3),
        ("POSTGRES_PASSWORD: " + SECRET + "\n", 1),
    ],
)
def test_a_line_that_is_no_binding_is_refused_with_its_number(tmp_path: Path, text: str, line: int) -> None:
    error = refused(tmp_path, text)
    assert error.code == "SETTINGS_UNREADABLE"
    assert f"line {line}" in error.what


# --- names


@pytest.mark.parametrize(
    ("wrong", "meant"),
    [("POSTGRES_PROT", "POSTGRES_PORT"), ("REDIS_PASWORD", "REDIS_PASSWORD"), ("PLATFORM_TEIR", "PLATFORM_TIER")],
)
def test_an_unknown_key_in_the_file_gets_the_nearest_name(tmp_path: Path, wrong: str, meant: str) -> None:
    error = refused(tmp_path, f"# x\n{wrong}=1\n")
    assert error.code == "SETTING_UNKNOWN"
    assert "line 2" in error.what
    assert error.steps[0] == f"did you mean {meant}?"


def test_an_unknown_key_that_is_like_nothing_gets_no_false_hint(tmp_path: Path) -> None:
    error = refused(tmp_path, "ZZZ=1\n")
    assert error.code == "SETTING_UNKNOWN"
    assert not any("did you mean" in step for step in error.steps)


def test_an_unknown_variable_with_our_prefix_is_refused(tmp_path: Path) -> None:
    error = refused(tmp_path, environ={"PLATFORM_STATEDIR": "/x"})
    assert error.code == "SETTING_UNKNOWN"
    assert "the environment" in error.what
    assert error.steps[0] == "did you mean PLATFORM_STATE_DIR?"


def test_strangers_in_the_environment_are_none_of_our_business(tmp_path: Path) -> None:
    assert settings_of(tmp_path, PATH="/bin", POSTGRES_PROT="1", PLATFORM_PYTHON="x").port("POSTGRES_PORT") == 5432


@pytest.mark.parametrize("name", sorted(set(catalog.CONTRACT_NAMES) - set(catalog.SETTINGS)))
def test_names_of_the_contract_are_refused_as_settings(tmp_path: Path, name: str) -> None:
    """An application's .env put in our place would otherwise be half understood."""
    error = refused(tmp_path, f"{name}=x\n")
    assert error.code == "SETTING_UNKNOWN"
    assert "invoke env" in everything(error)
    assert name in error.what


# --- values


@pytest.mark.parametrize("value", ["0", "19", "10001", "-5", "2e3", "many", "٢٥٠", ""])
def test_a_count_that_no_server_could_use_is_refused(tmp_path: Path, value: str) -> None:
    error = refused(tmp_path, f"POSTGRES_MAX_CONNECTIONS={value}\n")
    assert error.code == "SETTING_INVALID"
    assert "20 to 10000" in everything(error)


@pytest.mark.parametrize(
    "port", ["", "0", "65536", "-1", "abc", "5432.0", " 5432", "0x10", "٥٤٣٢", "9" * 5000], ids=lambda p: p[:8]
)
def test_what_is_no_port_is_refused_with_its_origin(tmp_path: Path, port: str) -> None:
    error = refused(tmp_path, environ={"POSTGRES_PORT": port})
    assert error.code == "SETTING_INVALID"
    assert "POSTGRES_PORT" in error.what
    assert "the environment" in error.why


@pytest.mark.parametrize("port", ["1", "65535", "08085"])
def test_the_ends_of_the_range_of_ports(tmp_path: Path, port: str) -> None:
    assert settings_of(tmp_path, POSTGRES_PORT=port).port("POSTGRES_PORT") == int(port)


def test_two_settings_may_not_share_a_port(tmp_path: Path) -> None:
    error = refused(tmp_path, "REDIS_PORT=7001\n", {"POSTGRES_PORT": "7001"})
    assert error.code == "SETTING_INVALID"
    assert "POSTGRES_PORT" in error.what
    assert "REDIS_PORT" in error.what
    assert "line 1" in error.why
    assert "the environment" in error.why


@pytest.mark.parametrize(
    ("other", "port"),
    [("MINIO_RESULTS_INTERNAL_PORT", "19005"), ("REDIS_PORT", "19005"), ("REDIS_PORT", "29007")],
)
def test_no_other_setting_may_lie_in_a_block_of_ports(tmp_path: Path, other: str, port: str) -> None:
    error = refused(tmp_path, environ={"MINIO_DATASETS_INTERNAL_PORT": "19000", other: port})
    assert {"MINIO_DATASETS_INTERNAL_PORT", other} <= set(error.what.split())
    assert port in error.what


def test_a_port_may_not_be_the_default_of_another_setting(tmp_path: Path) -> None:
    error = refused(tmp_path, environ={"REDIS_PORT": "5432"})
    assert {"REDIS_PORT", "POSTGRES_PORT"} <= set(error.what.split())


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("MINIO_ROOT_PASSWORD", "short77"),
        ("MINIO_ROOT_PASSWORD", "a,b,c,d,e"),
        ("MINIO_ROOT_PASSWORD", ""),
        ("MINIO_ROOT_USER", "ab"),
        ("MINIO_ROOT_USER", "관리자-계정"),
        ("MINIO_ROOT_USER", "a,b,c"),
        ("MINIO_ROOT_USER", "a/b/c"),
        ("MINIO_ROOT_USER", "a:b:c"),
        ("MINIO_ROOT_PASSWORD", " blank at an end"),
        ("S3_RESULTS_ENDPOINT", "s3.example.com"),
        ("S3_RESULTS_ENDPOINT", "https://s3.example.com/bucket"),
        ("S3_RESULTS_ENDPOINT", "https://me:pw@s3.example.com"),
        ("S3_RESULTS_ENDPOINT", "https://s3.example.com:99999"),
        ("S3_RESULTS_ACCESS_KEY", "a,b"),
        ("POSTGRES_USER", ""),
        ("POSTGRES_USER", "a b"),
        ("POSTGRES_PASSWORD", ""),
        ("POSTGRES_PASSWORD", "a\nb"),
        ("POSTGRES_PASSWORD", "a\rb"),
        ("POSTGRES_PASSWORD", "ab\r"),
        ("POSTGRES_PASSWORD", "a\0b"),
        ("POSTGRES_PASSWORD", "\udcff"),
        ("TEMPORAL_NAMESPACE", ""),
        ("PLATFORM_TIER", "compse"),
        ("PLATFORM_STATE_DIR", "~no-such-user-here/x"),
        ("OBSERVABILITY_BACKENDS", "database,mlfow"),
    ],
)
def test_values_that_would_fail_later_are_refused_now(tmp_path: Path, name: str, value: str) -> None:
    error = refused(tmp_path, environ={name: value})
    assert error.code == "SETTING_INVALID"
    assert name in error.what


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("MINIO_ROOT_PASSWORD", "pass word\"'€"),
        ("REDIS_PASSWORD", ""),
        ("POSTGRES_USER", "postgres"),
        ("POSTGRES_PASSWORD", "p@ss:wörd/?#%"),
        ("OBSERVABILITY_BACKENDS", "database, mlflow"),
        ("PLATFORM_STATE_DIR", "~/state"),
    ],
)
def test_unusual_values_that_work_are_taken(tmp_path: Path, name: str, value: str) -> None:
    assert settings_of(tmp_path, **{name: value}).text(name) == value


# --- secrets


@pytest.mark.parametrize(
    "text",
    [
        f"POSTGRES_PASSWORD: {SECRET}\n",
        f"POSTGRES_PASSWORD {SECRET}\n",
        f"POSTGRES_PASSWORD='{SECRET}\n",
        f"POSTGRES_PASSWROD={SECRET}\n",
        f'POSTGRES_PASSWORD="{SECRET}\\n"\n',
        f'POSTGRES_PASSWORD="{SECRET}\n"\n',
        f"{SECRET}\n",
        f"MINIO_ROOT_PASSWORD=ab\nPOSTGRES_PASSWORD={SECRET}\n",
    ],
)
def test_no_error_shows_a_password(tmp_path: Path, text: str) -> None:
    assert SECRET not in everything(refused(tmp_path, text))


@pytest.mark.parametrize("name", [n for n, s in catalog.SETTINGS.items() if s.kind == "secret"])
def test_a_wrong_secret_is_not_repeated(tmp_path: Path, name: str) -> None:
    error = refused(tmp_path, environ={name: f"{SECRET}\n"})
    assert SECRET not in everything(error)
    assert name in error.what


def test_secrets_are_listed_longest_first_and_without_empty_ones(tmp_path: Path) -> None:
    """The longest first, so that masking one that holds another leaves nothing over."""
    found = settings_of(tmp_path, POSTGRES_PASSWORD="abc", MINIO_ROOT_PASSWORD="abcdefgh", REDIS_PASSWORD="")
    assert found.secrets() == ("abcdefgh", "devpass", "admin", "abc")


@pytest.mark.parametrize(
    "text", ["*", "localhost:8888", "http://a.example/page", "http://*.example", "null", "ftp://a"]
)
def test_a_page_that_may_use_the_object_stores_is_named_by_its_origin(tmp_path: Path, text: str) -> None:
    error = refused(tmp_path, environ={"PLATFORM_S3_ORIGINS": f"http://127.0.0.1:8888,{text}"})
    assert text in error.what
    found = settings_of(tmp_path, PLATFORM_S3_ORIGINS="http://127.0.0.1:8888/, https://labels.example,")
    assert found.origins() == ("http://127.0.0.1:8888", "https://labels.example")


# --- the state directory


def test_the_state_lives_in_the_checkout_unless_told_otherwise(tmp_path: Path) -> None:
    assert settings_of(tmp_path).state_dir == tmp_path / ".platform"


def test_a_relative_state_directory_counts_from_the_checkout(tmp_path: Path) -> None:
    assert settings_of(tmp_path, PLATFORM_STATE_DIR="a/../b").state_dir == tmp_path.resolve() / "b"


def test_an_absolute_state_directory_and_one_below_home(tmp_path: Path) -> None:
    assert settings_of(tmp_path, PLATFORM_STATE_DIR="/x/y").state_dir == Path("/x/y")
    expanded = Path(os.path.expanduser("~/x")).resolve()
    assert settings_of(tmp_path, PLATFORM_STATE_DIR="~/x").state_dir == expanded


def test_a_mistyped_option_is_called_as_it_was_typed(tmp_path: Path) -> None:
    with pytest.raises(PlatformError) as caught:
        settings.load(root=tmp_path, environ={}, flags={"PLATFORM_TIER": "nativ"})
    assert caught.value.what == "--tier: 'nativ' must be one of: native, compose, kind, production"
    assert caught.value.steps == ("did you mean native?",)
    with pytest.raises(PlatformError) as caught:
        settings.load(root=tmp_path, environ={"PLATFORM_TIER": "nativ"})
    assert caught.value.what.startswith("PLATFORM_TIER: 'nativ'")
    assert caught.value.steps[0] == "did you mean native?"
