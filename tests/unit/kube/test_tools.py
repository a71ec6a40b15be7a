from __future__ import annotations

import os
from pathlib import Path

import pytest

from infra.errors import PlatformError
from infra.kube import tools
from infra.tiers.kind import tools as kind_tools
from tests.unit.helpers import script, settings_of

pytestmark = pytest.mark.skipif(os.name == "nt", reason="programs are played by shell scripts")

SAID = {
    "kind": "echo 'kind v0.33.0 go1.26.8 linux/amd64'",
    "kubectl": "echo 'Client Version: v1.34.4'",
    "helm": "echo 'v4.2.4+g1234567'",
}


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory with the three programs, and nothing else on PATH."""
    found = tmp_path / "kind tools"
    found.mkdir()
    for name, said in SAID.items():
        script(found / name, said)
    monkeypatch.setenv("PATH", "/bin:/usr/bin")
    return found


def find(home: Path, programs: Path) -> kind_tools.Tools:
    return kind_tools.find(settings_of(home, PLATFORM_KIND_BIN=str(programs)), home / "tools.json")


@pytest.mark.parametrize(
    ("said", "version"),
    [
        ("kind v0.33.0 go1.26 linux/amd64", (0, 33, 0)),
        ("v3.18", (3, 18)),
        ('version.BuildInfo{Version:"v4.2.4"', (4, 2, 4)),
        ("no number", ()),
    ],
)
def test_versions_in_what_programs_say(said: str, version: tuple[int, ...]) -> None:
    assert tools.parse(said) == version


def test_the_directory_of_the_settings_comes_first(tmp_path: Path, programs: Path) -> None:
    found = find(tmp_path, programs)
    assert Path(found.kind.path) == programs / "kind"
    assert (found.kind.version, found.helm.version[0], found.kubectl.version) == ((0, 33, 0), 4, (1, 34, 4))


def test_versions_are_asked_once(tmp_path: Path, programs: Path) -> None:
    first = find(tmp_path, programs)
    size = (programs / "kind").stat()
    (programs / "kind").write_text("x" * size.st_size)
    os.utime(programs / "kind", ns=(size.st_atime_ns, size.st_mtime_ns))
    assert find(tmp_path, programs) == first


def test_a_program_that_has_changed_is_asked_again(tmp_path: Path, programs: Path) -> None:
    find(tmp_path, programs)
    script(programs / "kind", "echo 'kind v0.34.1 and more'")
    assert find(tmp_path, programs).kind.version == (0, 34, 1)


@pytest.mark.parametrize(
    ("name", "said"), [("kind", "kind v0.30.0"), ("helm", "v3.17.9"), ("helm", "v2.17.0"), ("kubectl", "what?")]
)
def test_a_program_that_is_too_old_is_refused_with_what_to_install(
    tmp_path: Path, programs: Path, name: str, said: str
) -> None:
    script(programs / name, f"echo '{said}'")
    with pytest.raises(PlatformError) as caught:
        find(tmp_path, programs)
    assert int(caught.value.exit) == 5
    assert name in caught.value.what
    assert f"install {name} " in caught.value.steps[0]


def test_all_missing_programs_are_named_at_once(tmp_path: Path, programs: Path) -> None:
    (programs / "kind").unlink()
    (programs / "helm").unlink()
    with pytest.raises(PlatformError) as caught:
        find(tmp_path, programs)
    assert int(caught.value.exit) == 5
    assert "kind and helm" in caught.value.what
    assert "https://helm.sh" in " ".join(caught.value.steps)


def test_a_shim_stands_first_on_the_path_of_kind_and_of_nobody_else(tmp_path: Path, programs: Path) -> None:
    assert "PATH" not in find(tmp_path, programs).kind_environment(tmp_path / "config")
    (programs / "shim").mkdir()
    environment = find(tmp_path, programs).kind_environment(tmp_path / "config")
    assert environment["PATH"].split(os.pathsep)[0] == str(programs / "shim")
    assert environment["KUBECONFIG"] == str(tmp_path / "config")
