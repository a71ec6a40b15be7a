"""The rig's decisions: keys, pins, steps, the settings file. What it makes is shown by the sessions that run on it."""

from __future__ import annotations

import os
import shlex
from pathlib import Path

import pytest

from tests.rig import cache, engine, env_file, images, parts, recipes, up

PINS = r"""boto3==1.0 \
    --hash=sha256:aa \
    --hash=sha256:bb
    # via x
boto3-stubs==2.0 ; sys_platform != "win32" \
    --hash=sha256:cc
"""


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLATFORM_RIG_CACHE", str(tmp_path / "cache"))


def step(name: str, did: list[str], *, vital: bool = False, ready: bool = False, fails: bool = False) -> up.Step:
    def work(log: Path) -> None:
        did.append(name)
        if fails:
            raise cache.RigProblem("no", log)

    return up.Step(name, lambda: ready, work, vital)


def test_a_pin_is_taken_with_its_hashes_and_no_other_package_of_a_like_name() -> None:
    assert parts._block(PINS, "boto3") == PINS[: PINS.index("    # via")]
    assert parts._block(PINS, "boto3-stubs").count("--hash") == 1
    assert parts._block(PINS, "boto") == ""


def test_a_wheel_that_is_not_locked_is_refused() -> None:
    with pytest.raises(cache.RigProblem, match="does not pin nothing-like-it"):
        parts.Wheels("platform", ("nothing-like-it",)).key()


def test_every_recipe_has_its_files_and_pins() -> None:
    keys = [images.key(recipe) for recipe in (recipes.BASE, *recipes.RECIPES)]
    assert len(set(keys)) == len(keys)
    for recipe in recipes.RECIPES:
        first = (images.FOLDER / recipe.name / "Dockerfile").read_text(encoding="utf-8").splitlines()[0]
        assert first.split()[1] == recipes.BASE.reference


def test_a_changed_file_is_another_key(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("one")
    before = cache.key_of_files(tmp_path)
    (tmp_path / "run").chmod(0o755)
    runnable = cache.key_of_files(tmp_path)
    (tmp_path / "run").write_text("two")
    assert len({before, runnable, cache.key_of_files(tmp_path)}) == 3


def test_what_fails_half_way_is_not_kept(tmp_path: Path) -> None:
    target = tmp_path / "part-0123456789ab"
    unfinished = cache.fresh(target)
    (unfinished.__enter__() / "file").touch()
    unfinished.__exit__(OSError, OSError("full"), None)
    assert list(tmp_path.iterdir()) == []


def test_a_new_part_takes_the_place_of_its_older_ones_alone(tmp_path: Path) -> None:
    new, old, other = (tmp_path / n for n in ("part-0123456789ab", "part-ba9876543210", "part-two-ba9876543210"))
    for path in (new, old, other):
        path.mkdir()
    cache.discard_others(new)
    assert sorted(tmp_path.iterdir()) == [new, other]


def test_a_failed_image_does_not_keep_the_next_one_from_being_made() -> None:
    did: list[str] = []
    chosen = [step("a", did, ready=True), step("b", did, fails=True), step("c", did)]
    assert up.perform_all(chosen) == ["b"]
    assert did == ["b", "c"]


def test_nothing_follows_a_vital_step_that_failed() -> None:
    did: list[str] = []
    assert up.perform_all([step("engine", did, vital=True, fails=True), step("image", did)]) == ["engine"]
    assert did == ["engine"]


def test_only_keeps_what_everything_needs() -> None:
    known = [step("engine", [], vital=True), step("a", []), step("b", [])]
    assert [s.name for s in up.select(known, ["b"])] == ["engine", "b"]
    assert up.select(known, []) == known


def test_the_settings_file_can_be_read_by_a_shell(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(env_file, "values", lambda: {"RIG_PATH": "/a b/c'd"})
    assert shlex.split(env_file.write().read_text(encoding="utf-8")) == ["RIG_PATH=/a b/c'd"]


def test_a_pid_file_stays_while_its_process_is_what_it_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    comm = Path("/proc/self/comm")
    if not comm.exists():
        pytest.skip("needs Linux's /proc")
    mine, foreign, dead = (tmp_path / n for n in ("mine", "foreign", "dead"))
    for path, pid in ((mine, os.getpid()), (foreign, os.getpid()), (dead, 2**22 + 1)):
        path.write_text(str(pid))
    files = {mine: comm.read_text().strip(), foreign: "containerd", dead: "dockerd"}
    monkeypatch.setattr(engine, "PID_FILES", files)
    engine._forget_dead()
    assert [p for p in files if p.exists()] == [mine]
