"""A small data set for classifiers, and a progress listener."""

from __future__ import annotations

import numpy as np

from dagaug.classifiers.fit import FitOptions

__all__ = ["CLASSES", "TINY", "Listener", "coloured"]

CLASSES = ("red", "green", "blue")
TINY = FitOptions(name="test_resnet", size=32, steps=6, batch_size=6, learning_rate=3e-3)


def coloured(count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Noise, brighter in the channel that is the label: a problem that a few steps solve."""
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % 3
    images = rng.integers(0, 120, (count, 32, 32, 3), dtype=np.uint8)
    images[np.arange(count), :, :, labels] += 120
    return images, labels


class Listener:
    """A progress that remembers notes and lines, and counts steps."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.lines: list[str] = []
        self.steps = 0
        self._unit = ""

    def task(self, name: str, total: int, unit: str) -> Listener:
        del name, total
        self._unit = unit
        return self

    def __enter__(self) -> Listener:
        return self

    def __exit__(self, *exception: object) -> None:
        return None

    def advance(self, count: int = 1, note: str = "") -> None:
        if self._unit == "steps":
            self.steps += count
        if note:
            self.notes.append(note)

    def say(self, text: str) -> None:
        self.lines.append(text)
