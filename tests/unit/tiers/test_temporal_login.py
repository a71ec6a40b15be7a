from __future__ import annotations

from pathlib import Path

import pytest

from infra.errors import ExitCode, PlatformError
from infra.tiers import temporal_login
from tests.unit.helpers import settings_of

FINE = "p@:/'$#%41é한${HOME}$$`x`;&|<>*?~!,=[]{}()"


def test_what_else_passwords_have_in_them_will_do(tmp_path: Path) -> None:
    temporal_login.refuse_unusable(settings_of(tmp_path, POSTGRES_PASSWORD=FINE, POSTGRES_USER="the.owner-1"))


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("POSTGRES_PASSWORD", "hush hush", "a blank"),
        ("POSTGRES_PASSWORD", 'hush"hush', "a double quote"),
        ("POSTGRES_PASSWORD", "hush\\hush", "a backslash"),
        ("POSTGRES_PASSWORD", "hush\x07hush", "'\\x07'"),
        ("POSTGRES_PASSWORD", 'a "\\', "a blank, a double quote"),
        ("POSTGRES_USER", "me@home", "'@'"),
        ("POSTGRES_USER", "한", "'한'"),
    ],
)
def test_the_setting_and_the_characters_are_named(tmp_path: Path, name: str, value: str, said: str) -> None:
    with pytest.raises(PlatformError) as caught:
        temporal_login.refuse_unusable(settings_of(tmp_path, **{name: value}))
    error = caught.value
    assert (error.code, error.exit) == ("SETTING_INVALID", ExitCode.USAGE)
    assert name in error.what
    assert said in error.what
    assert name != "POSTGRES_PASSWORD" or value not in error.what


def test_the_development_server_needs_no_login(tmp_path: Path) -> None:
    temporal_login.refuse_unusable(settings_of(tmp_path, POSTGRES_PASSWORD="a b", PLATFORM_LIGHT="yes"))
