from __future__ import annotations

import pytest

from infra import catalog


def test_names_settings_and_default_ports_are_unique() -> None:
    names = [s.name for s in catalog.SERVICES]
    ports = [p for s in catalog.SERVICES for p in s.ports] + [catalog.TEMPORAL_METRICS_PORT]
    for values in (names, [p.setting for p in ports], [p.default for p in ports]):
        assert len(set(values)) == len(values)


def test_what_is_referred_to_exists() -> None:
    names = {s.name for s in catalog.SERVICES}
    for service in catalog.SERVICES:
        assert set(service.needs) <= names
        assert set(service.login or ()) <= set(catalog.SETTINGS)
    assert {b.store for b in (*catalog.BUCKETS, *catalog.OBS_BUCKETS)} <= names


def test_a_service_stands_behind_what_it_needs() -> None:
    seen: set[str] = set()
    for service in catalog.SERVICES:
        assert set(service.needs) <= seen
        seen.add(service.name)


def test_core_needs_nothing_of_the_overlay() -> None:
    overlay = {s.name for s in catalog.SERVICES if s.overlay == catalog.OVERLAY_OBS}
    assert not [s for s in catalog.SERVICES if s.overlay == catalog.OVERLAY_CORE and overlay & set(s.needs)]


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        (["redis"], ("redis",)),
        (["mlflow"], ("postgres", "minio-results", "mlflow")),
        (["grafana", "redis"], ("redis", "loki", "grafana")),
        ([], ()),
    ],
)
def test_a_service_with_what_it_needs_in_order(asked: list[str], found: tuple[str, ...]) -> None:
    assert catalog.with_needs(asked) == found


def test_the_native_tier_offers_what_has_no_gap_and_says_why_else() -> None:
    offered = {s.name for s in catalog.offered("native")}
    missing = {s.name for s in catalog.SERVICES} - offered
    assert missing == {"loki", "grafana", "clearml"}
    assert all(gap.reason for gap in catalog.gaps("native"))


def test_settings_that_are_choices_have_a_default_that_may_be_chosen() -> None:
    for setting in catalog.SETTINGS.values():
        assert setting.kind in ("port", "count", "text", "secret", "path", "program", "choice", "list", "origins")
        assert not setting.choices or setting.default in ("", *setting.choices)
        assert setting.help


def test_an_unknown_service_or_role_is_a_defect() -> None:
    with pytest.raises(KeyError, match="no service x"):
        catalog.service("x")
