"""What has one owner in `infra`: nobody else does it by hand."""

from __future__ import annotations

import re

import pytest

from tests.drift.repo import modules

SUPERVISION = {"infra.supervision.process", "infra.supervision.client"}  # it imports no settings
OWNED = {
    "lists of words": (r"\.split\(\",\"\)", {"infra.settings", *SUPERVISION}),
    "names of images": (r"removeprefix\(\"(?:docker\.io|library/)|library/\{", {"infra.references"}),
    "pulling images": (r"client\.pull\(|\"pull\", \"--quiet\"", {"infra.pull"}),
}
"""What -> how it looks, and the modules that may do it."""


@pytest.mark.parametrize("what", OWNED)
def test_only_its_owner_does_it(what: str) -> None:
    pattern, owners = OWNED[what]
    texts = {name: path.read_text(encoding="utf-8") for name, path in modules().items()}
    found = {name for name, text in texts.items() if re.search(pattern, text)}
    assert found - owners == set()
    assert owners & found, "nobody does it any more"
