"""Generated files equal what the catalogue and the error table say now."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from infra import catalog, documents, korean, settings
from infra.errors import CODES, EXIT_MEANING, ExitCode
from scripts.write_docs import originals
from tests.drift.repo import READMES, read

COMPOSE = [path.read_text(encoding="utf-8") for path in sorted(settings.ROOT.glob(documents.COMPOSE_FILES))]
RENDERED = documents.rendered({path: read(path) for path in documents.PAGES}, COMPOSE, originals())


@pytest.mark.parametrize("path", RENDERED)
def test_committed_file_is_what_would_be_generated(path: str) -> None:
    assert read(path) == RENDERED[path], f"{path} is out of date: nox -s update-docs"


def test_no_copy_outlives_its_original() -> None:
    folders = [settings.ROOT / folder for folder in documents.COPIED_FOLDERS.values()]
    there = {path.relative_to(settings.ROOT).as_posix() for folder in folders for path in folder.iterdir()}
    assert there - set(RENDERED) == set()
    assert len([path for path in RENDERED if path.endswith("/_common.tpl")]) == len(catalog.CHARTS)


def test_every_text_of_the_tables_is_translated() -> None:
    texts = {gap.reason for gap in catalog.GAPS} | {gap.instead for gap in catalog.GAPS if gap.instead}
    titles = {service.title for service in catalog.SERVICES}
    assert texts - set(korean.TEXTS) == set()
    assert set(korean.TEXTS) <= texts | titles, "texts of what is there no more"


@pytest.mark.parametrize("readme", READMES)
def test_readme_has_every_service_and_gap(readme: str) -> None:
    rows = read(readme).splitlines()
    for service in catalog.SERVICES:
        ports = [str(p.default) for p in service.ports]
        assert any(all(f":{p}" in row for p in ports) for row in rows if row.startswith("|")), service.name
    for gap in catalog.GAPS:
        assert any(row.startswith(f"| {gap.where} | `{gap.feature}` |") for row in rows), gap


def test_every_setting_is_in_env_example() -> None:
    written = re.findall(r"^#([A-Z][A-Z0-9_]*)=(.*)$", read(".env.example"), re.MULTILINE)
    assert sorted(written) == sorted((s.name, s.default) for s in catalog.SETTINGS.values())


def test_every_setting_in_env_example_is_explained() -> None:
    above = re.findall(r"^# (\S.*)\n#[A-Z]", read(".env.example"), re.MULTILINE)
    assert len(above) == len(catalog.SETTINGS)


def test_env_example_is_a_valid_env_file(tmp_path: Path) -> None:
    text = re.sub(r"^#([A-Z][A-Z0-9_]*=)", r"\1", read(".env.example"), flags=re.MULTILINE)
    (tmp_path / ".env").write_text(text, encoding="utf-8")
    loaded = settings.load(tmp_path, environ={})
    assert {n: v.text for n, v in loaded.values.items()} == {n: s.default for n, s in catalog.SETTINGS.items()}
    assert all(v.origin != "default" for v in loaded.values.values())


def test_every_error_code_is_documented() -> None:
    rows = re.findall(r"^\| `([A-Z_]+)` \| (\d+) \|", read("docs/errors.md"), re.MULTILINE)
    assert rows == [(name, str(int(kind.exit))) for name, kind in CODES.items()]


def test_every_exit_code_is_documented() -> None:
    rows = re.findall(r"^\| (\d+) \| `([a-z_]+)` \| (.+) \|$", read("docs/errors.md"), re.MULTILINE)
    assert rows == [(str(int(c)), c.name.lower(), EXIT_MEANING[c]) for c in ExitCode]


def test_exit_codes_never_change() -> None:
    # The stable interface to scripts, written out a second time on purpose.
    agreed = {"OK": 0, "FAILED": 1, "USAGE": 2, "CONFIRM": 3, "PREFLIGHT": 4, "DEPENDENCY": 5, "TIMEOUT": 6}
    agreed |= {"SERVICE_FAILED": 7, "INCOMPATIBLE": 8, "NOTHING": 9, "BACKUP": 10, "PARTIAL": 11, "LOCKED": 12}
    assert {c.name: int(c) for c in ExitCode} == agreed | {"INTERRUPTED": 130, "TERMINATED": 143}


def test_a_readme_without_markers_is_refused() -> None:
    with pytest.raises(ValueError, match="services:begin"):
        documents.with_section("no markers here\n", "services", "table\n")
