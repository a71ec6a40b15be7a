"""What has one owner in `infra`: nobody else does it by hand."""

from __future__ import annotations

import re

import pytest

from infra import catalog, setting_rules
from tests.drift.repo import modules

SUPERVISION = {"infra.supervision.process", "infra.supervision.client"}  # it imports no settings
OWNED = {
    "lists of words": (r"\.split\(\",\"\)", {"infra.setting_rules", *SUPERVISION}),
    "names of images": (r"removeprefix\(\"(?:docker\.io|library/)|library/\{", {"infra.references"}),
    "hints of what was meant": (r"get_close_matches", {"infra.errors"}),
    "whether Temporal is light": (r"text\(\"PLATFORM_LIGHT\"\)", {"infra.settings"}),
    "new private files": (
        r"O_EXCL",
        {"infra.private", "infra.data.objects.tree"},
    ),  # the second beside open directories
    "pulling images": (r"client\.pull\(|\"pull\", \"--quiet\"", {"infra.pull"}),
}
"""What -> how it looks, and the modules that may do it."""


def test_what_a_value_must_be_like_is_in_its_row() -> None:
    assert {rule for setting in catalog.SETTINGS.values() for rule in setting.check} == set(setting_rules.RULES)
    texts = [path.read_text(encoding="utf-8") for name, path in modules().items() if name.startswith("infra.setting")]
    assert [found for text in texts for found in re.findall(r"setting\.name (?:==|in) .*", text)] == []


@pytest.mark.parametrize("what", OWNED)
def test_only_its_owner_does_it(what: str) -> None:
    pattern, owners = OWNED[what]
    texts = {name: path.read_text(encoding="utf-8") for name, path in modules().items()}
    found = {name for name, text in texts.items() if re.search(pattern, text)}
    assert found - owners == set()
    assert owners & found, "nobody does it any more"
