"""What kubectl says when a cluster is not reached, and what we make of it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from infra.errors import PlatformError
from infra.prod.cluster import Cluster


class Saying(Cluster):
    """A cluster whose kubectl complains."""

    def argv(self, *words: str) -> list[str]:
        return [sys.executable, "-c", f"import sys; sys.exit({self.kubectl!r})"]


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ('error: context "kind-elsewhere" does not exist', "CONTEXT_REFUSED"),
        ("Error in configuration: context was not found for specified context: kind-elsewhere", "CONTEXT_REFUSED"),
        ("error: You must be logged in to the server (Unauthorized)", "LOGIN_REFUSED"),
        ("Unable to connect to the server: net/http: TLS handshake timeout", "UNREACHABLE"),
        ("Unable to connect to the server: dial tcp: lookup api.example.com: no such host", "UNREACHABLE"),
        ('error: the server doesn\'t have a resource type "clusters"', "PROGRAM_FAILED"),
    ],
)
def test_the_reason_has_its_code(text: str, code: str) -> None:
    with pytest.raises(PlatformError) as failed:
        Saying(text, "kind-elsewhere", Path("cache")).run("get", "nodes")
    assert failed.value.code == code
    assert failed.value.why == text
