"""Untrained translators, pictures and a listener that the tests of translating folders share."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Tensor

from dagaug.data.object_patches import Framing
from dagaug.model.mode_translators import PaperTranslator
from dagaug.model.task_presets import AttentionSettings, Mode
from dagaug.model.trained_model import ModelCard, TrainedModel, build_translator, load_model, save_model

SIZE = 32


def made(path: Path, mode: Mode = "paper", *, seed: int = 0, framing: Framing | None = None) -> TrainedModel:
    """An untrained model, by way of its file."""
    torch.manual_seed(seed)
    attention = AttentionSettings(1, 0.5)
    card = ModelCard(
        mode=mode,
        classes=("a", "b"),
        framing=framing or Framing(size=SIZE),
        regions=attention.regions,
        half_size=attention.half_size,
        sharpness=attention.sharpness,
        steps=0,
        seed=seed,
        data="pictures",
    )
    save_model(path, card, build_translator(mode, attention).state_dict())
    return load_model(path)


class Copier(PaperTranslator):
    """Gives back what it gets."""

    def __init__(self) -> None:
        super().__init__(AttentionSettings(1, 0.5))

    def forward(self, images: Tensor) -> Tensor:
        return images


def picture(seed: int, height: int, width: int) -> np.ndarray:
    coarse = np.random.default_rng(seed).integers(60, 200, (3, 3, 3), dtype=np.uint8)
    return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_LINEAR)


def put(path: Path, seed: int = 0, height: int = SIZE, width: int = SIZE) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), picture(seed, height, width))
    return path


class Watching:
    """Keeps what is said; calls ``after`` with the number of images done so far."""

    def __init__(self, after: object = None) -> None:
        self.said: list[str] = []
        self.done, self.total, self._after = 0, 0, after

    def task(self, name: str, total: int, unit: str) -> Watching:
        self.total = total
        return self

    def __enter__(self) -> Watching:
        return self

    def __exit__(self, *exception: object) -> None:
        return None

    def advance(self, count: int = 1, note: str = "") -> None:
        self.done += count
        if callable(self._after):
            self._after(self.done)

    def say(self, text: str) -> None:
        self.said.append(text)
