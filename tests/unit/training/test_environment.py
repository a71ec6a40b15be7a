from __future__ import annotations

from infra.settings import ROOT
from infra.training import environment
from infra.training.contract import Contract

SHELL = {
    "PATH": "/venv/bin:/bin",
    "HF_TOKEN": "t",
    "PYTHONPATH": "/mine",
    "AWS_PROFILE": "me",
    "POSTGRES_PASSWORD": "x",
    "PLATFORM_TIER": "native",
    "TRAINING_LOG_DIR": "/l",
    "DATABASE_URL": "of another platform",
}


def test_a_training_has_the_shell_of_its_caller_without_what_is_the_platforms() -> None:
    assert environment.callers(SHELL) == {
        "PATH": "/venv/bin:/bin",
        "HF_TOKEN": "t",
        "PYTHONPATH": "/mine",
        "AWS_PROFILE": "me",
    }


def test_our_own_programs_find_our_code_and_know_the_contract() -> None:
    contract = Contract({"DATABASE_URL": "ours", "TEMPORAL_NAMESPACE": "of the contract, and a setting, too"})
    found = environment.own_environment({"PATH": "/bin", "TEMPORAL_NAMESPACE": "a setting", **SHELL}, contract)
    assert found["DATABASE_URL"] == "ours"
    assert found["TEMPORAL_NAMESPACE"] == "of the contract, and a setting, too"
    assert found["PYTHONPATH"] == "/mine", "in an image the packages are on that path"
    assert {"POSTGRES_PASSWORD", "PLATFORM_TIER", "TRAINING_LOG_DIR"}.isdisjoint(found)
    assert environment.own_environment({}, contract)["PYTHONPATH"] == str(ROOT)


def test_only_names_are_recorded() -> None:
    assert environment.names({"B": "secret", "A": "secret"}) == ["A", "B"]
