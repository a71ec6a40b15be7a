"""The reference application: run it here, build its images."""

from __future__ import annotations

from infra.console import Answer, Table, human_bytes
from infra.context import Context
from infra.tasks.command import ANY, command


@command(tier=ANY)
def run(context: Context) -> Answer:
    """Start backend and frontend on this machine against the running platform; a second call changes nothing.

    Example: invoke app.run
    """
    from infra import endpoints, lifecycle, stack, tier_choice
    from infra.app import service
    from infra.tiers import port_checks
    from infra.training import contract, runners
    from infra.training import service as training
    from infra.training.request import JOB, SUBPROCESS

    choice = tier_choice.choose(context)
    active = tier_choice.require_running(choice)
    ends = active.endpoints()
    values = endpoints.contract(ends)
    links = service.addresses(ends, active.engines())
    with stack.lock(context.stack, "app.run"):
        conflicts = service.taken(context.settings, context.stack)
        lifecycle.raise_on_failures(port_checks.ports(conflicts, context.stack.home) if conflicts else [])
        runner = SUBPROCESS if runners.obstacle(active.jobs_kubeconfig, active.name) else JOB
        jobs = runners.environment(context.settings, active.jobs_kubeconfig)
        training.ensure_worker(context.stack, contract.read(values).values, jobs)
        signing = runners.orders_of(context.stack, active.jobs_kubeconfig if runner == JOB else None).variable
        specs = service.specs(context.settings, context.stack, values, links, runner, signing)
        service.ensure(context.stack, specs, context.console)
    return _running(context)


def _running(context: Context) -> Answer:
    from infra.app import service

    found = {name: service.url(context.settings, name) for name in service.NAMES}
    rows = tuple((name, where, str(service.log(context.stack, name))) for name, where in found.items())
    lines = ("", f"Next: open {found['frontend']}", "      invoke app.stop")
    return Answer({"urls": found}, Table(("", "address", "log"), rows), lines, names=tuple(found))


@command()
def stop(context: Context) -> Answer:
    """Stop backend and frontend on this machine; the platform and its trainings keep running.

    Example: invoke app.stop
    """
    from infra import stack
    from infra.app import service

    with stack.lock(context.stack, "app.stop"):
        stopped = service.stop(context.stack)
    return Answer({"stopped": stopped}, lines=("stopped" if stopped else "nothing was running",))


@command(help={"jax": "also with JAX, with which the built-in training runs as several workers"})
def build(context: Context, jax: bool = False) -> Answer:
    """Build the images of backend and frontend, on PYTHON_IMAGE, as BACKEND_IMAGE and FRONTEND_IMAGE.

    Example: invoke app.build
    """
    from infra.app import images

    built = images.build(context.settings, context.console, jax)
    rows = tuple((image.name, image.reference, human_bytes(image.size)) for image in built)
    data = {"images": [vars(image) for image in built]}
    return Answer(data, Table(("", "image", "size"), rows), names=tuple(image.reference for image in built))


TASKS = (run, stop, build)
