"""Ceph's S3 gateway over a store in memory: a server that takes every legal key."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from infra.data.objects_client import Login


@contextlib.contextmanager
def gateway(home: Path) -> Iterator[Login]:
    """A gateway for the block. Raises FileNotFoundError where Ceph is not installed."""
    raise FileNotFoundError("radosgw")
    yield
