"""Batch augmentation: plan, morph, select, write the HDF5 file.

The names below are imported on first use, so that importing a module of this package does not import all of it.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dagaug.augment.cost_estimate import estimate as estimate
    from dagaug.augment.options import AugmentOptions as AugmentOptions
    from dagaug.augment.run import augment as augment

__all__ = ["AugmentOptions", "augment", "estimate"]

_HOME = {"AugmentOptions": "options", "augment": "run", "estimate": "cost_estimate"}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
