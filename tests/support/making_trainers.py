"""A trainer that is ready for its first step."""

from __future__ import annotations

from typing import Any

import torch
from making_runs import options

from dagaug.data.dataset_records import Dataset
from dagaug.model.trained_model import build_translator
from dagaug.runtime.execution_settings import Execution
from dagaug.training.fabric import make_fabric
from dagaug.training.train import build_mode
from dagaug.training.trainer import Trainer


def new_trainer(data: Dataset, **changes: Any) -> Trainer:
    """The trainer of a training that is about to begin, on the CPU in 32 bits."""
    resolved = options(**changes).resolved()
    torch.manual_seed(resolved.seed)
    translator = build_translator(resolved.mode, resolved.attention)
    mode = build_mode(data, resolved, translator, execution=Execution(workers=1))
    return Trainer(make_fabric("cpu", "32-true"), mode, translator, resolved)
