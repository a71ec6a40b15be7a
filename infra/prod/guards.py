"""Rules as the API server keeps them: a ValidatingAdmissionPolicy for each rule that looks at one object alone.

What prod.check finds before a deployment, the cluster refuses to every client: kubectl, Helm or a controller.
Source: https://kubernetes.io/docs/reference/access-authn-authz/validating-admission-policy/ (v1 since 1.30).
"""

from __future__ import annotations

from typing import Any

from infra.prod.rules import RULES
from infra.prod.rules.base import Guard, Rule

Object = dict[str, Any]
NAMESPACES = ("platform", "temporal")
"""Namespaces in which guards hold. Trainings bring images of their users, which no site can lock."""
API = "admissionregistration.k8s.io/v1"


def objects() -> list[Object]:
    """Return a policy and its binding for each rule that has a guard."""
    return [made for rule in RULES if rule.guard for made in (_policy(rule, rule.guard), _binding(rule))]


def _policy(rule: Rule, guard: Guard) -> Object:
    rules = [
        {"apiGroups": [group], "apiVersions": ["*"], "operations": ["CREATE", "UPDATE"], "resources": list(names)}
        for group, names in guard.resources.items()
    ]
    ours = "has(object.metadata.labels) && 'app.kubernetes.io/part-of' in object.metadata.labels"
    spec = {
        "failurePolicy": "Fail",
        "matchConstraints": {"resourceRules": rules},
        "matchConditions": [{"name": "ours", "expression": ours}],
        "validations": [{"expression": guard.expression, "message": f"{rule.name}: {rule.demand}"}],
    }
    return {"apiVersion": API, "kind": "ValidatingAdmissionPolicy", "metadata": {"name": _name(rule)}, "spec": spec}


def _binding(rule: Rule) -> Object:
    where = {"key": "kubernetes.io/metadata.name", "operator": "In", "values": list(NAMESPACES)}
    spec = {
        "policyName": _name(rule),
        "validationActions": ["Deny"],
        "matchResources": {"namespaceSelector": {"matchExpressions": [where]}},
    }
    about = {"name": _name(rule)}
    return {"apiVersion": API, "kind": "ValidatingAdmissionPolicyBinding", "metadata": about, "spec": spec}


def _name(rule: Rule) -> str:
    return f"platform-{rule.name}"
