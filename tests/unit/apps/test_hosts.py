"""By which names an application may be called."""

from __future__ import annotations

import pytest

from apps import hosts

NAMES = hosts.allowed({"APP_ALLOWED_HOSTS": "platform-backend, Platform.Example.com", "APP_HOST": "0.0.0.0"})


@pytest.mark.parametrize(
    "header",
    [
        *(
            "localhost",
            "localhost:8000",
            "LOCALHOST",
            "localhost.",
            "127.0.0.1",
            "127.0.0.1:8000",
            "[::1]",
            "[::1]:8000",
        ),
        *("platform-backend", "platform-backend:8000", "platform.example.com", "PLATFORM.example.com:443"),
        *("10.244.0.7:8000", "10.244.0.7"),
    ],
)
def test_names_of_its_own(header: str) -> None:
    assert hosts.accepts(NAMES, header, "10.244.0.7")


@pytest.mark.parametrize(
    "header",
    [
        *(None, "", "evil.example", "evil.example:8000", "localhost.evil.example", "127.0.0.1.evil.example"),
        *("10.evil.example", "10.244.0.8", "0.0.0.0", "[::]", "xlocalhost", "localhost@evil.example", "[::1].evil"),
        *("localhost:8000:1", "a\r\nb", "127.0.0.1 evil.example"),
    ],
)
def test_every_other_name_is_refused(header: str | None) -> None:
    assert not hosts.accepts(NAMES, header, "10.244.0.7")


def test_an_address_by_which_it_is_reached_on_both_protocols() -> None:
    assert hosts.accepts(NAMES, "10.244.0.7:8000", "::ffff:10.244.0.7")


def test_a_refusal_says_what_would_change_it_and_carries_nothing_raw() -> None:
    assert hosts.VARIABLE in hosts.refusal("evil.example")
    assert "\x1b" not in hosts.refusal("\x1b[2J")
