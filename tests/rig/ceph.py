"""Ceph's S3 gateway over a store in memory: a server that takes every legal key, with versions and conditions.

The programs are Debian's: installed, or unpacked below the directory that TEST_CEPH_ROOT names, by default one in
the user's cache. `python -m tests.rig.ceph` fetches them there (70 MB, Debian 12 or 13; nothing of the system changes).
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from infra.data.objects.login import StoreLogin
from tests.rig import engines
from tests.rig.engines import ACCESS, SECRET, free_port

ROOT_VARIABLE = "TEST_CEPH_ROOT"
PACKAGES = ("ceph-mon", "ceph-osd", "ceph-common", "radosgw")
PROGRAMS = ("ceph-authtool", "monmaptool", "osdmaptool", "ceph-mon", "ceph-osd", "radosgw", "radosgw-admin")
LIMIT = 90.0
"""Seconds for the whole cluster to come up."""


@dataclass(frozen=True)
class Ceph:
    """Where Ceph's files are: '' for those that are installed."""

    root: str
    home: Path

    @property
    def env(self) -> dict[str, str]:
        """The environment that unpacked programs need to find their libraries."""
        if not self.root:
            return dict(os.environ)
        places = [*Path(self.root).glob("usr/lib/*-linux-gnu"), *Path(self.root).glob("lib/*-linux-gnu")]
        found = [*places, *(p / "ceph" for p in places), Path(self.root) / "usr/lib"]
        return {**os.environ, "LD_LIBRARY_PATH": ":".join(map(str, found))}

    def argv(self, program: str, *words: str) -> list[str]:
        """The command line of one of the programs."""
        path = f"{self.root}/usr/bin/{program}" if self.root else program
        return [path, "-c", str(self.home / "conf"), *words]

    def run(self, program: str, *words: str) -> None:
        """Run a program to its end. Raises subprocess.CalledProcessError."""
        argv = self.argv(program, *words)
        subprocess.run(argv, env=self.env, cwd=self.home, check=True, capture_output=True, timeout=LIMIT)

    def libraries(self, name: str) -> str:
        """A directory of plugins."""
        found = sorted(Path(f"{self.root}/usr/lib").glob(f"*-linux-gnu/{name}"))
        return str(found[0]) if found else f"/usr/lib/{name}"


def unpacked() -> Path:
    """Where programs are that are not installed."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return Path(os.environ.get(ROOT_VARIABLE) or cache / "vision-platform-tests" / "ceph")


def fetch(root: Path) -> None:
    """Download Debian's packages and unpack them below `root`, once; the system's own packages are left alone.

    Raises:
        sh.ErrorReturnCode: apt-get cannot have them (it must have run `update` once, and needs root).
    """
    import sh  # POSIX only, as these packages

    if root.is_dir():
        return
    packages = root.with_name(f"{root.name}-packages")
    (packages / "partial").mkdir(parents=True, exist_ok=True)
    where = ["-o", f"Dir::Cache::archives={packages}", "-o", "APT::Sandbox::User=root"]
    only = ["--download-only", "--no-install-recommends"]
    sh.apt_get("install", "-y", "-qq", *only, *where, *PACKAGES, _fg=True)
    part = root.with_name(f"{root.name}-part")
    shutil.rmtree(part, ignore_errors=True)
    for package in sorted(packages.glob("*.deb")):
        sh.dpkg("-x", package, part)
    part.rename(root)
    shutil.rmtree(packages)


def _found() -> str:
    """The root of the programs, '' for the system's. Raises FileNotFoundError naming the first that is missing."""
    if all(shutil.which(name) for name in PROGRAMS):
        return ""
    root = unpacked()
    for name in PROGRAMS:
        if not (root / "usr/bin" / name).is_file():
            raise FileNotFoundError(f"{name} (`python -m tests.rig.ceph` fetches it on Debian)")
    return str(root)


@contextlib.contextmanager
def gateway(home: Path) -> Iterator[StoreLogin]:
    """A gateway for the block. Raises FileNotFoundError where Ceph is not installed."""
    ceph = Ceph(_found(), home)
    port = free_port()
    _prepare(ceph, port)
    with contextlib.ExitStack() as stack:
        for program, words in (
            ("ceph-mon", ("-f", "-i", "a")),
            ("ceph-osd", ("-f", "-i", "0")),
            ("radosgw", ("-f", "-n", "client.rgw.a", "--keyring", str(home / "keyring"))),
        ):
            stack.enter_context(engines.running(ceph.argv(program, *words), home, ceph.env))
        login = StoreLogin("minio-datasets", "127.0.0.1", port, ACCESS, SECRET)
        _make_user(ceph)
        engines.answering(login)
        yield login


def _prepare(ceph: Ceph, port: int) -> None:
    """Configuration, keys and maps of a cluster of one monitor and one store."""
    home, fsid = ceph.home, str(uuid.uuid4())
    monitor = f"[v2:127.0.0.1:{free_port()},v1:127.0.0.1:{free_port()}]"
    (home / "conf").write_text(_configuration(ceph, fsid, monitor, port))
    rights = {
        "mon.": {"mon": "allow *"},
        "client.admin": {"mon": "allow *", "osd": "allow *", "mgr": "allow *", "mds": "allow *"},
        "client.rgw.a": {"mon": "allow rwx", "osd": "allow rwx"},
        "osd.0": {"mon": "allow profile osd", "osd": "allow *", "mgr": "allow profile osd"},
    }
    for number, (name, allowed) in enumerate(rights.items()):
        caps = [word for kind, what in allowed.items() for word in ("--cap", kind, what)]
        create = () if number else ("--create-keyring",)
        ceph.run("ceph-authtool", str(home / "keyring"), *create, "--gen-key", "-n", name, *caps)
    ceph.run("monmaptool", "--create", "--addv", "a", monitor, "--fsid", fsid, str(home / "monmap"))
    ceph.run("osdmaptool", "--createsimple", "1", str(home / "osdmap"))
    maps = ("--monmap", str(home / "monmap"), "--osdmap", str(home / "osdmap"), "--keyring", str(home / "keyring"))
    ceph.run("ceph-mon", "-i", "a", "--mkfs", *maps)
    (home / "osd").mkdir()
    ceph.run(
        "ceph-osd",
        "--no-mon-config",
        "-i",
        "0",
        "--mkfs",
        "--osd-uuid",
        str(uuid.uuid4()),
        "--keyring",
        str(home / "keyring"),
    )


def _configuration(ceph: Ceph, fsid: str, monitor: str, port: int) -> str:
    home = ceph.home
    low = free_port()
    settings = {
        "fsid": fsid,
        "mon_host": monitor,
        "mon_initial_members": "a",
        "public_addr": "127.0.0.1",
        "cluster_addr": "127.0.0.1",
        "ms_bind_port_min": low,
        "ms_bind_port_max": low + 200,
        "osd_pool_default_size": 1,
        "osd_pool_default_min_size": 1,
        "osd_pool_default_pg_num": 4,
        "osd_pool_default_pg_autoscale_mode": "off",
        "osd_crush_chooseleaf_type": 0,
        "mon_allow_pool_size_one": "true",
        "mon_max_pg_per_osd": 500,
        "osd_objectstore": "memstore",
        "memstore_device_bytes": 6442450944,
        "osd_class_dir": ceph.libraries("rados-classes"),
        "plugin_dir": ceph.libraries("ceph"),
        "erasure_code_dir": f"{ceph.libraries('ceph')}/erasure-code",
        "mon_data": home / "mon",
        "osd_data": home / "osd",
        "rgw_data": home / "rgw",
        "run_dir": home,
        "admin_socket": home / "$name.asok",
        "log_file": home / "$name.log",
        "keyring": home / "keyring",
        "rgw_frontends": f'"beast endpoint=127.0.0.1:{port} tcp_nodelay=1"',
    }
    return "[global]\n" + "".join(f"{name} = {value}\n" for name, value in settings.items())


def _make_user(ceph: Ceph) -> None:
    """A user with our keys, as soon as the cluster answers."""
    words = ("user", "create", "--uid=rig", "--display-name=rig", f"--access-key={ACCESS}", f"--secret-key={SECRET}")
    end = time.monotonic() + LIMIT
    while True:
        try:
            ceph.run("radosgw-admin", *words)
            return
        except subprocess.SubprocessError:
            if time.monotonic() > end:
                raise
            time.sleep(0.5)


if __name__ == "__main__":
    fetch(unpacked())
