"""Write what is generated from the catalogue: `python -m scripts.write_docs`, or `nox -s update-docs`."""

from __future__ import annotations

import sys

from infra import documents
from infra.settings import ROOT


def originals() -> dict[str, str]:
    """Return the files of which others are copies: text by path."""
    paths = [path for pattern in documents.COPIED for path in sorted(ROOT.glob(pattern))]
    return {path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8") for path in paths}


def main() -> int:
    """Write the files that differ and name them."""
    readmes = {path: (ROOT / path).read_text(encoding="utf-8") for path in documents.PAGES}
    compose = [path.read_text(encoding="utf-8") for path in sorted(ROOT.glob(documents.COMPOSE_FILES))]
    for name, text in documents.rendered(readmes, compose, originals()).items():
        path = ROOT / name
        if path.exists() and path.read_text(encoding="utf-8") == text:
            continue
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8", newline="\n")
        print(f"wrote {name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
