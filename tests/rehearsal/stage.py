"""A cluster with the operators, an object store, and the site of the rehearsal on it, by the tasks of the product.

`python -m tests.rehearsal.stage up DIR` leaves it running for `pytest tests/rehearsal --rehearsal DIR`, which can be
called for one phase after the other; `table DIR` prints what all of them have seen, `down DIR` ends it.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from infra.prod.images import lock_text
from infra.settings import ROOT
from tests.faults.kind.cluster import Cluster
from tests.rehearsal import images, operators
from tests.rig.kind import tools

NAME, WORKERS = "rehearsal", 3
DEPLOY_SECONDS = 900.0
STORE = "rehearsal"
"""Namespace of the object store, which in production is somewhere else."""
KEYS = {"username": "rehearsal", "password": "a password of the rehearsal"}
Completed = subprocess.CompletedProcess[str]


@dataclass(frozen=True)
class Stage:
    """A cluster, and a directory with its kubeconfig, the site file and the state of the tasks."""

    home: Path

    @property
    def cluster(self) -> Cluster:
        """The cluster."""
        return Cluster(NAME, self.home / "kubeconfig")

    @property
    def site(self) -> Path:
        """The site file, with context and uid of this cluster."""
        return self.home / f"{NAME}.yaml"

    @property
    def table(self) -> Path:
        """The file with what was seen so far, a line for each fault."""
        return self.home / "table.jsonl"

    def says(self) -> dict[str, Any]:
        """What the site file says."""
        return dict(yaml.safe_load(self.site.read_text(encoding="utf-8")))

    def say(self, part: str, entries: Mapping[str, Any]) -> None:
        """Write entries of a part into the site file, as people do."""
        said = self.says()
        said[part] = {**said[part], **entries}
        self.site.write_text(yaml.safe_dump(said, sort_keys=False), encoding="utf-8")

    @property
    def server(self) -> str:
        """The Cluster of PostgreSQL that serves."""
        return str(self.says()["postgres"].get("cluster", "postgresql"))

    @property
    def workers(self) -> list[str]:
        """The nodes on which pods run."""
        return [f"{NAME}-worker{'' if i == 1 else i}" for i in range(1, WORKERS + 1)]

    def environment(self) -> dict[str, str]:
        """The variables by which commands reach the cluster."""
        path = os.pathsep.join((str(tools.directory()), os.environ.get("PATH", "")))
        return {"KUBECONFIG": str(self.home / "kubeconfig"), "PATH": path}

    def invoke(self, *arguments: str, timeout: float = DEPLOY_SECONDS) -> Completed:
        """`invoke ...` as the owner of the kubeconfig would type it."""
        own = {**self.environment(), "PLATFORM_STATE_DIR": str(self.home / "state")}
        return subprocess.run(
            [sys.executable, "-m", "invoke", *arguments],
            cwd=ROOT,
            env={**os.environ, **own},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            timeout=timeout,
            check=False,
        )

    def task(self, name: str, *arguments: str, timeout: float = DEPLOY_SECONDS) -> Completed:
        """`invoke prod.NAME SITE ...`."""
        return self.invoke(f"prod.{name}", str(self.site), *arguments, timeout=timeout)

    def data(self, name: str, *arguments: str) -> Any:
        """The `data` of a task's answer."""
        return self.answer(self.task(name, *arguments, "--output", "json"))

    def answer(self, done: Completed) -> Any:
        """The `data` of an answer, whatever its exit code."""
        assert done.stdout, f"{done.args} ended with {done.returncode}:\n{done.stderr}"
        said = json.loads(done.stdout)
        assert said["data"] is not None, said["error"]
        return said["data"]

    def plan(self) -> str:
        """The id of the plan that prod.diff prints."""
        return str(self.data("diff")["plan"])

    def deploy(self) -> None:
        """prod.diff and prod.deploy, as the docs say it."""
        done = self.task("deploy", "--plan", self.plan())
        assert done.returncode == 0, done.stderr + done.stdout

    def up(self) -> None:
        """Make everything that is not there yet, up to a deployed site."""
        self.home.mkdir(parents=True, exist_ok=True, mode=0o700)
        (self.home / "state").mkdir(exist_ok=True, mode=0o700)
        if not (self.home / "created").exists():
            self.cluster.create(WORKERS)
            (self.home / "created").touch()
        self.cluster.until_ready()
        self._write_site()
        built = self.invoke("app.build")
        assert built.returncode == 0, built.stderr
        found = self.task("render", "--to", str(self.home / "rendered"))
        assert found.returncode == 0, found.stderr
        references = _references(self.home / "rendered")
        digests = images.load(self.cluster, self.workers, references)
        self.site.with_suffix(".lock.json").write_text(lock_text(digests), encoding="utf-8")
        if not (self.home / "operators").exists():
            operators.install(self.cluster, self.home)
            (self.home / "operators").touch()
        self._object_store()
        self._secrets()
        self.deploy()

    def _write_site(self) -> None:
        uid = self.cluster.get("namespace", "kube-system")["metadata"]["uid"]
        if self.site.exists() and self.says()["cluster"]["uid"] == uid:
            return  # a restore has written into it
        text = (ROOT / "sites" / f"{NAME}.yaml").read_text(encoding="utf-8")
        self.site.write_text(re.sub(r"uid: [0-9a-f-]+", f"uid: {uid}", text), encoding="utf-8")

    def _object_store(self) -> None:
        things = yaml.safe_load_all((Path(__file__).parent / "object-store.yaml").read_text(encoding="utf-8"))
        made = [_filled(thing) for thing in things]
        self.cluster.apply(*made)
        self.cluster.kubectl("rollout", "status", "deployment/object-store", "-n", STORE, "--timeout=180s")

    def _secrets(self) -> None:
        """Give what is the owner's to give, then have the rest made."""
        base = str(self.home / "rendered" / "00-base")
        self.cluster.kubectl("apply", "--server-side", "--force-conflicts", "-k", base)
        backup = {"ACCESS_KEY_ID": KEYS["username"], "ACCESS_SECRET_KEY": KEYS["password"]}
        for name, values in (("object-store", KEYS), ("postgresql-backup", backup)):
            about = {"name": name, "namespace": "platform"}
            self.cluster.apply({"apiVersion": "v1", "kind": "Secret", "metadata": about, "stringData": values})
        done = self.task("secrets", "--generate")
        assert done.returncode == 0, done.stdout + done.stderr

    def down(self) -> None:
        """Delete the cluster."""
        self.cluster.delete()
        for path in (self.home / "created", self.home / "operators", self.site):
            path.unlink(missing_ok=True)


def _filled(thing: dict[str, Any]) -> dict[str, Any]:
    if thing["kind"] == "Secret":
        thing["stringData"] = {"MINIO_ROOT_USER": KEYS["username"], "MINIO_ROOT_PASSWORD": KEYS["password"]}
    return thing


def _references(rendered: Path) -> list[str]:
    from infra.prod.images import slots

    things = [yaml.safe_load(path.read_text(encoding="utf-8")) for path in rendered.glob("*/*.yaml")]
    found = {str(place[key]) for thing in things if "metadata" in thing for place, key in slots(thing)}
    return sorted(reference.partition("@")[0] for reference in found)


def lines(stage: Stage) -> list[str]:
    """The table of a stage, in Markdown; of a fault that was tried again the last line counts."""
    text = stage.table.read_text(encoding="utf-8") if stage.table.exists() else ""
    found = {row[0]: row for row in map(json.loads, text.splitlines())}
    rows = [("fault", "expected", "seen", "gap in s"), ("---",) * 4, *found.values()]
    return [f"| {' | '.join(row)} |" for row in rows]


def main(argv: Sequence[str]) -> int:
    """Make or delete a stage, or print its table."""
    action, home = argv
    made = Stage(Path(home).absolute())
    if action == "table":
        print("\n".join(lines(made)))
    else:
        {"up": made.up, "down": made.down}[action]()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
