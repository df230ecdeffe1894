"""``train``, ``score``, ``translate`` killed at random moments; the same command gives an undisturbed run's result."""

from __future__ import annotations

import json
import random
import signal
import time
from collections.abc import Callable

import cv2
import numpy as np
import pytest
import torch
from making_runs import STEPS, assert_same_bits, tensors_of
from worlds import World

from dagaug.data.object_patches import Framing
from dagaug.model.task_presets import AttentionSettings
from dagaug.model.trained_model import ModelCard, build_translator, save_model

pytestmark = pytest.mark.slow

SAVING = (
    "import functools, dagaug.training.train as t\n"
    "t.train = functools.partial(t.train, schedule=t.Schedule(save_seconds=0.0))\n"
)
"""Code that makes a training save its state after every step."""
MOMENTS = 4


def killed_then_whole(world: World, command: tuple[object, ...], done: Callable[[], bool], prelude: str = "") -> None:
    """Kill the command at a few random moments, resume it each time, and finally let it end."""
    dice = random.Random(str(command))
    for _ in range(MOMENTS):
        process = world.server.start(*command, cwd=world.root, prelude=prelude)
        process.begun()
        time.sleep(dice.uniform(0.1, 2.5))
        process.send(signal.SIGKILL)
        assert process.wait() in (-signal.SIGKILL, 0)
        if done():
            return
    assert world.server.run(*command, cwd=world.root, prelude=prelude) == (0, [])


def test_train(world: World) -> None:
    def command(out: str) -> tuple[object, ...]:
        return (
            "train", "birds", "--out", out, "--steps", STEPS, "--size", 32, "--batch-size", 4, "--device", "cpu",
            "--precision", "32-true", "--quiet",
        )  # fmt: skip

    assert world.server.run(*command("straight"), cwd=world.root) == (0, [])
    model = world.root / "killed" / "model.safetensors"
    killed_then_whole(world, command("killed"), model.exists, SAVING)
    assert_same_bits(tensors_of(world.root / "straight" / "model.safetensors"), tensors_of(model))
    assert not list((world.root / "killed").glob("*.tmp"))


def test_score(world: World) -> None:
    assert world.run() == (0, [])

    def command(out: str) -> tuple[object, ...]:
        return (
            "score", "birds", "a.h5", "--arms", "real,real+dagaug", "--seeds", 3, "--steps", 4, "--device", "cpu",
            "--classifier", "test_resnet", "--out", out, "--quiet",
        )  # fmt: skip

    assert world.server.run(*command("straight.json"), cwd=world.root) == (0, [])
    killed_then_whole(world, command("killed.json"), (world.root / "killed.json").exists)
    straight, killed = (json.loads((world.root / f"{name}.json").read_text()) for name in ("straight", "killed"))
    for result in (straight, killed):
        for run in result["runs"]:
            del run["seconds"]
    assert killed == straight


def test_translate(world: World) -> None:
    source = world.root / "in"
    for number in range(60):
        folder = source / str(number % 3)
        folder.mkdir(parents=True, exist_ok=True)
        image = np.random.default_rng(number).integers(0, 256, (40, 30 + number, 3), np.uint8)
        cv2.imwrite(str(folder / f"{number}.png"), cv2.GaussianBlur(image, (0, 0), 2))
    torch.manual_seed(0)
    attention = AttentionSettings(1, 0.5)
    (world.root / "paper").mkdir()
    card = ModelCard(
        mode="paper", classes=(), framing=Framing(size=32), regions=1, half_size=0.5, sharpness=attention.sharpness,
        steps=0, seed=0, data="pictures",
    )  # fmt: skip
    save_model(world.root / "paper" / "model.safetensors", card, build_translator("paper", attention).state_dict())

    def command(out: str) -> tuple[object, ...]:
        return "translate", "in", "--checkpoint", "paper", "--out", out, "--batch-size", 4, "--device", "cpu", "--quiet"

    def pictures(out: str) -> dict[str, bytes]:
        found = sorted((world.root / out).rglob("*.png"))
        return {path.relative_to(world.root / out).as_posix(): path.read_bytes() for path in found}

    assert world.server.run(*command("straight"), cwd=world.root) == (0, [])
    killed_then_whole(world, command("killed"), lambda: len(pictures("killed")) == 60)
    assert world.server.run(*command("killed"), cwd=world.root) == (0, [])
    straight, killed = pictures("straight"), pictures("killed")
    assert len(straight) == 60
    assert straight.keys() == killed.keys()
    # What is translated again may stand in a batch of another size, and differ in the last bit of a pixel.
    for name, data in straight.items():
        one, other = (cv2.imdecode(np.frombuffer(part, np.uint8), cv2.IMREAD_COLOR) for part in (data, killed[name]))
        assert int(np.abs(one.astype(int) - other).max()) <= 1
