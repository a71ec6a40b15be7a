"""The built-in training as several workers: `python -m infra.training.parallel`, with the options of `trainer`.

Its exit status is that of `trainer`, too. The first worker does all that a single one does: checkpoints, records,
tracking and results; the others train with it on their own images.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Mapping, Sequence

from infra.errors import PlatformError
from infra.training import contract, convnet, dataset, trainer
from infra.training.config import TrainingConfig
from infra.training.convnet import SHARDS, ConvNet
from infra.training.output import say
from infra.training.store import S3Store
from infra.training.trainer import Attempt

CONFIG = TrainingConfig(learning_rate=0.2, batch_size=4 * SHARDS, hidden_units=32)
MEETING = 120
"""Seconds for all workers to be there."""
LOST = 20
"""Seconds without a sign of life after which a worker counts as lost."""
INSTALL = f"{sys.executable} -m pip install --no-deps --require-hashes -r requirements/jax.txt"
"""Here; an image of a Job gets it by invoke app.build --jax."""


def check(workers: int) -> None:
    """Check whether so many workers can train the reference network here.

    Raises:
        PlatformError: USAGE, PROGRAM_MISSING.
    """
    check_number(workers)
    if importlib.util.find_spec("jax") is None:
        what = "the package jax, with which the built-in training runs as several workers, is not installed"
        raise PlatformError("PROGRAM_MISSING", what, steps=(INSTALL,))


def check_number(workers: int) -> None:
    """Check whether so many workers can share the reference network's images.

    Raises:
        PlatformError: USAGE.
    """
    if workers < 1 or SHARDS % workers:
        what = f"{workers} workers cannot share the {SHARDS} shards of the built-in training evenly"
        raise PlatformError("USAGE", what, steps=("--workers 2, 4 or 8",))


def place(environ: Mapping[str, str]) -> tuple[int, int]:
    """Return the number of this worker and how many there are, as JAX_PROCESS_ID and JAX_NUM_PROCESSES say."""
    return int(environ.get("JAX_PROCESS_ID", "0")), int(environ.get("JAX_NUM_PROCESSES", "1"))


def meet(rank: int, count: int) -> None:
    """Wait for the other workers, at JAX_COORDINATOR_ADDRESS."""
    import jax

    # Else JAX would take SIGTERM for itself, and the training would not stop.
    jax.config.update("jax_enable_preemption_service", False)
    if count > 1:
        jax.distributed.initialize(
            num_processes=count, process_id=rank, initialization_timeout=MEETING, heartbeat_timeout_seconds=LOST
        )


def work(job: Attempt, rank: int, count: int) -> None:
    """Train with the other workers.

    Raises:
        Superseded, Unavailable, Stopped, PlatformError: see `trainer.outcome`.
    """
    check(count)
    meet(rank, count)
    trainer.stop_on_signals()
    model, own = ConvNet(job.config, rank, count), convnet.shard(rank, count)
    if rank:
        follow(job, model, own)
    else:
        servers = trainer.connect(job)
        job = job if job.attempt else trainer.claimed(job, servers)
        trainer.train(job, servers, model, own)
    part(count)


def follow(job: Attempt, model: ConvNet, own: slice) -> None:
    """Train as another worker than the first."""
    data = dataset.load(S3Store(contract.read().datasets), job.config.dataset, {"train": own})["train"]
    done = model.begin(0)
    say(f"{len(data.labels)} images, from epoch {done + 1}")
    for epoch in range(done + 1, job.config.epochs + 1):
        model.fit_epoch(data, epoch)


def part(count: int) -> None:
    """Take leave of the other workers, once all have ended."""
    import jax

    if count > 1:
        jax.distributed.shutdown()  # who simply ends counts as lost to the others


def main(argv: Sequence[str] | None = None) -> int:
    """Run a worker of a training and return the exit status; the reason of a failure is the last line printed."""
    job = trainer.parse(sys.argv[1:] if argv is None else argv, CONFIG)
    rank, count = place(os.environ)
    return trainer.outcome(lambda: work(job, rank, count))


if __name__ == "__main__":
    status = main()
    # Not sys.exit: JAX would wait for the others, of which one may be the reason.
    sys.stdout.flush()
    os._exit(status)
