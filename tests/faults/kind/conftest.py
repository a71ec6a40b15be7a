"""What the tests of clusters need before they begin."""

from __future__ import annotations

import pytest

from tests.rig.kind import up


@pytest.fixture(scope="session")
def rig() -> dict[str, str]:
    """The settings that lead to the rig's node image and programs."""
    found = up.values()
    if not found:
        pytest.skip("there is no node image and no kind here: python -m tests.rig.up --kind (Linux, root)")
    return found
