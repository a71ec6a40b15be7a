"""Write what the platform is made of: packages of the lock files and container images, as CycloneDX 1.6 JSON.

Usage: python -m scripts.write_sbom CYCLONEDX_PY FILE; `nox -s sbom` calls it. CYCLONEDX_PY is the program of the
package cyclonedx-bom, which reads the lock files; images are added as https://cyclonedx.org/use-cases/ shows it.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.parse import quote

from infra import images, references, settings

LOCKS = ("platform", "dev", "mlflow", "backend", "jax")
"""Lock files of what is run or developed with; those of the tests' rig and of this session are no part of it."""


def packages(program: str, lock: str) -> dict[str, Any]:
    """Return the bill of one lock file. Raises CalledProcessError."""
    file = str(settings.ROOT / "requirements" / f"{lock}.txt")
    options = ["--output-reproducible", "--spec-version", "1.6", "--output-format", "JSON"]
    done = subprocess.run([program, "requirements", *options, file], capture_output=True, check=True)
    bill: dict[str, Any] = json.loads(done.stdout)
    return bill


def containers() -> list[dict[str, Any]]:
    """Return the images as components, each with the setting that names it."""
    found = []
    for image in images.images(settings.load(environ={}), ()):
        part = references.parse(image.reference)
        version = part.digest or part.tag
        purl = f"pkg:docker/{part.repository}@{quote(version)}?repository_url={part.host}"
        facts = {"name": f"{part.host}/{part.repository}", "version": version, "purl": purl}
        named = {"properties": [{"name": "platform:setting", "value": image.setting}]}
        found.append({"type": "container", "bom-ref": purl, **facts, **named})
    return found


def merged(bills: list[dict[str, Any]], more: list[dict[str, Any]]) -> dict[str, Any]:
    """Return one bill with every component once."""
    components = {c.get("purl", c["bom-ref"]): c for bill in bills for c in bill.get("components", ())}
    components |= {c["bom-ref"]: c for c in more}
    for reference, component in components.items():
        component["bom-ref"] = reference
    ordered = [components[key] for key in sorted(components)]
    return {"bomFormat": "CycloneDX", "specVersion": "1.6", "version": 1, "components": ordered}


def main(program: str, target: str) -> int:
    """Write the file; 0."""
    bill = merged([packages(program, lock) for lock in LOCKS], containers())
    Path(target).parent.mkdir(parents=True, exist_ok=True)
    Path(target).write_text(json.dumps(bill, indent=1) + "\n", encoding="utf-8")
    print(f"{target}: {len(bill['components'])} components")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(*sys.argv[1:]))
