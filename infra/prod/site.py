"""A site: the one file that says how a production environment differs from others. It holds no secret."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from infra.errors import PlatformError, nearest

FOLDER, SCHEMA = "sites", "schema.json"
NOT_SITES = frozenset({SCHEMA})
POSTGRESQL = "postgresql"
"""Name of the Service of PostgreSQL, and of its first Cluster."""


@dataclass(frozen=True)
class Site:
    """A site that fits the schema: where its file is, and what it says."""

    path: Path
    says: Mapping[str, Any]

    @property
    def name(self) -> str:
        """The site's name."""
        return str(self.says["site"])

    @property
    def context(self) -> str:
        """The context of the user's kubeconfig that leads to its cluster."""
        return str(self.says["cluster"]["context"])

    @property
    def uid(self) -> str:
        """The uid of the namespace kube-system of its cluster."""
        return str(self.says["cluster"]["uid"])

    @property
    def kubernetes(self) -> str:
        """The minor version of Kubernetes that manifests are rendered for, e.g. 1.34."""
        return str(self.says["cluster"].get("version", "1.34"))

    @property
    def lock(self) -> Path:
        """The file beside it with the digests of its images."""
        return self.path.with_name(f"{self.path.stem}.lock.json")

    @property
    def postgresql(self) -> str:
        """The name of its Cluster of CloudNativePG."""
        return str(self.part("postgres").get("cluster", POSTGRESQL))

    def part(self, name: str) -> Mapping[str, Any]:
        """Return the site's entries for a part, e.g. `postgres`; {} where it has none."""
        found: Mapping[str, Any] = self.says.get(name) or {}
        return found

    def engine(self, name: str) -> str:
        """Return the engine of a part: `cloudnativepg`, `external`, `single`, `kube-prometheus-stack` or `none`."""
        return str(self.part(name).get("engine", "none"))


def load(name: str, root: Path) -> Site:
    """Read a site by its name, or by the path of its file.

    Raises:
        PlatformError: NOT_FOUND, or SITE_INVALID with every value that does not fit.
    """
    import yaml

    path = find(name, root)
    try:
        said = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise _invalid(path, [" ".join(str(error).split())]) from error
    problems = list(_problems(said, path, root))
    if problems:
        raise _invalid(path, problems)
    return Site(path, said)


def find(name: str, root: Path) -> Path:
    """Return the file of a site.

    Raises:
        PlatformError: NOT_FOUND, with the nearest name.
    """
    folder = root / FOLDER
    direct = Path(name).expanduser()
    for path in (folder / f"{name}.yaml", direct.absolute()):
        if name and path.is_file() and path.suffix in (".yaml", ".yml"):
            return path
    known = sorted(p.stem for p in folder.glob("*.yaml"))
    steps = (*nearest(name, known), f"the sites are: {', '.join(known)}", "invoke prod.init --help")
    raise PlatformError("NOT_FOUND", f"there is no site {name!r}", steps=steps)


def _invalid(path: Path, problems: list[str]) -> PlatformError:
    what = f"{path} does not describe a site"
    steps = (f"correct it; {FOLDER}/{SCHEMA} says what fits, {FOLDER}/example.yaml shows it",)
    return PlatformError("SITE_INVALID", what, steps=steps, details={"problems": problems})


def _problems(said: object, path: Path, root: Path) -> Iterator[str]:
    validator = _validator((root / FOLDER / SCHEMA).read_text(encoding="utf-8"))
    errors = sorted(validator.iter_errors(said), key=lambda e: [str(part) for part in e.absolute_path])
    yield from (_text(_deepest(error)) for error in errors)
    if not errors and isinstance(said, dict):
        yield from _contradictions(said, path)


@functools.cache
def _validator(schema: str) -> Any:
    from jsonschema import Draft202012Validator  # type: ignore[import-untyped]

    return Draft202012Validator(json.loads(schema))


def _deepest(error: Any) -> Any:
    """Return the error inside the alternative that was meant: the one whose `engine` or `kind` is as the file says."""
    if not error.context:
        return error
    by_branch: dict[int, list[Any]] = {}
    for inner in error.context:
        by_branch.setdefault(inner.schema_path[0], []).append(inner)
    meant = [found for found in by_branch.values() if not any(_is_choice(e) for e in found)]
    return _deepest(meant[0][0]) if len(meant) == 1 else error


_CHOOSE = frozenset({"engine", "kind"})
"""Keys whose value says which alternative of the schema is meant."""


def _is_choice(error: Any) -> bool:
    """Tell whether another alternative was meant."""
    return bool(error.validator == "const" and error.path and error.path[-1] in _CHOOSE)


def _text(error: Any) -> str:
    where = ".".join(str(part) for part in error.absolute_path) or "the file"
    if error.context:
        known = sorted({str(e.schema["const"]) for e in error.context if _is_choice(e)})
        return f"{where}: its engine or kind is none of {', '.join(known)}"
    return f"{where}: {error.message}"


def _contradictions(said: Mapping[str, Any], path: Path) -> Iterator[str]:
    """Yield contradictions that a schema cannot express."""
    if said["site"] != path.stem:
        yield f"site: it is called {said['site']!r}, but its file {path.name}"
    recovery = said["postgres"].get("recovery") or {}
    if recovery and recovery["server"] == recovery.get("as", said["postgres"].get("cluster", POSTGRESQL)):
        yield "postgres.recovery: `as` must differ from `server`: the old archive is never written to again"
    route = said["route"]
    if route["kind"] != "none" and not route.get("login") and not route.get("public"):
        yield "route: say who asks people for a login (`login`), or `public: true`"
    for part in ("s3", "postgres"):
        about = said[part].get("backup", {}) if part == "postgres" else said[part]
        if about.get("identity") == "role" and not about.get("annotations"):
            yield f"{part}: identity role needs the annotations that give the ServiceAccount its role"
