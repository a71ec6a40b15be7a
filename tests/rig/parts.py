"""What images are made of: wheels of the lock files, Debian packages, Go programs, files of Go modules.

Each part knows a key (nothing is asked of the network for it) and makes a directory `<cache>/parts/<name>-<key>` once.
"""

from __future__ import annotations

import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from tests.rig import cache, golang, installer

REQUIREMENTS = Path(__file__).resolve().parents[2] / "requirements"
IMAGE_PYTHON = "3.11"
"""Python of Debian 12, on which every image with a Python in it is based."""


class Part(Protocol):
    """Something that goes into an image's build context under its own name."""

    @property
    def name(self) -> str:
        """Directory name in the build context."""

    def key(self) -> str:
        """What it is made from."""

    def make(self, into: Path, log: Path) -> None:
        """Fill an empty directory; raises RigProblem."""


def folder_name(part: Part, owner: str) -> str:
    """The name of a part's directory."""
    return f"{owner}-{part.name}-{part.key()}"


def ready(part: Part, owner: str, log: Path) -> Path:
    """The directory of a part, made when it is missing."""
    target = cache.folder("parts") / folder_name(part, owner)
    if not target.exists():
        with cache.fresh(target) as unfinished:
            part.make(unfinished, log)
        cache.discard_others(target)
    return target


@dataclass(frozen=True)
class Wheels:
    """Wheels of a lock file, unpacked as an installation would; no names means all of the file."""

    lock: str
    packages: tuple[str, ...] = ()
    name: str = "wheels"

    def key(self) -> str:
        """The locked versions and their hashes."""
        return cache.key(IMAGE_PYTHON, self._pins())

    def make(self, into: Path, log: Path) -> None:
        """Install with hashes, without what the packages ask for: the lock file holds that as well."""
        pins = into / "pins.txt"
        pins.write_text(self._pins(), encoding="utf-8")
        chosen = ("--require-hashes", "--only-binary", ":all:", "--python-version", IMAGE_PYTHON)
        installer.install(into, log, *chosen, "-r", pins)
        pins.unlink()

    def _pins(self) -> str:
        text = (REQUIREMENTS / f"{self.lock}.txt").read_text(encoding="utf-8")
        if not self.packages:
            return "".join(line for line in text.splitlines(keepends=True) if not line.lstrip().startswith("#"))
        blocks = {name: _block(text, name) for name in self.packages}
        missing = [name for name, block in blocks.items() if not block]
        if missing:
            raise cache.RigProblem(f"requirements/{self.lock}.txt does not pin {', '.join(missing)}")
        return "\n".join(blocks.values()) + "\n"


def _block(text: str, name: str) -> str:
    """A pin with its hashes, as it stands in a lock file; '' when it is not there."""
    found = re.search(rf"^{re.escape(name)}(\[[\w,-]+\])?==[^\n]*\\\n(    --hash=\S+(?: \\)?\n)+", text, re.M)
    return found.group() if found else ""


@dataclass(frozen=True)
class Debs:
    """Files of Debian packages, unpacked without installing anything; `suite` names another than the system's."""

    packages: tuple[str, ...]
    suite: str = ""
    name: str = "root"

    def key(self) -> str:
        """The names; Debian's updates within a suite make no new key."""
        return cache.key(self.suite, *self.packages)

    def make(self, into: Path, log: Path) -> None:
        """Download and unpack."""
        options = _suite_options(self.suite, log) if self.suite else []
        downloads = into / "debs"
        downloads.mkdir()
        cache.run(["apt-get", *options, "download", *self.packages], log, cwd=downloads)
        for deb in sorted(downloads.glob("*.deb")):
            cache.run(["dpkg-deb", "-x", deb, into], log)
        shutil.rmtree(downloads)


def _suite_options(suite: str, log: Path) -> list[str]:
    """Options for apt-get that make it see that suite alone; the system's own lists stay as they are."""
    mirror = debian_mirror()
    if not mirror:
        raise cache.RigProblem("apt knows no Debian mirror (apt-get indextargets lists none)")
    place = cache.folder("apt", suite)
    for name in ("lists/partial", "archives/partial"):
        (place / name).mkdir(parents=True, exist_ok=True)
    sources = place / "debian.sources"
    keyring = "/usr/share/keyrings/debian-archive-keyring.gpg"
    fields = {"Types": "deb", "URIs": mirror, "Suites": suite, "Components": "main", "Signed-By": keyring}
    sources.write_text("".join(f"{name}: {value}\n" for name, value in fields.items()), encoding="utf-8")
    settings = {
        "Dir::Etc::sourcelist": sources,
        "Dir::Etc::sourceparts": "-",
        "Dir::State::lists": place / "lists",
        "Dir::Cache": place,
        "APT::Sandbox::User": "root",
    }
    options = [word for name, value in settings.items() for word in ("-o", f"{name}={value}")]
    cache.run(["apt-get", *options, "update", "-qq"], log)
    return options


def debian_mirror() -> str:
    """The address of the Debian archive that this system's apt uses; '' when there is none."""
    said = cache.output(
        ["apt-get", "indextargets", "--format", "$(REPO_URI) $(ORIGIN) $(SUITE)", "Created-By: Packages"]
    )
    lines = [line.split() for line in (said or "").splitlines()]
    found = [line[0] for line in lines if line[1:2] == ["Debian"] and not re.search(r"-(security|updates)", line[-1])]
    return found[0] if found else ""


@dataclass(frozen=True)
class GoProgram:
    """A static program built from a Go module at a fixed version, with the module's own go.sum and replacements."""

    module: str
    version: str
    package: str
    name: str

    def key(self) -> str:
        """Module, version, package and the compiler's version."""
        return cache.key(self.module, self.version, self.package, golang.VERSION)

    def make(self, into: Path, log: Path) -> None:
        """Build `<into>/<name>`."""
        golang.build(self.module, self.version, self.package, into / self.name, log)


@dataclass(frozen=True)
class GoFiles:
    """Files that a Go module ships beside its code."""

    module: str
    version: str
    paths: tuple[str, ...]
    name: str = "module"

    def key(self) -> str:
        """Module, version and paths."""
        return cache.key(self.module, self.version, *self.paths)

    def make(self, into: Path, log: Path) -> None:
        """Copy them; a directory keeps its place below the module's root."""
        source = golang.download(self.module, self.version, log)
        for path in self.paths:
            (into / path).parent.mkdir(parents=True, exist_ok=True)
            copy = shutil.copytree if (source / path).is_dir() else shutil.copy2
            copy(source / path, into / path)
        golang.make_writable(into)
