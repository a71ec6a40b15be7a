"""Temporal: a workflow with an activity, run by a worker of the test; the web interface."""

from __future__ import annotations

import asyncio
import uuid
from datetime import timedelta

import requests
from temporalio import activity, workflow
from temporalio.client import Client
from temporalio.worker import UnsandboxedWorkflowRunner, Worker

from tests.smoke.platform import Platform


@activity.defn
async def double(number: int) -> int:
    return 2 * number


@workflow.defn
class Doubling:
    """Doubles a number twice, with a durable timer in between."""

    @workflow.run
    async def run(self, number: int) -> int:
        for _ in range(2):
            number = await workflow.execute_activity(double, number, start_to_close_timeout=timedelta(seconds=20))
            await workflow.sleep(0.01)
        return number


async def _run(address: str, namespace: str) -> int:
    client = await Client.connect(address, namespace=namespace)
    queue = name = f"smoke-{uuid.uuid4()}"
    runner = UnsandboxedWorkflowRunner()
    async with Worker(client, task_queue=queue, workflows=[Doubling], activities=[double], workflow_runner=runner):
        limit = timedelta(seconds=60)
        return await client.execute_workflow(Doubling.run, 21, id=name, task_queue=queue, execution_timeout=limit)


def test_workflow_runs(platform: Platform) -> None:
    contract = platform.contract
    assert asyncio.run(_run(contract["TEMPORAL_HOST"], contract["TEMPORAL_NAMESPACE"])) == 84


def test_web_interface_answers(platform: Platform) -> None:
    temporal = platform.service("temporal")
    assert temporal is not None
    pages = [requests.get(url, timeout=10) for url in temporal["urls"] if url.startswith("http")]
    assert [p.status_code for p in pages] == [200]
    assert "<html" in pages[0].text
