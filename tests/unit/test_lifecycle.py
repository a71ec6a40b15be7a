from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Self

import pytest

from infra import catalog, endpoints, health, lifecycle, mlflow_tables, proof, stack, status_report, tier_choice
from infra.context import Context
from infra.endpoints import Endpoints
from infra.errors import PlatformError
from infra.lifecycle import raise_on_failures
from infra.loglines import LogQuery
from infra.probes import Finding
from infra.provision import ensure
from infra.settings import Settings
from infra.tier_choice import Choice, choose
from infra.tiers.base import Availability, Check, LogLine, Removal, ServiceStatus, Tier
from tests.unit.helpers import Said, context_of

CORE = ("postgres", "redis", "temporal", "minio-datasets", "minio-results")


class FakeTier(Tier):
    """A tier that does nothing and notes what it was asked."""

    def __init__(
        self,
        name: str = "native",
        can: bool = True,
        runs: bool = False,
        found: Sequence[ServiceStatus] = (),
        checks: Sequence[Check] = (),
    ) -> None:
        self.name, self.can, self.runs, self.found, self.checks = name, can, runs, list(found), list(checks)  # type: ignore[misc]
        self.asked: list[str] = []
        self.renewed: list[tuple[str, ...]] = []
        self.overlay: tuple[str, ...] = ("mlflow", "grafana")
        self.wanted: tuple[str, ...] = CORE

    def of(self, context: Context) -> Self:
        """The same, bound to a run."""
        self.context = context
        return self

    def available(self) -> Availability:
        self.asked.append("available")
        return Availability(self.can, f"{self.name} is {'fine' if self.can else 'not here'}")

    def running(self) -> bool:
        return self.runs

    def selection(self, obs: bool, only: Sequence[str]) -> tuple[str, ...]:
        return tuple(only) or (*CORE, *(self.overlay if obs else ()))

    def preflight(self, names: Sequence[str]) -> list[Check]:
        self.asked.append("preflight")
        return self.checks

    def start(self, names: Sequence[str], timeout: float | None) -> None:
        self.asked.append("start")
        self.wanted = tuple(names)
        if not self.runs:
            self.runs, self.found = True, [ServiceStatus(n, "ready", pid=i + 1) for i, n in enumerate(names)]

    def renew_application(self, _timeout: float | None) -> None:
        self.renewed.append(tuple(self.asked[-1:]))

    def stop(self) -> bool:
        return self.runs

    def restart(self, services: Sequence[str]) -> None:
        self.asked.append("restart")

    def status(self) -> list[ServiceStatus]:
        return self.found

    def processes(self) -> set[tuple[str, int | None]]:
        return {(s.name, s.pid) for s in self.found if s.state == "ready"}

    def wait(self, services: Sequence[str], timeout: float | None) -> None:
        self.asked.append("wait")

    def logs(self, services: Sequence[str], query: LogQuery) -> Iterator[LogLine]:
        yield from ()

    def endpoints(self) -> Endpoints:
        return endpoints.build(self.context.settings, self.wanted)

    def stop_services(self, names: Sequence[str]) -> tuple[str, ...]:
        gone = tuple(n for n in self.wanted if n in names)
        self.wanted = tuple(n for n in self.wanted if n not in names)
        self.found = [s for s in self.found if s.name not in names]
        return gone

    def engines(self) -> dict[str, str]:
        return {}

    def programs(self) -> dict[str, str]:
        return {"S3 server": "rclone 1.75.2 (bundled)"}

    def removals(self, services: Sequence[str]) -> list[Removal]:
        return []

    def remove(self, removals: Sequence[Removal]) -> None:
        self.asked.append("remove")

    def stash(self, removal: Removal, into: Path) -> None:
        self.asked.append("stash")

    def unstash(self, removal: Removal, kept: Path) -> None:
        self.asked.append("unstash")


def chosen(root: Path, *tiers: FakeTier, remembered: str = "", **values: str) -> Choice:
    """The choice among these tiers, best first."""
    context = context_of(root, **values)
    if remembered:
        stack.ensure_home(context.stack)
        stack.remember(context.stack, tier=remembered)
    return choose(context, {t.name: t.of(context) for t in tiers})


# --- which tier


@pytest.mark.parametrize("origin", ["the environment", "the command line"])
def test_a_named_tier_is_taken_whatever_runs(tmp_path: Path, origin: str) -> None:
    other = FakeTier("compose", runs=True)
    context = context_of(tmp_path)
    values = {
        **context.settings.values,
        "PLATFORM_TIER": type(context.settings.values["PLATFORM_TIER"])("native", origin),
    }
    named = Context(Settings(values, tmp_path), context.stack, context.console)
    choice = choose(named, {"compose": other.of(named), "native": FakeTier().of(named)})
    assert (choice.tier.name, choice.reason, choice.named) == ("native", f"set by {origin}", True)


def test_a_named_tier_that_cannot_run_here_is_an_error_and_no_other_is_taken(tmp_path: Path) -> None:
    with pytest.raises(PlatformError) as caught:
        chosen(tmp_path, FakeTier("compose", runs=True), FakeTier(can=False), PLATFORM_TIER="native")
    assert (caught.value.code, caught.value.exit) == ("TIER_UNAVAILABLE", 5)
    assert caught.value.why == "native is not here"


def test_what_runs_comes_before_what_is_best_or_was_used_last(tmp_path: Path) -> None:
    best, running = FakeTier("compose"), FakeTier("native", runs=True)
    choice = chosen(tmp_path, best, running, remembered="compose")
    assert (choice.tier.name, choice.reason, choice.named) == ("native", "it runs", False)


def test_what_runs_is_taken_even_if_it_could_not_be_started_now(tmp_path: Path) -> None:
    assert chosen(tmp_path, FakeTier("native", can=False, runs=True)).tier.name == "native"


def test_what_was_used_last_comes_before_what_is_best(tmp_path: Path) -> None:
    choice = chosen(tmp_path, FakeTier("compose"), FakeTier("native"), remembered="native")
    assert (choice.tier.name, choice.reason) == ("native", "it was used last")


@pytest.mark.parametrize("remembered", ["native", "gone", "", "\n"])
def test_else_the_best_one_with_the_reason(tmp_path: Path, remembered: str) -> None:
    choice = chosen(tmp_path, FakeTier("compose"), FakeTier("native", can=False), remembered=remembered)
    assert (choice.tier.name, choice.reason, choice.named) == ("compose", "compose is fine", False)


def test_a_fall_back_says_why_the_better_one_was_not_taken(tmp_path: Path) -> None:
    choice = chosen(tmp_path, FakeTier("compose", can=False), FakeTier("native"))
    assert choice.tier.name == "native"
    assert choice.reason == "native is fine; compose: compose is not here"


def test_no_tier_at_all(tmp_path: Path) -> None:
    with pytest.raises(PlatformError) as caught:
        chosen(tmp_path, FakeTier("compose", can=False), FakeTier("native", can=False))
    assert caught.value.code == "TIER_UNAVAILABLE"
    assert "compose is not here" in caught.value.why
    assert "native is not here" in caught.value.why


def test_the_tiers_of_this_version_can_all_be_named(tmp_path: Path) -> None:
    from infra.catalog import TIERS

    made = tier_choice.tiers(context_of(tmp_path))
    assert set(made) == set(TIERS)  # best first there, as people name them here
    assert {name: tier.name for name, tier in made.items()} == {name: name for name in TIERS}


def test_a_name_that_no_tier_has_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PlatformError) as caught:
        tier_choice.tier_of("nativ", context_of(tmp_path))
    assert (caught.value.code, caught.value.exit) == ("USAGE", 2)
    assert "native" in caught.value.steps[0]


# --- checks before a start


def test_checks_that_pass_or_warn_stop_nothing() -> None:
    raise_on_failures([Check("a", "ok", "fine"), Check("b", "warn", "hm", "do that")])


def test_all_failures_are_named_at_once_with_their_remedies() -> None:
    checks = [
        Check("port.1", "fail", "port 1 is taken", "set A", "PORT_TAKEN"),
        Check("memory", "warn", "little memory", "close programs"),
        Check("port.2", "fail", "port 2 is taken", "set B", "PORT_TAKEN"),
        Check("port.3", "fail", "port 3 is taken", "set B", "PORT_TAKEN"),
    ]
    with pytest.raises(PlatformError) as caught:
        raise_on_failures(checks)
    error = caught.value
    assert (error.code, error.exit) == ("PORT_TAKEN", 4)
    assert error.what == "nothing was started: 3 checks failed"
    assert error.details["problems"] == [f"port {n} is taken" for n in (1, 2, 3)]
    assert error.steps == ("set A", "set B", "invoke doctor")
    details = error.details["checks"]
    assert isinstance(details, list)
    assert [c["id"] for c in details] == ["port.1", "port.2", "port.3"]


def test_a_failure_without_a_code_of_its_own() -> None:
    with pytest.raises(PlatformError) as caught:
        raise_on_failures([Check("disk", "fail", "the disk is full")])
    assert (caught.value.code, caught.value.exit) == ("PREFLIGHT_FAILED", 4)


# --- up


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> dict[str, Finding]:
    """What the functional questions find; everything works unless a test says otherwise."""
    found: dict[str, Finding] = {}

    def ask(questions: dict[str, Any], limit: float = 5.0) -> dict[str, Finding]:
        return {name: found.get(name, Finding(True)) for name in questions}

    monkeypatch.setattr(health, "ask", ask)
    monkeypatch.setattr(proof, "psql", lambda settings: Path("/x/psql"))
    monkeypatch.setattr(mlflow_tables, "back_up", lambda tier: tier.asked.append(f"back up beside {tier.wanted}"))
    return found


def up(context: Context, tier: FakeTier) -> lifecycle.Started:
    return lifecycle.up(Choice(tier.of(context), "test", named=False), obs=None, timeout=None)


def test_up_checks_starts_proves_and_remembers(tmp_path: Path, answers: dict[str, Finding]) -> None:
    context, tier = context_of(tmp_path), FakeTier()
    first = up(context, tier)
    assert tier.asked == ["preflight", "start"]
    assert stack.remembered(context.stack, "tier") == "native"
    assert first.changed
    assert not up(context, tier).changed


def runs_after(context: Context, tier: FakeTier, obs: bool | None = None, only: Sequence[str] = ()) -> tuple[str, ...]:
    """Return what runs after this `up`, of a platform that was stopped before."""
    tier.runs, tier.found, tier.wanted = False, [], CORE
    lifecycle.up(Choice(tier.of(context), "test", named=False), obs, None, only)
    return tier.wanted


def test_an_application_in_the_cluster_follows_its_services(tmp_path: Path, answers: dict[str, Finding]) -> None:
    context, tier = context_of(tmp_path), FakeTier()
    up(context, tier)
    assert tier.renewed == [("start",)]


def test_observability_that_ran_comes_back_and_is_forgotten_only_on_request(
    tmp_path: Path, answers: dict[str, Finding]
) -> None:
    context, tier = context_of(tmp_path), FakeTier()
    assert runs_after(context, tier) == CORE
    assert runs_after(context, tier, only=["mlflow"]) == ("mlflow",)
    assert runs_after(context, tier) == (*CORE, "mlflow")
    assert runs_after(context, tier, obs=True) == (*CORE, "mlflow", "grafana")
    assert runs_after(context, tier, only=["redis"]) == ("redis",)
    assert runs_after(context, tier) == (*CORE, "mlflow", "grafana")
    tier.overlay = ("grafana",)  # MLflow is left out, or another tier does not have it
    assert runs_after(context, tier) == (*CORE, "grafana")
    tier.overlay = ("mlflow", "grafana")
    assert runs_after(context, tier) == (*CORE, "mlflow", "grafana")
    assert runs_after(context, tier, obs=False) == CORE
    assert runs_after(context, tier) == CORE


def test_mlflow_tables_are_backed_up_before_another_version_starts(
    tmp_path: Path, answers: dict[str, Finding], monkeypatch: pytest.MonkeyPatch
) -> None:
    context, tier = context_of(tmp_path), FakeTier()
    runs_after(context, tier, obs=True)
    runs_after(context, tier)
    assert not any("back up" in what for what in tier.asked), "there was no data, then the same version"
    monkeypatch.setattr(catalog, "MLFLOW_TABLES", "next")
    tier.asked.clear()
    runs_after(context, tier, only=["redis"])
    assert not any("back up" in what for what in tier.asked)
    tier.asked.clear()
    runs_after(context, tier)
    assert tier.asked == ["preflight", "start", f"back up beside {(*CORE, 'grafana')}", "start"]
    tier.asked.clear()
    runs_after(context, tier)
    assert tier.asked == ["preflight", "start"]


def test_no_obs_stops_what_runs_and_what_comes_back_with_a_cluster(tmp_path: Path, answers: dict[str, Finding]) -> None:
    context, tier = context_of(tmp_path), FakeTier()
    runs_after(context, tier, obs=True)
    lifecycle.up(Choice(tier.of(context), "test", named=False), False, None)
    assert tier.wanted == CORE
    assert runs_after(context, tier) == CORE
    tier.selection = lambda obs, only: (*CORE, "mlflow")  # type: ignore[method-assign]
    assert runs_after(context, tier, obs=False) == CORE


def test_stopped_observability_does_not_come_back(tmp_path: Path, answers: dict[str, Finding]) -> None:
    context, tier = context_of(tmp_path), FakeTier()
    runs_after(context, tier, obs=True)
    assert lifecycle.stop_observability(tier) == ("mlflow", "grafana")
    assert runs_after(context, tier) == CORE


def test_up_that_fails_its_checks_starts_nothing_and_forgets_nothing(
    tmp_path: Path, answers: dict[str, Finding]
) -> None:
    context = context_of(tmp_path)
    tier = FakeTier(checks=[Check("port.1", "fail", "taken", code="PORT_TAKEN")])
    with pytest.raises(PlatformError, match="nothing was started: taken"):
        up(context, tier)
    assert tier.asked == ["preflight"]
    assert stack.remembered(context.stack, "tier") == ""


def test_two_runs_at_once_are_refused(tmp_path: Path, answers: dict[str, Finding]) -> None:
    context, tier = context_of(tmp_path), FakeTier()
    with stack.lock(context.stack, "down"), pytest.raises(PlatformError) as caught:
        up(context, tier)
    assert caught.value.code == "LOCKED"
    assert tier.asked == []


def test_up_is_not_done_while_something_does_not_work(tmp_path: Path, answers: dict[str, Finding]) -> None:
    answers["redis"] = Finding(False, "no answer in time")
    context = context_of(tmp_path)
    with pytest.raises(PlatformError) as caught:
        up(context, FakeTier())
    assert (caught.value.code, caught.value.exit) == ("SERVICE_FAILED", 7)
    assert caught.value.what == "started, but redis does not work"
    assert caught.value.why == "no answer in time"
    assert stack.remembered(context.stack, "tier") == ""


def test_a_missing_bucket_heals(tmp_path: Path, answers: dict[str, Finding], monkeypatch: pytest.MonkeyPatch) -> None:
    answers["bucket model-weights"] = Finding(False, "HTTP 404")

    def everything(ends: Endpoints) -> list[str]:
        answers.clear()
        return ["bucket model-weights"]

    monkeypatch.setattr(ensure, "everything", everything)
    context = context_of(tmp_path)
    up(context, FakeTier())
    assert isinstance(context.console, Said)
    assert "created the missing bucket model-weights" in context.console.err


def test_who_is_slow_on_a_busy_machine_is_asked_once_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    limits: list[float] = []

    def ask(questions: dict[str, Any], limit: float = 5.0) -> dict[str, Finding]:
        limits.append(limit)
        slow = Finding(False, "no answer in time")
        return {name: slow if name == "redis" and len(limits) == 1 else Finding(True) for name in questions}

    monkeypatch.setattr(health, "ask", ask)
    up(context_of(tmp_path), FakeTier())
    assert limits == [5.0, proof.PATIENCE]


def test_a_server_that_is_nearly_full_is_asked_one_by_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[list[str]] = []

    def ask(questions: dict[str, Any], limit: float = 5.0) -> dict[str, Finding]:
        asked.append(list(questions))
        full = Finding(False, "FATAL:  sorry, too many clients already")
        return {name: full if "database" in name and len(questions) > 1 else Finding(True) for name in questions}

    monkeypatch.setattr(health, "ask", ask)
    monkeypatch.setattr(proof, "psql", lambda settings: Path("/x/psql"))
    up(context_of(tmp_path), FakeTier())
    assert asked[1:] == [["database postgres"], ["database platform"], ["database users"], ["database labeler"]]


def test_a_server_that_is_full_is_no_broken_one(tmp_path: Path, answers: dict[str, Finding]) -> None:
    answers["postgres"] = Finding(False, "FATAL:  sorry, too many clients already")
    with pytest.raises(PlatformError) as caught:
        up(context_of(tmp_path), FakeTier())
    assert caught.value.code == "DATABASE_BUSY"
    assert any("POSTGRES_MAX_CONNECTIONS" in step for step in caught.value.steps)


# --- status


def state_of(*found: tuple[str, str, bool]) -> str:
    services = [ServiceStatus(name, state) for name, state, _ in found]
    findings = {name: Finding(ok) for name, state, ok in found if state in ("ready", "starting")}
    return status_report.overall(services, findings)


@pytest.mark.parametrize(
    ("found", "overall"),
    [
        ([], "stopped"),
        ([("a", "stopped", False), ("b", "stopped", False)], "stopped"),
        ([("a", "ready", True), ("b", "ready", True)], "ready"),
        ([("a", "ready", True), ("b", "starting", False)], "starting"),
        ([("a", "ready", True), ("b", "waiting", False)], "starting"),
        ([("a", "ready", True), ("b", "ready", False)], "degraded"),
        ([("a", "ready", False), ("b", "starting", False)], "degraded"),
        ([("a", "ready", True), ("b", "backoff", False)], "degraded"),
        ([("a", "ready", True), ("b", "failed", False)], "degraded"),
        ([("a", "ready", True), ("b", "stopped", False)], "degraded"),
        ([("a", "ready", True), ("b", "unsupervised", False)], "degraded"),
    ],
)
def test_the_state_of_the_whole(found: list[tuple[str, str, bool]], overall: str) -> None:
    assert state_of(*found) == overall


def test_a_process_that_runs_but_does_not_answer_is_unhealthy(tmp_path: Path, answers: dict[str, Finding]) -> None:
    tier = FakeTier(runs=True, found=[ServiceStatus("redis", "ready"), ServiceStatus("postgres", "backoff", "exit 1")])
    answers["redis"] = Finding(False, "no answer in time")
    found = status_report.report(tier.of(context_of(tmp_path)))
    assert found.state == "degraded"
    states = [status_report.state_of(s, found.findings) for s in found.services]
    assert states == [("unhealthy", "no answer in time"), ("backoff", "exit 1")]


def test_of_what_does_not_run_nothing_is_asked(tmp_path: Path, answers: dict[str, Finding]) -> None:
    found = status_report.report(FakeTier().of(context_of(tmp_path)))
    assert (found.state, found.services, found.findings) == ("stopped", [], {})


def test_what_needs_a_running_platform_says_how_to_start_it(tmp_path: Path) -> None:
    with pytest.raises(PlatformError) as caught:
        tier_choice.require_running(Choice(FakeTier().of(context_of(tmp_path)), "", named=False))
    assert (caught.value.code, caught.value.exit) == ("NOT_RUNNING", 9)
    assert "invoke up" in caught.value.steps


# --- names of services


def test_known_services_pass() -> None:
    tier_choice.known_services(CORE, FakeTier())


@pytest.mark.parametrize(
    ("wrong", "meant"), [("postgrs", "postgres"), ("minio-dataset", "minio-datasets"), ("temporl", "temporal")]
)
def test_an_unknown_service_gets_the_nearest_name(wrong: str, meant: str) -> None:
    with pytest.raises(PlatformError) as caught:
        tier_choice.known_services(["redis", wrong], FakeTier())
    assert (caught.value.code, caught.value.exit) == ("USAGE", 2)
    assert caught.value.steps[0] == f"did you mean {meant}?"
    assert "redis" in caught.value.steps[-1]


def test_a_service_that_the_tier_lacks_says_why() -> None:
    with pytest.raises(PlatformError) as caught:
        tier_choice.known_services(["loki"], FakeTier())
    assert "container" in caught.value.why


def test_a_name_like_nothing_gets_no_false_hint() -> None:
    with pytest.raises(PlatformError) as caught:
        tier_choice.known_services(["zzzz"], FakeTier())
    assert not any("did you mean" in step for step in caught.value.steps)
