"""Argo CD and Flux get the same folders, in the order of the waves, and never prune."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from infra.errors import PlatformError
from infra.prod import gitops, render
from infra.prod.gitops import Repository
from tests.unit.prod.played import deployment, job, rendered

HELD = Repository("https://git.example.com/acme/sites.git", "main", "./prod/")
WAVES: Any = {"00-base": [deployment("a")], "20-data": [deployment("b")], "30-services": [deployment("c")]}


def _made(kind: str) -> list[Any]:
    (things,) = gitops.files(rendered(**WAVES), kind, HELD).values()
    return things


def test_flux_waits_for_each_wave_before_the_next() -> None:
    source, *waves = _made("flux")
    assert source["spec"]["url"] == HELD.url
    assert [w["spec"]["path"] for w in waves] == [f"./prod/{name}" for name in WAVES]
    assert [w["spec"].get("dependsOn") for w in waves] == [
        None,
        [{"name": "example-00-base"}],
        [{"name": "example-20-data"}],
    ]
    assert all(w["spec"]["wait"] and not w["spec"]["prune"] for w in waves)


def test_argocd_gets_one_application_for_each_wave() -> None:
    waves = _made("argocd")
    assert [w["spec"]["source"]["path"] for w in waves] == [f"prod/{name}" for name in WAVES]
    assert [w["metadata"]["annotations"]["argocd.argoproj.io/sync-wave"] for w in waves] == ["0", "1", "2"]
    assert not any(w["spec"]["syncPolicy"]["automated"]["prune"] for w in waves)


@pytest.mark.parametrize(("kind", "held"), [("spinnaker", HELD), ("flux", Repository("", "main", ""))])
def test_what_cannot_be_made_is_refused(kind: str, held: Repository) -> None:
    with pytest.raises(PlatformError) as refused:
        gitops.files(rendered(**WAVES), kind, held)
    assert refused.value.code == "USAGE"


def test_the_folder_is_written_and_replaced_with_the_others(tmp_path: Path) -> None:
    site, target = rendered(**WAVES), tmp_path / "out"
    render.write(site, target, gitops.files(site, "flux", HELD))
    text = (target / "gitops" / "flux.yaml").read_text(encoding="utf-8")
    assert list(yaml.safe_load_all(text)) == _made("flux")
    render.write(site, target)
    assert not (target / "gitops").exists()


def test_a_job_with_another_digest_is_another_job() -> None:
    one, two, same = (job("mlflow-schema-0123abcd") for _ in range(3))
    two["spec"]["template"]["metadata"]["labels"]["digest"] = "other"
    names = [render.once(thing)["metadata"]["name"] for thing in (one, two, same)]
    assert names[0] == names[2] != names[1]
    assert all(name.startswith("mlflow-schema-") and len(name) == len("mlflow-schema-0123abcd") for name in names)
    assert one["metadata"]["name"] == "mlflow-schema-0123abcd"
