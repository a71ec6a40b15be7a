"""A site as plain YAML: what is checked, compared and applied is these bytes.

One folder for each wave, one object per file, a kustomization in each, and the images with their digests.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from infra import shell
from infra.errors import PlatformError
from infra.kube import releases
from infra.kube.helm_cli import STDIN, Deploy, Helm
from infra.prod import base, external, images, values
from infra.prod.site import Site

SITE = "platform/site"
"""Label of everything that belongs to a site."""
MARK = "images.lock"
"""A file at the top of what was rendered: a folder with it may be written again."""
CLUSTER_WIDE = frozenset(
    {
        *("Namespace", "ClusterRole", "ClusterRoleBinding", "CustomResourceDefinition", "PriorityClass"),
        *("ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding", "StorageClass", "APIService"),
        *("MutatingWebhookConfiguration", "ValidatingWebhookConfiguration", "IngressClass", "ClusterIssuer"),
        *("ResourceFlavor", "ClusterQueue", "WorkloadPriorityClass"),
    }
)
"""Kinds that have no namespace."""
GITOPS = "gitops"
"""Folder with what makes Argo CD or Flux apply the others."""
Object = dict[str, Any]


@dataclass(frozen=True)
class Rendered:
    """The objects of each wave, in the order in which waves are applied, and the digests that are known."""

    site: Site
    waves: Mapping[str, tuple[Object, ...]]
    digests: Mapping[str, str] = field(default_factory=dict)

    @property
    def objects(self) -> list[Object]:
        """All objects, first wave first."""
        return [thing for wave in self.waves.values() for thing in wave]

    @property
    def hash(self) -> str:
        """A hash of everything that would be applied."""
        digest = hashlib.sha256()
        for name, text in self.files().items():
            digest.update(f"{name}\0{text}\0".encode())
        return digest.hexdigest()

    def files(self) -> dict[str, str]:
        """Return the text of each file by its relative path with slashes; the same site gives the same bytes."""
        found: dict[str, str] = {}
        for wave, things in self.waves.items():
            named = {f"{wave}/{file_name(thing)}": _yaml(thing) for thing in things}
            found |= named
            found[f"{wave}/kustomization.yaml"] = _kustomization([path.partition("/")[2] for path in named])
        found[MARK] = images.lock_text({r: d for r, d in self.digests.items() if r in self.references()})
        return found

    def references(self) -> list[str]:
        """Return every image without its digest, sorted."""
        found = {str(place[key]).partition("@")[0] for thing in self.objects for place, key in images.slots(thing)}
        return sorted(found)


def render(site: Site, root: Path, helm: Helm, charts: Path | None = None) -> Rendered:
    """Render every release of a site.

    Args:
        charts: a folder with upstream charts as `NAME-VERSION.tgz`, for machines that reach no registry.

    Raises:
        PlatformError: SITE_INVALID for values that a chart refuses, PROGRAM_FAILED, UNREACHABLE.
    """
    digests, found = images.locked(site), dict[str, tuple[Object, ...]]()
    for wave in values.waves(site):
        made = [thing for release in wave.releases for thing in _release(site, root, helm, release, charts)]
        made = [*base.objects(site), *made] if wave is values.BASE else made
        found[wave.name] = tuple(_finished(thing, site, digests) for thing in made)
    named = external.objects(site, [thing for things in found.values() for thing in things])
    found[values.BASE.name] += tuple(_finished(thing, site, digests) for thing in named)
    return Rendered(site, found, digests)


def release(site: Site, root: Path, helm: Helm, name: str) -> list[Object]:
    """Render one of a site's releases alone. Raises PlatformError SITE_INVALID or PROGRAM_FAILED."""
    digests = images.locked(site)
    return [_finished(thing, site, digests) for thing in _release(site, root, helm, name, None)]


def write(rendered: Rendered, target: Path, more: Mapping[str, Sequence[Object]] | None = None) -> list[str]:
    """Write all files into a folder, which becomes exactly that; the names of the files.

    Args:
        more: further files, e.g. those for Argo CD: objects by relative path.

    Raises:
        PlatformError: USAGE when the folder holds something else; STATE_UNWRITABLE.
    """
    if target.exists() and any(target.iterdir()) and not (target / MARK).is_file():
        what = f"{target} is not empty, and was not written by this task"
        raise PlatformError("USAGE", what, steps=("name a folder that is empty or does not exist",))
    files = rendered.files() | {name: "---\n".join(map(_yaml, things)) for name, things in (more or {}).items()}
    try:
        for old in values_folders(target):
            shutil.rmtree(old)
        for name, text in files.items():
            path = target / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8", newline="\n")
    except OSError as error:
        raise PlatformError("STATE_UNWRITABLE", f"{target} cannot be written", why=str(error)) from error
    return list(files)


def values_folders(target: Path) -> list[Path]:
    """Return the folders that an earlier run has left."""
    known = {*(w.name for w in (values.BASE, *values.OPERATORS, *values.OWN)), GITOPS}
    return [target / name for name in sorted(known) if (target / name).is_dir()]


def _release(site: Site, root: Path, helm: Helm, release: str, charts: Path | None) -> Iterator[Object]:
    import yaml

    chart = releases.chart(release)
    folder = root / "helm" / release
    files = [folder / "values.yaml", folder / "values-production.yaml"] if chart.source else []
    files = files or [folder / "values-production.yaml"]
    where = releases.located(chart, charts) if chart.source else str(folder)
    deploy = Deploy(
        release=release,
        chart=where,
        namespace=chart.namespace,
        version=chart.version if releases.is_address(where) else "",
        values=(*(str(f) for f in files if f.exists()), STDIN),
        kubernetes=f"{site.kubernetes}.0",
        crds=bool(chart.source),
    )
    done = shell.run(helm.template(deploy), stdin=json.dumps(values.values(site, release)), limit=300, check=False)
    if done.code:
        raise _refused(site, release, done.last_line)
    for thing in yaml.safe_load_all(done.out):
        if thing and not _is_test(thing):
            yield _placed(thing, chart.namespace)


_NO_ANSWER = ("dial tcp", "no such host", "connection refused", "timeout", "failed to fetch")


def _refused(site: Site, release: str, why: str) -> PlatformError:
    if any(word in why for word in _NO_ANSWER):
        steps = ("give a folder with the charts: --charts DIR", "or `operators: present`, where the cluster has them")
        return PlatformError("UNREACHABLE", f"the chart {release} is not available", why=why, steps=steps)
    what = f"the chart {release} cannot be rendered for {site.name}"
    return PlatformError("SITE_INVALID", what, why=why, steps=(f"see {site.path} and helm/{release}/values.yaml",))


def _is_test(thing: Object) -> bool:
    return "test" in str((thing["metadata"].get("annotations") or {}).get("helm.sh/hook", ""))


def _placed(thing: Object, namespace: str) -> Object:
    """Add the namespace, which `helm install` would add."""
    if thing["kind"] not in CLUSTER_WIDE:
        thing["metadata"].setdefault("namespace", namespace)
    return thing


def _finished(thing: Object, site: Site, digests: Mapping[str, str]) -> Object:
    registry = str(site.part("images").get("registry", ""))
    for place, key in images.slots(thing):
        place[key] = images.pinned(images.placed(str(place[key]), registry), digests)
    about = thing["metadata"]
    about["labels"] = {**(about.get("labels") or {}), SITE: site.name}
    if about.get("labels", {}).get("app.kubernetes.io/managed-by") == "Helm":
        about["labels"]["app.kubernetes.io/managed-by"] = "platform-infra"
    return once(thing) if thing["kind"] == "Job" else thing


_ONCE = re.compile(r"-[0-9a-f]{8}$")
"""End of the name of a Job that charts name by its contents."""


def once(job: Object) -> Object:
    """Name a Job by all of its contents, as no Job can be changed: charts know neither digests nor the registry."""
    about, spec = job["metadata"], json.dumps(job["spec"], sort_keys=True, default=str)
    named = hashlib.sha256(spec.encode()).hexdigest()[:8]
    return {**job, "metadata": {**about, "name": _ONCE.sub(f"-{named}", about["name"])}}


def file_name(thing: Object) -> str:
    """Name of an object's file: namespace, kind and name."""
    about = thing["metadata"]
    parts = (about.get("namespace", ""), thing["kind"].lower(), about["name"])
    return "-".join(part.replace(":", ".") for part in parts if part) + ".yaml"


def _yaml(thing: Object) -> str:
    import yaml

    return str(yaml.safe_dump(thing, sort_keys=False, allow_unicode=True, width=120))


def _kustomization(names: Sequence[str]) -> str:
    about = {"apiVersion": "kustomize.config.k8s.io/v1beta1", "kind": "Kustomization"}
    return _yaml({**about, "resources": sorted(names)})
