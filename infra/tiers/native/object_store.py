"""The commands of the object store engines that the native tier can run, for one store on one port."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from infra.errors import PlatformError
from infra.settings import Settings
from infra.sigv4 import REGION
from infra.stack import write_atomic
from infra.tiers.providers import Program


@dataclass(frozen=True)
class StorePlan:
    """What a store is to be: name, address, console port, keys, directory for data and one for caches.

    `origins` are those of the web pages that may call it beside its console.
    """

    name: str
    host: str
    port: int
    console_port: int
    access_key: str
    secret_key: str
    data: Path
    cache: Path
    origins: tuple[str, ...] = ()

    @property
    def pages(self) -> list[str]:
        """Origins whose pages may call the store: its console and those of the setting."""
        return [*(f"http://{host}:{self.console_port}" for host in (self.host, "localhost")), *self.origins]


@dataclass(frozen=True)
class Command:
    """Argument list and environment (which holds the keys) of a store."""

    argv: list[str]
    env: dict[str, str]


def command(program: Program, plan: StorePlan) -> Command:
    """How that engine runs that store."""
    argv, env = _ENGINES[program.engine](plan)
    return Command([str(program.path), *argv], env)


Built = tuple[list[str], dict[str, str]]


def _rclone(plan: StorePlan) -> Built:
    # The hasher keeps the MD5s that listings need; without it a listing after a restart reads every object again.
    # Configured by environment, so that no path has to be quoted in a connection string.
    remote = {"TYPE": "hasher", "REMOTE": str(plan.data), "HASHES": "md5", "MAX_AGE": "off"}
    env = {f"RCLONE_CONFIG_STORE_{key}": value for key, value in remote.items()}
    line = io.StringIO()
    csv.writer(line, lineterminator="").writerow([f"{plan.access_key},{plan.secret_key}"])
    env["RCLONE_AUTH_KEY"] = line.getvalue()
    flags = ["--config", os.devnull, "--cache-dir", str(plan.cache), "--addr", f"{plan.host}:{plan.port}"]
    # To signed requests it answers `*` whatever this says; this is what lets a page send more than a plain GET.
    pages = [word for origin in plan.origins for word in ("--allow-origin", origin)]
    return ["serve", "s3", *flags, *pages, "--no-cleanup", "store:"], env


def _minio(plan: StorePlan) -> Built:
    # Both directories named: otherwise it writes to ~/.minio, or ends where there is no home.
    conf = plan.cache / "conf"
    where = ["--config-dir", str(conf), "--certs-dir", str(conf / "certs")]
    address = ["--address", f"{plan.host}:{plan.port}", "--console-address", f"{plan.host}:{plan.console_port}"]
    env = {
        "MINIO_ROOT_USER": plan.access_key,
        "MINIO_ROOT_PASSWORD": plan.secret_key,
        "MINIO_PROMETHEUS_AUTH_TYPE": "public",
        "MINIO_UPDATE": "off",
        "MINIO_API_CORS_ALLOW_ORIGIN": ",".join(plan.pages),  # every page otherwise
    }
    return ["server", "--quiet", *where, *address, str(plan.data)], env


def _versitygw(plan: StorePlan) -> Built:
    # With a directory for users an unknown key gets 403 as elsewhere, not 404; with one for versions they are kept.
    beside = {flag: plan.cache / flag for flag in ("iam", "versions")}
    console = f"{plan.host}:{plan.console_port}"
    flags = ["--port", f"{plan.host}:{plan.port}", "--health", "/_health", "--quiet", "--region", REGION]
    web = ["--webui", console, "--cors-allow-origin", f"http://{console}", "--iam-dir", str(beside["iam"])]
    store = ["posix", "--versioning-dir", str(plan.data.with_name(f"{plan.name}-versions")), str(plan.data)]
    return [*flags, *web, *store], {"ROOT_ACCESS_KEY": plan.access_key, "ROOT_SECRET_KEY": plan.secret_key}


def _rustfs(plan: StorePlan) -> Built:
    """From the sources of RustFS 1.0; no build of it could be had to try it."""
    address = ["--address", f"{plan.host}:{plan.port}", "--console-address", f"{plan.host}:{plan.console_port}"]
    env = {
        "RUSTFS_ACCESS_KEY": plan.access_key,
        "RUSTFS_SECRET_KEY": plan.secret_key,
        "RUSTFS_CONSOLE_ENABLE": "true",
        "RUSTFS_CHECK_UPDATE": "false",
        "RUSTFS_OBS_LOGGER_LEVEL": "warn",
        "RUSTFS_CORS_ALLOWED_ORIGINS": ",".join(plan.pages),
        "RUSTFS_CONSOLE_CORS_ALLOWED_ORIGINS": ",".join(plan.pages[:2]),
    }
    return ["server", *address, "--region", REGION, str(plan.data)], env


def _weed(plan: StorePlan) -> Built:
    """From the sources of SeaweedFS 4; no build of it could be had to try it.

    Its other servers get the S3 port plus a fixed distance, so that two stores do not meet.
    """
    distances = {"s3.port": 0, "master.port": 20_000, "volume.port": 21_000, "filer.port": 22_000}
    ports = {name: _further(plan.port, distance) for name, distance in distances.items()}
    grpc = {f"{name}.grpc": _further(plan.port, distance + 10_000) for name, distance in distances.items()}
    fixed = {"master.peers": "none", "master.telemetry": "false", "master.volumeSizeLimitMB": "1024", "volume.max": "0"}
    flags = {"dir": plan.data, "ip": plan.host, "ip.bind": plan.host, **fixed, **ports, **grpc}
    argv = ["-logtostderr=true", "server", "-s3", *(f"-{name}={value}" for name, value in flags.items())]
    return argv, {"AWS_ACCESS_KEY_ID": plan.access_key, "AWS_SECRET_ACCESS_KEY": plan.secret_key}


MOST_ORIGINS: Mapping[str, int] = {"rclone": 1, "versitygw": 0}
"""Engines that can allow only so many origins by name, beside that of their console."""


def check_origins(engine: str, settings: Settings) -> None:
    """Refuse origins that the engine cannot allow.

    Raises:
        PlatformError: SETTING_INVALID.
    """
    most, wanted = MOST_ORIGINS.get(engine, len(settings.origins())), settings.origins()
    if len(wanted) > most:
        raise PlatformError(
            "SETTING_INVALID",
            f"PLATFORM_S3_ORIGINS names {len(wanted)} origins, and {engine} can allow {most}",
            why=f"it comes from {settings.origin('PLATFORM_S3_ORIGINS')}",
            steps=("choose another engine by PLATFORM_S3_SERVER", "or name fewer origins"),
        )


def _further(port: int, distance: int) -> int:
    """A port that far away, going round from 65535 to 1024."""
    return port if distance == 0 else 1024 + (port + distance - 1024) % (65536 - 1024)


def directories(program: Program, plan: StorePlan) -> list[Path]:
    """Directories that must be there before the engine starts."""
    extra = {"versitygw": [plan.cache / "iam", plan.data.with_name(f"{plan.name}-versions")]}
    return [plan.data, plan.cache, *extra.get(program.engine, [])]


_ENGINES: Mapping[str, Callable[[StorePlan], Built]] = {
    "rclone": _rclone,
    "minio": _minio,
    "silo": _minio,
    "rustfs": _rustfs,
    "versitygw": _versitygw,
    "weed": _weed,
}

LAYOUT: Mapping[str, str] = {"silo": "minio"}
"""Engines that read another one's data directory; every other engine reads only its own."""


def layout(engine: str) -> str:
    """The name of the on-disk format of an engine."""
    return LAYOUT.get(engine, engine)


def check_layout(home: Path, program: Program, setting_origin: str) -> None:
    """Refuse to open one engine's data with another, which would show empty stores.

    Raises:
        PlatformError: DATA_INCOMPATIBLE; nothing is touched.
    """
    noted = recorded(home)
    if noted and layout(noted) != layout(program.engine):
        raise PlatformError(
            "DATA_INCOMPATIBLE",
            f"the object stores' data was written by {noted}; {program.engine} cannot read it",
            why=f"PLATFORM_S3_SERVER comes from {setting_origin}",
            steps=(
                f"set PLATFORM_S3_SERVER={noted} to keep the data",
                "or delete it: invoke reset -s minio-datasets,minio-results",
            ),
            details={"data": noted, "program": program.engine},
        )


def recorded(home: Path) -> str:
    """The engine that wrote the stores' data, or '' when there is none yet.

    Raises:
        PlatformError: DATA_INCOMPATIBLE when the note names none; a guess might show empty stores.
    """
    note = home / "store-engine"
    try:
        engine = note.read_text(encoding="ascii", errors="replace").strip()
    except OSError:
        return ""
    if engine and engine not in _ENGINES:
        raise PlatformError(
            "DATA_INCOMPATIBLE",
            f"{note} is damaged: it says which program wrote the object stores' data",
            steps=("write that program's name into it: rclone, unless you have chosen another one",),
        )
    return engine


def record(home: Path, engine: str) -> None:
    """Note which engine writes the data."""
    if recorded(home) != engine:
        write_atomic(home / "store-engine", engine + "\n")
