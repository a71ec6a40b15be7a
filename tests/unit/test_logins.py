"""Logins of a private stack: what is wanted, what a run that was cut off leaves behind, what others may still know."""

from __future__ import annotations

import json
import os
import stat
import sys
from pathlib import Path

import pytest

from infra import catalog, logins
from infra.errors import PlatformError
from infra.settings import Settings, load
from infra.stack import Stack, ensure_home


@pytest.fixture
def home(tmp_path: Path) -> Stack:
    made = Stack("test", tmp_path / "state")
    ensure_home(made)
    return made


def settings(home: Stack, **values: str) -> Settings:
    return logins.applied(load(root=home.home.parent, environ=values), home)


def change(home: Stack, tier: str = "native", rotate: tuple[str, ...] = (), **values: str) -> logins.LoginChange | None:
    return logins.change(settings(home, **values), home, tier, rotate)


def changed(home: Stack, **values: str) -> dict[str, str]:
    coming = logins.change(settings(home, **values), home, "native")
    assert coming is not None
    logins.begin(home, coming)
    logins.finish(home, coming, "native")
    return dict(logins.read(home).now)


def test_nothing_changes_where_nobody_asks(home: Stack) -> None:
    assert change(home) is None
    assert change(home, PLATFORM_PRIVATE="no") is None


def test_every_login_is_random_and_remembered(home: Stack) -> None:
    made = changed(home, PLATFORM_PRIVATE="yes")
    assert set(made) == set(logins.NAMES)
    assert len(set(made.values())) == len(made)
    assert all(len(value) == 32 for value in made.values())
    later = settings(home)
    assert {name: later.text(name) for name in made} == made
    assert later.text("PLATFORM_PRIVATE") == "yes"
    assert change(home) is None


def test_the_users_own_go_before(home: Stack) -> None:
    made = changed(home, PLATFORM_PRIVATE="yes", POSTGRES_PASSWORD="mine")
    assert "POSTGRES_PASSWORD" not in made
    assert settings(home, POSTGRES_PASSWORD="mine").text("POSTGRES_PASSWORD") == "mine"


def test_off_again(home: Stack) -> None:
    made = changed(home, PLATFORM_PRIVATE="yes")
    assert changed(home, PLATFORM_PRIVATE="no") == {}
    assert settings(home).text("POSTGRES_PASSWORD") == catalog.SETTINGS["POSTGRES_PASSWORD"].default
    assert made["POSTGRES_PASSWORD"] in logins.read(home).candidates("POSTGRES_PASSWORD")


def test_one_is_rotated_and_the_others_stay(home: Stack) -> None:
    made = changed(home, PLATFORM_PRIVATE="yes")
    coming = change(home, rotate=("REDIS_PASSWORD",))
    assert coming is not None
    fresh = coming.logins.next or {}
    assert {name for name in made if fresh[name] != made[name]} == {"REDIS_PASSWORD"}
    assert coming.settings.text("REDIS_PASSWORD") == fresh["REDIS_PASSWORD"]


def test_nobody_is_told_a_login_before_it_is_in_force(home: Stack) -> None:
    coming = change(home, PLATFORM_PRIVATE="yes")
    assert coming is not None
    logins.begin(home, coming)
    assert settings(home).text("POSTGRES_PASSWORD") == catalog.SETTINGS["POSTGRES_PASSWORD"].default


@pytest.mark.parametrize(("before", "wish"), [({}, "yes"), ({"PLATFORM_PRIVATE": "yes"}, "no")])
def test_a_change_that_was_cut_off_goes_on_by_itself(home: Stack, before: dict[str, str], wish: str) -> None:
    if before:
        changed(home, **before)
    coming = change(home, PLATFORM_PRIVATE=wish)
    assert coming is not None
    logins.begin(home, coming)
    again = change(home)
    assert again is not None
    assert again.logins.next == coming.logins.next


def test_data_of_another_tier_or_of_the_trash_is_given_the_login_first(home: Stack) -> None:
    changed(home, PLATFORM_PRIVATE="yes")
    assert change(home, tier="compose") is not None
    logins.doubt(home)
    assert change(home) is not None


@pytest.mark.skipif(sys.platform == "win32", reason="modes of POSIX")
def test_nobody_else_may_read_them_at_any_moment(home: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    modes: list[int] = []
    rename = os.replace

    def noted(old: Path, new: Path) -> None:
        modes.append(stat.S_IMODE(Path(old).stat().st_mode))
        rename(old, new)

    monkeypatch.setattr(os, "replace", noted)
    before = os.umask(0)
    try:
        changed(home, PLATFORM_PRIVATE="yes")
    finally:
        os.umask(before)
    assert modes == [0o600, 0o600]  # the ones that come, and those in force
    assert stat.S_IMODE(logins.file(home).stat().st_mode) == 0o600


def test_earlier_ones_are_kept_newest_first_but_not_without_end(home: Stack) -> None:
    used = [changed(home, PLATFORM_PRIVATE="yes")["REDIS_PASSWORD"]]
    for _ in range(logins._KEPT + 3):
        coming = change(home, rotate=("REDIS_PASSWORD",))
        assert coming is not None
        logins.begin(home, coming)
        logins.finish(home, coming, "native")
        used.insert(0, logins.read(home).now["REDIS_PASSWORD"])
    found = logins.read(home)
    assert found.now["REDIS_PASSWORD"] == used[0]
    assert found.older["REDIS_PASSWORD"] == used[1 : logins._KEPT + 1]
    assert found.candidates("REDIS_PASSWORD") == [*used[: logins._KEPT + 1], ""]


def test_what_comes_is_tried_before_what_is_in_force(home: Stack) -> None:
    now = changed(home, PLATFORM_PRIVATE="yes")
    coming = change(home, rotate=("POSTGRES_PASSWORD",))
    assert coming is not None
    logins.begin(home, coming)
    tried = logins.read(home).candidates("POSTGRES_PASSWORD")
    assert tried[:2] == [(coming.logins.next or {})["POSTGRES_PASSWORD"], now["POSTGRES_PASSWORD"]]
    assert len(set(tried)) == len(tried)


def test_a_tier_that_learned_them_is_remembered_and_another_change_makes_all_learn_again(home: Stack) -> None:
    changed(home, PLATFORM_PRIVATE="yes")
    other = change(home, tier="compose")
    assert other is not None
    assert other.logins.next == logins.read(home).now
    logins.finish(home, other, "compose")
    assert logins.read(home).tiers == ("native", "compose")
    fresh = change(home, rotate=("REDIS_PASSWORD",))
    assert fresh is not None
    logins.finish(home, fresh, "native")
    assert logins.read(home).tiers == ("native",)


def test_a_rotation_leaves_the_users_own_alone(home: Stack) -> None:
    changed(home, PLATFORM_PRIVATE="yes", POSTGRES_PASSWORD="mine")
    coming = change(home, rotate=("POSTGRES_PASSWORD", "REDIS_PASSWORD"), POSTGRES_PASSWORD="mine")
    assert coming is not None
    assert "POSTGRES_PASSWORD" not in (coming.logins.next or {})
    assert coming.settings.text("POSTGRES_PASSWORD") == "mine"
    assert logins.free(settings(home, POSTGRES_PASSWORD="mine"), home) == [
        name for name in logins.NAMES if name != "POSTGRES_PASSWORD"
    ]


def test_doubt_about_a_stack_that_is_not_private_writes_nothing(home: Stack) -> None:
    logins.doubt(home)
    assert not logins.file(home).exists()


def test_names_that_are_no_logins_are_not_taken_from_the_file(home: Stack) -> None:
    changed(home, PLATFORM_PRIVATE="yes")
    found = json.loads(logins.file(home).read_text())
    found["now"]["PLATFORM_POSTGRES_BIN"] = "elsewhere"
    logins.file(home).write_text(json.dumps(found))
    assert "PLATFORM_POSTGRES_BIN" not in logins.read(home).now
    assert settings(home).text("PLATFORM_POSTGRES_BIN") == ""


def test_a_damaged_file_is_no_empty_one(home: Stack) -> None:
    logins.file(home).write_text('{"now": {')
    with pytest.raises(PlatformError) as raised:
        logins.read(home)
    assert raised.value.code == "DATA_INCOMPATIBLE"


def test_a_file_in_place_of_the_state_directory_is_no_damaged_login(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    assert logins.read(Stack("odd", tmp_path / "file")) == logins.Logins()


@pytest.mark.parametrize(("rotate", "wish"), [(("POSTGRES_PASSWORD",), "yes"), ((), "no")], ids=["rotated", "off"])
def test_another_change_after_one_that_was_cut_off_still_knows_what_services_may_have(
    home: Stack, rotate: tuple[str, ...], wish: str
) -> None:
    before = changed(home, PLATFORM_PRIVATE="yes")["POSTGRES_PASSWORD"]
    cut_off = change(home, rotate=("POSTGRES_PASSWORD",))
    assert cut_off is not None
    logins.begin(home, cut_off)
    given = (cut_off.logins.next or {})["POSTGRES_PASSWORD"]
    coming = change(home, rotate=rotate, PLATFORM_PRIVATE=wish)
    assert coming is not None
    assert {before, given} <= set(coming.logins.candidates("POSTGRES_PASSWORD"))
    logins.begin(home, coming)
    again = change(home, PLATFORM_PRIVATE=wish)
    assert again is not None
    assert {before, given} <= set(again.logins.candidates("POSTGRES_PASSWORD")), "also after another cut"
