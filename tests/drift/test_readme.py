"""README.md, README.ko.md and docs/: what they show exists, and both languages show the same."""

from __future__ import annotations

import re
from pathlib import Path

import invoke
import pytest

from infra import catalog
from infra.settings import ROOT
from infra.training import notify
from tests.drift import repo
from tests.drift.repo import DOCS, GUIDES, READMES, read

BEGINNING = ["./scripts/start-infra.sh", "./scripts/run-tests.sh"]
ENGLISH, KOREAN = READMES
SENTENCE = re.compile(r"[a-z]{3,} (?:the|is|are|was|for|with|not|and) [a-z]{2,}")


@pytest.mark.parametrize("readme", READMES)
def test_first_block_is_the_two_commands(readme: str) -> None:
    lines = repo.blocks(read(readme))[0].splitlines()
    assert [line.split("#")[0].rstrip() for line in lines] == BEGINNING


@pytest.mark.parametrize("readme", READMES)
def test_says_what_it_is_in_three_lines(readme: str) -> None:
    text = read(readme).split("```")[0].splitlines()
    assert text[0].startswith("# ")
    assert 0 < len([line for line in text[1:] if line]) <= 3


def test_both_languages_have_the_same_structure() -> None:
    levels = [[h.split()[0] for h in repo.headings(read(readme))] for readme in READMES]
    assert levels[0] == levels[1]
    rows = [len(re.findall(r"^\|", read(readme), re.MULTILINE)) for readme in READMES]
    assert rows[0] == rows[1]


def test_both_languages_have_the_same_code_blocks() -> None:
    assert repo.blocks(read(ENGLISH)) == repo.blocks(read(KOREAN))


def test_both_languages_have_the_same_commands() -> None:
    # Some spans are words, not commands, and sentences may need them at another place or twice.
    assert set(repo.spans(read(ENGLISH))) == set(repo.spans(read(KOREAN)))


def test_both_languages_have_the_same_links() -> None:
    links = [sorted(set(re.findall(r"\]\(([^)#]+)\)", read(readme))) - set(READMES)) for readme in READMES]
    assert links[0] == links[1]


def test_each_language_leads_to_the_other() -> None:
    assert f"]({KOREAN})" in read(ENGLISH)
    assert f"]({ENGLISH})" in read(KOREAN)


@pytest.mark.parametrize("path", [*GUIDES, "LICENSE"])
def test_readme_leads_to_what_a_newcomer_needs(path: str) -> None:
    assert f"]({path})" in read(ENGLISH)


def test_korean_is_korean() -> None:
    prose = re.sub(r"^```.*?^```$", "", read(KOREAN), flags=re.MULTILINE | re.DOTALL)
    left = [line for line in prose.splitlines() if SENTENCE.search(re.sub(r"`[^`]*`|\"[^\"]*\"|<!--.*?-->", "", line))]
    assert left == []


@pytest.mark.parametrize("path", DOCS)
def test_links_lead_somewhere(path: str) -> None:
    text = read(path)
    anchors = {re.sub(r"[^\w -]", "", h.lstrip("# ").lower()).replace(" ", "-") for h in repo.headings(text)}
    for target in re.findall(r"\]\(([^)]+)\)", text):
        if target.startswith("#"):
            assert target[1:] in anchors, target
        elif "://" not in target:
            assert (ROOT / path).parent.joinpath(target.split("#")[0]).exists(), target


@pytest.mark.parametrize("path", DOCS)
def test_every_invoke_command_fits_its_task(path: str) -> None:
    wrong = []
    for words in repo.invoked(read(path)):
        try:
            contexts = repo.parse(words)
        except invoke.ParseError as error:
            wrong.append(f"invoke {words}: {error}")
            continue
        wrong += [f"invoke {words}" for c in contexts if c.name is None and words]
    assert wrong == []


@pytest.mark.parametrize("readme", READMES)
def test_shows_enough_commands_to_be_worth_checking(readme: str) -> None:
    assert len(repo.invoked(read(readme))) > 30


@pytest.mark.parametrize("readme", READMES)
def test_every_namespace_and_root_task_is_mentioned(readme: str) -> None:
    named = {words.split()[0] for words in repo.invoked(read(readme)) if words}
    spaces = {name.split(".")[0] for name in repo.task_names() if "." in name}
    assert spaces <= {name.split(".")[0] for name in named if "." in name}
    assert {name for name in repo.task_names() if "." not in name} <= named


@pytest.mark.parametrize("readme", READMES)
def test_new_commands_of_the_operation_table_exist(readme: str) -> None:
    table = re.search(r"^\| `docker compose up -d` \|.*?(?=^\s*$)", read(readme), re.MULTILINE | re.DOTALL)
    assert table is not None
    for row in table[0].splitlines():
        new = row.strip("| ").split(" | ")[-1]
        planned = "none yet" in new or "아직 없음" in new
        tasks = [s for s in repo.spans(new) if s.startswith("invoke ")]
        assert tasks or planned, f"neither a task nor 'none yet': {row}"
        assert all(s.split()[1] in repo.task_names() for s in tasks), row


def test_names_are_those_of_invoke_list() -> None:
    assert repo.listed_by_invoke() == list(repo.task_names())


def test_examples_in_the_help_of_tasks_fit_them() -> None:
    wrong = []
    for name, example in repo.examples():
        words = repo.invoked(f"`{example}`")
        try:
            contexts = [c for w in words for c in repo.parse(w)]
        except invoke.ParseError as error:
            wrong.append(f"{name}: {example}: {error}")
            continue
        wrong += [] if name in {str(c.name) for c in contexts} else [f"{name}: {example}"]
    assert wrong == []


@pytest.mark.parametrize("path", repo.modules().values(), ids=repo.modules())
def test_tasks_that_messages_recommend_exist(path: Path) -> None:
    texts = ["".join(parts) for parts in repo.literals(path)]
    named = {name for text in texts for name in re.findall(r"\binvoke ([a-z]+(?:\.[a-z]+)*)\b(?!\.[\w{])", text)}
    assert named <= set(repo.task_names())


@pytest.mark.parametrize("path", DOCS)
def test_every_nox_session_exists(path: str) -> None:
    made = re.findall(r'^@nox\.session(?:\(name="([\w-]+)"\))?\ndef (\w+)', read("noxfile.py"), re.MULTILINE)
    sessions = {name or function for name, function in made}
    shown = {name for line in repo.commands(read(path)) for name in _sessions_of(line)}
    assert shown <= sessions | {"NAME"}


def _sessions_of(command: str) -> list[str]:
    found = re.match(r"nox -s (.+)", command)
    return found[1].split() if found else []


def test_readme_lists_the_sessions_of_run_tests() -> None:
    from scripts.run_tests import SESSIONS, unavailable

    missing = [s for s in SESSIONS if not unavailable(s) and f"`{s}`" not in read(ENGLISH)]
    assert missing == []


def test_every_setting_and_contract_name_that_is_shown_exists() -> None:
    worker = (
        "RUNNER",
        "KUBECONFIG",
        "NAMESPACE",
        "SERVICE_ACCOUNT",
        "CONFIG_MAP",
        "SECRET",
        "RESOURCES",
        "GPUS",
        "PATIENCE",
    )
    others = {f"TRAINING_{name}" for name in (*worker, "JOB_ID", "ATTEMPT")}
    others |= set(notify.VARIABLES)
    others |= {"PLATFORM_HOME", "PLATFORM_PYTHON", "PLATFORM_RIG_CACHE", "SERVICES", "JOB", "NAME", "KEY"}
    others |= {f"MLFLOW_{name}" for name in ("HTTP_REQUEST_MAX_RETRIES", "RUN_ID", "EXPERIMENT_NAME")}  # MLflow's own
    shapes = re.compile(r"\b(?:PLATFORM|POSTGRES|REDIS|MINIO|TEMPORAL|MLFLOW|TRAINING|OBSERVABILITY)_[A-Z0-9_]+\b")
    for path in DOCS:
        shown = set(shapes.findall(read(path)))
        unknown = shown - set(catalog.SETTINGS) - set(catalog.CONTRACT_NAMES) - set(catalog.FAMILIAR_NAMES) - others
        assert unknown - {"POSTGRES_PRT"} == set(), f"{path} names settings that do not exist"


@pytest.mark.parametrize("path", DOCS)
def test_quoted_messages_are_those_of_the_code(path: str) -> None:
    patterns = _patterns()
    unknown = [line for line in _quoted(read(path)) if not any(p.search(line) for p in patterns)]
    assert unknown == []


def _quoted(text: str) -> list[str]:
    """The lines of error blocks that a text shows, without their marks."""
    lines = [line for block in repo.blocks(text) if "✗" in block for line in block.splitlines()]
    lines += [span for span in repo.spans(text) if span.startswith(("✗ ", "error: "))]
    ours = [line for line in lines if not line.lstrip().startswith("|") and "last lines" not in line]
    return [re.sub(r"^(✗|error:|  (?:why|next):) +", "", line) for line in ours if "psql: error" not in line]


def _patterns() -> list[re.Pattern[str]]:
    """What the texts of the code look like, each with enough fixed letters to be recognised."""
    others = ("infra.errors", "infra.documents", "infra.korean")  # summaries and examples, not messages
    paths = [p for name, p in repo.modules().items() if name not in others] + sorted((ROOT / "scripts").glob("*.py"))
    texts = [parts for path in paths for parts in repo.literals(path)]
    shell = [(text.replace("\\n", ""),) for text in re.findall(r"printf '([^']+)'", read("scripts/env.sh"))]
    known = [parts for parts in [*texts, *shell] if len(re.findall("[a-z]", "".join(parts))) >= 6]
    return [re.compile(_pattern(parts)) for parts in known if any(" " in part for part in parts)]


def _pattern(parts: tuple[str, ...]) -> str:
    return "".join(".+" if part == "\0" else re.escape(part.removeprefix("error: ").rstrip("\n")) for part in parts)
