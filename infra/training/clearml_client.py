"""ClearML by its own package, which is used only where it is installed.

It reads its addresses and keys from the environment (CLEARML_API_HOST, CLEARML_WEB_HOST, CLEARML_FILES_HOST of the
contract, CLEARML_API_ACCESS_KEY and CLEARML_API_SECRET_KEY of the user's).
Source: https://clear.ml/docs/latest/docs/references/sdk/task
"""

from __future__ import annotations

import importlib
import importlib.util
import io
import json
from collections.abc import Mapping
from typing import Any


def installed() -> bool:
    """Return whether the package clearml is there."""
    return importlib.util.find_spec("clearml") is not None


class ClearML:
    """The task of one job in ClearML; a resumed training continues it. Raises what clearml raises."""

    def __init__(self, experiment: str, job: str) -> None:
        task = importlib.import_module("clearml").Task
        earlier = task.get_task(project_name=experiment, task_name=job)
        self._task: Any = task.init(
            project_name=experiment,
            task_name=job,
            continue_last_task=earlier.id if earlier else False,
            reuse_last_task_id=False,
            auto_connect_frameworks=False,
            auto_resource_monitoring=False,
        )

    @property
    def url(self) -> str:
        """The page of the task."""
        return str(self._task.get_output_log_web_page())

    def log_params(self, params: Mapping[str, object]) -> None:
        """Note parameters."""
        self._task.connect(dict(params))

    def log_metric(self, name: str, value: float, epoch: int) -> None:
        """Add a value."""
        self._task.get_logger().report_scalar(title=name, series=name, value=value, iteration=epoch)

    def put_artifact(self, name: str, data: bytes) -> None:
        """Store a file: JSON as an object, an image as an image, anything else is left to the object store."""
        if name.endswith(".json"):
            self._task.upload_artifact(name=name, artifact_object=json.loads(data))
        elif name.endswith(".png"):
            from PIL import Image

            self._task.upload_artifact(name=name, artifact_object=Image.open(io.BytesIO(data)))

    def end(self, status: str) -> None:
        """Send what is left and set the final status: FINISHED, FAILED or KILLED."""
        self._task.flush(wait_for_uploads=True)
        if status == "FAILED":
            self._task.mark_failed()
        elif status == "KILLED":
            self._task.mark_stopped()
        self._task.close()
