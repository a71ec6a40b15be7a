"""Signed requests to one S3 server over connections of its own: limits, tries, and what refuses or is silent."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol

from infra.data.objects import sign, xml
from infra.data.objects.login import StoreLogin
from infra.errors import PlatformError
from infra.sigv4 import connect, host_header, limited

CONNECT_LIMIT = 5.0
READ_LIMIT = 10.0
"""Seconds without a byte after which a server counts as gone."""
LIST_LIMIT = 60.0
"""Seconds for one page of a listing, for which some engines read a whole directory."""
TRIES = 4
BLOCK = 1 << 18
"""Bytes of a body that are sent at once."""
TEMPORARY = frozenset({429, 500, 502, 503, 504})
# Answers about the login or the clock: they hold for every request, not for one object.
_LOGIN = frozenset({"InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "InvalidToken"})
_SKEWED = "RequestTimeTooSkewed"
LOST = (ConnectionError, http.client.HTTPException, socket.gaierror)


class Body(Protocol):
    """The content of a request: like a file that can go back to its beginning."""

    def read(self, size: int = -1, /) -> bytes:
        """Read the next bytes."""

    def seek(self, offset: int, whence: int = 0, /) -> int:
        """Go to a place."""


class S3Error(Exception):
    """The server answered with an error: HTTP status, S3 code ('' for HEAD), text."""

    def __init__(self, status: int, code: str, text: str = "") -> None:
        super().__init__(f"HTTP {status} {code} {text}".strip())
        self.status = status
        self.code = code


class LinkStopped(Exception):
    """The run is being stopped: the rest is not worth doing."""


@dataclass
class LinkReply:
    """Status, headers (names in lower case) and body of an answer."""

    status: int
    headers: Mapping[str, str]
    body: bytes = b""


class Link:
    """One server; every thread has a connection of its own, and `stop` ends all that are waiting.

    Raises (every method):
        PlatformError: UNREACHABLE or LOGIN_REFUSED.
        S3Error: any other answer that is an error.
        Stopped: after `stop`.
    """

    def __init__(self, login: StoreLogin, limit: float = READ_LIMIT) -> None:
        self.login = login
        self.limit = limit
        self._mine = threading.local()
        self._links: set[http.client.HTTPConnection] = set()
        self._stopped = threading.Event()

    def stop(self) -> None:
        """End all requests at once; further ones raise Stopped."""
        self._stopped.set()
        for link in list(self._links):
            with contextlib.suppress(OSError):
                if link.sock is not None:
                    link.sock.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Close the connections of all threads."""
        for link in list(self._links):
            link.close()
        self._links.clear()

    def request(
        self,
        method: str,
        bucket: str = "",
        key: str = "",
        query: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        body: bytes | Body = b"",
        digest: str = "",
        length: int = 0,
    ) -> LinkReply:
        """Send a request whose answer fits into memory, and return the answer.

        Args:
            body: bytes, or a stream that can `seek(0)`; then with its `length` in bytes and SHA-256 `digest`.
        """

        def once() -> LinkReply:
            if not isinstance(body, bytes):
                body.seek(0)
            with self.answer(method, bucket, key, query, headers, body, digest, length) as got:
                return LinkReply(got.status, lower(got), limited(got))

        return self.patiently(once)

    def patiently(self, attempt: Callable[[], LinkReply]) -> LinkReply:
        """Try again after lost connections and temporary answers, with growing pauses; not after silence."""
        for number in range(1, TRIES + 1):
            try:
                return attempt()
            except S3Error as error:
                if error.status not in TEMPORARY or number == TRIES:
                    raise
            except LOST as error:
                if self._stopped.is_set():
                    raise LinkStopped from error
                if number == TRIES:
                    raise self.unreachable(error) from error
            self.pause(number)
        raise AssertionError("not reached")

    def pause(self, number: int) -> None:
        """Wait before another try. Raises Stopped."""
        if self._stopped.wait(0.1 * 2**number):
            raise LinkStopped

    @contextlib.contextmanager
    def answer(
        self,
        method: str,
        bucket: str = "",
        key: str = "",
        query: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        body: bytes | Body = b"",
        digest: str = "",
        length: int = 0,
    ) -> Iterator[http.client.HTTPResponse]:
        """Try a request once; the answer's body is read by the caller.

        Raises:
            ConnectionError or http.client.HTTPException when the connection is lost (worth another try).
        """
        if self._stopped.is_set():
            raise LinkStopped
        path, asked = self._path(bucket, key), sign.encode_query(query or {})
        sent = self._headers(method, path, asked, headers or {}, body, digest, length)
        link, whole = self._link(), False
        try:
            link.request(method, f"{path}?{asked}" if asked else path, body=body or None, headers=sent)
            got = link.getresponse()
            if got.status >= 300:
                raise self._refused(got.status, limited(got))
            yield got
            whole = got.isclosed()
        except TimeoutError as error:
            raise self.unreachable(error) from error
        except S3Error:
            whole = True
            raise
        except OSError as error:
            # A socket that `stop` has closed shows as one of several errors.
            if self._stopped.is_set():
                raise LinkStopped from error
            raise
        finally:
            if not whole:
                link.close()

    def _path(self, bucket: str, key: str) -> str:
        return sign.encode_path(f"{self.login.prefix}{bucket}" if bucket else "", key)

    @contextlib.contextmanager
    def patience(self, limit: float) -> Iterator[None]:
        """Set another read limit (seconds) for this thread's requests in the block."""
        self._mine.limit = limit
        try:
            yield
        finally:
            self._mine.limit = self.limit

    def _link(self) -> http.client.HTTPConnection:
        link: http.client.HTTPConnection | None = getattr(self._mine, "link", None)
        if link is None:
            link = connect(self.login.host, self.login.port, self.login.secure, CONNECT_LIMIT, BLOCK)
            self._mine.link = link
            self._links.add(link)
        if link.sock is None:
            link.timeout = CONNECT_LIMIT
            self._connect(link)
        link.sock.settimeout(getattr(self._mine, "limit", self.limit))
        return link

    def _connect(self, link: http.client.HTTPConnection) -> None:
        try:
            link.connect()
        except (*LOST, TimeoutError):
            raise
        except OSError as error:  # no route, a certificate that is not trusted: another try will not help
            raise self.unreachable(error) from error

    def _headers(
        self,
        method: str,
        path: str,
        query: str,
        headers: Mapping[str, str],
        body: bytes | Body,
        digest: str,
        length: int,
    ) -> dict[str, str]:
        if isinstance(body, bytes):
            length = len(body)
            digest = digest or (hashlib.sha256(body).hexdigest() if body else sign.EMPTY)
        signed = {
            **headers,
            "host": host_header(self.login.host, self.login.port, self.login.secure),
            "x-amz-content-sha256": digest,
            "x-amz-date": time.strftime("%Y%m%dT%H%M%SZ", time.gmtime()),
        }
        keys = (self.login.access_key, self.login.secret_key)
        signed["authorization"] = sign.authorization(keys, method, path, query, signed, self.login.region)
        if length or method in ("PUT", "POST"):
            signed["content-length"] = str(length)
        return signed

    def _refused(self, status: int, body: bytes) -> Exception:
        code, text = xml.error_of(body)
        if code == _SKEWED:
            why = "its clock and this machine's differ by more than 15 minutes"
            return self.login_refused(why, ("set the clock of this machine or of the server",))
        if code in _LOGIN:
            return self.login_refused(f"{code}: {text}", self._steps())
        return S3Error(status, code, text)

    def login_refused(self, why: str, steps: tuple[str, ...] = ()) -> PlatformError:
        """Return the error for a server that rejects the keys."""
        return PlatformError("LOGIN_REFUSED", f"{self.login.name} refused {self.login.shown}", why=why, steps=steps)

    def _steps(self) -> tuple[str, ...]:
        return (f"check {self.login.settings[0]} and {self.login.settings[1]} in .env", "invoke doctor")

    def unreachable(self, error: Exception) -> PlatformError:
        """Return the error for a server that does not answer."""
        silent = isinstance(error, TimeoutError)
        why = "it sent nothing for too long" if silent else (str(error) or type(error).__name__)
        what = f"{self.login.name} does not answer on {self.login.host}:{self.login.port}"
        return PlatformError("UNREACHABLE", what, why=why, steps=("invoke status", f"invoke logs -s {self.login.name}"))

    def failed(self, what: str, error: S3Error) -> PlatformError:
        """Return the error for a response that ends a run: the server failed at something essential."""
        steps = (f"invoke logs -s {self.login.name}", "invoke status")
        return PlatformError("REQUEST_REFUSED", f"{self.login.name} could not {what}", why=str(error), steps=steps)


def lower(answer: http.client.HTTPResponse) -> dict[str, str]:
    """Return the headers with names in lower case."""
    return {name.lower(): value for name, value in answer.getheaders()}
