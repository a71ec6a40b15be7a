"""Input and result of a training's workflow: plain data, for both sides of Temporal."""

from __future__ import annotations

from dataclasses import dataclass, field

SUBPROCESS, JOB = "subprocess", "job"
RUNNERS = (SUBPROCESS, JOB)
"""The ways to run a training: as a program of the worker, or as a Kubernetes Job."""


@dataclass(frozen=True)
class Request:
    """A training: the built-in one on a dataset, or (with a command) the user's own program in its directory.

    `image` is a Job's ('': the worker's choice). `workers` is the number of processes that train together, `gpus` how
    many each of them gets (0: a Job none, a program of the worker its share of those of the machine). `queue` and
    `priority` are those of Kueue, for Jobs; `env_names` are the variables that a Job takes from its Secret. `issued`
    (seconds since 1970) and `signature` make it an order that a worker accepts.
    """

    job: str
    epochs: int = 0
    dataset: str = ""
    command: list[str] = field(default_factory=list)
    cwd: str = ""
    runner: str = SUBPROCESS
    image: str = ""
    gpus: int = 0
    workers: int = 1
    queue: str = ""
    priority: str = ""
    env_names: list[str] = field(default_factory=list)
    issued: int = 0
    signature: str = ""

    @property
    def built_in(self) -> bool:
        """Return whether it is the built-in training."""
        return not self.command


@dataclass(frozen=True)
class Sweep:
    """Trainings of one sweep, each an order of its own, of which `parallel` run at the same time; `job` is its id."""

    job: str
    requests: list[Request]
    parallel: int


@dataclass(frozen=True)
class Ending:
    """The end of a training: succeeded, failed or cancelled; the reason and the program's last lines."""

    job: str
    state: str
    error: str = ""
    lines: list[str] = field(default_factory=list)


def workflow_id(job: str) -> str:
    """Return the id of the workflow of a training, or of a sweep."""
    return f"training-{job}"
