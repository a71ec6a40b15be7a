"""The releases of the platform, with their values: made from the catalogue, the settings and the charts."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from infra import catalog, references, rows, setting_rules
from infra.errors import PlatformError, nearest
from infra.kube import helm_cli
from infra.kube.helm_cli import Deploy
from infra.settings import Settings

FINGERPRINT = "platform-fingerprint"
"""Label of a release's Secret: a hash of all that it was made from."""
RELEASES_OF: Mapping[str, str] = {s.name: s.release for s in catalog.SERVICES if s.release}
"""The release that runs a service of the catalogue."""

APPLICATION_IMAGES = {"platform": {"backend.image": "BACKEND_IMAGE", "frontend.image": "FRONTEND_IMAGE"}}


def parts_of(release: str) -> list[tuple[rows.Service, rows.Part]]:
    """Return the parts of which a release's values speak, each with its service."""
    return [(s, p) for s in catalog.SERVICES if s.release == release for p in s.parts if p.section is not None]


def images(release: str) -> dict[str, str]:
    """Return where the values of a release name an image, and the setting that replaces it."""
    found = {f"{part.section}.image".removeprefix("."): part.image for _, part in parts_of(release)}
    return found or dict(APPLICATION_IMAGES.get(release, {}))


def volumes(release: str) -> tuple[str, ...]:
    """Return where the values of a release speak of a volume."""
    found = (f"{part.section}.persistence".removeprefix(".") for _, part in parts_of(release) if part.volume)
    return tuple(dict.fromkeys(found))


@dataclass(frozen=True)
class Profile:
    """The way releases are made for one kind of cluster.

    `name` is that of the values files, values-<name>.yaml; `storage_class` is for volumes, '' leaves it to the values;
    `grafana_password` is Grafana's where the settings have none of their own.
    """

    name: str = ""
    storage_class: str = ""
    grafana_password: str = ""


PLAIN = Profile()
"""The profile that leaves the charts' own values."""


@dataclass(frozen=True)
class Wanted:
    """A release as it should be: what to deploy, the values that go by standard input, the hash of everything."""

    chart: rows.Chart
    deploy: Deploy
    stdin: str
    fingerprint: str

    @property
    def name(self) -> str:
        """The release's name."""
        return self.chart.release


def charts(overlays: Iterable[str]) -> tuple[rows.Chart, ...]:
    """Return our releases of some overlays, in the order of the catalogue."""
    wanted = set(overlays)
    return tuple(c for c in catalog.CHARTS if c.overlay in wanted)


def chart(name: str) -> rows.Chart:
    """Return a release by its name, also one of an upstream chart.

    Raises:
        PlatformError: USAGE, with the nearest name.
    """
    known = {c.release: c for c in (*catalog.UPSTREAM_CHARTS, *catalog.CHARTS)}
    if name in known:
        return known[name]
    steps = (*nearest(name, known), f"the releases are: {', '.join(sorted(known))}")
    raise PlatformError("USAGE", f"there is no release {name!r}", steps=steps)


def with_needs(names: Iterable[str]) -> tuple[rows.Chart, ...]:
    """Return the releases and those they need, in the order of the catalogue."""
    wanted = set(names)
    while True:
        needed = {n for c in catalog.CHARTS if c.release in wanted for n in c.needs} - wanted
        if not needed:
            return tuple(c for c in catalog.CHARTS if c.release in wanted)
        wanted |= needed


def of_services(services: Iterable[str]) -> tuple[rows.Chart, ...]:
    """Return the releases that run some services, with what these need."""
    return with_needs({RELEASES_OF[s] for s in services if s in RELEASES_OF})


def services_of(release: str) -> tuple[str, ...]:
    """Return the services of the catalogue that a release runs."""
    return tuple(s for s, r in RELEASES_OF.items() if r == release)


def values(release: str, settings: Settings, services: Iterable[str] = (), profile: Profile = PLAIN) -> dict[str, Any]:
    """Return the values that come from this machine's settings; what the values files say is not repeated.

    Args:
        services: those that are to run: parts of a release that has several, and what others make use of.
        profile: that of the cluster.
    """
    found: dict[str, Any] = {}
    for path, setting in images(release).items():
        if settings.text(setting):
            _put(found, f"{path}.ref", settings.text(setting))
    found |= _upstream_image(release, settings)
    for path, value in (
        *_logins(release, settings, profile).items(),
        *_parts(release, set(services), left_out(settings)).items(),
        *_trackers(release, settings, set(services)).items(),
    ):
        _put(found, path, value)
    for path in volumes(release) if profile.storage_class else ():
        _put(found, f"{path}.storageClass", profile.storage_class)
    return found


def _upstream_image(release: str, settings: Settings) -> dict[str, Any]:
    """Return the image of an upstream chart where a setting replaces it; a digest takes the place of the tag."""
    path, setting = next((c.image for c in catalog.UPSTREAM_CHARTS if c.release == release), ("", ""))
    found: dict[str, Any] = {}
    if setting and settings.text(setting):
        name, _, tag = references.full(settings.text(setting)).rpartition(":")
        _put(found, path, {"repository": name, "tag": tag})
    return found


def left_out(settings: Settings) -> set[str]:
    """Return what the user does not want with observability."""
    return set(settings.words("PLATFORM_LEAVE_OUT"))


def _parts(release: str, services: set[str], out: set[str]) -> dict[str, Any]:
    """Switch the optional parts of a release: those of the services that are wanted run, less what is left out."""
    optional = [(service.name, part) for service, part in parts_of(release) if part.optional] if services else []
    return {f"{part.section}.enabled": name in services and part.name not in out for name, part in optional}


def _trackers(release: str, settings: Settings, services: set[str]) -> dict[str, Any]:
    """Set where trainings in the cluster are tracked: as `.env` says it of those outside."""
    named = settings.words("OBSERVABILITY_BACKENDS")
    found = list(named) or ["database", *(["mlflow"] if "mlflow" in services else [])]
    return {"observabilityBackends": found} if release == "platform" else {}


def _logins(release: str, settings: Settings, profile: Profile) -> dict[str, Any]:
    """Return the logins of the settings, where a release makes or uses them."""
    rows = [row for s in catalog.SERVICES if s.release == release for row in s.values]
    rows += [row for c in catalog.CHARTS if c.release == release for row in c.values]
    return {path: settings.text(name) for path, name in rows} | _made(release, settings, profile)


def _made(release: str, settings: Settings, profile: Profile) -> dict[str, Any]:
    """Make those values of a release that are no setting as it stands."""
    if passwords := [s.password for s in catalog.SERVICES if s.release == release and s.password]:
        return {"auth.enabled": any(settings.text(name) for name in passwords)}
    if release == "platform":
        target = settings.text("PLATFORM_NOTIFY")  # a program of this machine is not in an image
        return {"notify.target": target} if setting_rules.is_webhook(target) else {}
    if release == "minio":
        return {"corsOrigins": list(settings.origins())}
    if release == "temporal":
        engine = "dev" if settings.light else "single"
        return {"namespaces": [{"name": settings.text("TEMPORAL_NAMESPACE"), "retention": "72h"}], "engine": engine}
    own = settings.origin("GRAFANA_ADMIN_PASSWORD") != "default"
    if release == "observability" and profile.grafana_password and not own:
        return {"grafana.auth.password": profile.grafana_password}
    return {}


def _put(tree: dict[str, Any], path: str, value: Any) -> None:
    *parents, last = path.split(".")
    for name in parents:
        tree = tree.setdefault(name, {})
    tree[last] = value


def wanted(
    chart: rows.Chart,
    settings: Settings,
    services: Iterable[str] = (),
    sets: Sequence[str] = (),
    profile: Profile = PLAIN,
) -> Wanted:
    """Return one of our own releases, from its folder, the values of the profile and the settings.

    Args:
        services: of a release that runs several, those that are to run.
        sets: `key=value` texts of the user, which win.
        profile: that of the cluster.
    """
    folder, upstream = settings.root / "helm" / chart.release, bool(chart.source)
    files = (*([folder / "values.yaml"] if upstream else []), folder / f"values-{profile.name}.yaml")
    stdin = json.dumps(values(chart.release, settings, services, profile), sort_keys=True)
    mark = fingerprint(folder, stdin, (*sets, chart.version))
    charts = settings.text("PLATFORM_CHARTS")
    where = located(chart, Path(charts).expanduser() if charts else None) if upstream else str(folder)
    deploy = Deploy(
        release=chart.release,
        chart=where,
        namespace=chart.namespace,
        version=chart.version if is_address(where) else "",
        values=(*(str(f) for f in files if f.exists()), helm_cli.STDIN),
        sets=tuple(sets),
        labels={FINGERPRINT: mark},
    )
    return Wanted(chart, deploy, stdin, mark)


def located(chart: rows.Chart, charts: Path | None) -> str:
    """Return where an upstream chart is: a file of the folder `charts`, else its address."""
    names = [f"{chart.release}-{version}.tgz" for version in (chart.version, chart.version.removeprefix("v"))]
    found = [charts / name for name in names if (charts / name).is_file()] if charts else []
    return str(found[0]) if found else reference(chart)


def is_address(where: str) -> bool:
    """Return whether a chart is in a registry or repository, where its version has to be named."""
    return where.startswith(("oci://", "https://"))


def reference(chart: rows.Chart) -> str:
    """Name an upstream chart as Helm does: the address of the chart itself."""
    return chart.source if chart.source.startswith("oci://") else f"{chart.source.rstrip('/')}/{chart.chart}"


def fingerprint(folder: Path, stdin: str, more: Sequence[str]) -> str:
    """Return a hash of a chart's files and of what it is given; hidden files and what nobody renders are left out."""
    digest = hashlib.sha256()
    for path in sorted(p for p in folder.rglob("*") if p.is_file() and not p.name.startswith(".")):
        if path.name not in ("values-production.yaml", "README.md"):
            digest.update(path.relative_to(folder).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    digest.update("\0".join((stdin, *more)).encode())
    return digest.hexdigest()[:16]


def misfit(name: str, why: str) -> PlatformError:
    """Return the error for a value that a chart refuses, or misses; Helm has changed nothing then."""
    hints = (f"see helm/{name}/values.yaml", "set one with --set key=value")
    what = f"a value of the release {name} is missing or does not match its chart; nothing was changed"
    return PlatformError("USAGE", what, why=why, steps=hints)


@dataclass(frozen=True)
class Deployed:
    """A release as Helm has it in the cluster: its newest revision, that one's status and our hash of it."""

    name: str
    namespace: str
    revision: int
    status: str
    fingerprint: str = ""
    last_good: int = 0

    @property
    def pending(self) -> bool:
        """Return whether a run of Helm changes it now, or was killed while it did."""
        return self.status.startswith("pending-")


def deployed(secrets: Sequence[Mapping[str, Any]]) -> dict[str, Deployed]:
    """Return the releases from the Secrets in which Helm keeps them (labels: helm pkg/storage/driver/secrets.go)."""
    found: dict[str, Deployed] = {}
    for labels, namespace in sorted(_release_labels(secrets), key=lambda entry: int(entry[0].get("version", 0))):
        name, status = labels["name"], labels.get("status", "")
        revision, before = int(labels.get("version", 0)), found.get(name)
        good = revision if status in ("deployed", "superseded") else (before.last_good if before else 0)
        found[name] = Deployed(name, namespace, revision, status, labels.get(FINGERPRINT, ""), good)
    return found


def _release_labels(secrets: Sequence[Mapping[str, Any]]) -> list[tuple[Mapping[str, str], str]]:
    known = [(s["metadata"].get("labels") or {}, s["metadata"]["namespace"]) for s in secrets]
    return [(labels, namespace) for labels, namespace in known if labels.get("owner") == "helm" and "name" in labels]
