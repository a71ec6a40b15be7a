"""Whose a cluster is, what it is called, and in which state it is: from containers and our record."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

from infra.errors import PlatformError
from infra.settings import ROOT
from infra.tiers.kind import cluster
from infra.tiers.kind.cluster import ABSENT, HALF_MADE, RUNNING, STOPPED, KindCluster
from tests.unit.tiers.kind.fakes import cluster_of, node

KUBECONFIG = "current-context: kind-platform\n    server: https://127.0.0.1:1\n"


def complete(made: KindCluster) -> KindCluster:
    """The same as if it had been made to its end."""
    made.remember(name="platform", complete=True)
    made.kubeconfig.write_text(KUBECONFIG)
    return made


def home(root: Path) -> Path:
    return root / "state" / "kind"


def test_the_first_is_called_platform(tmp_path: Path) -> None:
    assert cluster_of(tmp_path).name == "platform"


def test_a_name_of_the_settings_is_taken(tmp_path: Path) -> None:
    assert cluster_of(tmp_path, PLATFORM_STACK="mine").name == "mine"


def test_the_name_of_anothers_cluster_gets_the_digits_of_the_stack(tmp_path: Path) -> None:
    made = cluster_of(tmp_path, node(tmp_path / "other"))
    digits = made.context.stack.name.rsplit("-", 1)[-1]
    assert made.name == f"platform-{digits}"
    assert made.nodes() == []


def test_a_name_that_is_remembered_stays(tmp_path: Path) -> None:
    made = cluster_of(tmp_path, node(tmp_path / "other"))
    made.remember(name="as-before")
    assert made.name == "as-before"


def test_nodes_are_those_that_were_made_for_this_stack(tmp_path: Path) -> None:
    ours, other, no_mark = node(home(tmp_path)), node(tmp_path / "other", "second"), node(None, "third")
    assert cluster_of(tmp_path, other, ours, no_mark).nodes() == [ours]


def test_docker_desktops_prefix_of_a_mount_does_not_matter(tmp_path: Path) -> None:
    ours = node(Path("/host_mnt" + home(tmp_path).as_posix()))
    assert cluster_of(tmp_path, ours).nodes() == [ours]


@pytest.mark.parametrize(
    ("states", "whole", "expected"),
    [
        ((), False, ABSENT),
        ((), True, ABSENT),
        (("running",), False, HALF_MADE),
        (("running",), True, RUNNING),
        (("exited",), True, STOPPED),
        (("running", "exited"), True, STOPPED),
        (("paused",), True, STOPPED),
    ],
)
def test_the_state_is_that_of_containers_and_record(
    tmp_path: Path, states: tuple[str, ...], whole: bool, expected: str
) -> None:
    roles = ("control-plane", "worker")
    nodes = [node(home(tmp_path), state=s, role=r) for s, r in zip(states, roles, strict=False)]
    made = cluster_of(tmp_path, *nodes)
    assert (complete(made) if whole else made).state() == expected


def test_without_its_login_it_is_half_made(tmp_path: Path) -> None:
    made = complete(cluster_of(tmp_path, node(home(tmp_path))))
    made.kubeconfig.unlink()
    assert made.state() == HALF_MADE


def test_it_listens_only_where_its_kubeconfig_says(tmp_path: Path) -> None:
    made = cluster_of(tmp_path, node(home(tmp_path)))
    assert not made.listening(), "without a record nothing is asked"
    assert not complete(made).listening(), "port 1 is closed"


def test_no_question_is_sent_to_another_cluster(tmp_path: Path) -> None:
    made = complete(cluster_of(tmp_path, node(home(tmp_path))))
    made.kubeconfig.write_text(KUBECONFIG.replace("kind-platform", "production"))
    with pytest.raises(PlatformError) as caught:
        made.api()
    assert caught.value.code == "CONTEXT_REFUSED"


def test_without_a_cluster_there_is_no_api(tmp_path: Path) -> None:
    with pytest.raises(PlatformError) as caught:
        cluster_of(tmp_path).api()
    assert caught.value.code == "NOT_RUNNING"


def test_a_changed_file_is_noticed_and_a_comment_is_no_change(tmp_path: Path) -> None:
    from infra.tiers.kind import cluster_file

    (tmp_path / "kind").mkdir()
    file = tmp_path / "kind" / "cluster.yaml"
    shutil.copyfile(ROOT / "kind" / "cluster.yaml", file)
    made = cluster_of(tmp_path)
    assert not made.outdated(), "there is none yet"
    made.remember(fingerprint=cluster_file.fingerprint(made.file, ""))
    file.write_text("# a comment\n" + file.read_text())
    assert not cluster_of(tmp_path).outdated()
    file.write_text(file.read_text().replace("30679", "30680"))
    assert cluster_of(tmp_path).outdated()


def test_what_is_remembered_is_added(tmp_path: Path) -> None:
    made = cluster_of(tmp_path)
    made.remember(name="a")
    made.remember(complete=False)
    assert made.record == {"name": "a", "complete": False}


def test_a_state_directory_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    made = cluster_of(tmp_path)
    made.home.rmdir()
    made.home.write_text("in the way")
    with pytest.raises(PlatformError) as caught:
        made.remember(name="a")
    assert caught.value.code == "STATE_UNWRITABLE"


@pytest.mark.parametrize(("system", "keeps"), [("linux", True), ("darwin", True), ("win32", False)])
def test_volumes_are_on_this_machine_where_it_has_owners_and_modes(system: str, keeps: bool) -> None:
    assert cluster.keeps_volumes(system) is keeps
    assert cluster.keeps_volumes() is (sys.platform != "win32")
