"""Trainings of a site, as the user's kubectl shows them."""

from __future__ import annotations

import pytest

from infra import shell
from infra.prod.jobs import SiteJobs
from infra.training import runners
from infra.training.cluster import Away, Refused
from tests.unit.prod.played import Played


class WithPods(Played):
    """A cluster with one pod of a training, which prints."""

    def _raw_list(self, path: str) -> shell.Result:
        self.log.append(path)
        if "/log?" in path:
            return shell.Result(0, "2026-11-30T10:00:00.1Z one\n2026-11-30T10:00:01Z two\n", "")
        if "/pods?" in path:
            return shell.Result(0, '{"items": [{"metadata": {"name": "digits-1-abc"}}]}', "")
        if "away" in path:
            return shell.Result(1, "", "error: the server is currently unable")
        return shell.Result(1, "", "Error from server (NotFound): jobs not found")


def test_lines_of_pods_come_once() -> None:
    there = WithPods()
    news = runners.log_of_pods(SiteJobs(there), "digits-1")
    assert news is not None
    assert news() == ["one", "two"]
    assert news() == []
    assert all("/namespaces/training/" in path for path in there.log)


def test_what_is_not_there_is_no_error_and_nothing_is_changed() -> None:
    there = WithPods()
    jobs = SiteJobs(there)
    assert jobs.job("digits-1") is None
    with pytest.raises(Refused):
        jobs.delete("digits-1")
    with pytest.raises(Refused):
        jobs.create({})
    with pytest.raises(Away):
        jobs.job("away")
