"""The key and certificate of the parts of one server: TLS accepts them, and nobody else's."""

from __future__ import annotations

import shutil
import ssl
import subprocess
from pathlib import Path

import pytest

from infra import certificate


def test_each_one_is_another() -> None:
    assert certificate.make("a") != certificate.make("a")


def contexts(server: Path, client: Path | None, trusted: Path) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """A server that wants a certificate, and a client that may have one."""
    one, other = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    one.load_cert_chain(server)
    one.verify_mode = ssl.CERT_REQUIRED
    other.check_hostname = False
    if client:
        other.load_cert_chain(client)
    for context in (one, other):
        context.load_verify_locations(trusted)
        context.verify_flags |= ssl.VerifyFlags.VERIFY_X509_STRICT
    return one, other


def talk(one: ssl.SSLContext, other: ssl.SSLContext) -> bytes:
    """What the server reads of what the client says, once both have accepted each other."""
    there, back = ssl.MemoryBIO(), ssl.MemoryBIO()
    server, client = one.wrap_bio(there, back, server_side=True), other.wrap_bio(back, there)
    pending = [client.do_handshake, server.do_handshake]
    for _ in range(10):
        for step in list(pending):
            try:
                step()
                pending.remove(step)
            except ssl.SSLWantReadError:
                continue
    client.write(b"hello")
    return server.read()


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    """Those of two stacks."""
    made = (tmp_path / "mine.pem", tmp_path / "other.pem")
    for path in made:
        path.write_text(certificate.make("platform"))
    return made


def test_both_sides_accept_the_one_certificate(files: tuple[Path, Path]) -> None:
    mine, _ = files
    assert talk(*contexts(mine, mine, mine)) == b"hello"


@pytest.mark.parametrize("theirs", [True, False])
def test_a_certificate_of_another_stack_and_none_are_refused(files: tuple[Path, Path], theirs: bool) -> None:
    mine, other = files
    with pytest.raises(ssl.SSLError):
        talk(*contexts(mine, other if theirs else None, mine))


@pytest.mark.skipif(shutil.which("openssl") is None, reason="needs the program openssl")
def test_openssl_finds_the_signature_and_the_key_right(files: tuple[Path, Path]) -> None:
    mine, other = (str(path) for path in files)
    checks = (
        ["verify", "-check_ss_sig", "-x509_strict", "-CAfile", mine, mine],
        ["ec", "-in", mine, "-check", "-noout"],
    )
    for words in checks:
        subprocess.run(["openssl", *words], check=True, capture_output=True, timeout=60)
    foreign = subprocess.run(["openssl", "verify", "-CAfile", mine, other], capture_output=True, timeout=60)
    assert foreign.returncode
