"""Memory and time where decoded images exceed the cache, relative to what they are where it holds all.

``pytest -n 0 tests/benchmarks/test_streaming.py --benchmark-only --runslow -s`` prints a table. Times are processor
seconds of this process and its threads; see :mod:`test_speed`.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from dagaug.classifiers.fit import FitOptions, fit
from dagaug.data.image_files import encode
from dagaug.data.patch_loading import load
from dagaug.hdf5.schema import Candidates, Header, Images
from dagaug.hdf5.shard_folder import open_shard_folder
from dagaug.hdf5.shards import ShardContent
from dagaug.runtime import streamed_array
from dagaug.runtime.execution_settings import Execution
from dagaug.runtime.image_cache import ImageCache

SIDE, CLASSES, TEST_IMAGES = 224, 10, 10
FEW, MANY = 500, 5000
ROWS: list[tuple[str, str, str]] = []


@pytest.fixture(scope="module", autouse=True)
def _table() -> Iterator[None]:
    """Prints what was measured."""
    yield
    width = max((len(name) for name, _, _ in ROWS), default=0)
    print()
    for name, value, aim in ROWS:
        print(f"{name:{width}}  {value:>10}  {aim}")


def note(benchmark: Any, name: str, value: float, aim: str) -> None:
    benchmark.extra_info[name] = value
    ROWS.append((name, f"{value:.2f}", aim))


def picture(number: int, height: int = SIDE, width: int = SIDE) -> bytes:
    """A JPEG of smooth colours."""
    coarse = np.random.default_rng(number).integers(0, 256, (8, 8, 3), np.uint8)
    return encode(cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC), "jpeg", 90)


def make_data(root: Path, count: int) -> None:
    """Class folders ``data`` of ``count`` training images, and as many synthetic images in the file ``made.h5``."""
    pictures = [picture(number) for number in range(count)]
    names = []
    for split, numbers in (("train", range(count)), ("test", range(TEST_IMAGES))):
        for number in numbers:
            names.append(f"{split}/{number % CLASSES}/{number}.jpg")
            path = root / "data" / names[-1]
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(pictures[number] if split == "train" else picture(-1 - number & 0xFFFF))
    rows, side, sure = np.arange(count), np.full(count, SIDE), np.full(count, 0.9, np.float32)
    label, zero = rows % CLASSES, np.zeros(count, np.uint8)
    images = Images(
        height=side, width=side, label=label, split=zero, synthetic=np.ones(count, bool), source=rows, reference=rows,
        variant=zero, confidence=sure, predicted=label, candidate=rows,
    )  # fmt: skip
    candidates = Candidates(rows, rows, zero, label, label, sure, zero, rows)
    every = np.arange(len(names))
    header = Header(
        classes=tuple(map(str, range(CLASSES))), files=tuple(names), files_label=every % CLASSES,
        files_split=(every >= count).astype(np.uint8), encoding="jpeg", quality=90, variants=("reference",),
        verdicts=("kept",), options={}, checkpoint_sha256="", seed=0, created_by="test",
    )  # fmt: skip
    with open_shard_folder(root / "made.h5", {}) as run:
        run.write(0, ShardContent(pictures, images, candidates))
        run.merge(header, 1)


# ---- memory

BEFORE = """
import resource, sys
from pathlib import Path
import torch
torch.set_num_threads(1)
from dagaug.data.layouts import read_dataset
from dagaug.data.object_patches import Framing
from dagaug.runtime.execution_settings import Execution
from dagaug.runtime.image_cache import ImageCache
root = Path(sys.argv[1])
data = read_dataset(root / "data")
execution = Execution("cpu", 2, memory=ImageCache(40_000_000))
"""

AFTER = """
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""

SCORE = """
from dagaug.classifiers.fit import FitOptions
from dagaug.runtime.errors import MissingExtraError
from dagaug.score import near_duplicates
from dagaug.score.experiment import score
from dagaug.score.options import ScoreOptions
def missing(size):
    raise MissingExtraError("reads images in batches, whatever their number")
near_duplicates.pretrained_network = missing
fit = FitOptions("test_resnet", 224, steps=10, batch_size=16)
options = ScoreOptions(fit, seeds=2, arms=("real",), others=(("made", root / "made.h5"),))
assert score(data, None, options, execution=execution).real == len(data.train)
"""

TRAIN = """
from dagaug.data import grabcut_and_inpainting
from dagaug.training.options import TrainOptions
from dagaug.training.train import build_mode
from dagaug.model.trained_model import build_translator
import numpy as np
disc = (np.hypot(*np.mgrid[-1:1:224j, -1:1:224j]) < 0.5).astype(np.float32)
grabcut_and_inpainting.grabcut = lambda image, box: disc
grabcut_and_inpainting.fill_background = lambda image, mask: (image[::-1].copy(), disc)
options = TrainOptions(framing=Framing(size=224)).resolved()
translator = build_translator(options.mode, options.attention, options.own_pixels)
mode = build_mode(data, options, translator, execution=execution)
for step in range(20):
    mode.sampler.batch(step, 8)
assert mode.image_count == len(data.train)
"""

AUGMENT = """
from dagaug.augment.options import AugmentOptions
from dagaug.augment.prepared_augmentation import Job
from dagaug.model.trained_model import GENERAL_FILE, load_model
from dataclasses import replace
from dagaug.runtime.streamed_array import batches
model = load_model(GENERAL_FILE)
card = model.card.model_copy(update={"framing": Framing(size=224), "classes": data.classes})
job = Job(replace(model, card=card), data, AugmentOptions(refs=2), execution=execution)
assert sum(map(len, batches(job.patches.images, 64))) == len(data.train)
"""


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    root = tmp_path_factory.mktemp("streams")
    for count in (FEW, MANY):
        make_data(root / str(count), count)
    return {count: root / str(count) for count in (FEW, MANY)}


@pytest.mark.slow
@pytest.mark.parametrize(("name", "script"), [("score", SCORE), ("train", TRAIN), ("augment", AUGMENT)])
def test_peak_memory_at_ten_times_the_images(folders: dict[int, Path], benchmark: Any, name: str, script: str) -> None:
    """500 and 5,000 images of 224 px, with a cache that holds 265 of them."""

    def peak(count: int) -> int:
        command = [sys.executable, "-c", BEFORE + script + AFTER, str(folders[count])]
        return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()[-1])

    few = peak(FEW)
    many = benchmark.pedantic(lambda: peak(MANY), rounds=1)
    note(benchmark, f"peak memory of {name} at 5,000 over 500 images of 224 px", many / few, "aim 1.1 at most")
    ROWS.append((f"the same in MB at 5,000 images ({MANY * SIDE * SIDE * 3 / 1e6:.0f} MB decoded)",
                 f"{many / 1024:.0f}", ""))  # fmt: skip
    assert many / few < 1.1


# ---- time


def test_step_time_of_streamed_over_images_in_memory(
    benchmark: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Trainings of a small network on 256 photographs of 500 × 375, at 224 px."""
    count, batch, steps = 256, 16, 24
    paths = [tmp_path / f"{number}.jpg" for number in range(count)]
    for number, path in enumerate(paths):
        path.write_bytes(picture(number, 375, 500))
    labels = np.arange(count) % CLASSES

    def step(network: str, memory: int, disk: float) -> float:
        """Processor seconds of a step, without the first pass over the images."""
        monkeypatch.setattr(streamed_array, "_DISK_SHARE", disk)
        execution = Execution("cpu", 2, memory=ImageCache(memory))
        images = load(paths, size=SIDE, execution=execution).images
        images.hashes()
        options = FitOptions(network, SIDE, steps=steps, batch_size=batch, learning_rate=1e-3, augment="crop")
        started = time.process_time()
        fit(images, labels, tuple(map(str, range(CLASSES))), options, seed=0, execution=execution)
        return (time.process_time() - started) / steps

    for network in ("test_resnet", "resnet18"):
        in_memory, from_disk, again = (
            min(step(network, memory, disk) for _ in range(2)) for memory, disk in ((1 << 40, 0.5), (0, 0.5), (0, 0.0))
        )
        note(benchmark, f"step of {network}, images in a temporary file / in memory", from_disk / in_memory, "aim 1.1")
        note(benchmark, f"step of {network}, images decoded each time / in memory", again / in_memory, "")
        ROWS.append(("its processor ms, images in memory", f"{1000 * in_memory:.0f}", ""))
        assert from_disk / in_memory < 1.2
    benchmark.pedantic(lambda: None, rounds=1)
