"""Write what is generated from the catalogue: `python -m scripts.write_docs`, or `nox -s update-docs`."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from infra import documents, settings
from infra.kube import tools
from infra.kube.helm_cli import Helm
from infra.prod import cost, render, site, sizes
from infra.settings import ROOT


def originals() -> dict[str, str]:
    """Return the files of which others are copies: text by path."""
    paths = [path for pattern in documents.COPIED for path in sorted(ROOT.glob(pattern))]
    return {path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8") for path in paths}


def costs(helm: str) -> str:
    """Return the table of what the example needs in each size, with Redis in the cluster as well.

    Raises:
        PlatformError: SITE_INVALID when a chart cannot be rendered.
    """
    found, program = site.load("example", ROOT), Helm(helm, 4, Path(os.devnull))
    here = site.Site(found.path, {**found.says, "redis": {"engine": "single"}})
    return documents.cost_table(
        cost.by_size(here, list(sizes.SIZES), lambda one: render.render(one, ROOT, program).objects)
    )


def main() -> int:
    """Write the files that differ and name them; what charts say is left as it is where there is no Helm."""
    readmes = {path: (ROOT / path).read_text(encoding="utf-8") for path in documents.PAGES}
    compose = [path.read_text(encoding="utf-8") for path in sorted(ROOT.glob(documents.COMPOSE_FILES))]
    texts = documents.rendered(readmes, compose, originals())
    if program := tools.locate("helm", settings.load()):
        texts[documents.PRODUCTION] = documents.with_section(texts[documents.PRODUCTION], "cost", costs(program))
    for name, text in texts.items():
        path = ROOT / name
        if path.exists() and path.read_text(encoding="utf-8") == text:
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8", newline="\n")
        print(f"wrote {name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
