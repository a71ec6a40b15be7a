"""Site files: what fits, and how what does not is said."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from infra.errors import PlatformError
from infra.prod import site as sites
from infra.settings import ROOT

Change = Callable[[dict[str, Any]], object]


def written(tmp_path: Path, change: Change) -> Path:
    said = yaml.safe_load((ROOT / "sites" / "example.yaml").read_text(encoding="utf-8"))
    change(said)
    path = tmp_path / "example.yaml"
    path.write_text(yaml.safe_dump(said), encoding="utf-8")
    return path


@pytest.mark.parametrize("name", ["example", "rehearsal"])
def test_the_sites_of_the_checkout_fit(name: str) -> None:
    found = sites.load(name, ROOT)
    assert found.name == name
    assert found.lock == ROOT / "sites" / f"{name}.lock.json"


def test_a_path_outside_the_checkout_names_a_site_too(tmp_path: Path) -> None:
    assert sites.load(str(written(tmp_path, lambda said: None)), ROOT).context == "eks-prod"


WRONG: tuple[tuple[str, Change, str], ...] = (
    ("a key that nobody knows", lambda s: s.update(sizes="small"), "'sizes' was unexpected"),
    ("a number as text", lambda s: s["postgres"].update(instances="3"), "postgres.instances: '3' is not of type"),
    ("one instance", lambda s: s["postgres"].update(instances=1), "postgres.instances: 1 is less than"),
    (
        "an engine that is not there",
        lambda s: s["redis"].update(engine="keydb"),
        "redis: its engine or kind is none of",
    ),
    ("Redis without TLS", lambda s: s["redis"].update(tls=False), "redis.tls: True was expected"),
    ("a prefix without its dash", lambda s: s["s3"].update(bucketPrefix="acme"), "s3.bucketPrefix: 'acme'"),
    ("an image without tag", lambda s: s["images"].update(backend="acme/backend"), "images.backend: 'acme/backend'"),
    ("external secrets from nowhere", lambda s: s["secrets"].pop("store"), "secrets: 'store' is a required property"),
    ("no pager", lambda s: s["observability"].pop("pager"), "observability: 'pager' is a required property"),
    ("another name than its file's", lambda s: s.update(site="other"), "site: it is called 'other'"),
    ("published without a login", lambda s: s["route"].pop("login"), "route: say who asks people for a login"),
    ("a role that nothing gives", lambda s: s["s3"].pop("annotations"), "s3: identity role needs the annotations"),
    (
        "a recovery into its own archive",
        lambda s: s["postgres"].update(recovery={"server": "postgresql", "as": "postgresql"}),
        "postgres.recovery: `as` must differ",
    ),
)


@pytest.mark.parametrize(("change", "said"), [w[1:] for w in WRONG], ids=[w[0] for w in WRONG])
def test_what_does_not_fit_is_said_by_its_place(tmp_path: Path, change: Change, said: str) -> None:
    with pytest.raises(PlatformError) as caught:
        sites.load(str(written(tmp_path, change)), ROOT)
    assert caught.value.code == "SITE_INVALID"
    assert said in "\n".join(caught.value.details["problems"])  # type: ignore[arg-type]


def test_every_problem_is_said_at_once(tmp_path: Path) -> None:
    def change(said: dict[str, Any]) -> None:
        said["size"] = "huge"
        said["cluster"]["uid"] = "?"

    with pytest.raises(PlatformError) as caught:
        sites.load(str(written(tmp_path, change)), ROOT)
    assert len(caught.value.details["problems"]) == 2  # type: ignore[arg-type]


def test_a_file_that_is_no_yaml_is_said(tmp_path: Path) -> None:
    path = tmp_path / "broken.yaml"
    path.write_text("site: [", encoding="utf-8")
    with pytest.raises(PlatformError, match="does not describe a site"):
        sites.load(str(path), ROOT)


def test_a_site_that_is_not_there_names_the_nearest() -> None:
    with pytest.raises(PlatformError) as caught:
        sites.load("exampel", ROOT)
    assert caught.value.code == "NOT_FOUND"
    assert caught.value.steps[0] == "did you mean example?"
