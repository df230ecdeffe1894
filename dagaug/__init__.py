"""Data augmentation for fine-grained images: redraw each image in the pose of another (DA-GAN).

Names are imported on first use, so that ``import dagaug`` is fast. ``augment`` and ``score`` are not among them: they
are also names of packages. Use ``from dagaug.augment import augment``.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

__all__ = [
    "AugmentOptions",
    "AugmentedDataset",
    "DagaugError",
    "Execution",
    "Framing",
    "ScoreOptions",
    "Store",
    "TrainOptions",
    "load_model",
    "read_dataset",
    "train",
    "write_flock",
    "write_report",
]

_HOME = {
    "AugmentOptions": "augment.options",
    "AugmentedDataset": "hdf5.torch_dataset",
    "DagaugError": "runtime.errors",
    "Execution": "runtime.execution_settings",
    "Framing": "data.object_patches",
    "ScoreOptions": "score.options",
    "Store": "hdf5.reader",
    "TrainOptions": "training.options",
    "load_model": "model.trained_model",
    "read_dataset": "data.layouts",
    "train": "training.train",
    "write_flock": "birds.dataset",
    "write_report": "report.write",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"dagaug.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
