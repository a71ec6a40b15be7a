"""The stores of a site: how its contract leads to them, and the prefix of their buckets."""

from __future__ import annotations

from dataclasses import asdict

import pytest

from infra.data.objects.client import Client
from infra.data.objects.link import LinkReply
from infra.data.objects.login import StoreLogin
from infra.errors import PlatformError
from infra.prod import buckets

CONTRACT = {
    "EXTERNAL_STORAGE_ENDPOINT": "https://s3.eu-central-1.amazonaws.com",
    "EXTERNAL_STORAGE_ACCESS_KEY": "key",
    "EXTERNAL_STORAGE_SECRET_KEY": "secret",
    "INTERNAL_STORAGE_ENDPOINT": "http://127.0.0.1:9000",
    "INTERNAL_STORAGE_ACCESS_KEY": "key",
    "INTERNAL_STORAGE_SECRET_KEY": "secret",
    "AWS_DEFAULT_REGION": "eu-central-1",
}


def test_both_stores_are_reached_as_the_contract_says() -> None:
    one, other = buckets.logins(CONTRACT, "acme-")
    assert (one.host, one.port, one.secure, one.region) == ("s3.eu-central-1.amazonaws.com", 443, True, "eu-central-1")
    assert (other.host, other.port, other.secure) == ("127.0.0.1", 9000, False)
    assert "training-datasets" in one.only
    with pytest.raises(PlatformError, match="no keys"):
        buckets.logins({**CONTRACT, "INTERNAL_STORAGE_SECRET_KEY": ""}, "acme-")


def test_buckets_are_asked_for_with_the_prefix_of_the_site(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("infra.data.objects.link.Link.patiently", lambda self, attempt: LinkReply(200, {}))
    made = buckets.logins(CONTRACT, "acme-")[0]
    client = Client(StoreLogin(**asdict(made)))  # as the programs that copy objects side by side make it
    assert client._path("training-datasets", "a") == "/acme-training-datasets/a"
    assert client._path("", "") == "/"
    assert client.buckets() == sorted(made.only)
