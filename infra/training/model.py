"""The classifier: one hidden layer, trained epoch by epoch so that it can stop and go on anywhere."""

from __future__ import annotations

import io
import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol

from infra.training.config import TrainingConfig
from infra.training.dataset import CLASSES, SIDE, Split

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Weights = dict[str, NDArray[np.float64]]


class Model(Protocol):
    """Describe what can be trained epoch by epoch; its weights are its whole state."""

    weights: Weights

    def begin(self, epoch: int) -> int:
        """Begin with these weights, which are those after an epoch; returns that of all workers."""

    def fit_epoch(self, data: Split, epoch: int) -> float:
        """Train one epoch (counted from 1) and return the mean training loss of its batches."""

    def predict(self, images: NDArray[np.float64]) -> NDArray[np.int64]:
        """Return the digit of each row of pixels; shape (n, 64) to (n,)."""


class Classifier:
    """scikit-learn's MLPClassifier, reduced to what a resumed training can repeat bit by bit.

    Plain gradient descent without momentum and a constant step: the weights are the whole state. The order of
    the images is drawn from (seed, epoch), not from a generator that would have to be saved.
    """

    def __init__(self, config: TrainingConfig) -> None:
        self._config = config
        self._net = _network(config)

    def begin(self, epoch: int) -> int:
        """Return the epoch: nobody else has to begin with these weights."""
        return epoch

    def fit_epoch(self, data: Split, epoch: int) -> float:
        """Train one epoch (counted from 1) and return the mean training loss of its batches."""
        import numpy as np
        from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

        order = np.random.default_rng([self._config.seed, epoch]).permutation(len(data.labels))
        # One thread: the matrices are small, and sums in another order would not be the same bit for bit.
        with threadpool_limits(limits=1):
            self._net.partial_fit(data.images[order], data.labels[order])
        return float(self._net.loss_)

    def predict(self, images: NDArray[np.float64]) -> NDArray[np.int64]:
        """Return the digit of each row of pixels; shape (n, 64) to (n,)."""
        found: NDArray[np.int64] = self._net.predict(images)
        return found

    @property
    def weights(self) -> Weights:
        """Copies of the arrays: coef_0 (64, h), coef_1 (h, 10), intercept_0 (h,), intercept_1 (10,)."""
        layers = enumerate(zip(self._net.coefs_, self._net.intercepts_, strict=True))
        return {name: array.copy() for i, pair in layers for name, array in zip(_names(i), pair, strict=True)}

    @weights.setter
    def weights(self, weights: Mapping[str, NDArray[np.float64]]) -> None:
        pairs = [[weights[name].copy() for name in _names(i)] for i in range(2)]
        self._net.coefs_, self._net.intercepts_ = map(list, zip(*pairs, strict=True))


def _names(layer: int) -> tuple[str, str]:
    return f"coef_{layer}", f"intercept_{layer}"


def _network(config: TrainingConfig) -> Any:
    import numpy as np
    from sklearn.neural_network import MLPClassifier

    net = MLPClassifier(
        hidden_layer_sizes=(config.hidden_units,),
        activation="relu",
        solver="sgd",
        learning_rate="constant",
        learning_rate_init=config.learning_rate,
        momentum=0.0,
        nesterovs_momentum=False,
        batch_size=config.batch_size,
        alpha=config.l2,
        shuffle=False,
        random_state=config.seed,
    )
    # The arrays exist only after a first fit. Ten blank images: one of each class, so that all are known.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        net.partial_fit(np.zeros((CLASSES, SIDE * SIDE)), np.arange(CLASSES), classes=np.arange(CLASSES))
    return net


def to_npz(weights: Mapping[str, NDArray[np.float64]]) -> bytes:
    """Return the arrays as an uncompressed .npz file; the same arrays give the same bytes."""
    import numpy as np

    buffer = io.BytesIO()
    arrays: dict[str, Any] = dict(sorted(weights.items()))
    np.savez(buffer, **arrays)
    return buffer.getvalue()


def from_npz(data: bytes) -> Weights:
    """Return the arrays of an .npz file; never unpickles anything.

    Raises:
        ValueError: the file is damaged, or holds something else than numbers.
    """
    import zipfile

    import numpy as np

    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as file:
            return {name: np.asarray(file[name], dtype=np.float64) for name in file.files}
    except (OSError, EOFError, KeyError, TypeError, ValueError, AttributeError, zipfile.BadZipFile) as error:
        raise ValueError(f"not a file of weights: {error}") from error
