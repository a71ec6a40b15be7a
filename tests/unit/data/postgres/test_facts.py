"""Names, rights, settings and locales of databases, and what a manifest says of them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from infra.data.postgres import facts, scratch
from infra.data.postgres.facts import DatabaseFacts
from infra.errors import PlatformError

FACTS = DatabaseFacts(
    name="users",
    owner="o'wner",
    acl=["=T/admin", '"odd ""role"=C*c/admin'],
    encoding="UTF8",
    collate="C",
    ctype="C",
    provider="b",
    locale="C.UTF-8",
    connections=-1,
    comment=None,
    settings=[["", ['search_path="$user", public', "work_mem=5MB"]], ["reader", ["jit=off"]]],
    size=1,
)


def _text(statements: list[Any]) -> str:
    return ";\n".join(s.as_string(None) for s in statements)


def test_facts_go_through_a_manifest() -> None:
    assert DatabaseFacts.of(FACTS.data()) == FACTS
    with pytest.raises(PlatformError) as caught:
        DatabaseFacts.of({"name": "users"})
    assert caught.value.code == "BACKUP_DAMAGED"


def test_the_acl_becomes_grants() -> None:
    assert facts.parse_acl("=Tc/admin") == ("", [("temporary", False), ("connect", False)])
    assert facts.parse_acl('"odd ""role"=C*/a') == ('odd "role', [("create", True)])
    with pytest.raises(ValueError, match="nonsense"):
        facts.parse_acl("nonsense")


def test_everything_of_a_database_is_set_again() -> None:
    text = _text(facts.setting_statements(FACTS, "users"))
    assert 'alter database "users" owner to "o\'wner"' in text
    assert 'grant create on database "users" to "odd ""role" with grant option' in text
    assert 'grant temporary on database "users" to public' in text
    assert "is_template" not in text
    assert "is_template true" in _text(facts.setting_statements(replace(FACTS, template=True), "users"))
    own = _text(facts.own_settings(FACTS, "users"))
    assert "set \"search_path\" to '$user', 'public'" in own
    assert 'alter role "reader" in database "users" set "jit" to \'off\'' in own


def test_a_database_is_made_with_the_locale_of_the_original() -> None:
    text = facts.create_statement(FACTS, "new", 180006).as_string(None)
    assert text.startswith('create database "new" template template0')
    assert "locale_provider 'builtin'" in text
    assert "builtin_locale 'C.UTF-8'" in text
    assert "locale_provider" not in facts.create_statement(FACTS, "new", 140001).as_string(None)


def test_which_databases_are_backed_up() -> None:
    def named(*names: str, **closed: str) -> dict[str, tuple[DatabaseFacts, str]]:
        return {n: (replace(FACTS, name=n), closed.get(n, "")) for n in (*names, *closed)}

    there = named("labeler", "platform", "users", archive="it takes no connections")
    every = facts.choose(there, (), ())
    assert [d.name for d in every.chosen] == ["labeler", "platform", "users"]
    assert every.left_out == {"archive": "it takes no connections"}
    assert [d.name for d in facts.choose(there, ("users", "users"), ()).chosen] == ["users"]
    less = facts.choose(there, (), ("archive", "labeler"))
    assert [d.name for d in less.chosen] == ["platform", "users"]
    assert less.left_out == dict.fromkeys(("archive", "labeler"), facts.SKIPPED)
    assert facts.choose(named("platform"), (), ()).absent == ("users", "labeler")
    with pytest.raises(PlatformError) as caught:
        facts.choose(there, ("nosuch",), ())
    assert "nosuch" in caught.value.what


def test_names_that_we_make_are_known_again_and_never_too_long() -> None:
    when = scratch.stamp()
    for kind in ("old", "new", "check"):
        for name in ("users", "ü" * 40):
            made = scratch.named(name, kind, when)
            assert facts.OURS.search(made)
            assert len(made.encode()) <= facts.LONGEST_NAME
    assert not facts.OURS.search("users_old_2026")
    assert not facts.OURS.search("my_new_database")


def test_long_names_that_begin_alike_get_names_of_their_own() -> None:
    when = scratch.stamp()
    long = [f"{'annotations_of_the_second_half_of_the_year_' * 2}{end}" for end in ("train", "test")]
    assert len({scratch.named(name, "old", when) for name in long}) == len(long)


def test_only_marked_or_empty_scratch_databases_are_dropped() -> None:
    assert scratch._is_ours(scratch.MARK, 10**9)
    assert scratch._is_ours(None, 1000)
    assert not scratch._is_ours(None, 10**7)
    assert not scratch._is_ours("precious", 0)
