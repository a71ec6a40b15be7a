"""The routes: health, readiness, services, and trainings to start, follow and cancel."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any

from fastapi import FastAPI, Path, Query, Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from apps import hosts
from apps.backend.ready import Readiness
from infra.errors import PlatformError
from infra.training import client
from infra.training.config import MOST_EPOCHS, TrainingConfig
from infra.training.contract import Contract
from infra.training.described import described
from infra.training.orders import KEY, Orders
from infra.training.report import as_json

STATUS = {"NOT_FOUND": 404, "USAGE": 422, "DATA_INCOMPATIBLE": 409}
STATUS |= dict.fromkeys(("UNREACHABLE", "LOGIN_REFUSED", "DATABASE_BUSY"), 503)
"""HTTP status of an error code; every other one is 500."""

JobId = Annotated[str, Path(max_length=100)]


class NewTraining(BaseModel):
    """The request that starts a training."""

    model_config = ConfigDict(extra="forbid")
    epochs: int = Field(default=15, ge=1, le=MOST_EPOCHS)
    experiment: str = Field(default="digits", min_length=1, max_length=100, pattern=r"^[^\x00-\x1f]+$")


def create(
    contract: Contract,
    services: list[dict[str, object]],
    runner: str,
    orders: Orders | None,
    names: frozenset[str] = frozenset(hosts.HERE),
) -> FastAPI:
    """Return the application.

    Args:
        services: what `/services` answers.
        runner: how trainings run, `subprocess` or `job`.
        orders: what signs trainings; without it none can be started.
        names: by which it may be called.
    """
    # The pages of documentation would load scripts from elsewhere; /openapi.json is there.
    app = FastAPI(title="Trainings", docs_url=None, redoc_url=None)
    app.add_exception_handler(PlatformError, _failed)
    app.add_middleware(_Meant, names=names)
    readiness = Readiness(contract)

    @app.get("/health")
    def health() -> dict[str, str]:
        return {"status": "ok"}

    @app.get("/ready")
    async def ready() -> JSONResponse:
        states = await readiness.ask()
        good = all(state.ready for state in states.values())
        body = {"ready": good, "dependencies": {name: asdict(state) for name, state in states.items()}}
        return JSONResponse(body, 200 if good else 503)

    @app.get("/services")
    def list_services() -> list[dict[str, object]]:
        return services

    _trainings(app, contract, runner, orders)
    return app


def _trainings(app: FastAPI, contract: Contract, runner: str, orders: Orders | None) -> None:
    @app.post("/trainings", status_code=201)
    def start(wanted: NewTraining) -> dict[str, Any]:
        order = client.Order(wanted.experiment, TrainingConfig(epochs=wanted.epochs), runner=runner)
        return described(client.find(contract, client.start(contract, order, _signing(orders))))

    @app.get("/trainings")
    def newest(limit: Annotated[int, Query(ge=1, le=200)] = 20) -> list[dict[str, Any]]:
        return [described(job) for job in client.newest(contract, limit)]

    @app.get("/trainings/{job}")
    def show(job: JobId) -> dict[str, Any]:
        found = client.find(contract, job)
        metrics = as_json(client.last_metrics(contract, found.id))
        return {**described(found), "metrics": metrics, "last_lines": found.last_lines}

    @app.delete("/trainings/{job}", status_code=202)
    def cancel(job: JobId) -> dict[str, Any]:
        found = client.find(contract, job)
        if not found.final:
            client.cancel(contract, found.id)
        return described(found)


class _Meant:
    """Lets requests through that call the backend by a name of its own."""

    def __init__(self, app: ASGIApp, names: frozenset[str]) -> None:
        self._app, self._names = app, names

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] in ("http", "websocket"):
            host = Headers(scope=scope).get("host")
            if not hosts.accepts(self._names, host, (scope.get("server") or ("", 0))[0]):
                body = {"error": {"code": "USAGE", "message": hosts.refusal(host), "why": ""}}
                await JSONResponse(body, 421)(scope, receive, send)
                return
        await self._app(scope, receive, send)


def _signing(orders: Orders | None) -> Orders:
    if orders is None:
        steps = ("invoke app.run starts the backend with its key", f"or set {KEY}")
        raise PlatformError("USAGE", "this backend has no key to sign trainings with", steps=steps)
    return orders


def _failed(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, PlatformError)
    body = {"error": {"code": error.code, "message": error.what, "why": error.why}}
    return JSONResponse(body, STATUS.get(error.code, 500))
