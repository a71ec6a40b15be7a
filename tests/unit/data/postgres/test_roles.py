from __future__ import annotations

from typing import Any

from infra.data.postgres import roles
from tests.unit.data.postgres.test_facts import FACTS

FLAGS = dict.fromkeys(("superuser", "createrole", "createdb", "login", "replication", "bypassrls"), False)


def role(name: str, *memberships: dict[str, Any], **more: Any) -> dict[str, Any]:
    plain: dict[str, Any] = {
        "connections": -1,
        "password": None,
        "until": None,
        "comment": None,
        "settings": [],
        "inherit": True,
    }
    member_of = [m["role"] for m in memberships]
    known = {"name": name, "member_of": member_of, "memberships": list(memberships), "bootstrap": False}
    return {**FLAGS, **plain, **known, **more}


def member(of: str, grantor: str = "admin", **options: bool) -> dict[str, Any]:
    return {"role": of, "admin": False, "inherit": True, "set": True, "grantor": grantor, **options}


def text(statement: Any) -> str:
    return str(statement.as_string(None))


def test_a_role_is_made_as_it_was() -> None:
    saved = role("a", connections=3, login=True, settings=["statement_timeout=5s", 'search_path="a b", c'], comment="x")
    made = text(roles.statement({**saved, "inherit": False}))
    assert made.startswith('create role "a" with nosuperuser noinherit')
    assert " login " in made
    assert "password" not in made
    assert [text(s) for s in roles.settings(saved)] == [
        """alter role "a" set "statement_timeout" to '5s'""",
        """alter role "a" set "search_path" to 'a b', 'c'""",
        """comment on role "a" is 'x'""",
    ]


def test_a_role_that_is_altered_keeps_its_password() -> None:
    assert "password" in text(roles.statement(role("a", password="SCRAM")))
    assert "password" not in text(roles.statement(role("a", password="SCRAM"), "alter"))


def test_a_member_has_the_options_that_it_had() -> None:
    narrow = member("x", admin=True, inherit=False)
    made = 'grant "x" to "y" with admin true, inherit false, set true granted by "admin"'
    assert text(roles.grant("y", narrow, 180000)) == made
    assert text(roles.grant("y", narrow, 180000, by=False)) == made.removesuffix(' granted by "admin"')
    assert text(roles.grant("y", narrow, 150000)) == 'grant "x" to "y" with admin option'


def test_memberships_of_older_backups_are_plain() -> None:
    old = {k: v for k, v in role("a", member("b")).items() if k != "memberships"}
    (found,) = roles.memberships(old)
    assert text(roles.grant("a", {**found, "grantor": None}, 180000, by=False)) == 'grant "b" to "a" with admin false'


def test_one_database_needs_its_own_roles_and_what_those_are_members_of() -> None:
    saved = [
        role("admin", bootstrap=True),
        role("app", member("ro", grantor="boss")),
        role("boss", member("ro", admin=True)),
        role("other"),
        role("ro"),
    ]
    entry = {**FACTS.data(), "owner": "app", "acl": None, "settings": [], "roles": ["app"]}
    assert [r["name"] for r in roles.needed(saved, [entry])] == ["admin", "app", "boss", "ro"]
    old = {k: v for k, v in entry.items() if k != "roles"}
    assert len(roles.needed(saved, [old])) == len(saved)


def test_a_role_that_is_there_stays_as_it_is_and_is_told() -> None:
    saved = [role("app", member("ro"), settings=["a.b=1"], comment="x"), role("ro")]
    found = roles.todo(saved, [role("app", login=True)])
    assert [r["name"] for r in found.made] == ["ro"]
    assert [(name, m["role"]) for name, m in found.grants] == [("app", "ro")]  # went with the role
    assert found.differing == {"app": ["login", "comment", "settings"]}
    assert "the role app stays as it is" in found.lines()[-1]


def test_a_server_that_replaces_another_gets_roles_that_are_there_too() -> None:
    saved = [role("app", member("ro", inherit=False)), role("ro")]
    found = roles.todo(saved, [role("app", member("ro")), role("ro")], alter=True)
    assert [r["name"] for r in found.altered] == ["app"]
    assert [(name, m["inherit"]) for name, m in found.grants] == [("app", False)]
    assert not found.lines()
    assert not roles.todo(saved, saved).differing
