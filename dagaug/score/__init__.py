"""The gain of a downstream classifier: controls, paired trainings, statistics.

The names below are imported on first use, so that importing a module of this package does not import all of it.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dagaug.score.experiment import score as score
    from dagaug.score.options import ScoreOptions as ScoreOptions

__all__ = ["ScoreOptions", "score"]

_HOME = {"ScoreOptions": "options", "score": "experiment"}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
