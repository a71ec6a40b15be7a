"""The objects of plain manifests that may be deleted, and their order."""

from __future__ import annotations

import pytest

from infra.kube.manifests import KEPT, removable

RENDERED = """\
kind: ConfigMap
metadata: {name: first, namespace: platform}
---
# an empty document, as Kustomize may leave one
---
kind: Deployment
metadata: {name: last}
"""


def test_what_was_made_last_goes_first() -> None:
    assert removable(RENDERED) == [("default", "deployment/last"), ("platform", "configmap/first")]


@pytest.mark.parametrize("kind", sorted(KEPT))
def test_what_holds_data_or_the_work_of_others_stays(kind: str) -> None:
    assert removable(f"kind: {kind}\nmetadata: {{name: kept, namespace: platform}}\n") == []
