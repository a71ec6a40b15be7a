"""The rig's clusters: they do what a cluster must, survive a restart, and let nothing out of the machine."""

from __future__ import annotations

import contextlib
import ipaddress
import json
import re
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.kind.cluster import START_SECONDS, Cluster, Failed, cluster, run, until
from tests.faults.kind.files import NODE_PORT, deploy, until_it_answers
from tests.rig.kind import node, programs, tools
from tests.unit.helpers import free_port

pytestmark = pytest.mark.usefixtures("rig")

HOST_SETTINGS = ("vm/overcommit_memory", "kernel/panic", "kernel/panic_on_oops")
STALE = "10.244.0.250"
"""An address of the pods' range that no pod has: host-local gives addresses from the low end."""
NO_WAY = "No route to host"


def host_settings() -> dict[str, str]:
    """The settings of this machine's kernel that kubelet would change."""
    return {name: Path("/proc/sys", name).read_text(encoding="utf-8").strip() for name in HOST_SETTINGS}


@pytest.fixture(scope="module")
def port() -> int:
    """A free port of this machine."""
    return free_port()


@pytest.fixture(scope="module")
def settings_before() -> dict[str, str]:
    """The kernel's settings before there is a cluster."""
    return host_settings()


@pytest.fixture(scope="module")
def made(
    rig: dict[str, str], settings_before: dict[str, str], port: int, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Cluster]:
    """A cluster of one node with an application that has a volume and a NodePort."""
    with cluster(tmp_path_factory.mktemp("cluster"), ports={port: NODE_PORT}) as running:
        deploy(running)
        yield running


def test_the_cluster_is_of_the_version_that_was_asked_for(made: Cluster) -> None:
    found = {n["status"]["nodeInfo"]["kubeletVersion"] for n in made.get("nodes")["items"]}
    said = json.loads(made.kubectl("version", "--output", "json"))
    assert found == {programs.KUBERNETES} == {said["serverVersion"]["gitVersion"], said["clientVersion"]["gitVersion"]}


def test_a_volume_is_bound_and_the_node_port_answers(made: Cluster, port: int) -> None:
    until_it_answers(port)
    claim = made.get("persistentvolumeclaim", "files")
    assert claim["status"]["phase"] == "Bound"
    assert claim["spec"]["storageClassName"] == "standard"


def test_names_of_services_are_known_in_pods(made: Cluster) -> None:
    said = made.kubectl("exec", "deployment/files", "--", "nslookup", "files.default.svc.cluster.local")
    assert made.get("service", "files")["spec"]["clusterIP"] in said


def test_an_image_of_this_machine_gets_into_the_node_once(made: Cluster) -> None:
    name = f"platform-rig/test:{uuid.uuid4().hex[:8]}"
    text = f"FROM {node.PAUSE.reference}\nLABEL test={name}\n"
    run(["docker", "build", "--quiet", "--tag", name, "-"], stdin=text, env={"DOCKER_BUILDKIT": "0"})
    try:
        made.kind("load", "docker-image", name)
        again = made.kind("load", "docker-image", name)
    finally:
        run(["docker", "image", "rm", name])
    assert "already present" in again or "loading" not in again
    made.kubectl("run", "loaded", f"--image={name}", "--image-pull-policy=Never")
    made.kubectl("wait", "pod/loaded", "--for=condition=Ready", "--timeout=60s")
    made.kubectl("delete", "pod", "loaded", "--grace-period=1")


def test_an_image_that_exists_nowhere_is_refused_at_once(made: Cluster) -> None:
    made.kubectl("run", "nowhere", "--image=registry.invalid/nothing:1")
    try:
        until("the reason is told", lambda: reason(made, "nowhere") in ("ErrImagePull", "ImagePullBackOff"), 30)
    finally:
        made.kubectl("delete", "pod", "nowhere", "--grace-period=0", "--force")


def reason(on: Cluster, pod: str) -> str:
    """Why a pod's container waits."""
    states = on.get("pod", pod)["status"].get("containerStatuses") or [{"state": {}}]
    return str(states[0]["state"].get("waiting", {}).get("reason", ""))


# --- nothing gets out; only rules are looked at, and addresses that belong to the cluster itself are used


def test_the_machine_holds_back_what_the_cluster_sends(made: Cluster) -> None:
    described = json.loads(run(["docker", "network", "inspect", "kind"]))[0]
    subnet = next(c["Subnet"] for c in described["IPAM"]["Config"] if ":" not in c["Subnet"])
    bridge = described["Options"].get("com.docker.network.bridge.name") or f"br-{described['Id'][:12]}"
    rules = run(["iptables", "-w", "-S", "DOCKER-USER"]).splitlines()
    first = [rule for rule in rules if rule.startswith("-A")]
    held = [f"-s {subnet} ! -d {subnet} ! -o {bridge}", f"-i {bridge} ! -o {bridge}"]
    for words in held:
        number = next(i for i, rule in enumerate(first) if words in rule)
        assert re.search(r"! --ctstate (RELATED,ESTABLISHED|ESTABLISHED,RELATED) -j REJECT", first[number])
        assert not any(rule.endswith(("-j RETURN", "-j ACCEPT")) for rule in first[:number])
    forward = [rule for rule in run(["iptables", "-w", "-S", "FORWARD"]).splitlines() if rule.startswith("-A")]
    assert forward[0].endswith("-j DOCKER-USER")


def test_a_missing_rule_is_noticed_and_set_again(made: Cluster) -> None:
    guard = str(tools.directory() / "guard")
    rule = next(
        r for r in run(["iptables", "-w", "-S", "DOCKER-USER"]).splitlines() if "-i kind0" in r or "-i br-" in r
    )
    run(["iptables", "-w", *rule.replace("-A", "-D", 1).split()])
    try:
        with pytest.raises(Failed, match="missing in DOCKER-USER"):
            run([guard, "check"])
    finally:
        run([guard, "set"])
    run([guard, "check"])


def test_a_node_has_no_way_out(made: Cluster) -> None:
    routes = made.on_node("ip -4 route show").splitlines()
    subnet = made.on_node("ip -4 route show dev eth0 scope link").split()[0]
    assert any(route.startswith("unreachable 10.244.0.0/16") for route in routes)
    rules = [rule.split(maxsplit=1) for rule in made.on_node("ip -4 rule show").splitlines()]
    allowed = {words.split()[3] for number, words in rules if number == "100:"}
    assert allowed == {subnet, "10.244.0.0/16", "10.96.0.0/16"}
    assert ["200:", "from all unreachable"] in [[number, words.strip()] for number, words in rules]
    mangle = made.on_node("iptables -t mangle -S POSTROUTING").splitlines()
    assert mangle[-1] == f"-A POSTROUTING ! -d {subnet} -o eth0 -j DROP"
    assert ipaddress.ip_network(subnet).is_private


def test_the_address_of_a_pod_that_is_gone_fails_at_once(made: Cluster) -> None:
    attempt = f"timeout 3 bash -c '(exec 3<>/dev/tcp/{STALE}/80)' 2>&1 || true"
    assert NO_WAY in made.on_node(attempt)
    with pytest.raises(Failed, match=rf"{NO_WAY}|[Uu]nreachable"):
        made.kubectl("exec", "deployment/files", "--", "timeout", "3", "wget", "-qO-", f"http://{STALE}/")


def test_a_name_of_elsewhere_is_refused_and_not_waited_for(made: Cluster) -> None:
    made.on_node("timeout 10 getent hosts nothing.invalid; [ $? = 2 ]")
    with pytest.raises(Failed, match=r"SERVFAIL|NXDOMAIN|can.t find"):
        made.kubectl("exec", "deployment/files", "--", "timeout", "20", "nslookup", "nothing.invalid.")


def test_the_kernel_of_this_machine_keeps_its_settings(made: Cluster, settings_before: dict[str, str]) -> None:
    seen = made.on_node("cat /proc/sys/vm/overcommit_memory /proc/sys/kernel/panic").split()
    assert seen == ["1", "10"]
    assert host_settings() == settings_before


# --- restarts; these come last


def test_a_restarted_node_has_its_data(made: Cluster, port: int) -> None:
    restart(made)
    until_it_answers(port)
    assert NO_WAY in made.on_node(f"timeout 3 bash -c '(exec 3<>/dev/tcp/{STALE}/80)' 2>&1 || true")


def test_a_node_works_with_another_address(made: Cluster, port: int) -> None:
    before = address(made.control_plane)
    run(["docker", "stop", made.control_plane])
    with squatters(before):
        run(["docker", "start", made.control_plane])
        assert address(made.control_plane) != before
        until_it_answers(port)
        made.until_ready()


@contextlib.contextmanager
def squatters(wanted: str) -> Iterator[None]:
    """Containers, one of which has got that address of kind's network: Docker gives the lowest that is free."""
    started: list[str] = []
    try:
        while wanted not in map(address, started):
            assert len(started) < 8, f"no container gets the address {wanted}"
            started.append(run(["docker", "run", "--detach", "--network", "kind", node.PAUSE.reference]))
        yield
    finally:
        for container in started:
            run(["docker", "rm", "--force", container])


def address(container: str) -> str:
    """A container's address in the network of kind."""
    return run(["docker", "inspect", "--format", "{{.NetworkSettings.Networks.kind.IPAddress}}", container])


def restart(made: Cluster) -> None:
    """Stop and start the node, and wait until all is ready again."""
    run(["docker", "stop", "--time", "60", made.control_plane])
    described = json.loads(run(["docker", "inspect", made.control_plane]))[0]
    assert described["Config"]["StopSignal"] == "SIGRTMIN+3", "systemd would have to be killed"
    run(["docker", "start", made.control_plane])
    until("the API server answers", lambda: made.kubectl("get", "--raw", "/readyz") == "ok", START_SECONDS)
    made.until_ready()
