"""A small S3 client for the data tasks: any key verbatim, few processor cycles, little memory, many threads.

boto3 is the checked reference (tests compare), but costs ten times as much for each small object.
"""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple, Protocol
from urllib.parse import unquote_plus

from infra import catalog
from infra.data import objects_sign
from infra.errors import PlatformError
from infra.sigv4 import NAMESPACE, bucket_body, connect, host_header

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element

    from infra.endpoints import Endpoints

STORES = ("minio-datasets", "minio-results")
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
    """What is sent: like a file that can go back to its beginning."""

    def read(self, size: int = -1, /) -> bytes:
        """The next bytes."""

    def seek(self, offset: int, whence: int = 0, /) -> int:
        """Go to a place."""


class Entry(NamedTuple):
    """One line of a listing; sizes in bytes, `modified` as the server writes it, `etag` without quotes."""

    key: str
    size: int
    etag: str
    modified: str
    version: str = ""
    latest: bool = True
    deleted: bool = False


@dataclass(frozen=True)
class Login:
    """An S3 server: the name of its service, where it is, its keys, and whether one serves both stores.

    `only`: the buckets of ours in a service that is not; there all others are somebody else's. `settings` are the
    names of the settings that hold the keys.
    """

    name: str
    host: str
    port: int
    access_key: str
    secret_key: str = field(repr=False)
    shared: bool = False
    secure: bool = False
    region: str = objects_sign.REGION
    only: tuple[str, ...] = ()
    settings: tuple[str, str] = catalog.STORE_LOGIN

    @property
    def shown(self) -> str:
        """User and address for messages."""
        return f"{self.access_key}@{self.host}:{self.port}"


class S3Error(Exception):
    """The server answered with an error: HTTP status, S3 code ('' for HEAD), text."""

    def __init__(self, status: int, code: str, text: str = "") -> None:
        super().__init__(f"HTTP {status} {code} {text}".strip())
        self.status = status
        self.code = code


class Stopped(Exception):
    """The run is being stopped: the rest is not worth doing."""


@dataclass
class Reply:
    """Status, headers (names in lower case) and body of an answer."""

    status: int
    headers: Mapping[str, str]
    body: bytes = b""


def login_of(endpoints: Endpoints, store: str) -> Login:
    """Where a store of the platform is."""
    place, known = endpoints.place(store), catalog.BUCKETS + catalog.OBS_BUCKETS
    shared = len({endpoints.place(name).url for name in STORES}) == 1
    return Login(
        *(store, place.host, place.port, place.login.user, place.login.password, shared, place.secure, place.region),
        only=tuple(b.name for b in known if b.store == store) if store in endpoints.elsewhere else (),
        settings=endpoints.key_settings(store),
    )


def home_of(bucket: str) -> str:
    """The store that a bucket belongs to; one that the catalogue does not know is with the results."""
    return next((b.store for b in catalog.BUCKETS if b.name == bucket), STORES[-1])


class Client:
    """One server; every thread has a connection of its own, and `stop` ends all that are waiting.

    Raises (every method):
        PlatformError: UNREACHABLE or LOGIN_REFUSED.
        S3Error: any other answer that is an error.
        Stopped: after `stop`.
    """

    def __init__(self, login: Login, limit: float = READ_LIMIT) -> None:
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
    ) -> Reply:
        """A request whose answer fits into memory.

        Args:
            body: bytes, or a stream that can `seek(0)`; then with its `length` in bytes and SHA-256 `digest`.
        """
        send = {"method": method, "bucket": bucket, "key": key}

        def once() -> Reply:
            if not isinstance(body, bytes):
                body.seek(0)
            with self.answer(**send, query=query, headers=headers, body=body, digest=digest, length=length) as got:
                return Reply(got.status, lower(got), got.read())

        return self.patiently(once)

    def patiently(self, attempt: Callable[[], Reply]) -> Reply:
        """Try again after lost connections and temporary answers, with growing pauses; not after silence."""
        for number in range(1, TRIES + 1):
            try:
                return attempt()
            except S3Error as error:
                if error.status not in TEMPORARY or number == TRIES:
                    raise
            except LOST as error:
                if self._stopped.is_set():
                    raise Stopped from error
                if number == TRIES:
                    raise self.unreachable(error) from error
            self.pause(number)
        raise AssertionError("not reached")

    def pause(self, number: int) -> None:
        """Wait before another try. Raises Stopped."""
        if self._stopped.wait(0.1 * 2**number):
            raise Stopped

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
        """One try of a request; the answer's body is read by the caller.

        Raises:
            ConnectionError or http.client.HTTPException when the connection is lost (worth another try).
        """
        if self._stopped.is_set():
            raise Stopped
        path, asked = objects_sign.encode_path(bucket, key), objects_sign.encode_query(query or {})
        sent = self._headers(method, path, asked, headers or {}, body, digest, length)
        link, whole = self._link(), False
        try:
            link.request(method, f"{path}?{asked}" if asked else path, body=body or None, headers=sent)
            got = link.getresponse()
            if got.status >= 300:
                raise self._refused(got.status, got.read())
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
                raise Stopped from error
            raise
        finally:
            if not whole:
                link.close()

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
            digest = digest or (hashlib.sha256(body).hexdigest() if body else objects_sign.EMPTY)
        signed = {
            **headers,
            "host": host_header(self.login.host, self.login.port, self.login.secure),
            "x-amz-content-sha256": digest,
            "x-amz-date": time.strftime("%Y%m%dT%H%M%SZ", time.gmtime()),
        }
        keys = (self.login.access_key, self.login.secret_key)
        signed["authorization"] = objects_sign.authorization(keys, method, path, query, signed, self.login.region)
        if length or method in ("PUT", "POST"):
            signed["content-length"] = str(length)
        return signed

    def _refused(self, status: int, body: bytes) -> Exception:
        code, text = _error_of(body)
        if code == _SKEWED:
            why = "its clock and this machine's differ by more than 15 minutes"
            return self._login_refused(why, ("set the clock of this machine or of the server",))
        if code in _LOGIN:
            return self._login_refused(f"{code}: {text}", self._steps())
        return S3Error(status, code, text)

    def _login_refused(self, why: str, steps: tuple[str, ...]) -> PlatformError:
        return PlatformError("LOGIN_REFUSED", f"{self.login.name} refused {self.login.shown}", why=why, steps=steps)

    def unreachable(self, error: Exception) -> PlatformError:
        """The error for a server that does not answer."""
        silent = isinstance(error, TimeoutError)
        why = "it was silent for too long" if silent else (str(error) or type(error).__name__)
        what = f"{self.login.name} does not answer on {self.login.host}:{self.login.port}"
        return PlatformError("UNREACHABLE", what, why=why, steps=("invoke status", f"invoke logs -s {self.login.name}"))

    def buckets(self) -> list[str]:
        """Names of all its buckets; also the question whether the server answers and takes the keys.

        Of a service that is not ours only our buckets count: its keys may often not list the others.
        """
        if self.login.only:
            return sorted(name for name in self.login.only if self._has(name))
        try:
            found = self._xml(self.request("GET"))
        except S3Error as error:
            if error.status in (400, 401, 403):
                raise self._login_refused(str(error), self._steps()) from error
            raise self.failed("list its buckets", error) from error
        names = sorted(_text(b, "Name") for b in found.iter() if _tag(b) == "Bucket")
        return [name for name in names if not self.login.shared or home_of(name) == self.login.name]

    def _has(self, bucket: str) -> bool:
        try:
            self.request("HEAD", bucket)
        except S3Error as error:
            if error.status == 404:
                return False
            if error.status in (400, 401, 403):
                raise self._login_refused(str(error), self._steps()) from error
            raise self.failed(f"tell of the bucket {bucket}", error) from error
        return True

    def _steps(self) -> tuple[str, ...]:
        return (f"see {self.login.settings[0]} and {self.login.settings[1]} in .env", "invoke doctor")

    def failed(self, what: str, error: S3Error) -> PlatformError:
        """The error for an answer that ends a run: the server could not do something that all rests on."""
        steps = (f"invoke logs -s {self.login.name}", "invoke status")
        return PlatformError("UNREACHABLE", f"{self.login.name} could not {what}", why=str(error), steps=steps)

    def listing(self, bucket: str, prefix: str = "", versions: bool = False) -> Iterator[Entry]:
        """Everything in a bucket, in the server's order, page by page.

        Raises:
            PlatformError: UNREACHABLE also for any other error: a listing that broke off must not look like a whole.
        """
        query = {"encoding-type": "url", **({"prefix": prefix} if prefix else {})}
        query |= {"versions": ""} if versions else {"list-type": "2"}
        more: dict[str, str] = {}
        while True:
            page = self._page(bucket, {**query, **more})
            yield from _entries(page)
            if _text(page, "IsTruncated") != "true":
                return
            following = _following(page, versions)
            if not any(following.values()) or following == more:
                raise self.failed(f"list {bucket}", S3Error(200, "", "more is said to come, but not where"))
            more = following

    def _page(self, bucket: str, query: Mapping[str, str]) -> Element:
        try:
            with self.patience(LIST_LIMIT):
                return self._xml(self.request("GET", bucket, query=query))
        except S3Error as error:
            if error.status == 403:
                raise self._login_refused(str(error), self._steps()) from error
            raise self.failed(f"list {bucket}", error) from error

    @contextlib.contextmanager
    def patience(self, limit: float) -> Iterator[None]:
        """Another read limit (seconds) for this thread's requests in the block."""
        self._mine.limit = limit
        try:
            yield
        finally:
            self._mine.limit = self.limit

    def _xml(self, reply: Reply) -> Element:
        from xml.etree import ElementTree

        try:
            return ElementTree.fromstring(reply.body)
        except ElementTree.ParseError as error:
            raise S3Error(reply.status, "", f"the answer is no XML: {error}") from error

    def head(self, bucket: str, key: str, version: str = "") -> Reply | None:
        """Headers of an object; None when there is none."""
        try:
            return self.request("HEAD", bucket, key, {"versionId": version} if version else None)
        except S3Error as error:
            if error.status in (404, 405):
                return None
            raise

    def put(
        self, bucket: str, key: str, body: bytes | Body, headers: Mapping[str, str], digest: str, length: int
    ) -> Reply:
        """Write an object in one request; the server compares what arrives with `digest` (SHA-256)."""
        return self.request("PUT", bucket, key, headers=headers, body=body, digest=digest, length=length)

    def make_bucket(self, bucket: str) -> None:
        """Make a bucket; one that is there already is no error."""
        try:
            self.request("PUT", bucket, body=bucket_body(self.login.region))
        except S3Error as error:
            if error.status != 409:
                raise

    def versioning(self, bucket: str) -> str:
        """`Enabled`, `Suspended` or '' (never enabled, or an engine without versions)."""
        try:
            return _text(self._xml(self.request("GET", bucket, query={"versioning": ""})), "Status")
        except S3Error:
            return ""

    def set_versioning(self, bucket: str, status: str) -> None:
        """Switch versions on (`Enabled`) or off (`Suspended`)."""
        body = f"<VersioningConfiguration xmlns='{_NS}'><Status>{status}</Status></VersioningConfiguration>"
        self.request("PUT", bucket, query={"versioning": ""}, headers=_md5(body.encode()), body=body.encode())

    def begin(self, bucket: str, key: str, headers: Mapping[str, str]) -> str:
        """Begin a multipart upload; returns its id."""
        return _text(self._xml(self.request("POST", bucket, key, {"uploads": ""}, headers)), "UploadId")

    def part(self, bucket: str, key: str, upload: str, number: int, body: Body, digest: str, length: int) -> str:
        """Send one part (numbers from 1); returns its ETag."""
        query = {"partNumber": str(number), "uploadId": upload}
        reply = self.request("PUT", bucket, key, query, body=body, digest=digest, length=length)
        return reply.headers.get("etag", "").strip('"')

    def complete(self, bucket: str, key: str, upload: str, etags: list[str]) -> None:
        """End a multipart upload: the object is there from now on."""
        parts = "".join(f'<Part><PartNumber>{n}</PartNumber><ETag>"{e}"</ETag></Part>' for n, e in enumerate(etags, 1))
        body = f"<CompleteMultipartUpload xmlns='{_NS}'>{parts}</CompleteMultipartUpload>".encode()
        with self.patience(LIST_LIMIT):
            answer = self._xml(self.request("POST", bucket, key, {"uploadId": upload}, body=body))
        if _tag(answer) == "Error":  # S3 may say so after it has said 200
            raise S3Error(200, _text(answer, "Code"), _text(answer, "Message"))

    def abort(self, bucket: str, key: str, upload: str) -> None:
        """Give up a multipart upload; one that is gone is no error."""
        try:
            self.request("DELETE", bucket, key, {"uploadId": upload})
        except S3Error as error:
            if error.status != 404:
                raise

    def delete(self, bucket: str, key: str) -> None:
        """Delete an object (with versions: set a delete marker)."""
        self.request("DELETE", bucket, key)


_NS = NAMESPACE


def lower(answer: http.client.HTTPResponse) -> dict[str, str]:
    """Headers with names in lower case."""
    return {name.lower(): value for name, value in answer.getheaders()}


def _md5(body: bytes) -> dict[str, str]:
    import base64

    return {"content-md5": base64.b64encode(hashlib.md5(body, usedforsecurity=False).digest()).decode()}


def _tag(element: Element) -> str:
    return element.tag.rpartition("}")[2]


def _text(element: Element, name: str) -> str:
    return next((child.text or "" for child in element if _tag(child) == name), "")


def _entries(page: Element) -> Iterator[Entry]:
    encoded = _text(page, "EncodingType") == "url"
    for element in page:
        tag = _tag(element)
        if tag not in ("Contents", "Version", "DeleteMarker"):
            continue
        found = {_tag(child): child.text or "" for child in element}
        yield Entry(
            _decoded(found["Key"]) if encoded else found["Key"],
            int(found.get("Size") or 0),
            found.get("ETag", "").strip('"'),
            found.get("LastModified", ""),
            found.get("VersionId", ""),
            found.get("IsLatest", "true") == "true",
            tag == "DeleteMarker",
        )


def _decoded(text: str) -> str:
    return unquote_plus(text, errors="surrogateescape")


def _following(page: Element, versions: bool) -> dict[str, str]:
    if not versions:
        return {"continuation-token": _text(page, "NextContinuationToken")}
    encoded = _text(page, "EncodingType") == "url"
    key = _text(page, "NextKeyMarker")
    return {"key-marker": _decoded(key) if encoded else key, "version-id-marker": _text(page, "NextVersionIdMarker")}


_ERROR_PART = re.compile(rb"<(Code|Message)>(.*?)</\1>", re.DOTALL)


def _error_of(body: bytes) -> tuple[str, str]:
    found = {name.decode(): text.decode("utf-8", "replace") for name, text in _ERROR_PART.findall(body[:4000])}
    return found.get("Code", ""), found.get("Message", "")
