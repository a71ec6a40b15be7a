"""One worker of a training without servers: `python -m tests.unit.training.one_worker FROM EPOCHS TO`.

It goes on with the weights in the file FROM (`-`: none), which the first epochs have made, and writes those of each
worker to TO.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from infra.training import convnet, dataset, parallel
from infra.training.convnet import ConvNet
from infra.training.model import from_npz, to_npz
from tests.unit.training.fakes import MemoryStore


def main(before: str, done: int, epochs: int, target: Path) -> None:
    """Train from one epoch to another."""
    rank, count = parallel.place(os.environ)
    parallel.meet(rank, count)
    files, manifest = dataset.build()
    store = MemoryStore()
    store.objects = {(dataset.BUCKET, f"{dataset.DATASET}/{key}"): data for key, data in files.items()}
    store.objects[dataset.BUCKET, f"{dataset.DATASET}/manifest.json"] = manifest
    data = dataset.load(store, dataset.DATASET, {"train": convnet.shard(rank, count)})["train"]
    model = ConvNet(parallel.CONFIG, rank, count)
    if before != "-" and rank == 0:  # as where a checkpoint is: the others are given its weights
        model.weights = from_npz(Path(before).read_bytes())
    done = model.begin(done if rank == 0 else 0)
    losses = [model.fit_epoch(data, epoch) for epoch in range(done + 1, epochs + 1)]
    print(f"{len(data.labels)} images, losses {losses}")
    target.with_suffix(f".{rank}.npz").write_bytes(to_npz(model.weights))
    parallel.part(count)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4]))
