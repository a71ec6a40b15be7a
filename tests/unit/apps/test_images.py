"""Building the images: the packages and how failures are reported. The builds themselves are in tests/apps."""

from __future__ import annotations

import importlib.util
import re
import threading
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from infra import settings, shell
from infra.app import images
from infra.app.images import Base
from infra.errors import PlatformError
from infra.shell import Result
from tests.unit.helpers import console, settings_of

BASE = Base("base:1", "3.12", "x86_64")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "requirements").mkdir()
    (tmp_path / images.REQUIREMENTS).write_text("numpy==1 --hash=sha256:0\n")
    return tmp_path


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch, root: Path) -> list[list[str]]:
    """The installer's command lines; it leaves what installers leave."""
    made: list[list[str]] = []

    def run(argv: Sequence[str], **_: Any) -> Result:
        made.append(list(argv))
        (root / images.PACKAGES / "numpy" / "core" / "tests").mkdir(parents=True)
        (root / images.PACKAGES / "tests").mkdir()
        return Result(0, "", "")

    monkeypatch.setattr(shell, "run", run)
    return made


def test_packages_are_fetched_once_for_one_base(root: Path, calls: list[list[str]]) -> None:
    said = console()
    target = images.packages(root, BASE, said)
    assert images.packages(root, BASE, said) == target
    assert len(calls) == 1
    images.packages(root, Base("base:1", "3.13", "x86_64"), said)
    (root / images.REQUIREMENTS).write_text("numpy==2 --hash=sha256:0\n")
    images.packages(root, Base("base:1", "3.13", "x86_64"), said)
    assert len(calls) == 3


@pytest.mark.parametrize(("python", "wanted"), [("3.11.2", True), ("3.11.3", False), ("3.13.0", False)])
def test_markers_are_those_of_the_image_not_of_the_installer(python: str, wanted: bool) -> None:
    lock = (settings.ROOT / images.REQUIREMENTS).read_text(encoding="utf-8")
    found = images.for_base(lock, Base("base:1", python, "x86_64"))
    lines = [line for line in found.splitlines() if line[:1].isalnum()]
    assert any(line.startswith("async-timeout==") for line in lines) is wanted
    assert any(line.startswith("psycopg-binary==") for line in lines)
    assert not [line for line in lines if line.startswith("tzdata==") or ";" in line]
    assert not re.search(r"^\S[^\\]*\n    --hash", found, re.MULTILINE), "a requirement and its hashes are one line"
    assert found.count("--hash=") > len(lines)


def test_half_fetched_packages_are_fetched_again(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(argv: Sequence[str], **_: Any) -> Result:
        (root / images.PACKAGES / "numpy").mkdir(parents=True)
        raise PlatformError("PROGRAM_FAILED", "uv ended with 1")

    monkeypatch.setattr(shell, "run", fails)
    for _ in range(2):
        with pytest.raises(PlatformError):
            images.packages(root, BASE, console())
    assert not (root / images.PACKAGES / "stamp").exists()


def test_tests_of_large_packages_stay_out(root: Path, calls: list[list[str]]) -> None:
    target = images.packages(root, BASE, console())
    assert not (target / "numpy" / "core" / "tests").exists()
    assert (target / "tests").exists()


@pytest.mark.parametrize("installer", ["uv", "pip"])
def test_packages_are_for_the_image_and_not_for_this_machine(
    root: Path, calls: list[list[str]], monkeypatch: pytest.MonkeyPatch, installer: str
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name if name == installer else None)
    monkeypatch.setattr(shell, "find", lambda name: None)
    images.packages(root, Base("base:1", "3.13", "aarch64"), console())
    line = " ".join(calls[0])
    assert f"-m {installer} " in line
    assert "--python-version 3.13" in line
    assert "manylinux_2_28" in line
    assert "aarch64" in line
    assert "--require-hashes" in calls[0]
    assert "--only-binary=:all:" in calls[0]


def test_without_an_installer_it_is_said(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(shell, "find", lambda name: None)
    with pytest.raises(PlatformError) as caught:
        images.packages(root, BASE, console())
    assert caught.value.code == "PROGRAM_MISSING"


def test_a_failed_build_is_told_with_its_last_lines() -> None:
    told = [{"stream": "Step 1/2 : FROM x\n"}, {"stream": "\n"}, {"error": "The command returned\na non-zero code: 1"}]
    with pytest.raises(PlatformError, match="x:1 could not be built") as caught:
        images._raise_on_failure("x:1", told)
    assert caught.value.why == "a non-zero code: 1"
    assert caught.value.details["log"] == ["Step 1/2 : FROM x"]


def test_names_of_images_can_be_changed(tmp_path: Path) -> None:
    assert images.references(settings_of(tmp_path)) == {
        "backend": "platform-backend:dev",
        "frontend": "platform-frontend:dev",
    }
    assert images.references(settings_of(tmp_path, BACKEND_IMAGE="r.example/b:1"))["backend"] == "r.example/b:1"


def test_one_build_waits_for_another(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begun, order, held = threading.Event(), [], ExitStack()
    monkeypatch.setattr(images, "LOOK", 0.01)

    def second() -> None:
        said = console()
        monkeypatch.setattr(said, "say", lambda _: begun.set())
        with images.alone(root, said):
            order.append("second")

    held.enter_context(images.alone(root, console()))
    other = threading.Thread(target=second)
    other.start()
    assert begun.wait(30), "it does not say that it waits"
    order.append("first")
    held.close()
    other.join(30)
    assert order == ["first", "second"]


def test_a_lock_file_beside_another_adds_only_what_is_not_there() -> None:
    lock = "# one\nnumpy==2.4 \\\n    --hash=a\npsycopg[binary]==3 \\\n    --hash=b\n"
    more = (
        "# two\njax==1 \\\n    --hash=c\n",
        "numpy==2.4 \\\n    --hash=a\n    # via jax\n",
        "scipy==1 \\\n    --hash=d\n",
    )
    assert images.merged(lock, "".join(more)) == lock + more[0] + more[2]


def test_the_locks_of_the_images_do_not_contradict_each_other() -> None:
    lock, other = ((settings.ROOT / name).read_text(encoding="utf-8") for name in (images.REQUIREMENTS, images.JAX))
    pins = [line.rstrip(" \\") for line in images.merged(lock, other).splitlines() if line[:1].isalnum()]
    names = [pin.partition("==")[0].partition("[")[0] for pin in pins]
    assert "jaxlib" in names
    assert len(names) == len(set(names))
    assert {line.rstrip(" \\") for line in other.splitlines() if line[:1].isalnum()} <= set(pins)
