"""Accuracy on held-out images, from the stored weights: `python -m infra.training.evaluate --job ID`.

It shares no code with the trainer's classifier: a plain forward pass on images that the training never read.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from infra.errors import PlatformError
from infra.training import confusion, contract, dataset
from infra.training.contract import Contract
from infra.training.jobs import Job, Jobs
from infra.training.mlflow_client import MLflow, MLflowError, Point
from infra.training.model import from_npz
from infra.training.output import say
from infra.training.patience import EXIT_TEMPORARY, Unavailable
from infra.training.store import ObjectStore, S3Store

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

WEIGHTS_BUCKET, RESULTS_BUCKET = "model-weights", "training-results"


def stored_weights(store: ObjectStore, job: str) -> tuple[dict[str, Any], Mapping[str, NDArray[np.float64]]]:
    """Return weights.json's content, and the weights, checked against its SHA-256.

    Raises:
        PlatformError: NOT_FOUND or TASK_FAILED.
    """
    about, data = (store.get(WEIGHTS_BUCKET, f"{job}/weights.{kind}") for kind in ("json", "npz"))
    if about is None or data is None:
        raise PlatformError("NOT_FOUND", f"{WEIGHTS_BUCKET}/{job} has no weights")
    facts: dict[str, Any] = json.loads(about)
    if hashlib.sha256(data).hexdigest() != facts["sha256"]:
        raise PlatformError("TASK_FAILED", f"{WEIGHTS_BUCKET}/{job}/weights.npz is damaged: its SHA-256 differs")
    return facts, from_npz(data)


def forward(weights: Mapping[str, NDArray[np.float64]], images: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return the digit that the network sees in each row of pixels; shape (n, 64) to (n,)."""
    import numpy as np

    if "conv_0" in weights:
        return _convolved(weights, images)
    hidden = np.maximum(images @ weights["coef_0"] + weights["intercept_0"], 0)
    found: NDArray[np.int64] = np.argmax(hidden @ weights["coef_1"] + weights["intercept_1"], axis=1)
    return found


def _convolved(weights: Mapping[str, NDArray[np.float64]], images: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return the digit that the network of `convnet` sees in each row of pixels."""
    import numpy as np

    found = images.reshape(-1, dataset.SIDE, dataset.SIDE, 1)
    for layer, stride in ((0, 1), (1, 2)):
        padded = np.pad(found, ((0, 0), (1, 1), (1, 1), (0, 0)))
        windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(1, 2))[:, ::stride, ::stride]
        summed = np.einsum("nhwcij,ijco->nhwo", windows, weights[f"conv_{layer}"])
        found = np.maximum(summed + weights[f"bias_{layer}"], 0)
    flat = found.reshape(len(images), -1)
    digits: NDArray[np.int64] = np.argmax(flat @ weights["dense"] + weights["bias_2"], axis=1)
    return digits


def evaluate(job: str, datasets: ObjectStore, results: ObjectStore) -> float:
    """Measure, write `training-results/<job>/heldout.json`, and return the accuracy (0 to 1)."""
    facts, weights = stored_weights(results, job)
    name = facts["config"]["dataset"]
    test = dataset.load(datasets, name, {"test": dataset.WHOLE})["test"]
    matrix = confusion.count(test.labels, forward(weights, test.images), dataset.CLASSES)
    accuracy = confusion.accuracy(matrix)
    answer = {"job": job, "dataset": name, "split": "test", "images": len(test.labels), "accuracy": accuracy}
    text = json.dumps({**answer, "weights_sha256": facts["sha256"], "confusion": matrix.tolist()}, indent=1)
    results.put(RESULTS_BUCKET, f"{job}/heldout.json", text.encode(), "application/json")
    return accuracy


def track(found: Contract, job: Job, accuracy: float) -> None:
    """Add the accuracy to the job's run in MLflow; says so where that fails."""
    run = job.tracking.get("mlflow", {}).get("run")
    if run and "mlflow" in found.backends:
        point = Point("heldout_accuracy", accuracy, job.epochs or 0, int(time.time() * 1000))
        try:
            MLflow(found["MLFLOW_TRACKING_URI"], found.mlflow_login).log_metrics(run, [point])
        except MLflowError as error:
            say(f"warning: {error}")


def main(argv: Sequence[str] | None = None) -> int:
    """Evaluate a job and return the exit status (75: a server was away)."""
    parser = argparse.ArgumentParser(prog="infra.training.evaluate")
    parser.add_argument("--job", required=True)
    name = parser.parse_args(argv).job
    try:
        found = contract.read()
        jobs = Jobs(found)
        accuracy = evaluate(name, S3Store(found.datasets), S3Store(found.results))
        jobs.set_heldout(name, accuracy)
        job = jobs.get(name)
        if job:
            track(found, job, accuracy)
    except Unavailable as error:
        say(str(error))
        return EXIT_TEMPORARY
    except PlatformError as error:
        say(error.what)
        return int(error.exit)
    say(f"held-out accuracy {accuracy:.4f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
