"""Values that a user has set by `--set`, by release: kept, so that later deployments keep them too."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping, Sequence

from infra import stack
from infra.tiers.cluster.target import Target


def overrides(cluster: Target) -> dict[str, list[str]]:
    """Read the values that users have set by `helm.upgrade --set`, by release."""
    found = stack.read_json(cluster.home / "overrides.json") or {}
    return {name: [str(s) for s in sets] for name, sets in found.items() if isinstance(sets, list)}


def merged(known: Sequence[str], sets: Sequence[str]) -> list[str]:
    """Merge values set before with those set now, which win."""
    names = {text.partition("=")[0] for text in sets}
    return [*(text for text in known if text.partition("=")[0] not in names), *sets]


def override(cluster: Target, release: str, sets: Sequence[str]) -> None:
    """Keep what a user has set, so that later deployments keep it too; nothing given forgets it."""
    known = overrides(cluster)
    _keep(cluster, {**known, release: merged(known.get(release, []), sets) if sets else []})


def _keep(cluster: Target, sets: Mapping[str, Sequence[str]]) -> None:
    body = {name: list(texts) for name, texts in sets.items() if texts}
    stack.write_atomic(cluster.home / "overrides.json", json.dumps(body, indent=1) + "\n", mode=0o600)


@contextlib.contextmanager
def trying(cluster: Target, release: str, sets: Sequence[str]) -> Iterator[None]:
    """Deploy with what a user has set; what does not become ready is not kept, else every later run would fail."""
    before = overrides(cluster)
    if sets:
        override(cluster, release, sets)
    try:
        yield
    except BaseException:
        if sets:
            _keep(cluster, before)
        raise
