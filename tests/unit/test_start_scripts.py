"""start-infra.sh and the environment that it makes, with a stand-in for Invoke and nothing to download."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from infra.settings import ROOT
from scripts import make_env
from tests.unit.helpers import Stream, script

pytestmark = pytest.mark.skipif(os.name == "nt", reason="the scripts for Windows are .ps1 files")

INVOKE = "import os, sys; print(os.getcwd(), sys.prefix, *sys.argv[1:], sep='|')\n"
SHELLS = [["sh"], ["dash"], ["bash"], ["busybox", "sh"]]
LIMIT = 120
Completed = subprocess.CompletedProcess[str]


@dataclass(frozen=True)
class Checkout:
    """A checkout with the scripts, empty lock files and a stand-in for Invoke that prints its arguments."""

    root: Path
    env: dict[str, str]

    @property
    def venv(self) -> Path:
        """Its environment."""
        return self.root / ".venv"

    @property
    def script(self) -> Path:
        """The script."""
        return self.root / "scripts" / "start-infra.sh"

    def start(self, *options: str, **env: str) -> Completed:
        """Run start-infra.sh."""
        return self.run([str(self.script), *options], self.root, env)

    def run(self, argv: list[str], cwd: Path, env: dict[str, str]) -> Completed:
        """Run a program in its environment."""
        return subprocess.run(
            argv, cwd=cwd, env=self.env | env, capture_output=True, text=True, timeout=LIMIT, check=False
        )

    def require(self, line: str, lock: str = "platform") -> None:
        """Add a line to a lock file."""
        path = self.root / "requirements" / f"{lock}.txt"
        path.write_text(path.read_text() + line + "\n")


def invoked(checkout: Checkout, *arguments: str) -> str:
    """What the stand-in prints when it is called as it should be."""
    return "|".join([str(checkout.root), str(checkout.venv), *arguments]) + "\n"


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    """A checkout in a directory with blanks and non-ASCII letters; uv makes its environment quickly."""
    root = tmp_path / "my ünusual 체크아웃"
    for name in ("infra", "requirements", "invoke", "bin"):
        (root / name).mkdir(parents=True)
    shutil.copytree(ROOT / "scripts", root / "scripts", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("__init__", "errors", "locks"):
        shutil.copy(ROOT / "infra" / f"{name}.py", root / "infra")
    for lock in ("platform", "dev"):
        (root / "requirements" / f"{lock}.txt").touch()
    (root / "invoke" / "__init__.py").touch()
    (root / "invoke" / "__main__.py").write_text(INVOKE)
    (root / "bin" / "uv").symlink_to(Path(sys.executable).with_name("uv"))
    (root / "bin" / "python3").symlink_to(sys.executable)
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("PLATFORM_", "PYTHON", "VIRTUAL_ENV"))}
    return Checkout(root, kept | {"PATH": f"{root / 'bin'}{os.pathsep}{os.environ['PATH']}"})


@pytest.mark.parametrize(
    ("options", "arguments"), [([], ["up"]), (["--with-obs"], ["up", "--obs"]), (["--stop"], ["down"])]
)
def test_options_become_tasks(checkout: Checkout, options: list[str], arguments: list[str]) -> None:
    done = checkout.start(*options)
    assert (done.returncode, done.stdout) == (0, invoked(checkout, *arguments)), done.stderr


@pytest.mark.parametrize("shell", [pytest.param(tuple(s), id=s[0]) for s in SHELLS])
def test_every_shell_runs_it(checkout: Checkout, shell: tuple[str, ...]) -> None:
    if shutil.which(shell[0]) is None:
        pytest.skip(f"there is no {shell[0]} on this machine")
    done = checkout.run([*shell, str(checkout.script)], checkout.root, {})
    assert (done.returncode, done.stdout) == (0, invoked(checkout, "up")), done.stderr


def test_help_and_unknown_options_make_nothing(checkout: Checkout) -> None:
    helped, wrong = checkout.start("--help"), checkout.start("--obs")
    assert (helped.returncode, helped.stdout[:6], helped.stderr) == (0, "usage:", "")
    assert (wrong.returncode, wrong.stdout) == (2, "")
    assert "unknown option --obs" in wrong.stderr
    assert not checkout.venv.exists()


def test_it_runs_from_elsewhere_through_links_with_an_odd_environment(checkout: Checkout, tmp_path: Path) -> None:
    (tmp_path / "one").symlink_to(checkout.script)
    (tmp_path / "two").symlink_to("one")
    odd = dict.fromkeys(("PYTHONHOME", "PYTHONPATH", "VIRTUAL_ENV", "PYTHONSAFEPATH"), "/nowhere") | {"CDPATH": "/:."}
    done = checkout.run([str(tmp_path / "two")], Path("/"), odd)
    assert (done.returncode, done.stdout) == (0, invoked(checkout, "up")), done.stderr


def test_a_second_run_installs_nothing(checkout: Checkout) -> None:
    first, second = checkout.start(), checkout.start()
    assert "making .venv and installing 0 packages" in first.stderr
    assert (second.returncode, second.stderr) == (0, "")


def test_a_changed_lock_file_is_installed_into_the_same_environment(checkout: Checkout) -> None:
    checkout.start()
    (checkout.venv / "mine").touch()
    checkout.require("# a change")
    assert "bringing .venv up to date" in checkout.start().stderr
    assert (checkout.venv / "mine").exists()
    assert checkout.start().stderr == ""


def test_the_developers_environment_serves_the_platform_too(checkout: Checkout) -> None:
    made = checkout.run(["python3", "-m", "scripts.make_env", "dev"], checkout.root, {})
    assert made.returncode == 0, made.stderr
    assert checkout.start().stderr == ""


def _no_python(venv: Path) -> None:
    (venv / "bin" / "python").unlink()


def _python_gone_elsewhere(venv: Path) -> None:
    (venv / "bin" / "python").unlink()
    (venv / "bin" / "python").symlink_to("/nowhere/python3.9")


def _killed_while_installing(venv: Path) -> None:
    (venv / ".platform-unfinished").touch()
    shutil.rmtree(venv / "lib")


def _stamp_cut(venv: Path) -> None:
    (venv / ".platform-stamp.json").write_text('{"python": "3.')


def _empty_shell(venv: Path) -> None:
    shutil.rmtree(venv)
    (venv / "bin").mkdir(parents=True)
    (venv / "bin" / "python").touch()


@pytest.mark.parametrize(
    "damage", [_no_python, _python_gone_elsewhere, _killed_while_installing, _stamp_cut, _empty_shell]
)
def test_a_damaged_environment_heals(checkout: Checkout, damage: object) -> None:
    checkout.start()
    assert callable(damage)
    damage(checkout.venv)
    done = checkout.start()
    assert (done.returncode, done.stdout) == (0, invoked(checkout, "up")), done.stderr
    assert checkout.start().stderr == ""


def test_what_is_no_environment_is_not_touched(checkout: Checkout) -> None:
    checkout.venv.mkdir()
    (checkout.venv / "thesis.txt").write_text("mine")
    done = checkout.start()
    assert done.returncode == 4
    assert "is no virtual environment" in done.stderr
    assert (checkout.venv / "thesis.txt").read_text() == "mine"


def test_two_runs_at_once_make_one_environment(checkout: Checkout) -> None:
    argv = [str(checkout.script)]
    pair = [
        subprocess.Popen(argv, env=checkout.env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    said = [p.communicate(timeout=LIMIT) for p in pair]
    assert [p.returncode for p in pair] == [0, 0], said
    assert [out for out, _ in said] == [invoked(checkout, "up")] * 2
    assert sum("making .venv and installing" in err for _, err in said) == 1


def test_without_uv_the_environment_is_made_by_venv_and_pip(checkout: Checkout) -> None:
    (checkout.root / "bin" / "uv").unlink()
    path = os.pathsep.join(p for p in checkout.env["PATH"].split(os.pathsep) if not (Path(p) / "uv").exists())
    done = checkout.start(PATH=path, PIP_TARGET="/nowhere", PIP_USER="1")
    assert (done.returncode, done.stdout) == (0, invoked(checkout, "up")), done.stderr
    assert (checkout.venv / "bin" / "pip").exists()


def test_an_index_that_cannot_be_reached_is_explained(checkout: Checkout) -> None:
    checkout.require(f"surely-not-there==1.0 --hash=sha256:{'0' * 64}")
    nowhere = "http://127.0.0.1:9/simple"
    index = {"PIP_INDEX_URL": nowhere, "UV_DEFAULT_INDEX": nowhere, "PIP_RETRIES": "0", "UV_HTTP_RETRIES": "0"}
    done = checkout.start(**index)
    assert (done.returncode, done.stdout) == (5, "")
    assert "installing platform.txt ended with" in done.stderr
    assert "surely-not-there" in done.stderr
    assert "  next: " in done.stderr


@pytest.fixture
def bare_path(tmp_path: Path) -> str:
    """A PATH with the programs that the script itself needs, and no Python."""
    tools = tmp_path / "tools"
    tools.mkdir()
    for name in ("dirname", "readlink", "cat", "sh"):
        (tools / name).symlink_to(str(shutil.which(name)))
    return str(tools)


def test_no_python_is_said_with_exit_5(checkout: Checkout, bare_path: str) -> None:
    done = checkout.start(PATH=bare_path)
    assert (done.returncode, done.stdout) == (5, "")
    assert "no Python 3.11 or newer" in done.stderr
    assert not checkout.venv.exists()


@pytest.mark.parametrize("python", ["/nowhere/python", "/bin/sh"])
def test_a_wrong_platform_python_is_named(checkout: Checkout, python: str) -> None:
    done = checkout.start(PLATFORM_PYTHON=python)
    assert done.returncode == 5
    assert f"PLATFORM_PYTHON={python}" in done.stderr


def test_a_python_without_ensurepip_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("scripts.make_env.importlib.util.find_spec", lambda name: None)
    with pytest.raises(make_env.EnvironmentProblem) as problem:
        list(make_env._with_pip(make_env.Environment(Path("/nowhere")), "platform"))
    assert int(problem.value.code) == 5
    assert "apt install python3-venv" in "\n".join(problem.value.lines())
    assert "uv" in "\n".join(problem.value.lines())


def test_the_environment_has_the_command_for_every_directory(checkout: Checkout, tmp_path: Path) -> None:
    checkout.start()
    (checkout.root / "platform_launcher.py").write_text(INVOKE)
    done = checkout.run([str(checkout.venv / "bin" / "platform"), "status", "a b"], tmp_path, {})
    assert done.stdout == f"{tmp_path}|{checkout.venv}|status|a b\n", done.stderr


def test_an_environment_of_an_earlier_version_gets_the_command_and_nothing_else(checkout: Checkout) -> None:
    checkout.start()
    (checkout.venv / "bin" / "platform").unlink()
    assert checkout.start().stderr == ""
    assert (checkout.venv / "bin" / "platform").exists()


LOCKED = """\
# a comment==1.0
one==1.0 \\
    --hash=sha256:00
two[more]==2.0 ; sys_platform == 'win32' \\
    --hash=sha256:00
three==3.0 ; python_full_version < '3.11.3' \\
    --hash=sha256:00
four==4.0 ; platform_machine == 'arm64' and sys_platform == 'darwin' or (sys_platform == 'linux') \\
    --hash=sha256:00
"""


@pytest.mark.parametrize(
    ("system", "machine", "python", "count"),
    [
        ("linux", "x86_64", "3.12.1", 2),
        ("win32", "AMD64", "3.12.1", 2),
        ("win32", "AMD64", "3.11.2", 3),
        ("darwin", "arm64", "3.11.10", 2),
        ("darwin", "x86_64", "3.13.0", 1),
    ],
)
def test_the_number_of_packages_is_what_this_machine_gets(
    monkeypatch: pytest.MonkeyPatch, system: str, machine: str, python: str, count: int
) -> None:
    facts = {"sys_platform": system, "platform_machine": machine, "python_full_version": python}
    monkeypatch.setattr(make_env, "_FACTS", {name: lambda value=value: value for name, value in facts.items()})
    assert make_env.packages(LOCKED) == count


def test_every_marker_of_the_lock_files_is_understood() -> None:
    from packaging.markers import Marker

    found = [f for path in (ROOT / "requirements").glob("*.txt") for f in make_env._PACKAGE.finditer(path.read_text())]
    markers = {f["marker"].strip() for f in found if f["marker"]}
    assert len(markers) > 3
    assert [m for m in markers if make_env.applies(m) != Marker(m).evaluate()] == []


PIP = """Collecting boto3==1.2.3 (from -r requirements/platform.txt (line 3))
  Downloading boto3-1.2.3-py3-none-any.whl (139 kB)
Collecting numpy==2.3.1 (from -r requirements/platform.txt (line 9))
"""
UV = "Resolved 60 packages in 2.10s\nDownloading botocore (13.9MiB)\nDownloading numpy (16.1MiB)\n"


@pytest.mark.parametrize(
    ("said", "doing"),
    [
        ("", "installing"),
        (PIP, "2 of 60 packages: numpy"),
        (f"{PIP}Installing collected packages: numpy, boto3\n", "writing files"),
        (UV, "downloading numpy"),
        (f"{UV}Prepared 60 packages in 3.00s\n", "writing files"),
        (f"{PIP}Collecting half of a li", "2 of 60 packages: numpy"),
    ],
)
@pytest.mark.parametrize("terminal", [True, False])
def test_progress_of_what_installers_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: str, doing: str, terminal: bool
) -> None:
    stream = Stream(tty=terminal)
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setattr(make_env, "EVERY", 0.0)
    monkeypatch.setenv("TERM", "xterm")
    log = tmp_path / "log"
    log.write_text(said)
    with make_env.Progress(log, 60, "installing") as progress:
        progress.tell()
        assert f"  {doing}, 0 s" in stream.said
    assert stream.said.endswith("\r\033[K" if terminal else "\n")


def test_without_a_terminal_a_line_now_and_then(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = tmp_path / "log"
    log.write_text(PIP)
    with make_env.Progress(log, 60, "installing") as progress:
        for _ in range(3):
            progress.tell()
        assert capsys.readouterr().err == "", "the interval has not passed"
        progress._last -= make_env.EVERY
        progress.tell()
        progress.tell()
    assert capsys.readouterr().err.count("\n") == 1


def test_a_slow_installer_is_reported_by_the_script(checkout: Checkout) -> None:
    script(checkout.root / "bin" / "uv.slow", "echo 'Downloading numpy (16.1MiB)'; sleep 2; exit 3")
    (checkout.root / "bin" / "uv").unlink()
    (checkout.root / "bin" / "uv").symlink_to("uv.slow")
    path = checkout.root / "scripts" / "make_env.py"
    path.write_text(path.read_text(encoding="utf-8").replace("EVERY = 15.0", "EVERY = 0.5"), encoding="utf-8")
    done = checkout.start()
    assert "downloading numpy, " in done.stderr
    assert "\033" not in done.stderr, "no terminal"
