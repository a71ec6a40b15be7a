"""Quantities of Kubernetes as numbers."""

from __future__ import annotations

import re
from collections.abc import Mapping

UNITS: Mapping[str, float] = {
    **{"n": 1e-9, "u": 1e-6, "m": 1e-3, "": 1.0, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "P": 1e15},
    **{f"{letter}i": 1024.0**power for power, letter in enumerate("KMGTP", start=1)},
}
"""Suffixes of quantities (https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/quantity/)."""
_QUANTITY = re.compile(r"([0-9.]+(?:[eE][+-]?[0-9]+)?)([A-Za-z]*)")


def quantity(text: object) -> float:
    """Read a quantity of Kubernetes, e.g. 500m or 4Gi. Raises ValueError."""
    found = _QUANTITY.fullmatch(str(text))
    if found is None or found[2] not in UNITS:
        raise ValueError(f"no quantity: {text}")
    return float(found[1]) * UNITS[found[2]]
