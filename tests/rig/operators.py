"""Stand-ins for what a production cluster runs: CloudNativePG, its backup plugin, its PostgreSQL, JobSet, Kueue.

They are made by `python -m tests.rig.up --operators` alone: it takes minutes and only the rehearsal needs them.
Each recipe brings the manifests of its module beside the program, so that both are of one version.
"""

from __future__ import annotations

import tarfile
from pathlib import Path

from tests.rig import cache, images, parts
from tests.rig.parts import Debs, GoFiles, GoProgram, Wheels
from tests.rig.recipes import Recipe

CNPG = ("github.com/cloudnative-pg/cloudnative-pg", "v1.30.0")
"""1.30.1 needs modules that the proxy does not have."""
BARMAN = ("github.com/cloudnative-pg/plugin-barman-cloud", "v0.13.0")
JOBSET = ("sigs.k8s.io/jobset", "v0.12.0")
KUEUE = ("sigs.k8s.io/kueue", "v0.19.2")

_LIBRARIES = (
    *("libc6", "libgcc-s1", "libstdc++6", "zlib1g", "libzstd1", "liblz4-1", "libxxhash0", "liburing2", "libnuma1"),
    *("libicu78", "libxml2-16", "libxslt1.1", "libuuid1", "libreadline8t64", "libtinfo6", "libssl3t64", "libpq5"),
    *("libpam0g", "libaudit1", "libcap-ng0", "libcap2", "libsystemd0", "libselinux1", "libpcre2-8-0"),
    *("libgssapi-krb5-2", "libkrb5-3", "libk5crypto3", "libkrb5support0", "libcom-err2", "libkeyutils1"),
    *("libldap2", "libsasl2-2", "libdb5.3t64", "libgcrypt20", "libgpg-error0"),
)
SERVER = Debs(("postgresql-18", "postgresql-client-18", *_LIBRARIES, "tzdata", "busybox"), suite="sid")
"""Debian's PostgreSQL with the libraries of the same suite: the wheel's has no TLS, which the operator demands."""

_STORE = ("boto3", "botocore", "s3transfer", "jmespath", "python-dateutil", "six", "urllib3")
_BARMAN = ("barman", "psycopg2-binary")

OPERATORS = (
    Recipe("cnpg-postgres", "18.6", parts=(SERVER,)),
    Recipe("cnpg-operator", "1.30.0", parts=(GoProgram(*CNPG, "./cmd/manager", "manager"),)),
    Recipe(
        "barman-plugin",
        "0.13.0",
        parts=(
            GoProgram(*BARMAN, "./cmd/manager", "manager"),
            Wheels("rig", _BARMAN),
            Wheels("platform", _STORE, name="store"),
        ),
    ),
    Recipe("jobset", "0.12.0", ("JOBSET_IMAGE",), parts=(GoProgram(*JOBSET, ".", "manager"),)),
    Recipe("kueue", "0.19.2", ("KUEUE_IMAGE",), parts=(GoProgram(*KUEUE, "./cmd/kueue", "manager"),)),
)
"""In the order in which they are made."""

CHARTS = {
    "jobset": GoFiles(*JOBSET, ("charts/jobset",), name="chart"),
    "kueue": GoFiles(*KUEUE, ("charts/kueue",), name="chart"),
}
"""Charts of the same modules, by the name of their recipe."""

MANIFESTS = {
    "cnpg-operator": GoFiles(*CNPG, ("releases/cnpg-1.30.0.yaml",), name="manifests"),
    "barman-plugin": GoFiles(*BARMAN, ("manifest.yaml",), name="manifests"),
}
"""By the name of the recipe that they belong to."""


def manifests(name: str, log: Path) -> Path:
    """The directory with the manifests of an operator.

    Raises:
        RigProblem: the module is not available.
    """
    return parts.ready(MANIFESTS[name], name, log)


def charts() -> Path:
    """The folder of the charts, packed as Helm takes them: PLATFORM_CHARTS."""
    return cache.folder("charts")


def packed() -> bool:
    """Whether all charts are there."""
    return all(_archive(name).exists() for name in CHARTS)


def pack(log: Path) -> None:
    """Pack the charts.

    Raises:
        RigProblem: a module is not available.
    """
    for name, files in CHARTS.items():
        target, source = _archive(name), parts.ready(files, name, log) / "charts" / name
        with tarfile.open(target.with_suffix(".new"), "w:gz") as archive:
            archive.add(source, name)
        target.with_suffix(".new").replace(target)


def _archive(name: str) -> Path:
    version = next(recipe.tag for recipe in OPERATORS if recipe.name == name)
    return charts() / f"{name}-{version}.tgz"


def values() -> dict[str, str]:
    """Settings, where everything for the queue of trainings is there."""
    made = {s: r.reference for r in OPERATORS for s in r.settings if images.present(r)}
    return {**made, "PLATFORM_CHARTS": str(charts())} if len(made) == len(CHARTS) and packed() else {}
