"""The picture of the parts that a flow finds."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from dagaug.data.dataset_records import Dataset
from dagaug.metrics.flow_pck import find_parts
from dagaug.model.trained_model import load_model
from dagaug.report.part_points import draw_found_parts
from dagaug.runtime.execution_settings import Execution


def test_each_pair_is_a_column_with_its_parts_marked(birds: Dataset, birds_run: Path) -> None:
    found = find_parts(load_model(birds_run), birds, split="train", pairs=3, execution=Execution("cpu"))
    drawn = draw_found_parts(found, count=2)
    assert drawn.shape == (512, 512, 3)
    hidden = replace(found, visible=np.zeros_like(found.visible))
    bare = draw_found_parts(hidden, count=2)
    changed = (drawn != bare).any(-1)
    assert changed[:256].any()  # references
    assert changed[256:].any()  # sources
    assert changed.mean() < 0.2
    x, y = found.positions[found.pairs[0, 1]][found.common[0]][0]
    assert changed[round(y * 255), round(x * 255)]
