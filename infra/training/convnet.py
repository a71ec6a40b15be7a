"""A small convolutional classifier in JAX that several workers train together, each on its own part of the images.

The images are in `SHARDS` shards, whatever the number of workers, and each step takes as many from every shard: so one
worker and eight see the same batches, and their weights differ only by the order of sums. As in `model`, plain gradient
descent: the weights are the whole state.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from infra.training.config import TrainingConfig
from infra.training.dataset import CLASSES, SIDE, Split

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from infra.training.model import Weights

SHARDS = 8
CHANNELS = 16
"""Of the first layer; the second one has as many as `hidden_units` says."""
KERNEL = 3
"""Side of the kernels; one pixel of padding, and the second layer takes every other place."""


def shard(rank: int, count: int) -> slice:
    """Return the images that a worker reads, by their place; `count` divides `SHARDS`."""
    return slice(rank, None, count)


def batch_rows(size: int, config: TrainingConfig, rank: int, count: int, epoch: int) -> list[NDArray[np.int64]]:
    """Return the rows of a worker's own images for each step of an epoch.

    Args:
        size: images of the smallest shard.
    """
    import numpy as np

    each, own = config.batch_size // SHARDS, SHARDS // count
    # Row j of a worker is of its shard j % own, which all workers together count as (j % own) * count + rank.
    orders = [
        np.random.default_rng([config.seed, epoch, number * count + rank]).permutation(size) * own + number
        for number in range(own)
    ]
    steps = range(0, size - each + 1, each)
    return [np.concatenate([order[first : first + each] for order in orders]) for first in steps]


def initial(config: TrainingConfig) -> Weights:
    """Return the first weights: He's normal distribution for what a ReLU follows."""
    import numpy as np

    random = np.random.default_rng(config.seed)
    first, second = CHANNELS, config.hidden_units
    flat = second * (SIDE // 2) ** 2
    shapes = {"conv_0": (KERNEL, KERNEL, 1, first), "conv_1": (KERNEL, KERNEL, first, second), "dense": (flat, CLASSES)}
    made = {n: random.normal(size=s) * np.sqrt(2 / np.prod(s[:-1])) for n, s in shapes.items()}
    zeros = {f"bias_{i}": np.zeros(size) for i, size in enumerate((first, second, CLASSES))}
    return {**made, **zeros}


def scores(weights: Mapping[str, Any], images: Any) -> Any:
    """Return the network's scores in JAX; shape (n, 64) to (n, 10)."""
    import jax

    found = images.reshape(-1, SIDE, SIDE, 1)
    for layer, stride in ((0, 1), (1, 2)):
        kernel, bias = weights[f"conv_{layer}"], weights[f"bias_{layer}"]
        numbers = ("NHWC", "HWIO", "NHWC")
        found = jax.lax.conv_general_dilated(
            found, kernel, (stride, stride), ((1, 1), (1, 1)), dimension_numbers=numbers
        )
        found = jax.nn.relu(found + bias)
    return found.reshape(found.shape[0], -1) @ weights["dense"] + weights["bias_2"]


class ConvNet:
    """The network of one worker out of `count`, as `model.Model`."""

    def __init__(self, config: TrainingConfig, rank: int = 0, count: int = 1) -> None:
        import jax
        import numpy as np
        from jax.sharding import Mesh, NamedSharding, PartitionSpec

        self._config, self._rank, self._count = config, rank, count
        # One device of each process, in the order of the workers.
        devices = sorted({d.process_index: d for d in reversed(jax.devices())}.values(), key=lambda d: d.process_index)
        mesh = Mesh(np.array(devices), ("workers",))
        self._everywhere, self._split = (
            NamedSharding(mesh, PartitionSpec()),
            NamedSharding(mesh, PartitionSpec("workers")),
        )
        self._step, self._scores = jax.jit(_step, static_argnums=(3, 4)), jax.jit(scores)
        self._smallest = 0
        self.weights = initial(config)

    @property
    def weights(self) -> Weights:
        """Copies of the arrays, the same in all workers once they have begun."""
        import numpy as np

        return {name: np.asarray(array, dtype=np.float64) for name, array in self._weights.items()}

    @weights.setter
    def weights(self, weights: Mapping[str, NDArray[np.float64]]) -> None:
        import numpy as np

        self._weights: dict[str, Any] = {name: np.asarray(array, dtype=np.float32) for name, array in weights.items()}

    def begin(self, epoch: int) -> int:
        """Take the weights of the first worker, and the epoch that they are of."""
        import numpy as np
        from jax.experimental import multihost_utils

        if self._count > 1:
            found, self._weights = multihost_utils.broadcast_one_to_all((np.int32(epoch), self._weights))
            epoch = int(found)
        self._weights = {name: self._shared(array, self._everywhere) for name, array in self._weights.items()}
        return epoch

    def fit_epoch(self, data: Split, epoch: int) -> float:
        """Train one epoch (counted from 1) with the other workers; returns the mean training loss of all batches."""
        import jax.numpy as jnp

        size = self._smallest = self._smallest or self._smallest_shard(len(data.labels))
        losses = []
        for rows in batch_rows(size, self._config, self._rank, self._count, epoch):
            images, labels = (self._shared(array[rows], self._split) for array in (_images(data), data.labels))
            rate, l2 = self._config.learning_rate, self._config.l2
            self._weights, loss = self._step(self._weights, images, labels, rate, l2)
            losses.append(loss)
        return float(jnp.mean(jnp.stack(losses)))

    def predict(self, images: NDArray[np.float64]) -> NDArray[np.int64]:
        """Return the digit of each row of pixels; shape (n, 64) to (n,). Each worker may do so alone."""
        import numpy as np

        own = {name: np.asarray(array) for name, array in self._weights.items()}
        found: NDArray[np.int64] = np.asarray(self._scores(own, images.astype(np.float32))).argmax(axis=1)
        return found

    def _smallest_shard(self, images: int) -> int:
        import numpy as np
        from jax.experimental import multihost_utils

        mine = images // (SHARDS // self._count)
        return int(np.min(multihost_utils.process_allgather(np.int32(mine)))) if self._count > 1 else mine

    def _shared(self, array: Any, sharding: Any) -> Any:
        import jax
        import numpy as np

        return jax.make_array_from_process_local_data(sharding, np.asarray(array))


def _images(data: Split) -> NDArray[np.float32]:
    import numpy as np

    return data.images.astype(np.float32)


def _step(weights: dict[str, Any], images: Any, labels: Any, rate: float, l2: float) -> tuple[dict[str, Any], Any]:
    """Take one step of gradient descent on the batch of all workers: JAX adds their gradients up."""
    import jax

    loss, gradients = jax.value_and_grad(_loss)(weights, images, labels, l2)
    return jax.tree.map(lambda weight, gradient: weight - rate * gradient, weights, gradients), loss


def _loss(weights: Mapping[str, Any], images: Any, labels: Any, l2: float) -> Any:
    import jax
    import jax.numpy as jnp

    likelihoods = jax.nn.log_softmax(scores(weights, images))
    penalty = sum(jnp.sum(array**2) for name, array in weights.items() if not name.startswith("bias"))
    return -jnp.mean(jnp.take_along_axis(likelihoods, labels[:, None], axis=1)) + l2 / 2 * penalty
