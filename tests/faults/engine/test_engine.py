"""What happens to the engine while the platform is in it: restarted, killed, out of disk, a container out of memory."""

from __future__ import annotations

import shutil
import signal
import tempfile
from pathlib import Path

import pytest

from infra.errors import ExitCode
from tests.faults.engine.conftest import Broken, lacking, references, stack
from tests.rig import cache
from tests.rig.second_engine import second_engine

HUNGRY = """FROM {base}
ENTRYPOINT ["python3", "-c", "held = [bytearray(2**26) for _ in range(2**10)]"]
"""


@pytest.fixture(scope="module")
def running(broken: Broken) -> Broken:
    """The platform, up."""
    done = broken.up()
    assert done.returncode == 0, done.stderr + done.stdout
    return broken


def sees_row(broken: Broken) -> str:
    """What the table of a test holds."""
    return broken.engine.docker(
        "exec", "platform-postgres", "psql", "-U", "admin", "-d", "platform", "-tAc", "table kept"
    )


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL], ids=["restarted", "killed"])
@pytest.mark.fault(24)
def test_up_heals_what_an_engine_that_went_away_left(running: Broken, how: signal.Signals) -> None:
    psql = ("exec", "platform-postgres", "psql", "-U", "admin", "-d", "platform", "-c")
    running.engine.docker(*psql, f"drop table if exists kept; create table kept as select '{how.name}' as how")
    running.engine.stop(how)
    down = running.invoke("status")
    assert down.returncode in (ExitCode.DEPENDENCY, ExitCode.NOTHING), down.stderr
    assert "Traceback" not in down.stderr
    running.engine.start()
    healed = running.up()
    assert healed.returncode == 0, healed.stderr
    assert sees_row(running) == how.name


@pytest.mark.fault(24)
def test_a_container_that_is_killed_for_memory_is_named_with_its_limit(broken: Broken, tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text(HUNGRY.format(base=references()["REDIS_IMAGE"]), encoding="utf-8")
    broken.invoke("down", "--tier", "compose")
    broken.engine.docker("build", "--quiet", "--tag", "hungry:1", str(tmp_path))
    done = broken.up(REDIS_IMAGE="hungry:1")
    assert done.returncode == ExitCode.SERVICE_FAILED, done.stderr + done.stdout
    assert "redis" in done.stderr
    assert "memory" in done.stderr
    healed = broken.up()
    assert healed.returncode == 0, healed.stderr


@pytest.mark.fault(3)
def test_a_full_disk_below_docker_is_said_and_up_heals_once_there_is_room() -> None:
    if lacking():
        pytest.skip(lacking())
    home = Path(tempfile.mkdtemp(prefix="platform-test-", dir=cache.folder("tmp")))
    with second_engine("3g") as engine:
        engine.load(*references().values())
        platform = stack(engine, home)
        leave(engine.root, 20 * 2**20)
        full = platform.up()
        assert full.returncode == ExitCode.PREFLIGHT, full.stderr
        assert f"free in {engine.root}" in full.stderr
        assert platform.engine.docker("ps", "--all", "--quiet") == ""
        (engine.root / "filler").unlink()
        healed = platform.up()
        assert healed.returncode == 0, healed.stderr
    shutil.rmtree(home, ignore_errors=True)


def test_a_disk_that_fills_up_while_the_platform_runs(tmp_path: Path) -> None:
    if lacking():
        pytest.skip(lacking())
    home = Path(tempfile.mkdtemp(prefix="platform-test-", dir=cache.folder("tmp")))
    with second_engine("3g") as engine:
        engine.load(*references().values())
        platform = stack(engine, home)
        assert platform.up().returncode == 0
        leave(engine.root, 0)
        engine.docker("restart", "platform-postgres", check=False)
        full = platform.up()
        assert full.returncode not in (0, ExitCode.FAILED), full.stderr
        assert "No space left on device" in full.stderr or f"free in {engine.root}" in full.stderr
        assert "Traceback" not in full.stderr
        (engine.root / "filler").unlink()
        healed = platform.up()
        assert healed.returncode == 0, healed.stderr
    shutil.rmtree(home, ignore_errors=True)


def leave(directory: Path, size: int) -> None:
    """Fill a file system until only `size` bytes are free."""
    with open(directory / "filler", "wb") as file:
        rest = shutil.disk_usage(directory).free - size
        for _ in range(rest // 2**20):
            file.write(bytes(2**20))


def test_the_reason_for_leaving_these_out_is_said() -> None:
    assert lacking() == "" or "needs root" in lacking() or "tests.rig.up" in lacking()
