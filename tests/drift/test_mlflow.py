"""Each tier starts MLflow by a program of its own: what their users and the tasks see of it is the same."""

from __future__ import annotations

import ast

import pytest

from infra import catalog
from infra.errors import ExitCode
from tests.drift.repo import read

STARTS = ("compose/mlflow/start.py", "helm/mlflow/files/database.py", "infra/tiers/native/mlflow_server.py")
SENTENCE = "MLflow's tables have version {there}, which this MLflow does not know: it is too old\n"


def constants(path: str) -> dict[str, object]:
    """The names that a program gives to constants."""
    given = [node for node in ast.parse(read(path)).body if isinstance(node, ast.Assign)]
    pairs = [(node.targets[0], node.value) for node in given]
    return {k.id: v.value for k, v in pairs if isinstance(k, ast.Name) and isinstance(v, ast.Constant)}


def sentences(path: str) -> set[str]:
    """The texts with values in them, written with their placeholders."""
    made = [node for node in ast.walk(ast.parse(read(path))) if isinstance(node, ast.JoinedStr)]
    return {ast.literal_eval(ast.unparse(node).removeprefix("f")) for node in made}


@pytest.mark.parametrize("path", STARTS)
def test_tables_of_a_newer_mlflow_are_refused_alike(path: str) -> None:
    assert constants(path)["NEWER"] == ExitCode.INCOMPATIBLE
    assert SENTENCE in sentences(path)


def test_the_tables_have_the_schema_of_the_catalogue() -> None:
    assert constants("compose/mlflow/start.py")["SCHEMA"] == catalog.MLFLOW_SCHEMA


@pytest.mark.parametrize("path", [s for s in STARTS if "compose" in s or "helm" in s])
def test_the_login_comes_by_the_environment_and_never_in_an_address(path: str) -> None:
    assert "postgresql+psycopg2://?options=-csearch_path%3D{SCHEMA}" in sentences(path)
