"""The image of kind's nodes, with everything that a cluster needs before its first pod runs.

Made in three steps: a Debian with our files and Kubernetes; images of the cluster's own pods; and those put into the
node's containerd. The result is kept as an archive by what it was made from, for engines that have lost their images.
"""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.rig import base, cache, images, parts
from tests.rig.kind import programs
from tests.rig.recipes import PREFIX

IMAGES = Path(__file__).parent / "images"
REFERENCE = f"{PREFIX}/kind-node:{programs.KUBERNETES}"
UNFINISHED = f"{PREFIX}/kind-node-unfinished:{programs.KUBERNETES}"

PACKAGES = (
    "systemd",
    "containerd",
    "runc",
    "containernetworking-plugins",
    "iptables",
    "nftables",
    "iproute2",
    "ethtool",
    "mount",
    "kmod",
    "conntrack",
    "ipset",
    "socat",
    "procps",
    "curl",
    "ca-certificates",
)
"""What kubelet, kubeadm, kube-proxy's kubelet part and kind call on a node. Debian 12 still does cgroup v1."""

FIREWALL = parts.Debs(
    (
        "busybox",
        "iptables",
        "libc6",
        "libxtables12",
        "libip4tc2",
        "libip6tc2",
        "libmnl0",
        "libnetfilter-conntrack3",
        "libnfnetlink0",
        "libnftnl11",
    )
)
"""Whole packages: iptables loads its matches when it needs them, with libraries that it does not itself ask for."""


@dataclass(frozen=True)
class PodImage:
    """An image of the cluster's own pods; `step` of a program -> the program."""

    name: str
    steps: tuple[str, ...]

    @property
    def reference(self) -> str:
        """Name and tag."""
        return f"{PREFIX}/kind-{self.name}:{programs.KUBERNETES}"

    @property
    def full_name(self) -> str:
        """As containerd calls it."""
        return f"docker.io/{self.reference}"

    def key(self) -> str:
        """What it is made from."""
        debs = FIREWALL.key() if self.name == "system" else ""
        made_from = (programs.ALL[step].key() for step in self.steps)
        return cache.key(cache.key_of_files(IMAGES / self.name), debs, *made_from)

    def build(self, log: Path) -> None:
        """Build it in the engine, unless it is there."""
        if images.key_of(self.reference) == self.key():
            return
        made = {programs.ALL[step].name: parts.ready(programs.ALL[step], step, log) for step in self.steps}
        if self.name == "system":
            made[FIREWALL.name] = parts.ready(FIREWALL, "kind-system", log)
        with images.context(IMAGES / self.name, made) as place:
            images.docker_build(place, self.reference, self.key(), log)


SYSTEM = PodImage("system", ("kind-hyperkube", "kind-etcd", "kind-provisioner"))
COREDNS = PodImage("coredns", ("kind-coredns",))
PAUSE = PodImage("pause", ("kind-pause",))
POD_IMAGES = (SYSTEM, COREDNS, PAUSE)


def key() -> str:
    """What the node image is made from."""
    below = (programs.HYPERKUBE.key(), *(image.key() for image in POD_IMAGES))
    return cache.key(base.SUITE, *PACKAGES, cache.key_of_files(IMAGES / "node"), *below)


def present() -> bool:
    """Whether the engine has exactly this node image."""
    return images.key_of(REFERENCE) == key()


def build(log: Path) -> None:
    """Have the node image in the engine: from the archive of an earlier run, else made (about half a minute).

    Raises:
        RigProblem: a part is not available, or a step failed.
    """
    kept = cache.folder("parts") / f"kind-node-{key()}"
    if not kept.exists():
        _make(log)
        with cache.fresh(kept) as unfinished:
            cache.run(["docker", "save", "--output", unfinished / "node.tar", REFERENCE], log)
        cache.discard_others(kept)
    if not present():
        cache.run(["docker", "load", "--quiet", "--input", kept / "node.tar"], log)


def _make(log: Path) -> None:
    hyperkube = parts.ready(programs.HYPERKUBE, "kind-hyperkube", log)
    names = names_of_kubeadm(hyperkube / "hyperkube")
    made = {"root.tar": root_archive(log), "hyperkube": hyperkube}
    with images.context(IMAGES / "node", made) as place:
        _fill_in(place / "files", {"@PAUSE@": _one(names, "pause"), "@SYSTEM@": SYSTEM.full_name})
        (place / "files/kind/version").write_text(programs.KUBERNETES, encoding="utf-8")
        images.docker_build(place, UNFINISHED, "unfinished", log)
    for image in POD_IMAGES:
        image.build(log)
    _preload([f"{_stand_in(name).full_name}={name}" for name in names], log)
    cache.run(["docker", "image", "rm", UNFINISHED], log)


def root_archive(log: Path) -> Path:
    """The nodes' Debian, made when it is missing (about a minute; root only)."""
    target = cache.folder("parts") / f"kind-root-{cache.key(base.SUITE, *PACKAGES, *base.NEEDLESS)}"
    if not target.exists():
        with cache.fresh(target) as unfinished:
            base.make(unfinished / "root.tar", PACKAGES, log)
        cache.discard_others(target)
    return target / "root.tar"


def names_of_kubeadm(hyperkube: Path) -> list[str]:
    """The images that kubeadm asks for, by name and tag."""
    argv = ["kubeadm", "config", "images", "list", "--kubernetes-version", programs.KUBERNETES]
    done = subprocess.run(argv, executable=hyperkube, capture_output=True, text=True)
    if done.returncode or not done.stdout.strip():
        raise cache.RigProblem(f"kubeadm does not tell its images: {done.stderr.strip()}")
    return done.stdout.split()


def _one(names: list[str], part: str) -> str:
    found = [name for name in names if f"/{part}:" in name]
    if len(found) != 1:
        raise cache.RigProblem(f"kubeadm's images should have one {part}, it names {', '.join(names)}")
    return found[0]


def _stand_in(name: str) -> PodImage:
    """Our own image that takes a name of kubeadm's."""
    return {"coredns": COREDNS, "pause": PAUSE}.get(name.rpartition("/")[2].partition(":")[0], SYSTEM)


def _fill_in(folder: Path, words: dict[str, str]) -> None:
    """Put the names of images into the files; a file that holds none stays as it is."""
    for path in folder.rglob("*"):
        if path.is_file():
            before = text = path.read_text(encoding="utf-8")
            for word, value in words.items():
                text = text.replace(word, value)
            if text != before:
                path.write_text(text, encoding="utf-8")


def _preload(pairs: list[str], log: Path) -> None:
    """Bring the pods' images into the unfinished node image, and keep the result under its name."""
    with _running(UNFINISHED, log) as container:
        save = subprocess.Popen(["docker", "save", *(i.reference for i in POD_IMAGES)], stdout=subprocess.PIPE)
        with open(log, "ab") as out:
            argv = ["docker", "exec", "--interactive", container, "preload", *pairs]
            done = subprocess.run(argv, stdin=save.stdout, stdout=out, stderr=out)
        if save.wait() or done.returncode:
            raise cache.RigProblem("the images of the cluster's own pods cannot be put into the node image", log)
        changes = (
            'ENTRYPOINT ["/usr/local/bin/entrypoint", "/sbin/init"]',
            "CMD []",
            f"LABEL {images.LABEL}={key()}",
        )
        options = [word for change in changes for word in ("--change", change)]
        cache.run(["docker", "commit", *options, container, REFERENCE], log)


@contextlib.contextmanager
def _running(reference: str, log: Path) -> Iterator[str]:
    """A container of an image that only sleeps, without a network."""
    name = f"platform-rig-{uuid.uuid4().hex[:12]}"
    open_system_calls = ["--security-opt", "seccomp=unconfined"]
    argv = ["docker", "run", "--detach", "--name", name, "--network", "none", *open_system_calls]
    cache.run([*argv, "--entrypoint", "sleep", reference, "infinity"], log)
    try:
        yield name
    finally:
        cache.run(["docker", "rm", "--force", "--volumes", name], log)


def forget() -> None:
    """Remove the archive, so that the next run makes the image again."""
    shutil.rmtree(cache.folder("parts") / f"kind-node-{key()}", ignore_errors=True)
