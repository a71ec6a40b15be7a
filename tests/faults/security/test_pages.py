"""What web pages of other origins can do with the services, tried in Chromium on pages that this machine serves."""

from __future__ import annotations

import http.server
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import boto3
import pytest
from botocore.config import Config

from infra import catalog
from tests.apps.browser import Browser, Page, running
from tests.faults.conftest import TIER, Victim
from tests.rig import browser as rig
from tests.smoke.stage import stage


class _Blank(http.server.BaseHTTPRequestHandler):
    """A site of an empty page."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.end_headers()
        self.wfile.write(b"<!doctype html><title>a page</title>")

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture(scope="module")
def site() -> Iterator[int]:
    """The port of a web server of somebody else: http://127.0.0.1:PORT is one origin, http://localhost:PORT another."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Blank)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_address[1]
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    program = rig.find()
    if not program:
        pytest.skip("no Chromium on this machine: python -m tests.rig.browser")
    with running(program) as browser:
        yield browser


@dataclass(frozen=True)
class Pages:
    """A running platform, and pages of two origins: one that may use the object stores, one that may not."""

    victim: Victim
    friend: Page
    stranger: Page

    @property
    def s3(self) -> Any:
        """A client of the results store."""
        contract = self.victim.contract
        return boto3.client(
            "s3",
            endpoint_url=contract["INTERNAL_STORAGE_ENDPOINT"],
            aws_access_key_id=contract["INTERNAL_STORAGE_ACCESS_KEY"],
            aws_secret_access_key=contract["INTERNAL_STORAGE_SECRET_KEY"],
            region_name="us-east-1",
            config=Config(signature_version="s3v4"),
        )

    def signed(self, verb: str, key: str) -> str:
        """An address that may be used without a login for an hour."""
        where = {"Bucket": catalog.BUCKETS[-1].name, "Key": key}
        address: str = self.s3.generate_presigned_url(verb, Params=where)
        return address


@pytest.fixture(scope="module")
def pages(site: int, chromium: Browser) -> Iterator[Pages]:
    with stage(TIER) as made:
        env = {**made.env, "PLATFORM_S3_ORIGINS": f"http://127.0.0.1:{site}"}
        victim = Victim(type(made)(made.tier, made.home, env, made.root))
        victim.up()
        friend, stranger = (Page(chromium, f"http://{host}:{site}/") for host in ("127.0.0.1", "localhost"))
        for page in (friend, stranger):
            page.until("document.title == 'a page'")
        yield Pages(victim, friend, stranger)


def fetched(page: Page, address: str, **options: Any) -> str:
    """What a page reads at an address, or the error that its script gets."""
    ask = f"fetch({json.dumps(address)}, {json.dumps(options)})"
    found = page.value(f"{ask}.then(async r => r.status + ' ' + await r.text()).catch(e => 'refused: ' + e.message)")
    return str(found)


def test_a_labelling_tool_reads_and_writes_with_signed_addresses(pages: Pages) -> None:
    told = fetched(pages.friend, pages.signed("put_object", "labels.json"), method="PUT", body="from the page")
    assert told.startswith("200"), told
    assert fetched(pages.friend, pages.signed("get_object", "labels.json")) == "200 from the page"


def test_another_page_that_knows_the_keys_reads_and_writes_nothing(pages: Pages) -> None:
    bucket = catalog.BUCKETS[-1].name
    pages.s3.put_object(Bucket=bucket, Key="weights", Body=b"ours")
    told = fetched(pages.stranger, pages.signed("put_object", "weights"), method="PUT", body="theirs")
    assert told.startswith("refused"), told
    told = fetched(pages.stranger, pages.signed("delete_object", "weights"), method="DELETE")
    assert told.startswith("refused"), told
    assert pages.s3.get_object(Bucket=bucket, Key="weights")["Body"].read() == b"ours"
    engine = next(s["engine"] for s in pages.victim.stage.data("status")["services"] if s["name"] == "minio-results")
    lacking = {gap.feature for gap in catalog.gaps(engine)}
    if "s3-closed-to-pages" not in lacking:  # else the README says so
        told = fetched(pages.stranger, pages.signed("get_object", "weights"))
        assert told.startswith("refused"), told
