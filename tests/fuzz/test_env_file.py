"""Whatever stands in `.env`: settings, or an error of the user's that shows no password."""

from __future__ import annotations

import tempfile
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from infra import catalog, settings
from infra.errors import ExitCode, PlatformError

SECRET = "hush-hush-hush"
ANY_TEXT = st.text(st.characters(codec="utf-8"), max_size=60)
ODD = st.sampled_from(["'", '"', "\\", "#", "$", "${", "}", "`", "=", " ", "\r", "\n", "export ", "\ufeff", "\0"])
NAMES = st.sampled_from(sorted(catalog.SETTINGS)) | ANY_TEXT
VALUES = ANY_TEXT | st.lists(ODD | st.just(SECRET), max_size=6).map("".join)
LINES = st.tuples(NAMES, st.sampled_from(["=", " = ", "", ":"]), VALUES).map("".join)
CONTENTS = st.binary(max_size=200) | st.lists(LINES | ODD, max_size=6).map(lambda lines: "\n".join(lines).encode())


def _failure(content: bytes) -> PlatformError | None:
    """Why the settings cannot be read from such a file; None where they can."""
    with tempfile.TemporaryDirectory() as directory:
        (Path(directory) / settings.ENV_FILE).write_bytes(content)
        try:
            found = settings.load(Path(directory), environ={})
        except PlatformError as error:
            return error
    assert set(found.values) == set(catalog.SETTINGS)
    return None


@given(CONTENTS)
def test_any_file_gives_settings_or_an_error_of_the_users(content: bytes) -> None:
    found = _failure(content)
    assert found is None or (found.exit == ExitCode.USAGE and found.steps)


@given(st.lists(ODD, max_size=4).map("".join), st.lists(ODD, max_size=4).map("".join))
def test_no_error_shows_a_password(before: str, after: str) -> None:
    found = _failure(f"POSTGRES_PASSWORD{before}={SECRET}{after}\n".encode())
    assert found is None or SECRET not in f"{found.what}{found.why}{found.steps}{found.details}"
