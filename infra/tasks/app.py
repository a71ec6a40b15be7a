"""The reference application: run it here, build its images."""

from __future__ import annotations

from infra.console import Answer, Table, human_bytes
from infra.tasks.command import Run, command


@command(help={"tier": "tier to use"})
def run(run: Run, tier: str = "") -> Answer:
    """Start backend and frontend on this machine against the running platform; a second call changes nothing.

    Example: invoke app.run
    """
    from infra import endpoints, lifecycle, stack
    from infra.app import service
    from infra.tiers.native import checks as native_checks
    from infra.training import contract, runners
    from infra.training import service as training
    from infra.training.request import JOB, SUBPROCESS

    choice = lifecycle.choose(run.context)
    active = lifecycle.require_running(run.context, choice)
    ends = active.endpoints(run.context)
    values = endpoints.contract(ends)
    links = service.addresses(ends, active.engines(run.context))
    with stack.lock(run.stack, "app.run"):
        conflicts = service.taken(run.settings, run.stack)
        lifecycle.raise_on_failures(native_checks.ports(conflicts, run.stack.home) if conflicts else [])
        runner = SUBPROCESS if runners.obstacle(run.stack, active.name) else JOB
        jobs = runners.environment(run.settings, run.stack, active.name)
        training.ensure_worker(run.stack, contract.read(values).values, jobs)
        specs = service.specs(run.settings, run.stack, values, links, runner)
        service.ensure(run.stack, specs, run.console)
    return _running(run)


def _running(run: Run) -> Answer:
    from infra.app import service

    found = {name: service.url(run.settings, name) for name in service.NAMES}
    rows = tuple((name, where, str(service.log(run.stack, name))) for name, where in found.items())
    lines = ("", f"Next: open {found['frontend']}", "      invoke app.stop")
    return Answer({"urls": found}, Table(("", "address", "log"), rows), lines, names=tuple(found))


@command()
def stop(run: Run) -> Answer:
    """Stop backend and frontend on this machine; the platform and its trainings go on.

    Example: invoke app.stop
    """
    from infra import stack
    from infra.app import service

    with stack.lock(run.stack, "app.stop"):
        stopped = service.stop(run.stack)
    return Answer({"stopped": stopped}, lines=("stopped" if stopped else "nothing was running",))


@command()
def build(run: Run) -> Answer:
    """Build the images of backend and frontend, on PYTHON_IMAGE, as BACKEND_IMAGE and FRONTEND_IMAGE.

    Example: invoke app.build
    """
    from infra.app import images

    built = images.build(run.settings, run.console)
    rows = tuple((image.name, image.reference, human_bytes(image.size)) for image in built)
    data = {"images": [vars(image) for image in built]}
    return Answer(data, Table(("", "image", "size"), rows), names=tuple(image.reference for image in built))


TASKS = (run, stop, build)
