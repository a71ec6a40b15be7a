"""Connections that the rendered NetworkPolicies permit, compared with the table of flows.

The meaning of policies as in https://kubernetes.io/docs/concepts/services-networking/network-policies/: what a pod is
selected by decides whether it is guarded in a direction; a connection needs leave at both ends.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from infra.prod.network import GUARDED, Flow, Peer

Object = Mapping[str, Any]


@dataclass(frozen=True)
class Reach:
    """A connection that policies allow: names of both ends, and a port."""

    source: str
    target: str
    port: int


def reachable(policies: Sequence[Object], peers: Sequence[Peer], ports: Sequence[int]) -> set[Reach]:
    """Compute every connection between some peers to some ports that is allowed at both ends."""
    return {
        Reach(source.name, target.name, port)
        for source in peers
        for target in peers
        for port in ports
        if not source.cidr  # connections from outside come by the route
        if _leaves(policies, source, target, port) and _enters(policies, source, target, port)
    }


def wanted(flows: Sequence[Flow]) -> set[Reach]:
    """Return the connections of a table of flows; one to all ports is one to each port of the table."""
    return {Reach(f.source.name, f.target.name, port) for f in flows for port in f.ports or _ports(flows)}


def _ports(flows: Sequence[Flow]) -> list[int]:
    return sorted({port for f in flows for port in f.ports})


def differences(policies: Sequence[Object], flows: Sequence[Flow]) -> Iterator[str]:
    """Describe what policies allow beyond the table, and what of the table they do not allow."""
    peers = list(dict.fromkeys(peer for f in flows for peer in (f.source, f.target)))
    guarded = {p.name for p in peers if p.namespace in GUARDED}
    inside = {p.name for p in peers if not p.cidr}
    can, may = reachable(policies, peers, _ports(flows)), wanted(flows)
    for found in sorted(may - can, key=str):
        yield f"{found.source} cannot reach {found.target}:{found.port}, which it needs"
    for found in sorted(can - may, key=str):
        if found.target in guarded or (found.source in guarded and found.target in inside):
            yield f"{found.source} can reach {found.target}:{found.port}, which nothing needs"


def _leaves(policies: Sequence[Object], source: Peer, target: Peer, port: int) -> bool:
    mine = list(_of(policies, source, "Egress"))
    return not mine or any(_rule(r, "to", target, port, p) for p in mine for r in p["spec"].get("egress") or [])


def _enters(policies: Sequence[Object], source: Peer, target: Peer, port: int) -> bool:
    mine = list(_of(policies, target, "Ingress"))
    return not mine or any(_rule(r, "from", source, port, p) for p in mine for r in p["spec"].get("ingress") or [])


def _of(policies: Sequence[Object], peer: Peer, direction: str) -> Iterator[Object]:
    """Yield the policies that select a peer in a direction; none selects what is outside."""
    for policy in policies:
        same = policy["metadata"].get("namespace") == peer.namespace and not peer.cidr
        types = policy["spec"].get("policyTypes") or ["Ingress", *(["Egress"] if "egress" in policy["spec"] else [])]
        if same and direction in types and _selects(policy["spec"].get("podSelector") or {}, dict(peer.labels)):
            yield policy


def _rule(rule: Object, side: str, other: Peer, port: int, policy: Object) -> bool:
    ports = rule.get("ports")
    if ports and not any(p.get("protocol", "TCP") == "TCP" and p.get("port", port) == port for p in ports):
        return False
    ends = rule.get(side)
    return not ends or any(_matches(end, other, policy["metadata"].get("namespace", "")) for end in ends)


def _matches(end: Object, other: Peer, namespace: str) -> bool:
    if "ipBlock" in end:
        return bool(other.cidr) and _contains(str(end["ipBlock"]["cidr"]), other.cidr)
    if other.cidr:
        return False
    spaces, pods = end.get("namespaceSelector"), end.get("podSelector")
    there = {"kubernetes.io/metadata.name": other.namespace}
    inside = other.namespace == namespace if spaces is None else _selects(spaces, there)
    return inside and (pods is None or _selects(pods, dict(other.labels)))


def _contains(outer: str, inner: str) -> bool:
    a, b = ipaddress.ip_network(outer), ipaddress.ip_network(inner)
    return a.version == b.version and b.subnet_of(a)  # type: ignore[arg-type]


def _selects(selector: Object, labels: Mapping[str, str]) -> bool:
    if not (selector.get("matchLabels") or {}).items() <= labels.items():
        return False
    return all(_expression(e, labels) for e in selector.get("matchExpressions") or [])


def _expression(expression: Object, labels: Mapping[str, str]) -> bool:
    value, values = labels.get(expression["key"]), expression.get("values") or []
    answers = {
        "In": value in values,
        "NotIn": value not in values,
        "Exists": value is not None,
        "DoesNotExist": value is None,
    }
    return answers[expression["operator"]]
