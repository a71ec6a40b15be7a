"""A small S3 client for the data tasks: any key verbatim, few processor cycles, little memory, many threads.

boto3 is the checked reference (tests compare), but costs ten times as much for each small object.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from infra.data.objects.link import LIST_LIMIT, Body, Link, LinkReply, S3Error
from infra.data.objects.login import home_of
from infra.data.objects.xml import ListedObject, OddAnswer, entries, following, parse, tag, text
from infra.sigv4 import NAMESPACE, bucket_body

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element


class Client(Link):
    """The requests of the data tasks to one server; raises what a Link raises."""

    def buckets(self) -> list[str]:
        """Return the names of all its buckets; also the question whether the server answers and takes the keys.

        Of an external service only our buckets count: its keys may often not list the others.
        """
        if self.login.only:
            return sorted(name for name in self.login.only if self._has(name))
        try:
            found = _parsed(self.request("GET"))
        except S3Error as error:
            if error.status in (400, 401, 403):
                raise self.login_refused(str(error), self._steps()) from error
            raise self.failed("list its buckets", error) from error
        names = sorted(text(b, "Name") for b in found.iter() if tag(b) == "Bucket")
        return [name for name in names if not self.login.shared or home_of(name) == self.login.name]

    def _has(self, bucket: str) -> bool:
        try:
            self.request("HEAD", bucket)
        except S3Error as error:
            if error.status == 404:
                return False
            if error.status in (400, 401, 403):
                raise self.login_refused(str(error), self._steps()) from error
            raise self.failed(f"describe the bucket {bucket}", error) from error
        return True

    def listing(self, bucket: str, prefix: str = "", versions: bool = False) -> Iterator[ListedObject]:
        """Yield everything in a bucket, in the server's order, page by page.

        Raises:
            PlatformError: UNREACHABLE also for any other error: a listing that broke off must not look like a whole.
        """
        query = {"encoding-type": "url", **({"prefix": prefix} if prefix else {})}
        query |= {"versions": ""} if versions else {"list-type": "2"}
        more: dict[str, str] = {}
        while True:
            page = self._page(bucket, {**query, **more})
            try:
                yield from entries(page)
            except OddAnswer as error:
                raise self.failed(f"list {bucket}", S3Error(200, "", str(error))) from error
            if text(page, "IsTruncated") != "true":
                return
            then = following(page, versions)
            if not any(then.values()) or then == more:
                raise self.failed(
                    f"list {bucket}", S3Error(200, "", "the server reports more entries, but not where they start")
                )
            more = then

    def _page(self, bucket: str, query: Mapping[str, str]) -> Element:
        try:
            with self.patience(LIST_LIMIT):
                return _parsed(self.request("GET", bucket, query=query))
        except S3Error as error:
            if error.status == 403:
                raise self.login_refused(str(error), self._steps()) from error
            raise self.failed(f"list {bucket}", error) from error

    def head(self, bucket: str, key: str, version: str = "") -> LinkReply | None:
        """Return the headers of an object; None when there is none."""
        try:
            return self.request("HEAD", bucket, key, {"versionId": version} if version else None)
        except S3Error as error:
            if error.status in (404, 405):
                return None
            raise

    def put(
        self, bucket: str, key: str, body: bytes | Body, headers: Mapping[str, str], digest: str, length: int
    ) -> LinkReply:
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
        """Return `Enabled`, `Suspended` or '' (never enabled, or an engine without versions)."""
        try:
            return text(_parsed(self.request("GET", bucket, query={"versioning": ""})), "Status")
        except S3Error:
            return ""

    def set_versioning(self, bucket: str, status: str) -> None:
        """Switch versions on (`Enabled`) or off (`Suspended`)."""
        body = f"<VersioningConfiguration xmlns='{NAMESPACE}'><Status>{status}</Status></VersioningConfiguration>"
        self.request("PUT", bucket, query={"versioning": ""}, headers=_md5(body.encode()), body=body.encode())

    def begin(self, bucket: str, key: str, headers: Mapping[str, str]) -> str:
        """Begin a multipart upload; returns its id."""
        return text(_parsed(self.request("POST", bucket, key, {"uploads": ""}, headers)), "UploadId")

    def part(self, bucket: str, key: str, upload: str, number: int, body: Body, digest: str, length: int) -> str:
        """Send one part (numbers from 1); returns its ETag."""
        query = {"partNumber": str(number), "uploadId": upload}
        reply = self.request("PUT", bucket, key, query, body=body, digest=digest, length=length)
        return reply.headers.get("etag", "").strip('"')

    def complete(self, bucket: str, key: str, upload: str, etags: list[str]) -> None:
        """End a multipart upload: the object is there from now on."""
        parts = "".join(f'<Part><PartNumber>{n}</PartNumber><ETag>"{e}"</ETag></Part>' for n, e in enumerate(etags, 1))
        body = f"<CompleteMultipartUpload xmlns='{NAMESPACE}'>{parts}</CompleteMultipartUpload>".encode()
        with self.patience(LIST_LIMIT):
            answer = _parsed(self.request("POST", bucket, key, {"uploadId": upload}, body=body))
        if tag(answer) == "Error":  # S3 may say so after it has said 200
            raise S3Error(200, text(answer, "Code"), text(answer, "Message"))

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


def _parsed(reply: LinkReply) -> Element:
    try:
        return parse(reply.body)
    except OddAnswer as error:
        raise S3Error(reply.status, "", str(error)) from error


def _md5(body: bytes) -> dict[str, str]:
    import base64

    return {"content-md5": base64.b64encode(hashlib.md5(body, usedforsecurity=False).digest()).decode()}
