"""Loss curves: metrics of resumed runs, and the curve's box."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from dagaug.report.loss_curves import HEIGHT, WIDTH, Metrics, loss_curves, read_metrics


def test_resumed_run_replaces_what_it_did_again(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    steps = [(1, 5.0), (2, 4.0), (3, 9.0), (2, 3.0), (3, 2.0)]
    lines = [json.dumps({"step": step, "a": value, "note": "text", "on": True}) for step, value in steps]
    path.write_text("\n".join([*lines, "[]", '{"step": 4, "a": NaN}', "{"]))
    metrics = read_metrics(path)
    assert metrics.terms.keys() == {"a"}
    assert metrics.terms["a"][0].tolist() == [1, 2, 3]
    assert metrics.terms["a"][1].tolist() == [5, 3, 2]
    assert metrics.unreadable == 2


def test_curve_spans_its_box(tmp_path: Path) -> None:
    steps = np.arange(1.0, 11.0)
    (curve,) = loss_curves(Metrics({"a": (steps, 20 - steps)}, 0))
    points = [tuple(map(float, point.split())) for point in curve.line[1:].split("L")]
    assert points[0] == (0, 0)
    assert points[-1] == (WIDTH, HEIGHT)
    assert (curve.low, curve.high, curve.first, curve.last, curve.latest) == (10, 19, 1, 10, 10)
    (spiked,) = loss_curves(Metrics({"a": (steps, np.array([1e4] + [1.0] * 9))}, 0))
    assert spiked.logarithmic
    (flat,) = loss_curves(Metrics({"a": (steps, np.zeros(10))}, 0))
    assert flat.low < 0 < flat.high
