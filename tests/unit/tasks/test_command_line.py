"""The real command line, as a user calls it, in processes of its own."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import invoke
import pytest

from infra import catalog
from infra.context import Context
from infra.settings import ROOT
from infra.tasks import collection, command, shorthand

VERBS = ("doctor", "down", "env", "logs", "reset", "restart", "status", "up", "version", "wait")
GOLDEN = {
    *VERBS,
    *("completion", "list", "poweroff"),
    *(f"native.{verb}" for verb in VERBS),
    *(f"train.{name}" for name in ("attach", "cancel", "diff", "list", "logs", "rerun", "run", "show", "sweep")),
}
"""The tasks at the root and of the namespaces that are as old as this list."""


def _collected() -> invoke.Collection:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["pytest"])  # for a command line the tasks that it does not name lose their options
        return collection.collect()


COLLECTION = _collected()
TASKS: dict[str, invoke.Task[Any]] = {str(name): COLLECTION[name] for name in COLLECTION.task_names}
ARGUMENTS = {name: task.get_arguments() for name, task in TASKS.items()}

LIST_LOADS = {
    *(
        "__future__",
        "infra",
        "infra.errors",
        "infra.console",
        "infra.columns",
        "infra.context",
        "infra.terminal",
        "infra.training",
        "infra.training.described",
    ),
    *("infra.tasks", "infra.tasks.collection", "infra.tasks.command", "infra.tasks.events", "infra.tasks.objects"),
    "infra.tasks.db_restore",
    *(f"infra.tasks.{name}" for name in ("app", "compose", "db", "db_upgrade", "helm", "images", "k8s", "kind")),
    *(
        f"infra.tasks.{name}"
        for name in (
            "minio",
            "minio_backups",
            "native",
            "obs",
            "prod",
            "prod_connect",
            "prod_site",
            "prod_smoke",
            "prod_snapshot",
            "prod_views",
        )
    ),
    *("infra.tasks.root", "infra.tasks.secrets"),
    *("infra.tasks.snapshot", "infra.tasks.train_watch", "infra.tasks.trash", "infra.tasks.verbs"),
    *(
        f"infra.tasks.{name}"
        for name in ("train", "train_order", "train_records", "train_show", "train_sweep", "train_trials")
    ),
    *("infra.tasks.completion", "infra.tasks.shorthand", "infra.tasks.stacks"),
}
"""What `--list` may load besides Invoke: the tasks' names and texts, no settings, no catalogue, no tier."""

CALLS: dict[str, list[str]] = {
    "list": ["--list"],
    "help": ["--help", "up"],
    "complete": ["--complete", "--", "invoke up --"],
    "unknown task": ["sttus", "--json"],
    "status": ["status", "--json"],
    "plain word": ["native.status"],
    "other word": ["native.ps"],
    "help of a task with an argument": ["snapshot.key", "--help"],
    "help behind an argument": ["restart", "redis", "-h"],
    "down": ["native.down", "--json"],
    "wait": ["wait", "--json"],
    **{f"{kind}.list": [f"{kind}.list", "--to", "/no/such/place"] for kind in ("db", "minio", "snapshot")},
}
Results = dict[str, subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A state directory that is not there yet."""
    return tmp_path_factory.mktemp("state") / "a b"


@pytest.fixture(scope="module")
def results(home: Path) -> Results:
    """Calls in processes of their own, side by side, where nothing runs and nothing is."""
    env = {k: v for k, v in os.environ.items() if not k.startswith("PLATFORM_")}
    env |= {"PLATFORM_STATE_DIR": str(home), "PYTHONUTF8": "1"}

    def run(words: list[str]) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "invoke", *words]
        return subprocess.run(command, cwd=ROOT, env=env, capture_output=True, encoding="utf-8", check=False)

    with ThreadPoolExecutor(os.cpu_count() or 2) as pool:
        return dict(zip(CALLS, pool.map(run, CALLS.values()), strict=True))


@pytest.mark.parametrize(
    ("call", "code"),
    [
        *(("list", 0), ("help", 0), ("unknown task", 2), ("status", 9), ("down", 0), ("wait", 9)),
        *(("db.list", 9), ("minio.list", 9), ("snapshot.list", 9)),
    ],
)
def test_exit_codes(results: Results, call: str, code: int) -> None:
    assert results[call].returncode == code, results[call].stderr
    assert "Traceback" not in results[call].stderr
    assert "\x1b" not in results[call].stdout + results[call].stderr


@pytest.mark.parametrize("call", ["unknown task", "status", "down", "wait"])
def test_exactly_one_object_on_stdout(results: Results, call: str) -> None:
    found = json.loads(results[call].stdout)
    assert (found["error"] is None) == (call in ("status", "down"))


def test_help_of_a_task_shows_its_example_and_explains_its_options(results: Results) -> None:
    assert "Example: invoke up" in results["help"].stdout
    assert re.search(r"--obs +also start MLflow", results["help"].stdout)


@pytest.mark.parametrize(
    "variable", ["PYTHONOPTIMIZE=2", "PYTHONWARNINGS=error", "PYTHONSAFEPATH=1", "PYTHONPATH=/no/such/place"]
)
def test_variables_that_change_python_change_no_task(results: Results, home: Path, variable: str) -> None:
    name, _, value = variable.partition("=")
    env = {k: v for k, v in os.environ.items() if not k.startswith("PLATFORM_")}
    env |= {"PLATFORM_STATE_DIR": str(home), "PYTHONUTF8": "1", name: value}
    command = [sys.executable, "-m", "invoke", *CALLS["help"]]
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, encoding="utf-8", check=False)
    assert (done.returncode, done.stdout) == (0, results["help"].stdout), done.stderr


def test_completion_knows_the_options_of_a_task(results: Results) -> None:
    assert {"--obs", "--tier", "--timeout"} <= set(results["complete"].stdout.split())


def test_no_option_is_two_dashes_alone_after_which_completion_shows_all_options() -> None:
    from infra.tasks.collection import collect

    wrong = [c.name for c in collect().to_contexts() if "--" in c.flags]
    assert wrong == []


def loaded(directory: Path, *options: str, **environ: str) -> set[str]:
    """The modules that `invoke --list` imports in a directory."""
    env = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"} | environ
    command = [sys.executable, "-X", "importtime", "-m", "invoke", "--list"]
    done = subprocess.run(command, cwd=directory, env=env, capture_output=True, encoding="utf-8", check=True)
    return set(re.findall(r"^import time:.*\| +(\S+)$", done.stderr, re.MULTILINE))


def test_the_list_loads_no_more_than_it_prints(tmp_path: Path) -> None:
    (tmp_path / "tasks.py").write_text("import invoke\n\n\n@invoke.task\ndef one(context): ...\n", encoding="utf-8")
    cache = tmp_path / "cache"
    assert loaded(ROOT, PYTHONPYCACHEPREFIX=str(cache)) - loaded(tmp_path) == LIST_LOADS
    compiled = {path.name.partition(".")[0] for path in cache.rglob("*.pyc")}
    assert {"collection", "console", "verbs"} <= compiled, "the next call compiles all of it again"


def test_a_command_line_keeps_the_options_of_the_tasks_that_it_names() -> None:
    def body(context: Context, size: int = 1) -> None: ...

    made = {name: command.command(name, help={"size": "of it"})(body) for name in ("up", "status", "down")}
    tasks = invoke.Collection(made["up"], made["down"])
    tasks.add_collection(invoke.Collection("native", made["status"]))
    collection.without_options(tasks, ["up", "--help=native.status"])
    options = {name: [argument.name for argument in tasks[name].get_arguments()] for name in tasks.task_names}
    assert "size" in options["up"]
    assert "size" in options["native.status"]
    assert options["down"] == []


def test_the_list_has_every_task_with_its_line_of_help(results: Results) -> None:
    listed = set(re.findall(r"^  (\S+)  +\S", results["list"].stdout, re.MULTILINE))
    assert {name for name in listed if "." not in name or name.startswith(("native.", "train."))} == GOLDEN
    assert listed == set(TASKS)


def test_questions_leave_nothing_behind(results: Results, home: Path) -> None:
    assert results["status"].returncode == 9
    assert sorted(p.name for p in home.iterdir()) == [".gitignore", "lock", "logs"], "made by `down` alone"


# --- command lines that fit no task


def checked(monkeypatch: pytest.MonkeyPatch, words: str) -> int:
    """The exit code with which a command line is refused; 0 when it is none of that check's business."""
    monkeypatch.setattr(sys, "argv", ["/usr/bin/invoke", *words.split()])
    try:
        collection.check_command_line(COLLECTION)
    except invoke.Exit as end:
        return end.code
    return 0


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        ("sttus", "did you mean status?"),
        ("native.sttus", "did you mean native.status?"),
        ("--help upp", "did you mean up?"),
        ("status --tail 5", "invoke --help status"),
        ("up --ob", "did you mean --obs?"),
        ("up --obss=1", "did you mean --obs?"),
        ("status redis", "status does not take a bare service name"),
        ("status -j", "use --json: -j is not short for it any more"),
        ("up -t 60", "invoke up --timeout 60"),
        ("db.list -t/some/place", "use --to: -t is not short for it any more"),
        ("up --timeout soon", "--timeout: 'soon' is not a number"),
        ("logs -s redis --tail=many", "--tail: 'many' is not a whole number"),
        ("logs --tail=", "--tail: '' is not a whole number"),
        ("helm.template redis", "if it is a value for helm.template: invoke --help helm.template"),
        ("snapshot.show", "snapshot.show needs NAME"),
        ("helm.rollback --name redis", "invoke helm.rollback"),
        ("up --timeout", "timeout"),
        ("status zzzz", "there is no task 'zzzz'"),
    ],
)
def test_a_wrong_command_line_ends_with_2_and_a_hint(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], words: str, hint: str
) -> None:
    assert checked(monkeypatch, words) == 2
    out, err = capsys.readouterr()
    assert hint in err
    assert err.count("code: USAGE (exit 2)") == 1
    assert out == ""


@pytest.mark.parametrize(
    "words",
    ["", "--list", "--help", "--help up", "up --help", "up --obs -o json", "status version", "logs -s a -s b,c -f"],
)
def test_a_command_line_that_fits_is_left_to_invoke(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], words: str
) -> None:
    assert checked(monkeypatch, words) == 0
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("words", ["--json", "-o json", "-ojson", "-o=json", "--output json", "--output=json"])
def test_json_is_honoured_however_it_is_asked_for(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], words: str
) -> None:
    checked(monkeypatch, f"status {words} --bogus")
    assert json.loads(capsys.readouterr().out)["error"]["code"] == "USAGE"


def test_yaml_is_honoured_too(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    checked(monkeypatch, "status --bogus -o yaml")
    assert "code: USAGE" in capsys.readouterr().out


@pytest.mark.parametrize("program", ["/usr/bin/pytest", "/x/pytest/__main__.py", "nox", ""])
def test_other_programs_may_load_the_tasks(monkeypatch: pytest.MonkeyPatch, program: str) -> None:
    monkeypatch.setattr(sys, "argv", [program, "no", "tasks"])
    collection.check_command_line(COLLECTION)


@pytest.mark.parametrize("program", ["invoke", "/x/inv", "C:/x/invoke.exe", "/x/invoke/__main__.py"])
def test_invoke_is_recognised_however_it_is_called(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], program: str
) -> None:
    monkeypatch.setattr(sys, "argv", [program, "no", "tasks"])
    with pytest.raises(invoke.Exit):
        collection.check_command_line(COLLECTION)
    assert "there is no task 'no'" in capsys.readouterr().err


# --- what holds for all tasks


@pytest.mark.parametrize("name", sorted(TASKS))
def test_every_task_is_explained(name: str) -> None:
    task = TASKS[name]
    text = (task.__doc__ or "").strip()
    first, _, rest = text.partition("\n")
    assert first.endswith(".")
    assert len(first) <= 110
    assert "Example: " in rest
    inherited = name.partition(".")[2] if name.partition(".")[0] in catalog.TIERS else name
    assert f"invoke {name}" in rest or f"invoke {inherited}" in rest


@pytest.mark.parametrize("name", sorted(TASKS))
def test_every_option_of_a_task_is_explained(name: str) -> None:
    assert [a.name for a in ARGUMENTS[name] if not a.help] == []


LETTERS = {
    "d": "detach",
    "e": "env",
    "f": "follow",
    "n": "tail",
    "o": "output",
    "s": "service",
    "t": "tier",
    "y": "yes",
}
"""Every short option. A letter means one thing in all tasks; -h is Invoke's own help."""


@pytest.mark.parametrize("name", sorted(TASKS))
def test_short_options_mean_one_thing_everywhere(name: str) -> None:
    short = {letter: a.name for a in ARGUMENTS[name] for letter in a.names if len(letter) == 1}
    assert short == {
        letter: option for letter, option in LETTERS.items() if option in {a.name for a in ARGUMENTS[name]}
    }


# --- what people type


def understood(words: str) -> shorthand.Meant:
    """A command line in Invoke's words."""
    return shorthand.meant(words.split(), COLLECTION.to_contexts())


@pytest.mark.parametrize(
    ("typed", "words"),
    [
        ("start --obs", "up --obs"),
        ("kind.ps", "kind.status"),
        ("logs temporal redis", "logs --service temporal --service redis"),
        ("logs --tail 5 temporal -f", "logs --tail 5 --service temporal -f"),
        ("logs -fn 5 temporal", "logs -fn 5 --service temporal"),
        ("logs -n5 temporal", "logs -n5 --service temporal"),
        ("restart temporal status", "restart --service temporal status"),
        ("db.shell users", "db.shell --database users"),
        ("db.backup users labeler --verify", "db.backup --database users --database labeler --verify"),
        ("minio.ls model-weights --prefix a", "minio.ls --bucket model-weights --prefix a"),
        ("completion bash --install", "completion --shell bash --install"),
        ("db.restore users", "db.restore users"),
        ("train.run --experiment start", "train.run --experiment start"),
        ("snapshot.show stop", "snapshot.show stop"),
        ("up -t native", "up -t native"),
    ],
)
def test_what_people_type_is_understood(typed: str, words: str) -> None:
    assert understood(typed) == shorthand.Meant(tuple(words.split()))


def test_words_without_an_option_mean_one_that_the_task_has() -> None:
    flags = {str(context.name): context.flags for context in COLLECTION.to_contexts()}
    assert [task for task, option in shorthand.FREE.items() if f"--{option}" not in flags[task]] == []


@pytest.mark.parametrize("name", sorted(TASKS))
@pytest.mark.parametrize("flag", ["--help", "-h"])
def test_help_is_help_behind_every_task(name: str, flag: str) -> None:
    assert understood(f"{name} {flag}").help == name


def test_help_behind_a_task_is_printed_and_nothing_is_made(results: Results) -> None:
    for call in ("help of a task with an argument", "help behind an argument"):
        assert "Usage: " in results[call].stdout
    assert not (ROOT / "--help").exists()


def test_other_words_run_the_task(results: Results) -> None:
    assert results["other word"].stdout == results["plain word"].stdout != ""


# --- the namespaces that are there, by the modules that make them


def test_each_namespace_has_its_own_line_of_help() -> None:
    for name, inner in COLLECTION.collections.items():
        assert inner.__doc__, name


def test_the_envelope_names_the_task_as_users_type_it(results: Results) -> None:
    assert json.loads(results["status"].stdout)["command"] == "status"
    assert json.loads(results["down"].stdout)["command"] == "native.down"
