from __future__ import annotations

import io

import numpy as np
import pytest

from infra.training.config import TrainingConfig
from infra.training.dataset import Split
from infra.training.model import Classifier, from_npz, to_npz

CONFIG = TrainingConfig(epochs=4)


def test_weights_survive_a_file_bit_for_bit(splits: dict[str, Split]) -> None:
    model = Classifier(CONFIG)
    model.fit_epoch(splits["val"], 1)
    restored = from_npz(to_npz(model.weights))
    assert set(restored) == {"coef_0", "coef_1", "intercept_0", "intercept_1"}
    assert all(np.array_equal(restored[name], array) for name, array in model.weights.items())
    assert to_npz(restored) == to_npz(model.weights)


def test_going_on_from_a_file_ends_with_the_same_bits(splits: dict[str, Split]) -> None:
    whole = Classifier(CONFIG)
    losses = [whole.fit_epoch(splits["train"], epoch) for epoch in (1, 2, 3)]
    first, second = Classifier(CONFIG), Classifier(CONFIG)
    first.fit_epoch(splits["train"], 1)
    second.weights = from_npz(to_npz(first.weights))
    again = [second.fit_epoch(splits["train"], epoch) for epoch in (2, 3)]
    assert to_npz(second.weights) == to_npz(whole.weights)
    assert again == losses[1:]


def test_another_seed_gives_other_weights(splits: dict[str, Split]) -> None:
    models = [Classifier(TrainingConfig(seed=seed)) for seed in (1, 2)]
    for model in models:
        model.fit_epoch(splits["val"], 1)
    assert to_npz(models[0].weights) != to_npz(models[1].weights)


def test_the_weights_given_out_are_copies(splits: dict[str, Split]) -> None:
    model = Classifier(CONFIG)
    before = to_npz(model.weights)
    model.weights["coef_0"][:] = 0
    assert to_npz(model.weights) == before


def pickled() -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, coef_0=np.array([{"a": 1}], dtype=object))
    return buffer.getvalue()


def test_damaged_files_and_pickles_are_refused() -> None:
    good = to_npz({"coef_0": np.ones((64, 8))})
    middle = len(good) // 2
    flipped = good[:middle] + bytes([good[middle] ^ 1]) + good[middle + 1 :]
    for data in (b"", b"nonsense", good[:100], good[:-30], flipped, pickled()):
        with pytest.raises(ValueError, match="file of weights"):
            from_npz(data)
