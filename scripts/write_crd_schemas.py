"""Write infra/prod/schemas/ from the definitions (CRDs) of operators: `python -m scripts.write_crd_schemas`.

They come out of the operators' Go modules, checked against Go's checksum database; it needs `go` and a module proxy.
Descriptions and what only a server can check are left out. All of them are under the Apache License 2.0.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from infra.settings import ROOT

TARGET = ROOT / "infra" / "prod" / "schemas"
LEFT_OUT = ("description", "default", "example", "title")


@dataclass(frozen=True)
class Source:
    """A Go module, the folder with its definitions, and the kinds that are wanted."""

    module: str
    version: str
    folder: str
    kinds: frozenset[str]


SOURCES = (
    Source(
        "github.com/cloudnative-pg/cloudnative-pg",
        "v1.30.0",
        "config/crd/bases",
        frozenset({"Cluster", "Database", "DatabaseRole", "ScheduledBackup", "Backup"}),
    ),
    Source("github.com/cloudnative-pg/plugin-barman-cloud", "v0.13.0", "config/crd/bases", frozenset({"ObjectStore"})),
    Source("sigs.k8s.io/jobset", "v0.12.0", "config/components/crd/bases", frozenset({"JobSet"})),
    Source("sigs.k8s.io/gateway-api", "v1.5.1", "config/crd/standard", frozenset({"HTTPRoute"})),
    Source(
        "github.com/prometheus-operator/prometheus-operator",
        "v0.93.1",
        "example/prometheus-operator-crd",
        frozenset({"ServiceMonitor", "PodMonitor", "PrometheusRule"}),
    ),
    Source(
        "github.com/external-secrets/external-secrets", "v0.20.4", "config/crds/bases", frozenset({"ExternalSecret"})
    ),
)


def schemas(source: Source) -> Iterator[tuple[str, Any]]:
    """Yield name of the file and schema of each kind, in the version that is stored."""
    import yaml

    for path in sorted((_downloaded(source) / source.folder).glob("*.yaml")):
        text = path.read_text(encoding="utf-8")
        if source.kinds.isdisjoint(re.findall(r"^    kind: (\w+)$", text, re.MULTILINE)):
            continue
        spec = yaml.safe_load(text)["spec"]
        for version in (v for v in spec["versions"] if v["storage"]):
            name = f"{spec['group']}_{spec['names']['kind'].lower()}_{version['name']}.json"
            yield name, _strict(version["schema"]["openAPIV3Schema"])


def _downloaded(source: Source) -> Path:
    argv = ["go", "mod", "download", "-json", f"{source.module}@{source.version}"]
    done = subprocess.run(argv, capture_output=True, encoding="utf-8", cwd="/", check=True)
    return Path(json.loads(done.stdout)["Dir"])


def _strict(schema: Any) -> Any:
    """Return a schema without words, that refuses keys which it does not know, as a server's strict validation does."""
    if isinstance(schema, list):
        return [_strict(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    kept = {k: _strict(v) for k, v in schema.items() if k not in LEFT_OUT and not k.startswith("x-kubernetes-")}
    if "properties" in schema:  # names of properties may be any word
        kept["properties"] = {name: _strict(part) for name, part in schema["properties"].items()}
        if not schema.get("x-kubernetes-preserve-unknown-fields") and "additionalProperties" not in schema:
            kept["additionalProperties"] = False
    return kept


def main() -> int:
    """Write every schema; returns the exit status."""
    TARGET.mkdir(exist_ok=True)
    for source in SOURCES:
        for name, schema in schemas(source):
            text = json.dumps(schema, separators=(",", ":"), sort_keys=True) + "\n"
            (TARGET / name).write_text(text, encoding="utf-8", newline="\n")
            print(f"{name}: {len(text)} bytes, {source.module} {source.version}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
