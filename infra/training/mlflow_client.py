"""MLflow by its REST API: experiment, run, parameters, metrics, artifacts.

Source: https://mlflow.org/docs/latest/rest-api.html (experiments, runs, metrics) and the service
`MlflowArtifactsService` of mlflow/protos/mlflow_artifacts.proto (artifacts through the tracking server).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

from infra.training.report import as_json

if TYPE_CHECKING:
    import requests

TIMEOUT = (3.0, 20.0)
"""Seconds to connect, and to wait for an answer."""

PROBE = (1.5, 4.0)
"""Seconds to connect to each address of a name, and to wait for any answer."""
NEXT = "next step: invoke up --obs"

JOB_TAG = "training.job"
PARENT_TAG = "mlflow.parentRunId"
"""By which MLflow shows a run below another (mlflow/utils/mlflow_tags.py)."""
# The server takes at most 1,000 metrics in one log-batch.
_BATCH = 1000


class MLflowError(Exception):
    """MLflow did not answer, or refused."""

    def __init__(self, message: str, code: str = "") -> None:
        super().__init__(message)
        self.code = code


def silence(uri: str) -> str:
    """Return why a server does not answer, with the next step; '' where it does. Takes some seconds at most."""
    import requests

    try:
        requests.get(f"{uri.rstrip('/')}/health", timeout=PROBE)
    except requests.RequestException as error:
        return f"{uri} does not answer ({type(error).__name__}); {NEXT}"
    return ""


@dataclass(frozen=True)
class Run:
    """A run: its id, its experiment's id and where its artifacts go."""

    id: str
    experiment: str
    artifacts: str


@dataclass(frozen=True)
class Point:
    """One value of a metric; `at` in milliseconds since 1970."""

    name: str
    value: float
    step: int
    at: int

    @property
    def as_json(self) -> dict[str, object]:
        """As log-batch wants it."""
        return {"key": self.name, **as_json({"value": self.value}), "timestamp": self.at, "step": self.step}


class MLflow:
    """A tracking server. Every method raises MLflowError."""

    def __init__(self, uri: str, login: tuple[str, str] | None = None) -> None:
        self._uri, self._login = uri.rstrip("/"), login
        self._session: requests.Session | None = None

    def run_for(self, experiment: str, job: str, start: int, parent: str = "") -> Run:
        """Return the run of a job, made unless there is one.

        Args:
            experiment: its name; made unless there is one.
            job: kept in the tag `training.job`, by which a resumed training finds its run again.
            start: milliseconds since 1970.
            parent: id of the run that it belongs to.
        """
        number = self._experiment(experiment)
        return self._find(number, job) or self._create(number, job, start, parent)

    def reopen(self, run: Run) -> None:
        """Set a run to RUNNING."""
        self._post("runs/update", {"run_id": run.id, "status": "RUNNING"})

    def log_params(self, run: Run, params: Mapping[str, object]) -> None:
        """Note parameters; the same values may be noted again."""
        pairs = [{"key": key, "value": str(value)} for key, value in params.items()]
        self._post("runs/log-batch", {"run_id": run.id, "params": pairs})

    def log_metrics(self, run_id: str, points: Iterable[Point]) -> None:
        """Add values; the server keeps every one, so give each once."""
        rows = [point.as_json for point in points]
        for first in range(0, len(rows), _BATCH):
            self._post("runs/log-batch", {"run_id": run_id, "metrics": rows[first : first + _BATCH]})

    def last_step(self, run: Run, metric: str) -> int:
        """Return the highest step that a metric has; 0 for none."""
        answer = self._call("GET", "metrics/get-history", params={"run_id": run.id, "metric_key": metric})
        return max((int(m.get("step", 0)) for m in answer.get("metrics", [])), default=0)

    def put_artifact(self, run: Run, name: str, data: bytes) -> None:
        """Store a file with the run, through the server's artifact proxy."""
        parts = urlsplit(run.artifacts)
        if parts.scheme not in ("mlflow-artifacts", "http", "https"):
            raise MLflowError(f"the server does not accept artifacts itself (artifact root {parts.scheme}:)")
        path = quote(f"{parts.path.strip('/').removeprefix('api/2.0/mlflow-artifacts/artifacts/')}/{name}")
        self._send("PUT", f"/api/2.0/mlflow-artifacts/artifacts/{path}", data=data)

    def end(self, run: Run, status: str, at: int) -> None:
        """Set the final status: FINISHED, FAILED or KILLED; `at` in milliseconds since 1970."""
        self._post("runs/update", {"run_id": run.id, "status": status, "end_time": at})

    def close(self) -> None:
        """Close the connection; the next call would open another."""
        if self._session is not None:
            self._session.close()
        self._session = None

    def url(self, run: Run) -> str:
        """Return the page of a run."""
        return f"{self._uri}/#/experiments/{run.experiment}/runs/{run.id}"

    def _experiment(self, name: str) -> str:
        try:
            answer = self._call("GET", "experiments/get-by-name", params={"experiment_name": name})
            return str(answer["experiment"]["experiment_id"])
        except MLflowError as error:
            if error.code != "RESOURCE_DOES_NOT_EXIST":
                raise
        try:
            return str(self._post("experiments/create", {"name": name})["experiment_id"])
        except MLflowError as error:
            if error.code != "RESOURCE_ALREADY_EXISTS":
                raise
        return self._experiment(name)  # another training has just made it

    def _find(self, experiment: str, job: str) -> Run | None:
        wanted = f"tags.`{JOB_TAG}` = '{job}'"
        answer = self._post("runs/search", {"experiment_ids": [experiment], "filter": wanted, "max_results": 1})
        return next((_run(entry) for entry in answer.get("runs", [])), None)

    def _create(self, experiment: str, job: str, start: int, parent: str) -> Run:
        tags = [{"key": JOB_TAG, "value": job}, {"key": "mlflow.runName", "value": job}]
        tags += [{"key": PARENT_TAG, "value": parent}] if parent else []
        wanted = {"experiment_id": experiment, "run_name": job, "start_time": start, "tags": tags}
        return _run(self._post("runs/create", wanted)["run"])

    def _post(self, path: str, body: Mapping[str, object]) -> Any:
        return self._call("POST", path, json=body)

    def _call(self, method: str, path: str, **what: Any) -> Any:
        answer = self._send(method, f"/api/2.0/mlflow/{path}", **what)
        try:
            return answer.json()
        except ValueError as error:
            raise MLflowError(f"{self._uri} does not respond like MLflow") from error

    def _send(self, method: str, path: str, **what: Any) -> requests.Response:
        import requests

        self._session = self._session or requests.Session()
        try:
            answer = self._session.request(method, self._uri + path, timeout=TIMEOUT, auth=self._login, **what)
        except requests.RequestException as error:
            raise MLflowError(f"{self._uri} does not answer ({type(error).__name__})") from error
        if not answer.ok:
            raise _refusal(answer)
        return answer


def _run(entry: Mapping[str, Any]) -> Run:
    info = entry["info"]
    return Run(str(info["run_id"]), str(info["experiment_id"]), str(info["artifact_uri"]))


def _refusal(answer: requests.Response) -> MLflowError:
    try:
        found = answer.json()
        code, message = str(found.get("error_code", "")), str(found.get("message", ""))
    except (ValueError, AttributeError):
        code, message = "", answer.reason
    return MLflowError(f"MLflow refused ({answer.status_code}): {message.splitlines()[0] if message else code}", code)
