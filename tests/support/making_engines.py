"""Engines over six birds with two judges."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path

import numpy as np
import torch
from torch import nn

from dagaug.augment.engine import Engine, MorphBatch
from dagaug.augment.morph_plan import DEFAULT_VARIANTS, random_plan
from dagaug.classifiers.cross_fit import CrossFitted
from dagaug.model.mode_translators import ReferenceTranslator
from dagaug.model.trained_model import load_model

COUNT = 6
PLAN = random_plan(COUNT, refs=2, variants=DEFAULT_VARIANTS, seed=0)
ALL = slice(0, len(PLAN))


def new_engine(
    birds_run: Path,
    patches: np.ndarray,
    judges: CrossFitted,
    scratch: Path,
    *,
    batch_size: int | None = 64,
    translator: nn.Module | None = None,
    encoded: bool = True,
    block_size: int = 64,
    masks: Sequence[np.ndarray | None] | None = None,
) -> Engine:
    translator = translator or load_model(birds_run).translator
    assert isinstance(translator, ReferenceTranslator)
    engine = Engine(
        translator,
        patches,
        judges,
        np.arange(COUNT),
        device=torch.device("cpu"),
        batch_size=batch_size,
        scratch=scratch,
        block_size=block_size,
        masks=masks,
    )
    if encoded:
        engine.encoder.encode()
    return engine


def columns_of(batch: MorphBatch) -> list[np.ndarray]:
    return [getattr(batch, column.name) for column in fields(batch)]


def assert_close(first: MorphBatch, second: MorphBatch) -> None:
    """Equal but for the rounding of sums that other batches add up in another order."""
    np.testing.assert_allclose(first.images.astype(int), second.images.astype(int), atol=1)
    np.testing.assert_allclose(first.cover.astype(int), second.cover.astype(int), atol=1)
    np.testing.assert_allclose(first.probabilities, second.probabilities, atol=1e-4)
