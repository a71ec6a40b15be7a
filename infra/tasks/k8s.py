"""Plain manifests (k8s/) on the cluster of the kind tier, by kubectl and kustomize."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from infra.console import Answer
from infra.context import Context
from infra.errors import PlatformError
from infra.tasks.command import command, confirm
from infra.tasks.kind import the_tier

if TYPE_CHECKING:
    from infra.kube.kubectl_cli import Kubectl

OVERLAY = "directory under k8s/overlays, or a path; default: kind"


def _overlay(context: Context, name: str) -> Path:
    """Return the folder of an overlay.

    Raises:
        PlatformError: USAGE with the overlays that there are.
    """
    home = context.settings.root / "k8s" / "overlays"
    for path in (home / name, Path(name).expanduser().absolute()):
        if (path / "kustomization.yaml").is_file():
            return path
    there = sorted(p.parent.name for p in home.glob("*/kustomization.yaml"))
    raise PlatformError("USAGE", f"there is no overlay {name!r}", steps=(f"the overlays are: {', '.join(there)}",))


def _kubectl(context: Context) -> Kubectl:
    active = the_tier(context)
    active.require()
    return active.kubectl


@command(help={"overlay": OVERLAY})
def apply(context: Context, overlay: str = "kind") -> Answer:
    """Apply the manifests of an overlay.

    Example: invoke k8s.apply --overlay kind
    """
    from infra import shell, stack

    path, kubectl = _overlay(context, overlay), _kubectl(context)
    with stack.lock(context.stack, "k8s.apply"):
        _ensure_key(kubectl, shell.run(kubectl.kustomize(path)).out)
        said = shell.run(kubectl.apply(path), limit=180).out
    lines = tuple(said.splitlines())
    return Answer({"overlay": overlay, "objects": list(lines)}, lines=(*lines, "Next: invoke k8s.diff"))


SIGNING, NAMESPACE = "backend-signing", "platform"


def _ensure_key(kubectl: Kubectl, rendered: str) -> None:
    """Make the Secret that signs trainings, where development manifests want one and there is none."""
    import secrets

    from infra import shell
    from infra.kube import manifests

    made_by_it = [name for _, name in manifests.removable(rendered)]
    if SIGNING not in rendered or "secret/backend-env" not in made_by_it:
        return
    if shell.run(kubectl.names(f"secret/{SIGNING}", NAMESPACE)).out.strip():
        return
    made = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": SIGNING, "namespace": NAMESPACE},
        "stringData": {"TRAINING_KEY": secrets.token_hex(32)},
    }
    shell.run(kubectl.apply_text(), stdin=json.dumps(made))


@command(help={"overlay": OVERLAY, "yes": "skip the confirmation prompt"})
def delete(context: Context, overlay: str = "kind", yes: bool = False) -> Answer:
    """Delete the objects of an overlay; namespaces and volumes are kept.

    Example: invoke k8s.delete --overlay kind --yes
    """
    from infra import shell, stack
    from infra.kube import manifests

    path, kubectl = _overlay(context, overlay), _kubectl(context)
    with stack.lock(context.stack, "k8s.delete"):
        found = manifests.removable(shell.run(kubectl.kustomize(path)).out)
        confirm(context, ["This deletes from the cluster:", *(f"  {n:<14} {name}" for n, name in found)], yes)
        for namespace in dict.fromkeys(n for n, _ in found):
            shell.run(kubectl.delete([name for n, name in found if n == namespace], namespace), limit=180)
    names = tuple(f"{namespace}/{name}" for namespace, name in found)
    return Answer({"overlay": overlay, "deleted": list(names)}, lines=(f"deleted: {', '.join(names)}",), names=names)


@command(log=False, help={"overlay": OVERLAY})
def diff(context: Context, overlay: str = "kind") -> Answer:
    """Print what applying an overlay would change; exit 1 when there is a difference.

    Example: invoke k8s.diff --overlay kind
    """
    from infra import shell

    path, kubectl = _overlay(context, overlay), _kubectl(context)
    done = shell.run(kubectl.diff(path), check=False, limit=120)
    if done.code > 1:
        raise PlatformError("PROGRAM_FAILED", "kubectl diff failed", why=done.last_line)
    lines = tuple(done.out.splitlines()) or ("the cluster matches the overlay",)
    return Answer({"overlay": overlay, "different": done.code == 1, "diff": done.out}, lines=lines, exit=done.code)


TASKS = (apply, delete, diff)
