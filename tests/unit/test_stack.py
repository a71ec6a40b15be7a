from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from infra import stack
from infra.errors import PlatformError
from infra.settings import ROOT
from infra.stack import Stack, read_json, write_atomic
from tests.unit.helpers import settings_of, stack_at

_HOLD = """
import sys
from pathlib import Path
from infra import stack
with stack.lock(stack.Stack("x", Path(sys.argv[1])), "up"):
    print("held", flush=True)
    sys.stdin.read()
"""


@contextmanager
def held(home: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds the lock of the stack at `home`."""
    command = [sys.executable, "-c", _HOLD, str(home)]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        try:
            yield process
        finally:
            process.kill()


def refused(home: Path) -> PlatformError:
    with pytest.raises(PlatformError) as caught, stack.lock(stack_at(home), "down"):
        pass
    return caught.value


# --- names


def test_two_checkouts_of_one_name_are_two_stacks(tmp_path: Path) -> None:
    first, second = (stack.of(settings_of(tmp_path / d / "My Project")) for d in "ab")
    assert first.name != second.name
    assert first.name.startswith("my-project-")
    assert first == stack.of(settings_of(tmp_path / "a" / "My Project"))


def test_a_name_of_letters_that_no_tool_takes(tmp_path: Path) -> None:
    label, _, digits = stack.of(settings_of(tmp_path / "프로젝트")).name.rpartition("-")
    assert label == "platform"
    assert len(digits) == 6


def test_a_stack_makes_nothing_until_it_is_written_to(tmp_path: Path) -> None:
    found = stack.of(settings_of(tmp_path))
    assert found.tier_home("native") == tmp_path / ".platform" / "native"
    assert found.logs == tmp_path / ".platform" / "logs"
    assert list(tmp_path.iterdir()) == []


# --- the directory


def test_the_directory_is_made_and_kept_out_of_git(tmp_path: Path) -> None:
    made = stack_at(tmp_path / "a" / "b")
    stack.ensure_home(made)
    stack.ensure_home(made)
    assert (made.home / ".gitignore").read_text() == "*\n"
    assert sorted(p.name for p in made.home.iterdir()) == [".gitignore", "logs"]


def unwritable(made: Stack) -> PlatformError:
    with pytest.raises(PlatformError) as caught:
        stack.ensure_home(made)
    assert (caught.value.code, caught.value.exit) == ("STATE_UNWRITABLE", 4)
    return caught.value


def test_a_file_in_the_place_of_the_directory(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    error = unwritable(stack_at(tmp_path / "file" / "home"))
    assert str(tmp_path / "file" / "home") in error.what
    assert any("PLATFORM_STATE_DIR" in step for step in error.steps)


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="root may write everywhere")
def test_a_directory_without_the_right_to_write(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    assert unwritable(stack_at(tmp_path / "home")).why == "Permission denied"
    tmp_path.chmod(0o700)


def test_a_full_disk_is_found_before_anything_is_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    assert unwritable(stack_at(tmp_path / "home")).why == "No space left on device"


def test_a_lock_in_a_directory_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert refused(tmp_path / "file" / "home").code == "STATE_UNWRITABLE"


# --- the lock


def _full(*_: object, **__: object) -> int:
    raise OSError(28, "No space left on device")


def test_what_does_not_write_can_be_done_on_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = stack_at(tmp_path)
    stack.ensure_home(home)
    for owner, name in ((Path, "write_text"), (os, "write")):
        monkeypatch.setattr(owner, name, _full)
    with stack.lock(home, "down", writes=False):
        assert refused(tmp_path).code == "STATE_UNWRITABLE"
        with pytest.raises(PlatformError) as caught, stack.lock(home, "down", writes=False):
            pass
        assert caught.value.code == "LOCKED"


def test_a_second_run_is_told_who_holds_the_lock_since_when(tmp_path: Path) -> None:
    with held(tmp_path) as other:
        error = refused(tmp_path)
    assert (error.code, error.exit) == ("LOCKED", 12)
    assert f"pid {other.pid} (`up`), since " in error.why
    assert error.details["pid"] == other.pid
    assert isinstance(error.details["since"], float)


@pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
def test_kill_9_of_the_holder_frees_the_lock(tmp_path: Path) -> None:
    with held(tmp_path) as other:
        other.send_signal(signal.SIGKILL)
        other.wait()
        with stack.lock(stack_at(tmp_path), "down"):
            assert (read_json(tmp_path / "lock") or {})["pid"] == os.getpid()


def test_the_lock_is_free_after_use_and_after_a_failure(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), stack.lock(stack_at(tmp_path), "up"):
        raise ZeroDivisionError
    with stack.lock(stack_at(tmp_path), "up"):
        assert refused(tmp_path).code == "LOCKED"
    assert (tmp_path / "lock").read_text() == ""


@pytest.mark.parametrize("text", ["", "garbage", "[]", '{"pid": 5}', '{"since": "x"}', '{"since": null}'])
def test_a_damaged_lock_file_still_gives_an_answer(tmp_path: Path, text: str) -> None:
    with held(tmp_path):
        (tmp_path / "lock").write_text(text)
        assert refused(tmp_path).code == "LOCKED"


# --- files


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    write_atomic(path, "old 한글\n")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_atomic(path, "new\n")
    assert path.read_text(encoding="utf-8") == "old 한글\n"
    assert list(tmp_path.iterdir()) == [path]


def test_a_reader_never_sees_a_part_of_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, seen = tmp_path / "file", []
    write_atomic(path, "old")
    real = os.fsync

    def look(descriptor: int) -> None:
        seen.append(path.read_text())
        real(descriptor)

    monkeypatch.setattr(os, "fsync", look)
    write_atomic(path, "new")
    assert (seen, path.read_text()) == (["old"], "new")


@pytest.mark.skipif(os.name == "nt", reason="permissions of POSIX")
def test_a_private_file_is_private_from_its_first_moment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    modes: list[int] = []
    real = os.replace

    def look(source: Path, target: Path) -> None:
        modes.append(source.stat().st_mode & 0o777)
        real(source, target)

    monkeypatch.setattr(os, "replace", look)
    write_atomic(tmp_path / "secret", "x", mode=0o600)
    assert modes == [0o600]


@pytest.mark.parametrize("text", [None, "", "{", "[1]", "null", '"x"', "\ufeff{}", "한글"])
def test_a_json_file_that_holds_no_object_counts_as_none(tmp_path: Path, text: str | None) -> None:
    if text is not None:
        (tmp_path / "x.json").write_text(text, encoding="utf-8")
    assert read_json(tmp_path / "x.json") is None


def test_bytes_that_are_no_text_count_as_none(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_bytes(b"\xff\xfe\0")
    assert read_json(tmp_path / "x.json") is None


# --- what is remembered


def test_facts_are_remembered_beside_each_other(tmp_path: Path) -> None:
    home = stack_at(tmp_path)
    assert stack.remembered(home, "tier") == ""
    stack.remember(home, tier="native")
    stack.remember(home, other=1)
    assert (stack.remembered(home, "tier"), stack.remembered(home, "other")) == ("native", "1")


def test_a_damaged_memory_is_forgotten_and_written_anew(tmp_path: Path) -> None:
    home = stack_at(tmp_path)
    home.memory.write_text("garbage")
    assert stack.remembered(home, "tier") == ""
    stack.remember(home, tier="native")
    assert json.loads(home.memory.read_text()) == {"tier": "native"}


def test_a_memory_that_cannot_be_written_says_so(tmp_path: Path) -> None:
    with pytest.raises(PlatformError) as caught:
        stack.remember(stack_at(tmp_path / "missing"), tier="native")
    assert caught.value.code == "STATE_UNWRITABLE"
