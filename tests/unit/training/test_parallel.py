"""The built-in training as several workers: real processes, which exchange their gradients by JAX."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from infra.errors import PlatformError
from infra.settings import ROOT
from infra.training import convnet, evaluate, gang, parallel
from infra.training.dataset import Split
from infra.training.model import from_npz

if TYPE_CHECKING:
    from infra.training.model import Weights

jax_needed = pytest.mark.skipif(
    importlib.util.find_spec("jax") is None, reason="jax is not installed: requirements/jax.txt"
)
TOLERANCE = 1e-3
"""Of a weight after a few epochs, for sums in another order (measured: 3e-6 of two workers, 1e-4 of four)."""


@pytest.mark.parametrize("count", [1, 2, 4, 8])
def test_each_step_sees_the_same_images_whatever_the_number_of_workers(count: int) -> None:
    size = 10
    alone = [sorted(rows) for rows in convnet.batch_rows(size, parallel.CONFIG, 0, 1, 3)]
    shared = [convnet.batch_rows(size, parallel.CONFIG, rank, count, 3) for rank in range(count)]
    together = [
        sorted(int(row) * count + rank for rank, rows in enumerate(step) for row in rows)
        for step in zip(*shared, strict=True)
    ]
    assert together == alone
    assert all(len(step) == parallel.CONFIG.batch_size for step in together)
    assert together != [sorted(rows) for rows in convnet.batch_rows(size, parallel.CONFIG, 0, 1, 4)]


def test_every_image_belongs_to_one_worker() -> None:
    images = list(range(101))
    assert sorted(i for rank in range(4) for i in images[convnet.shard(rank, 4)]) == images


@pytest.mark.parametrize("workers", [0, 3, 16])
def test_a_number_of_workers_that_does_not_fit(workers: int) -> None:
    with pytest.raises(PlatformError) as caught:
        parallel.check(workers)
    assert caught.value.code == "USAGE"


def test_without_jax_the_error_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(PlatformError) as caught:
        parallel.check(2)
    assert (caught.value.code, int(caught.value.exit)) == ("PROGRAM_MISSING", 5)
    assert "requirements/jax.txt" in caught.value.steps[0]


def trained(place: Path, count: int, epochs: int, before: Path | None = None, done: int = 0) -> list[Weights]:
    """The weights of each of `count` workers, which are processes of their own."""
    target, port = place / f"{count}-{epochs}", gang.free_port()
    argv = [
        sys.executable,
        "-m",
        "tests.unit.training.one_worker",
        str(before or "-"),
        str(done),
        str(epochs),
        str(target),
    ]
    environments = gang.environments({}, count, 0, port)
    running = [
        subprocess.Popen(argv, cwd=ROOT, env={**os.environ, **env}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        for env in environments
    ]
    said = [process.communicate(timeout=300)[0].decode() for process in running]
    assert [process.returncode for process in running] == [0] * count, "\n".join(said)
    return [from_npz(target.with_suffix(f".{rank}.npz").read_bytes()) for rank in range(count)]


def difference(one: Weights, other: Weights) -> float:
    assert one.keys() == other.keys()
    return max(float(np.abs(one[name] - other[name]).max()) for name in one)


@jax_needed
def test_two_workers_end_as_one_does_and_go_on_as_another_number(tmp_path: Path, splits: dict[str, Split]) -> None:
    alone = trained(tmp_path, 1, 6)[0]
    first, second = trained(tmp_path, 2, 3)
    assert difference(first, second) == 0
    resumed = trained(tmp_path, 1, 6, tmp_path / "2-3.0.npz", 3)[0]
    assert difference(resumed, alone) < TOLERANCE
    both = trained(tmp_path, 2, 6, tmp_path / "2-3.0.npz", 3)
    assert difference(both[1], alone) < TOLERANCE
    assert difference(first, alone) > 10 * TOLERANCE, "the epochs after the checkpoint change more than the tolerance"
    test = splits["test"]
    assert (evaluate.forward(resumed, test.images) == test.labels).mean() > 0.9


@jax_needed
def test_the_evaluation_sees_what_the_network_sees(splits: dict[str, Split]) -> None:
    from infra.training.convnet import ConvNet

    images = splits["val"].images
    model = ConvNet(parallel.CONFIG)
    model.begin(0)
    model.fit_epoch(splits["train"], 1)
    found = model.predict(images)
    assert len(set(found)) > 5
    assert (evaluate.forward(model.weights, images) == found).all()


@jax_needed
def test_a_program_that_begins_as_the_documentation_says_finds_the_other_one(tmp_path: Path) -> None:
    text = (ROOT / "docs" / "training.md").read_text(encoding="utf-8")
    begin = next(block for block in re.findall(r"```python\n(.+?)```", text, re.DOTALL) if "jax" in block)
    more = "from jax.experimental import multihost_utils\nimport numpy\n"
    more += "print('sum', int(multihost_utils.process_allgather(numpy.int32(10 ** rank)).sum()))\n"
    more += "jax.distributed.shutdown()\n"
    path = tmp_path / "train.py"
    path.write_text(begin + more, encoding="utf-8")
    environments = gang.environments({}, 2, 0, gang.free_port())
    running = [
        subprocess.Popen([sys.executable, str(path)], env={**os.environ, **env}, stdout=subprocess.PIPE)
        for env in environments
    ]
    said = [process.communicate(timeout=300)[0].decode() for process in running]
    assert [(process.returncode, "sum 11" in words) for process, words in zip(running, said, strict=True)] == [
        (0, True)
    ] * 2
