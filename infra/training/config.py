"""The configuration of the built-in training and its JSON schema."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any

MOST_EPOCHS = 100_000
SCHEMA_BUCKET = "config-schemas"
SCHEMA_KEY = "training/image-classifier-v1.json"

_LIMITS: dict[str, dict[str, object]] = {
    "dataset": {"type": "string", "description": "name/version in the bucket training-datasets", "minLength": 1},
    "epochs": {"type": "integer", "description": "passes over the training images", "minimum": 1},
    "hidden_units": {"type": "integer", "description": "width of the hidden layer", "minimum": 1},
    "learning_rate": {"type": "number", "description": "step of gradient descent", "exclusiveMinimum": 0},
    "batch_size": {"type": "integer", "description": "images per step", "minimum": 1},
    "l2": {"type": "number", "description": "weight of the L2 penalty", "minimum": 0},
    "seed": {"type": "integer", "description": "of the first weights and the order of images", "minimum": 0},
}


@dataclass(frozen=True)
class TrainingConfig:
    """Values that decide the result: the same values on the same images give the same weights."""

    dataset: str = "digits/v1"
    epochs: int = 15
    hidden_units: int = 256
    learning_rate: float = 0.3
    batch_size: int = 4
    l2: float = 1e-4
    seed: int = 20261123

    def as_dict(self) -> dict[str, Any]:
        """Return the values by name, fit for JSON."""
        return asdict(self)


def json_schema() -> dict[str, object]:
    """Return the JSON schema (draft 2020-12) of `TrainingConfig`."""
    defaults = TrainingConfig()
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Training of an image classifier",
        "type": "object",
        "properties": {f.name: {**_LIMITS[f.name], "default": getattr(defaults, f.name)} for f in fields(defaults)},
        "required": [f.name for f in fields(defaults)],
        "additionalProperties": False,
    }
