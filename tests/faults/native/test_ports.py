"""Ports that are taken: found before anything is started, all at once, with who has them and what moves them."""

from __future__ import annotations

import pytest

from tests.faults.conftest import Victim
from tests.faults.native import tools
from tests.smoke.stage import port_settings, stage


def _ports(victim: Victim, *names: str) -> list[int]:
    return [int(victim.env[name]) for name in names]


@pytest.mark.fault(12)
def test_a_strangers_ports_are_all_named_and_nothing_is_started(unused: Victim) -> None:
    taken = ("POSTGRES_PORT", "REDIS_PORT", "TEMPORAL_UI_PORT", "MINIO_DATASETS_PORT", "TEMPORAL_METRICS_PORT")
    with tools.listener(*_ports(unused, *taken)) as stranger:
        done = unused.invoke("up")
        assert tools.alive(stranger)
    said = tools.refused(done, 4, f"pid {stranger}", "nothing was started", "PORT_TAKEN", *taken)
    for port in _ports(unused, *taken):
        assert f"port {port} " in said
    others = set(_ports(unused, *port_settings())) - set(_ports(unused, *taken))
    assert not [port for port in others if f"port {port} " in said]
    tools.assert_nothing_runs(unused)
    assert not (unused.stack_home / "native").exists()
    code, _ = tools.answer(unused, "status")
    assert code == 9


def test_a_port_setting_given_twice_is_a_wrong_setting(unused: Victim) -> None:
    twice = tools.with_settings(unused, REDIS_PORT=unused.env["POSTGRES_PORT"])
    tools.refused(twice.invoke("up"), 2, "POSTGRES_PORT", "REDIS_PORT", "both", "the environment")
    tools.assert_nothing_runs(unused)


def test_once_the_stranger_has_gone_up_works(unused: Victim) -> None:
    with tools.listener(*_ports(unused, "REDIS_PORT")):
        tools.refused(unused.invoke("up"), 4, "REDIS_PORT")
    unused.up()
    tools.assert_runs_once(unused)


def test_a_stranger_on_the_port_of_a_crashed_service_is_named(running: Victim) -> None:
    """The supervisor cannot take the port back: the next `up` says who has it and touches nothing."""
    others = tools.pids(running, "postgres", "temporal", "minio-datasets", "minio-results")
    port = int(running.env["REDIS_PORT"])
    tools.kill_all(running, "supervisor", "redis")
    with tools.listener(port) as stranger:
        said = tools.refused(running.invoke("up"), 4, f"port {port} ", f"pid {stranger}", "REDIS_PORT")
        assert "POSTGRES_PORT" not in said
        assert tools.pids(running, *others) == others
        assert all(map(tools.alive, others.values()))
    running.up()
    assert tools.pids(running, *others) == others
    tools.assert_runs_once(running)


@pytest.mark.parametrize("supervised", [True, False], ids=["running", "without its supervisor"])
@pytest.mark.fault(12)
def test_another_stack_of_ours_is_named_by_its_directory(running: Victim, supervised: bool) -> None:
    names = ("POSTGRES_PORT", "REDIS_PORT", "TEMPORAL_PORT", "MINIO_DATASETS_PORT", "MINIO_RESULTS_PORT")
    before = tools.pids(running)
    if not supervised:
        tools.kill_all(running, "supervisor")
    same = {name: running.env[name] for name in names}
    with stage("native", **same) as made:
        second = Victim(made)
        said = tools.refused(second.invoke("up"), 4, "another stack", str(running.stack_home), "invoke down", *names)
        for name, pid in before.items():
            assert name != "redis" or f"pid {pid}" in said
        assert not (second.stack_home / "native").exists()
        tools.assert_nothing_runs(second)
    if not supervised:
        running.up()
    assert tools.pids(running) == before
    tools.assert_runs_once(running)


def test_two_stacks_with_ports_of_their_own_run_side_by_side(running: Victim) -> None:
    before = tools.pids(running)
    with stage("native") as made:
        second = Victim(made)
        second.up()
        tools.assert_runs_once(second)
        second.invoke("down", check=True)
        tools.assert_nothing_runs(second)
    assert tools.pids(running) == before
