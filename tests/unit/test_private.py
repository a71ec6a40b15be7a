from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from infra import private
from infra.errors import PlatformError

grp = pytest.importorskip("grp")
pytestmark = pytest.mark.skipif(os.name == "nt", reason="users and permissions of POSIX")


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture(autouse=True)
def ordinary_user(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(private, "is_root", lambda: False)


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o777])
def test_what_is_made_is_private_whatever_the_umask(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        private.directory(tmp_path / "a" / "b")
        private.directory(tmp_path / "way" / "below", private.PASSABLE)
    finally:
        os.umask(before)
    assert [mode(tmp_path / p) for p in ("a", "a/b", "way", "way/below")] == [0o700, 0o700, 0o711, 0o700]


def test_what_others_could_read_is_closed_and_where_root_starts_the_databases_they_may_pass(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loose = tmp_path / "loose"
    loose.mkdir()
    loose.chmod(0o755)
    monkeypatch.setattr(private, "is_root", lambda: True)
    private.directory(loose)
    assert mode(loose) == 0o711
    monkeypatch.setattr(private, "is_root", lambda: False)
    private.directory(loose)
    assert mode(loose) == 0o700


def test_a_directory_of_the_users_stays_as_it_is(tmp_path: Path) -> None:
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    theirs.chmod(0o755)
    private.make(theirs / "new")
    assert (mode(theirs), mode(theirs / "new")) == (0o755, 0o700)


def test_a_file_in_the_place_of_a_directory_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(NotADirectoryError):
        private.make(tmp_path / "file")


def refusal(path: Path) -> str:
    with pytest.raises(PlatformError) as caught:
        private.directory(path)
    assert (caught.value.code, int(caught.value.exit)) == ("STATE_UNSAFE", 4)
    assert str(path) in caught.value.what
    return f"{caught.value.what}; {caught.value.why}"


def test_what_others_may_write_is_refused_and_left_alone(tmp_path: Path) -> None:
    loose = tmp_path / "loose"
    loose.mkdir()
    loose.chmod(0o777)
    assert "0777" in refusal(loose)
    assert mode(loose) == 0o777


def test_a_group_with_others_in_it_may_not_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loose = tmp_path / "loose"
    loose.mkdir()
    loose.chmod(0o770)
    me = private._user(os.geteuid())
    gid = loose.stat().st_gid
    monkeypatch.setattr(grp, "getgrgid", lambda _: grp.struct_group((me, "x", gid, [me])))
    private.directory(loose)
    assert mode(loose) == 0o700, "a group of the user's alone, as Debian makes them, is no reason to refuse"
    loose.chmod(0o770)
    for group in (grp.struct_group((me, "x", gid, ["eve"])), grp.struct_group(("staff", "x", gid, []))):
        monkeypatch.setattr(grp, "getgrgid", lambda _, group=group: group)
        assert "0770" in refusal(loose)


def test_a_file_system_without_modes_is_no_reason_to_refuse(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Such as a disk of Windows in WSL, where everything seems to be open and chmod does nothing."""
    loose = tmp_path / "loose"
    loose.mkdir()
    loose.chmod(0o777)
    real = os.mkdir

    def open_to_all(path: Path, mode: int) -> None:
        real(path, mode)
        path.chmod(0o777)

    monkeypatch.setattr(os, "mkdir", open_to_all)
    private.check(loose)
    assert list(loose.iterdir()) == []


def test_a_directory_of_another_user_is_refused_but_not_one_of_roots(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    owner = tmp_path.stat().st_uid
    monkeypatch.setattr(os, "geteuid", lambda: owner + 1)
    if owner == 0:
        private.check(tmp_path)
        os.chown(tmp_path, 12345, -1)
    assert "belongs to" in refusal(tmp_path)


def test_a_loose_directory_one_level_below_is_found(tmp_path: Path) -> None:
    private.check_tree(tmp_path / "not there")
    (tmp_path / "native").mkdir()
    private.check_tree(tmp_path)
    (tmp_path / "native").chmod(0o777)
    with pytest.raises(PlatformError, match="native"):
        private.check_tree(tmp_path)


# --- in a directory of another user


def test_only_plain_files_are_read(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"text \xff")
    assert private.read_text(tmp_path / "file") == "text \ufffd"
    (tmp_path / "link").symlink_to("file")
    os.mkfifo(tmp_path / "pipe")
    for name in ("link", "pipe", "absent", "."):
        with pytest.raises(OSError, match=r"\w"):
            private.read_text(tmp_path / name)


def test_a_new_file_takes_the_place_of_a_link_and_leaves_its_target_alone(tmp_path: Path) -> None:
    treasure = tmp_path / "treasure"
    treasure.write_text("mine")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "file").symlink_to(treasure)
    private.put(tmp_path / "data" / "file", "new", (os.geteuid(), os.getegid()))
    assert treasure.read_text() == "mine"
    assert (tmp_path / "data" / "file").read_text() == "new"
    assert not (tmp_path / "data" / "file").is_symlink()
    assert mode(tmp_path / "data" / "file") == 0o600
    assert [p.name for p in (tmp_path / "data").iterdir()] == ["file"]


def test_a_link_in_the_place_of_the_directory_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "data").symlink_to("elsewhere")
    with pytest.raises(OSError, match="data"):
        private.put(tmp_path / "data" / "file", "new")
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_a_link_is_given_away_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr(os, "chown", lambda *a, **k: asked.append((a, k)))
    private.give(tmp_path, (1, 2))
    private.give(tmp_path, None)
    assert asked == [((tmp_path, 1, 2), {"follow_symlinks": False})]
