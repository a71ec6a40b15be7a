"""Answers of S3 servers: pages of listings, and errors."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import unquote_plus

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element


class ListedObject(NamedTuple):
    """One line of a listing; sizes in bytes, `modified` as the server writes it, `etag` without quotes."""

    key: str
    size: int
    etag: str
    modified: str
    version: str = ""
    latest: bool = True
    deleted: bool = False


class OddAnswer(ValueError):
    """An answer is not what an S3 server says; the message says in what."""


def parse(body: bytes) -> Element:
    """Return the root of an answer. Raises OddAnswer."""
    from xml.etree import ElementTree

    try:
        return ElementTree.fromstring(body)
    except (ElementTree.ParseError, LookupError, ValueError) as error:  # also encodings that Python does not know
        raise OddAnswer(f"the response is not XML: {error}") from error


def tag(element: Element) -> str:
    """Return an element's name without its namespace."""
    return element.tag.rpartition("}")[2]


def text(element: Element, name: str) -> str:
    """Return the text of an element's child; '' where there is none."""
    return next((child.text or "" for child in element if tag(child) == name), "")


def entries(page: Element) -> Iterator[ListedObject]:
    """Yield the lines of one page of a listing. Raises OddAnswer for one without a key, or with a size that is none."""
    encoded = text(page, "EncodingType") == "url"
    for element in page:
        kind = tag(element)
        if kind not in ("Contents", "Version", "DeleteMarker"):
            continue
        found = {tag(child): child.text or "" for child in element}
        size = found.get("Size") or "0"
        if not found.get("Key") or not _AMOUNT.fullmatch(size):
            raise OddAnswer("the listing has a line without a key, or with a size that is none")
        yield ListedObject(
            _decoded(found["Key"]) if encoded else found["Key"],
            int(size),
            found.get("ETag", "").strip('"'),
            found.get("LastModified", ""),
            found.get("VersionId", ""),
            found.get("IsLatest", "true") == "true",
            kind == "DeleteMarker",
        )


_AMOUNT = re.compile("[0-9]{1,19}")


def _decoded(encoded: str) -> str:
    return unquote_plus(encoded, errors="surrogateescape")


def following(page: Element, versions: bool) -> dict[str, str]:
    """Return the query for the page after this one."""
    if not versions:
        return {"continuation-token": text(page, "NextContinuationToken")}
    encoded = text(page, "EncodingType") == "url"
    key = text(page, "NextKeyMarker")
    return {"key-marker": _decoded(key) if encoded else key, "version-id-marker": text(page, "NextVersionIdMarker")}


def tags(body: bytes) -> list[tuple[str, str]]:
    """Return the tags of an object, keys and values. Raises OddAnswer."""
    return [(text(element, "Key"), text(element, "Value")) for element in parse(body).iter() if tag(element) == "Tag"]


_ERROR_PART = re.compile(rb"<(Code|Message)>(.*?)</\1>", re.DOTALL)


def error_of(body: bytes) -> tuple[str, str]:
    """Return code and message of an answer that is an error; '' for what it lacks."""
    found = {name.decode(): said.decode("utf-8", "replace") for name, said in _ERROR_PART.findall(body[:4000])}
    return found.get("Code", ""), found.get("Message", "")
