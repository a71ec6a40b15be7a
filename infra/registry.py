"""Asking an image registry: is a reference there, and which digest has it now. The OCI distribution protocol.

Source: https://github.com/opencontainers/distribution-spec/blob/main/spec.md, and for tokens
https://distribution.github.io/distribution/spec/auth/token/. Anonymous: what needs a login counts as refused.
"""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from infra import references

HUB = "registry-1.docker.io"
ACCEPT = ", ".join(
    (
        "application/vnd.oci.image.index.v1+json",
        "application/vnd.docker.distribution.manifest.list.v2+json",
        "application/vnd.oci.image.manifest.v1+json",
        "application/vnd.docker.distribution.manifest.v2+json",
    )
)
"""Indexes first: the digest of one platform's manifest would be wrong on every other platform."""
LIMIT = 10.0
"""Seconds for an answer."""
BACK_OFF = (4.0, 8.0)
"""Seconds before a second and a third try when a registry reports too many requests."""
THERE, GONE, REFUSED, LIMITED, UNREACHABLE = "there", "gone", "refused", "rate limited", "unreachable"
LOCAL = "local"
"""No registry was asked."""


@dataclass(frozen=True)
class RegistryReference:
    """An image reference in its parts: host of the registry, repository, and tag or digest."""

    host: str
    repository: str
    version: str

    @property
    def base(self) -> str:
        """URL of the registry; plain HTTP on this machine, as Docker does it."""
        local = re.match(r"(localhost|127\.\d+\.\d+\.\d+)(:|$)", self.host)
        return f"{'http' if local else 'https'}://{self.host}"


@dataclass(frozen=True)
class RegistryAnswer:
    """A registry's answer about a reference: state, digest where there is one, where it was found, why not."""

    reference: str
    state: str
    digest: str = ""
    where: str = ""
    why: str = ""


def parse(reference: str) -> RegistryReference:
    """Parse what to ask of which registry; a digest wins over a tag."""
    found = references.parse(reference)
    host = HUB if found.host == references.HUB else found.host
    return RegistryReference(host, found.repository, found.digest or found.tag)


def look_up(
    reference: str, mirrors: Sequence[str] = (), pause: Callable[[float], None] = time.sleep, limit: float = LIMIT
) -> RegistryAnswer:
    """Ask for a reference where it lives; on rate limits again, then the mirrors of Docker Hub.

    Args:
        reference: as in a Compose file.
        mirrors: hosts that mirror Docker Hub, in the order in which to ask them.
        pause: how to wait between tries.
        limit: seconds for each answer.
    """
    wanted = parse(reference)
    finding = _patiently(reference, wanted, pause, limit)
    if finding.state not in (LIMITED, UNREACHABLE) or wanted.host != HUB:
        return finding
    for mirror in mirrors:
        other = _patiently(reference, RegistryReference(mirror, wanted.repository, wanted.version), pause, limit)
        if other.state == THERE:
            return other
    return finding


def _patiently(
    reference: str, wanted: RegistryReference, pause: Callable[[float], None], limit: float
) -> RegistryAnswer:
    for seconds in (*BACK_OFF, None):
        finding = _once(reference, wanted, limit)
        if finding.state != LIMITED or seconds is None:
            break
        pause(seconds)
    return finding


def _once(reference: str, wanted: RegistryReference, limit: float) -> RegistryAnswer:
    import requests

    try:
        with requests.Session() as session:
            answer = _manifest(session, wanted, limit)
            return _finding(reference, wanted, answer)
    except (requests.RequestException, ValueError) as error:
        return RegistryAnswer(reference, UNREACHABLE, where=wanted.host, why=_short(error))


def _manifest(session: Any, wanted: RegistryReference, limit: float) -> Any:
    """Request the manifest: by HEAD, which no registry counts as a pull; with a token where one is required."""
    url = f"{wanted.base}/v2/{wanted.repository}/manifests/{wanted.version}"
    headers = {"Accept": ACCEPT}
    answer = session.head(url, headers=headers, timeout=limit, allow_redirects=True)
    if answer.status_code == 401:
        headers |= _authorization(session, answer.headers.get("WWW-Authenticate", ""), wanted, limit)
        answer = session.head(url, headers=headers, timeout=limit, allow_redirects=True)
    if answer.status_code == 405 or (answer.ok and "Docker-Content-Digest" not in answer.headers):
        return session.get(url, headers=headers, timeout=limit)
    return answer


def _authorization(session: Any, challenge: str, wanted: RegistryReference, limit: float) -> dict[str, str]:
    scheme, _, rest = challenge.partition(" ")
    fields = dict(re.findall(r'(\w+)="([^"]*)"', rest))
    if scheme.lower() != "bearer" or "realm" not in fields:
        return {}
    scope = fields.get("scope") or f"repository:{wanted.repository}:pull"
    query = {"scope": scope} | ({"service": fields["service"]} if "service" in fields else {})
    answer = session.get(fields["realm"], params=query, timeout=limit)
    if not answer.ok:
        return {}
    found = answer.json()
    return {"Authorization": f"Bearer {found.get('token') or found.get('access_token')}"}


def _finding(reference: str, wanted: RegistryReference, answer: Any) -> RegistryAnswer:
    code = answer.status_code
    if code == 200:
        digest = answer.headers.get("Docker-Content-Digest") or f"sha256:{hashlib.sha256(answer.content).hexdigest()}"
        return RegistryAnswer(reference, THERE, digest, wanted.host)
    states = {404: GONE, 401: REFUSED, 403: REFUSED, 429: LIMITED}
    return RegistryAnswer(
        reference, states.get(code, UNREACHABLE), where=wanted.host, why=f"HTTP {code} from {wanted.host}"
    )


def _short(error: Exception) -> str:
    """Tell why there was no answer, in a few words: what requests says is longer than a screen is wide."""
    import requests

    text = str(error)
    if isinstance(error, requests.exceptions.SSLError):
        return "its certificate is not trusted (for a company CA, set REQUESTS_CA_BUNDLE)"
    if isinstance(error, requests.Timeout):
        return "it does not answer in time"
    if "NameResolution" in text or "getaddrinfo" in text:
        return "its name cannot be resolved"
    if isinstance(error, requests.ConnectionError):
        return "no connection"
    return (text.strip().splitlines() or [type(error).__name__])[0][:120]
