"""Port-forwards to a site's services for people, and the contract with the addresses that these have here.

A forward leads to one pod. When that pod goes it ends, and is made again to another one, at the same local port.
"""

from __future__ import annotations

import base64
import contextlib
import re
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

from infra import shell
from infra.errors import PlatformError
from infra.prod import trust
from infra.prod.cluster import Cluster, key
from infra.prod.logins import CA
from infra.prod.site import Site

HOST = "127.0.0.1"
NAMESPACE, CONFIG, SECRET = "platform", "platform-env", "platform-credentials"
"""The ConfigMap and the Secret of the application's contract."""
BUDGET, PAUSE = 30.0, 1.0
"""Seconds until a forward listens; seconds between two looks at them."""
_ADDRESS = re.compile(r"(?<![\w.-])([a-z0-9-]+)\.([a-z0-9-]+)(?:\.svc(?:\.cluster\.local)?)?:([0-9]{1,5})(?![\w.])")
_LISTENS = re.compile(r"Forwarding from 127\.0\.0\.1:([0-9]+) ")


@dataclass(frozen=True)
class ServicePort:
    """A port of a Service."""

    namespace: str
    service: str
    port: int


PAGES: Mapping[str, ServicePort] = {
    "application": ServicePort("platform", "platform-frontend", 8080),
    "Temporal": ServicePort("temporal", "temporal-web", 8080),
    "MLflow": ServicePort("platform", "mlflow", 5000),
}
"""Pages for people."""


@dataclass
class Forward:
    """A forward at work: where it listens here, and the kubectl that does it."""

    target: ServicePort
    local: int
    running: shell.Running


def variables(cluster: Cluster) -> tuple[dict[str, str], set[str]]:
    """Read the contract as the application has it, and the words in it that nobody may see.

    Raises:
        PlatformError: NOT_FOUND where the application is not deployed; PROGRAM_FAILED for a user who may not read it.
    """
    open_ones, hidden = _data(cluster, "configmap", CONFIG), _data(cluster, "secret", SECRET)
    texts = {name: base64.b64decode(text).decode("utf-8") for name, text in hidden.items()}
    passwords = {unquote(urlsplit(text).password or "") for text in texts.values()}
    return {**open_ones, **texts}, {word for word in (*texts.values(), *passwords) if word}


def _data(cluster: Cluster, kind: str, name: str) -> dict[str, str]:
    found = cluster.one(kind, name, NAMESPACE)
    if found is None:
        steps = ("invoke prod.status SITE", "invoke prod.secrets SITE")
        raise PlatformError("NOT_FOUND", f"the cluster has no {kind} {NAMESPACE}/{name}", steps=steps)
    return dict(found.get("data") or {})


def targets(
    cluster: Cluster, texts: Sequence[str], pages: Iterable[ServicePort] = tuple(PAGES.values())
) -> list[ServicePort]:
    """Return the Services that are named in the contract's values or are pages for people, and are in the cluster."""
    named = [ServicePort(m[2], m[1], int(m[3])) for text in texts for m in _ADDRESS.finditer(text)]
    wanted = list(dict.fromkeys((*named, *pages)))
    found = cluster.live([_service(target) for target in wanted])
    return [target for target in wanted if key(_service(target)) in found]


def _service(target: ServicePort) -> dict[str, object]:
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"namespace": target.namespace, "name": target.service}}


def authority(site: Site, cluster: Cluster) -> str:
    """Read the certificate of the authority that clients of PostgreSQL trust; it is public. Raises PlatformError."""
    return _data(cluster, "configmap", str(site.part("postgres").get("ca", trust.NAME))).get("ca.crt", "")


def here(values: Mapping[str, str], forwards: Sequence[Forward], ca: Path) -> dict[str, str]:
    """Return the contract with the addresses of the forwards.

    Args:
        ca: file with PostgreSQL's authority. A forwarded server is checked against it without its name, which is not
            the one that it is reached by.
    """
    local = {forward.target: forward.local for forward in forwards}

    def moved(found: re.Match[str]) -> str:
        port = local.get(ServicePort(found[2], found[1], int(found[3])))
        return f"{HOST}:{port}" if port else found[0]

    made = {}
    for name, text in values.items():
        changed = _ADDRESS.sub(moved, text)
        if changed != text:
            changed = changed.replace("sslmode=verify-full", "sslmode=verify-ca")
        made[name] = changed.replace(f"sslrootcert={CA}", f"sslrootcert={quote(ca.as_posix(), safe='/:')}")
    return made


@contextlib.contextmanager
def opened(cluster: Cluster, wanted: Sequence[ServicePort]) -> Iterator[list[Forward]]:
    """Open forwards to some Services for the block.

    Raises:
        PlatformError: UNREACHABLE for one that cannot be forwarded to; none is left open then.
    """
    forwards: list[Forward] = []
    try:
        for target in wanted:
            forwards.append(forward(cluster, target))
        yield forwards
    finally:
        for one in forwards:
            one.running.stop()


class _Over(Exception):
    """Nobody needs the forwards any more."""


@contextlib.contextmanager
def kept(cluster: Cluster, wanted: Sequence[ServicePort], say: Callable[[str], None]) -> Iterator[list[Forward]]:
    """Open the same, and make those again in the background that end before the block does.

    kubectl ends a forward when a connection through it breaks, which every pool of connections does now and then.

    Raises:
        PlatformError: as `opened`.
    """
    over = threading.Event()

    def pause(seconds: float) -> None:
        if over.wait(seconds):
            raise _Over

    def work() -> None:
        with contextlib.suppress(_Over):
            keep(cluster, forwards, say, pause)

    with opened(cluster, wanted) as forwards:
        keeper = threading.Thread(target=work, daemon=True)
        keeper.start()
        try:
            yield forwards
        finally:
            over.set()
            keeper.join()


def forward(cluster: Cluster, target: ServicePort, local: int = 0) -> Forward:
    """Begin to forward and wait until it listens; at any free port, or at the one it had before.

    Raises:
        PlatformError: UNREACHABLE.
    """
    port, service = f"{local or ''}:{target.port}", f"service/{target.service}"
    running = shell.start(cluster.argv("port-forward", "--address", HOST, "-n", target.namespace, service, port))
    end = time.monotonic() + BUDGET
    try:
        while time.monotonic() < end:
            found = next((m for line in list(running.lines) if (m := _LISTENS.match(line))), None)
            if found:
                return Forward(target, int(found[1]), running)
            if running.code() is not None:
                break
            time.sleep(0.05)
        why = running.lines[-1] if running.lines else "kubectl says nothing"
    except BaseException:
        running.stop()
        raise
    running.stop()
    steps = (f"kubectl --context {cluster.context} get pods -n {target.namespace}",)
    what = f"{target.service}.{target.namespace}:{target.port} cannot be forwarded to"
    raise PlatformError("UNREACHABLE", what, why=why, steps=steps)


def keep(
    cluster: Cluster,
    forwards: list[Forward],
    say: Callable[[str], None],
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Make forwards again when they end, until Ctrl-C."""
    told: set[ServicePort] = set()
    while True:
        for place, one in enumerate(forwards):
            if one.running.code() is None:
                continue
            try:
                forwards[place] = forward(cluster, one.target, one.local)
                say(f"{one.target.service}: connected again")
                told.discard(one.target)
            except PlatformError as error:
                if one.target not in told:
                    say(f"{one.target.service}: {error.why}; trying again")
                told.add(one.target)
        sleep(PAUSE)
