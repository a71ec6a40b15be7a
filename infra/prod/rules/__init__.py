"""Rules for everything that is applied to a production cluster.

Each rule has a name, says which object breaks it and what to do. `RULES` is the list; docs/production.md shows it.
"""

from __future__ import annotations

from dataclasses import dataclass

from infra.prod.rules import access, alerts, data, pods
from infra.prod.rules.base import Objects, title

RULES = (*access.RULES, *pods.RULES, *data.RULES, *alerts.RULES)
"""Every rule, in the order in which they are reported."""


@dataclass(frozen=True)
class Violation:
    """A rule that an object breaks, and what is wrong."""

    rule: str
    object: str
    text: str


def findings(objects: Objects) -> list[Violation]:
    """List everything that breaks a rule, in the order of the rules."""
    return [Violation(rule.name, title(thing), text) for rule in RULES for thing, text in rule.find(objects)]
