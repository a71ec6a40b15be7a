from __future__ import annotations

import signal
import sys

import pytest
from temporalio.exceptions import ApplicationError

from infra.training import activities
from infra.training.activities import Report


@pytest.mark.parametrize(
    ("line", "report"),
    [
        ('{"epoch": 3, "epochs": 10, "metrics": {"loss": 0.1}}', Report(3, 10, {"loss": 0.1})),
        ('  {"epoch": 0}', Report(0, 0, {})),
        ('{"epoch": 1, "metrics": {"a": 1, "b": "x", "c": true, "d": NaN, "e": Infinity}}', Report(1, 0, {"a": 1.0})),
        ('{"epoch": 3', None),
        ('{"epoch": "3"}', None),
        ('{"epoch": true}', None),
        ('{"epoch": -1}', None),
        ('{"epoch": 3000000000}', None),
        ('{"epoch": 3, "metrics": [1]}', None),
        ('{"loss": 0.1}', None),
        ("epoch 3", None),
        ("[1]", None),
        ("{" * 100_000, None),
    ],
)
def test_progress_in_a_line(line: str, report: Report | None) -> None:
    assert activities.parse_progress(line) == report


@pytest.mark.parametrize(
    ("code", "final", "text"),
    [
        (1, True, "exit status 1"),
        (76, True, "exit status 76"),
        (255, True, "exit status 255"),
        (75, False, "exit status 75"),
        (-15, False, "signal 15"),
        (143, False, "signal 15"),
        (130, False, "signal 2"),
        pytest.param(-9, False, "signal 9", marks=pytest.mark.skipif(sys.platform == "win32", reason="no SIGKILL")),
        pytest.param(137, False, "signal 9", marks=pytest.mark.skipif(sys.platform == "win32", reason="no SIGKILL")),
        (-int(signal.SIGSEGV), True, "signal 11"),
        (-int(signal.SIGABRT), True, "signal"),
    ],
)
def test_which_failures_another_try_may_cure(code: int, final: bool, text: str) -> None:
    with pytest.raises(ApplicationError, match=text) as caught:
        activities.judge("training", code, ["last", "lines"])
    assert caught.value.non_retryable is final
    assert caught.value.details == (["last", "lines"],)


def test_no_failure() -> None:
    activities.judge("training", 0, [])
