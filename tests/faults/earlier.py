"""The last version before modules moved, from the history: a shallow clone skips the tests that need it."""

from __future__ import annotations

import contextlib
import io
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from infra.settings import ROOT
from tests.drift.repo import present_files

RIG = "PLATFORM_RIG_"
EARLIER = "6adb00a2e28552cfb124d66c8b76659ccc52648a"


@dataclass(frozen=True)
class Checkout:
    """A directory in which the one version takes the place of the other, as `git pull` does it."""

    root: Path

    def earlier(self) -> None:
        """The files of the earlier version; skips the test where the history does not have them."""
        argv = ["git", "-C", str(ROOT), "archive", "--format=tar", EARLIER]
        try:
            done = subprocess.run(argv, capture_output=True, check=False)
        except FileNotFoundError:
            pytest.skip("there is no git on this machine")
        if done.returncode:
            pytest.skip(f"the history does not reach back to {EARLIER[:7]} (a shallow clone?)")
        with tarfile.open(fileobj=io.BytesIO(done.stdout)) as archive:
            archive.extractall(self.root, filter="data")

    def known(self, env: Mapping[str, str]) -> dict[str, str]:
        """An environment without the settings that are newer than the files that are there."""
        texts = "".join(
            (self.root / name).read_text(encoding="utf-8") for name in (".env.example", "infra/settings.py")
        )
        return {k: v for k, v in env.items() if k in texts or not k.startswith("PLATFORM_") or k.startswith(RIG)}

    def today(self) -> None:
        """The files of this version in their place; the directory stays, since processes may work in it."""
        for entry in self.root.iterdir():
            shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
        for name in present_files():
            target = self.root / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, target)


@contextlib.contextmanager
def checkout() -> Iterator[Checkout]:
    """A checkout with the files of the earlier version; PostgreSQL's user can reach it."""
    made = Checkout(Path(tempfile.mkdtemp(prefix="platform-checkout-")).resolve())
    made.root.chmod(0o755)
    try:
        made.earlier()
        yield made
    finally:
        shutil.rmtree(made.root, ignore_errors=True)
