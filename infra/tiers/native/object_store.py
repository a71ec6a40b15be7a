"""The commands of the object store engines that the native tier can run, for one store on one port."""

from __future__ import annotations

import csv
import hashlib
import hmac
import io
import os
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from infra import catalog
from infra.errors import PlatformError
from infra.settings import Settings
from infra.sigv4 import REGION
from infra.stack import write_atomic
from infra.tiers.providers import Program


@dataclass(frozen=True)
class StorePlan:
    """The plan of one store: name, address, ports, keys, directory for data and one for caches.

    `origins` are those of the web pages that may call it beside its console. `internal_port` is the first of
    catalog.STORE_SPAN ports, `signing_key` a secret of the stack, `certificate` a file with a key and its certificate;
    only engines of several servers use them.
    """

    name: str
    host: str
    port: int
    console_port: int
    access_key: str
    secret_key: str
    data: Path
    cache: Path
    internal_port: int = 0
    signing_key: str = ""
    certificate: Path | None = None
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
    """Return the command line and environment with which its engine runs that store."""
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
    """Build RustFS's arguments, from the sources of 1.0; not tried, since no build of it was available."""
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
    """Build the arguments of SeaweedFS 4 as one process, `weed mini`: `weed server` does not end on SIGTERM.

    Only S3 answers over HTTP: without -disableHttp any web page could make its master delete a bucket's data. The
    other parts want tokens, and over gRPC, which asks for no login, the certificate of the stack: other users of the
    machine could list and delete everything there. -ip.bind alone leaves some ports on all addresses. A bucket that is
    not there is not made by a write, one that is not empty is not deleted.

    A master that resumes its state is not yet the leader when the first volume server asks for it, and refuses writes
    for 5 s; what it needs it learns from that server's volumes, as `weed master` does. A volume server does not end
    before connections that its own clients have opened in vain are idle for -idleTimeout, in seconds (30 by default).
    """
    ports = {name: plan.internal_port + n for name, n in WEED_PORTS.items()}
    switches = {
        **{"webdav": "false", "admin.ui": "false", "s3.port.iceberg": 0, "s3.port.lance": 0},
        **{"master.telemetry": "false", "master.resumeState": "false", "disableHttp": "true"},
        **{"volume.preStopSeconds": 1, "idleTimeout": 3},
        **{"s3.autoCreateBucket": "false", "s3.allowDeleteBucketNotEmpty": "false"},
        **{"s3.allowedOrigins": ",".join(plan.origins), "filer.allowedOrigins": ""},
    }
    flags = {"dir": plan.data, "ip": plan.host, "ip.bind": plan.host, "metricsIp": plan.host, "s3.port": plan.port}
    argv = ["-logtostderr=true", "mini", *(f"-{name}={value}" for name, value in (flags | ports | switches).items())]
    keys = {"AWS_ACCESS_KEY_ID": plan.access_key, "AWS_SECRET_ACCESS_KEY": plan.secret_key}
    return argv, {**keys, **_weed_tokens(plan.signing_key), **_weed_tls(plan.certificate), **_weed_memory(plan.data)}


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


_IN_A_ROW = (
    *("s3.port.grpc", "master.port", "master.port.grpc", "volume.port", "volume.port.grpc"),
    *("filer.port", "filer.port.grpc", "admin.port", "metricsPort"),
)
WEED_PORTS: Mapping[str, int] = {
    **{name: n for n, name in enumerate(_IN_A_ROW)},
    "admin.port.grpc": catalog.STORE_ADMIN + catalog.STORE_FAR,
}
"""Flags of the internal ports, each with its distance from the first; -admin.ui=false does not keep the admin ports
closed, and a worker that does not find the second one looks for it every five seconds, with a line in the log."""


def _weed_memory(data: Path) -> dict[str, str]:
    """Set how much memory a store may take, and where it lists its objects.

    Without a limit 734 MB after a suite of S3 tests. The limit counts all that is reserved, not what is used, and most
    of that are buffers whose pages are hardly touched: 16 MB to write for each LevelDB, of which the list of objects
    has eight by default, and 80 MB of windows of its log. A limit that these alone reach (once 256 MiB for 270 MB)
    makes an idle store collect garbage 2.5 times a second, for good, with 14 times the CPU. So the list is one
    LevelDB, which saves 112 MB of reserves and 30 MB of PSS; a store that has eight keeps them, and its limit. GOGC
    keeps the garbage small: 25 % of the heap. Most of an upload is MD5 (37 %: the object's and each chunk's), which Go
    computes without vectors; sockets take 16 %, clearing buffers 12 %.
    """
    if _has_eight_lists(data):
        return {"GOGC": "25", "GOMEMLIMIT": "400MiB"}
    one = {"WEED_LEVELDB2_ENABLED": "false", "WEED_LEVELDB_ENABLED": "true", "WEED_LEVELDB_DIR": str(data / _LIST)}
    return {"GOGC": "25", "GOMEMLIMIT": "256MiB", **one}


_LIST = "filerldb"


def _has_eight_lists(data: Path) -> bool:
    """Return whether a store of an earlier version lists its objects here; its directory alone is made in any case."""
    return not (data / _LIST).exists() and (data / "filerldb2" / "00").exists()


def _weed_tokens(key: str) -> dict[str, str]:
    """Derive the token keys that volume server and filer require, all from one key of the stack."""
    names = ("SIGNING_KEY", "SIGNING_READ_KEY", "FILER_SIGNING_KEY", "FILER_SIGNING_READ_KEY")
    return {f"WEED_JWT_{n}": hmac.new(key.encode(), n.encode(), hashlib.sha256).hexdigest() for n in names}


def _weed_tls(certificate: Path | None) -> dict[str, str]:
    """Make its parts show each other one certificate, and accept no other (weed/security/tls.go)."""
    if certificate is None:
        return {}
    parts = ("MASTER", "VOLUME", "FILER", "S3", "ADMIN", "WORKER", "CLIENT")
    pairs = {f"WEED_GRPC_{part}_{which}": str(certificate) for part in parts for which in ("CERT", "KEY")}
    return {"WEED_GRPC_CA": str(certificate), **pairs}


def directories(program: Program, plan: StorePlan) -> list[Path]:
    """Return the directories that must be there before the engine starts."""
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
    """Return the name of the on-disk format of an engine."""
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
                f"or move it: remove PLATFORM_S3_SERVER, then: invoke minio.engine --to {program.engine}",
            ),
            details={"data": noted, "program": program.engine},
        )


def recorded(home: Path) -> str:
    """Return the engine that wrote the stores' data, or '' when there is none yet.

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
            f"{note} is damaged; it names the program that wrote the object stores' data",
            steps=("write that program's name into it: rclone, unless you chose another one",),
        )
    return engine


def record(home: Path, engine: str) -> None:
    """Note which engine writes the data."""
    if recorded(home) != engine:
        write_atomic(home / "store-engine", engine + "\n")


VERIFIED = "verified"


def moving(home: Path) -> Path:
    """Return the directory in which a move of the stores to another engine prepares the new data."""
    return home / "engine-move"


def move_to_finish(home: Path) -> str:
    """Return the engine of a move whose new data is verified and whose switch was cut short; '' where there is none."""
    try:
        return (moving(home) / VERIFIED).read_text(encoding="ascii", errors="replace").strip()
    except OSError:
        return ""


def refuse_unfinished(home: Path) -> None:
    """Start no store in the middle of a switch, which could be an empty one. Raises PlatformError DATA_INCOMPATIBLE."""
    if engine := move_to_finish(home):
        raise PlatformError(
            "DATA_INCOMPATIBLE",
            f"moving the object stores to {engine} was interrupted; all data is there",
            steps=(f"invoke minio.engine --to {engine} --yes finishes it",),
        )


def certificate_file(home: Path) -> Path:
    """Return the file with the key and the certificate of the stack's stores; there after `ensure_secrets`."""
    return home / "store-tls.pem"


def signing_key(home: Path) -> str:
    """Return the stack's secret for the tokens between the parts of a store; '' before `ensure_secrets`."""
    try:
        return (home / "store-key").read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):
        return ""


def ensure_secrets(home: Path, engine: str) -> None:
    """Make the tokens' secret and SeaweedFS' certificate, in private files, where there are none. Raises OSError."""
    if not signing_key(home):
        write_atomic(home / "store-key", secrets.token_hex(32) + "\n", mode=0o600)
    if engine == "weed" and not certificate_file(home).exists():
        from infra import certificate

        write_atomic(certificate_file(home), certificate.make("platform object stores"), mode=0o600)
