from __future__ import annotations

import signal
import sys

import pytest
from temporalio.exceptions import ApplicationError

from infra.training import activities


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
