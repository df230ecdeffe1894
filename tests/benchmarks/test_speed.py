"""Cost of the engine and its file, each as a ratio to a reference that is measured in the same run.

``pytest -n 0 tests/benchmarks --benchmark-only -s`` prints a table. Times are the processor time of this process and
its threads, so that other work on the machine changes little; rates are per processor second.
"""

from __future__ import annotations

import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from making_runs import quick
from torch.utils.data import DataLoader

from dagaug.augment.morph_plan import random_plan
from dagaug.augment.options import AugmentOptions
from dagaug.augment.run import augment
from dagaug.birds.dataset import write_flock
from dagaug.classifiers.backbones import LITE0
from dagaug.classifiers.classifier import Classifier
from dagaug.classifiers.cross_fit import CrossFitted
from dagaug.classifiers.fit import FitOptions, fit
from dagaug.classifiers.folded_batch_norm import folded_frozen_layers
from dagaug.classifiers.frozen_stages import freeze_stages, suitable_frozen_stages
from dagaug.classifiers.pretrained_networks import build_pretrained
from dagaug.compute.devices import autocast, batch_size_for
from dagaug.compute.tensors import to_pixels, to_tensor
from dagaug.data.dataset_records import Dataset
from dagaug.data.grabcut_and_inpainting import fill_background
from dagaug.data.image_files import decode, encode
from dagaug.data.layouts import read_dataset
from dagaug.data.object_patches import Framing, read_patches
from dagaug.data.square_crops import paste
from dagaug.hdf5.reader import Store
from dagaug.hdf5.schema import Header, Images
from dagaug.hdf5.shard_folder import open_shard_folder
from dagaug.hdf5.shards import ShardContent
from dagaug.hdf5.torch_dataset import AugmentedDataset
from dagaug.model.mode_translators import ReferenceTranslator, composite
from dagaug.model.trained_model import TrainedModel, load_model
from dagaug.runtime.execution_settings import Execution
from dagaug.training.options import TrainOptions
from dagaug.training.train import train

CPU = Execution("cpu")
SIZE = 64
REFS = 10
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


def cost(work: Callable[[], object]) -> float:
    """Processor seconds of this process."""
    started = time.process_time()
    work()
    return time.process_time() - started


def least(works: Sequence[Callable[[], object]]) -> float:
    """Processor seconds of the fastest repetition; other load of the machine can only slow it down."""
    return min(map(cost, works))


@dataclass(frozen=True)
class World:
    """Birds, a network of a few steps, and a classifier that is ready to judge."""

    data: Dataset
    model: TrainedModel
    judge: Path

    def options(self, **changes: Any) -> AugmentOptions:
        # A judge of a few steps would reject nearly all; here one morph of each reference is stored.
        values = {"refs": REFS, "weights": self.judge, "classifier": "test_resnet", "min_confidence": 0.0} | changes
        return AugmentOptions(**values)  # type: ignore[arg-type]


def make_world(root: Path, *, species: int, per_class: int, size: int = SIZE) -> World:
    write_flock(root / "birds", species=species, per_class=per_class, test_per_class=1, size=size)
    data = read_dataset(root / "birds")
    framing = Framing(size=size)
    with quick():
        options = TrainOptions(framing=framing, steps=4, batch_size=4, per_class=4)
        done = train(options, data, name="birds", out=root / "run", precision="32-true", execution=CPU)
    few = read_patches(data, data.subset(4).train, framing)
    fit_options = FitOptions("test_resnet", size, steps=20, batch_size=16)
    fit(few.images, few.labels, data.classes, fit_options, seed=0).save(root / "judge.safetensors")
    return World(data, load_model(done.run), root / "judge.safetensors")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    """64 training images of 64 px."""
    return make_world(tmp_path_factory.mktemp("world"), species=4, per_class=16)


@pytest.fixture(scope="module")
def engine_cost(world: World, tmp_path_factory: pytest.TempPathFactory) -> float:
    """Processor seconds of a candidate, from image files to the finished HDF5 file."""
    out = tmp_path_factory.mktemp("out")
    run = lambda name, **more: augment(world.model, world.data, world.options(**more), out / name, execution=CPU)  # noqa: E731
    candidates = run("warm.h5", limit=4).candidates * len(world.data.train) // 4
    return least([partial(run, f"{number}.h5") for number in range(3)]) / candidates


def test_end_to_end_over_compute_alone(world: World, engine_cost: float, benchmark: Any) -> None:
    """The same generator and classifier on tensors that are in memory, in batches of the same size."""
    translator = world.model.translator
    assert isinstance(translator, ReferenceTranslator)
    device = torch.device("cpu")
    count = batch_size_for(device, lambda count: None)
    patches = read_patches(world.data, world.data.train, world.model.card.framing).images
    judge = Classifier.load(world.judge)
    rng = np.random.default_rng(0)
    batches = []
    for _ in range(10):
        images = to_tensor(patches[rng.integers(0, len(patches), count)], device)
        with torch.inference_mode(), autocast(device):
            batches.append((images, *translator.read(images)))

    def once() -> None:
        for images, structure, appearance in batches:
            with torch.inference_mode():
                with autocast(device):
                    drawn = translator.finished(appearance, structure, structure)
                judge.probabilities_of_tensor(composite(drawn, images))

    once()
    # As long as the engine's, so that neither finds the quieter moments.
    alone = benchmark.pedantic(lambda: least([lambda: [once() for _ in "1234"]] * 3), rounds=1)
    alone /= 4 * len(batches) * count
    ratio = alone / engine_cost
    note(benchmark, "end to end over generator and classifier alone", ratio, "aim 0.90, floor 0.80")
    ROWS.append(("processor ms of a candidate, end to end", f"{1000 * engine_cost:.2f}", ""))
    assert ratio > 0.8


def test_end_to_end_over_one_pair_at_a_time(world: World, engine_cost: float, benchmark: Any, tmp_path: Path) -> None:
    """Both images decoded and encoded for each pair, one file written for each; networks as they are loaded."""
    translator = load_model(world.model.path).translator  # the engine has laid out its own anew
    assert isinstance(translator, ReferenceTranslator)
    judge = Classifier.load(world.judge)
    judges = CrossFitted([judge], np.zeros(1, np.int64), np.zeros(1, bool), float("nan"))
    samples = world.data.train
    plan = random_plan(len(samples), refs=2, variants=("morph",), seed=0, limit=16)
    framing = world.model.card.framing
    none: AbstractContextManager[object] = nullcontext()

    def pair(number: int, precision: AbstractContextManager[object] = none) -> None:
        two = [samples[plan.source[number]], samples[plan.reference[number]]]
        read = read_patches(world.data, two, framing, execution=Execution(workers=1))
        with torch.inference_mode():
            source, reference = (to_tensor(read.images[row : row + 1], torch.device("cpu")) for row in (0, 1))
            with precision:
                structure, appearance = translator.read(source)
                wanted, _ = translator.dae.structure(reference)
                drawn = translator.finished(appearance, structure, wanted)
            behind, hole = fill_background(read.images[1], wanted.object[0, 0].numpy())
            result = composite(drawn, to_tensor(behind[None], torch.device("cpu")))
            judges.probabilities_of_tensor(result, np.zeros(1, np.int64))
        cover = np.maximum(drawn.mask[0, 0].numpy(), hole / np.float32(255)).astype(np.float32)
        image = paste(decode(world.data.file(two[1])), to_pixels(result)[0], cover, read.regions[1])
        (tmp_path / f"{number}.jpg").write_bytes(encode(image, "jpeg", 95))

    def each(precision: AbstractContextManager[object] = none) -> float:
        pair(0, precision)
        return least([lambda: [pair(number, precision) for number in range(len(plan))]] * 2) / len(plan)

    plain = benchmark.pedantic(each, rounds=1)
    note(benchmark, "end to end over one pair at a time", plain / engine_cost, "aim 5")
    note(benchmark, "the same where that computes in bf16, too", each(autocast(torch.device("cpu"))) / engine_cost, "")
    assert plain > engine_cost


def test_time_of_a_candidate_at_ten_times_the_data(benchmark: Any, tmp_path: Path) -> None:
    """Not more than linear in the number of candidates."""
    big = make_world(tmp_path, species=4, per_class=160, size=32)

    def each(per_class: int, name: str) -> float:
        options = big.options(refs=2, per_class=per_class, real=False)
        started = time.process_time()
        done = augment(big.model, big.data, options, tmp_path / name, execution=CPU)
        return (time.process_time() - started) / done.candidates

    each(16, "warm.h5")
    small = each(16, "small.h5")
    large = benchmark.pedantic(lambda: each(160, "large.h5"), rounds=1)
    note(benchmark, "time of a candidate at 10x the data", large / small, "aim 0.9 to 1.1")
    assert large / small < 1.25


PEAK = """
import resource, sys
from pathlib import Path
import torch
torch.set_num_threads(1)
from dagaug.augment.options import AugmentOptions
from dagaug.augment.run import augment
from dagaug.data.layouts import read_dataset
from dagaug.model.trained_model import load_model
from dagaug.runtime.execution_settings import Execution
root, sources = Path(sys.argv[1]), int(sys.argv[2])
options = AugmentOptions(refs=10, variants=("morph",), weights=root / "judge.safetensors", classifier="test_resnet",
    per_class=sources // 10)
done = augment(load_model(root / "run"), read_dataset(root / "birds"), options, root / f"{sources}.h5",
    execution=Execution("cpu"))
assert done.candidates == 10 * sources
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


@pytest.mark.slow
def test_peak_memory_at_ten_times_the_data(benchmark: Any, tmp_path: Path) -> None:
    """500 and 5,000 sources × 10 references, of 32 px."""
    make_world(tmp_path, species=10, per_class=500, size=32)

    def peak(sources: int) -> int:
        command = [sys.executable, "-c", PEAK, str(tmp_path), str(sources)]
        return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()[-1])

    few = peak(500)
    many = benchmark.pedantic(lambda: peak(5000), rounds=1)
    note(benchmark, "peak memory at 5,000 over 500 sources", many / few, "aim 1.1 at most")
    assert many / few < 1.1


# ---- the file


@dataclass(frozen=True)
class Stored:
    """The same pictures as an HDF5 file of JPEGs, one of raw pixels, and a folder of the same JPEGs."""

    jpeg: Path
    raw: Path
    folder: Path
    count: int


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Stored:
    root, count, side, classes = tmp_path_factory.mktemp("stored"), 1024, 128, 8
    rng = np.random.default_rng(0)
    pictures = [
        cv2.resize(rng.integers(0, 256, (16, 16, 3), np.uint8), (side, side), interpolation=cv2.INTER_CUBIC)
        for _ in range(count)
    ]
    names = tuple(f"{row % classes}/{row}.jpg" for row in range(count))
    jpegs = [encode(picture, "jpeg", 95) for picture in pictures]
    for name, data in zip(names, jpegs, strict=True):
        (root / "folder" / name).parent.mkdir(parents=True, exist_ok=True)
        (root / "folder" / name).write_bytes(data)
    rows = np.arange(count)
    size = np.full(count, side)
    images = Images.real(size, size, rows % classes, np.zeros(count, np.uint8), rows)
    for encoding, encoded in (("jpeg", jpegs), ("raw", [picture.tobytes() for picture in pictures])):
        header = Header(
            classes=tuple(map(str, range(classes))), files=names, files_label=rows % classes,
            files_split=np.zeros(count, np.uint8), encoding=encoding, quality=95 if encoding == "jpeg" else 0,
            variants=("reference",), verdicts=("kept",), options={}, checkpoint_sha256="", seed=0, created_by="test",
        )  # fmt: skip
        with open_shard_folder(root / f"{encoding}.h5", {}) as run:
            run.write(0, ShardContent(encoded, images))
            run.merge(header, 1)
    return Stored(root / "jpeg.h5", root / "raw.h5", root / "folder", count)


def as_tensor(image: Any) -> torch.Tensor:
    return torch.from_numpy(np.asarray(image).copy())


def reading(data: Any, count: int) -> float:
    """Processor seconds of an epoch in random order."""
    loader = DataLoader(data, batch_size=64, shuffle=True, generator=torch.Generator().manual_seed(0))

    def epoch() -> None:
        assert sum(len(labels) for _, labels in loader) == count

    epoch()
    return min(cost(epoch) for _ in range(3))


def test_reading_over_an_image_folder(stored: Stored, benchmark: Any) -> None:
    folder_of_images = pytest.importorskip("torchvision.datasets").ImageFolder
    folder = reading(folder_of_images(stored.folder, transform=as_tensor), stored.count)
    jpeg = benchmark.pedantic(
        lambda: reading(AugmentedDataset(stored.jpeg, transform=as_tensor), stored.count), rounds=1
    )
    raw = reading(AugmentedDataset(stored.raw, transform=as_tensor), stored.count)
    note(benchmark, "reading JPEGs from HDF5 over ImageFolder", folder / jpeg, "aim 1.0")
    note(benchmark, "reading raw pixels from HDF5 over ImageFolder", folder / raw, "aim 5")
    assert folder / jpeg > 1
    assert folder / raw > 3


def test_bytes_over_an_image_folder(stored: Stored, benchmark: Any) -> None:
    files = [path.stat() for path in stored.folder.rglob("*.jpg")]
    size = benchmark.pedantic(lambda: stored.jpeg.stat().st_size, rounds=1)
    note(benchmark, "bytes over the same JPEGs", size / sum(file.st_size for file in files), "aim 1.02 at most")
    ROWS.append(("the same over what the folder takes on disk",
                 f"{stored.jpeg.stat().st_blocks / sum(file.st_blocks for file in files):.2f}", ""))  # fmt: skip
    with Store(stored.jpeg) as store:
        tables = size - sum(file.st_size for file in files)
        ROWS.append(("bytes of an image besides its pixels", f"{tables / len(store):.0f}", ""))


# ---- the commands


def child_cost(*command: str) -> float:
    """Processor seconds of a command."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, *command], capture_output=True, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def test_start_up_of_every_command(benchmark: Any) -> None:
    from dagaug.cli.app import app

    names = [command.name or command.callback.__name__ for command in app.registered_commands]  # type: ignore[union-attr]
    bare = min(child_cost("-c", "import typer, rich.console, rich.progress") for _ in range(3))
    costs = {name: min(child_cost("-m", "dagaug", name, "--help") for _ in range(2)) for name in names}
    slowest = max(costs, key=costs.__getitem__)
    benchmark.pedantic(lambda: child_cost("-m", "dagaug", "--help"), rounds=1)
    note(
        benchmark,
        f"start-up of the slowest command ({slowest}) over importing typer and rich",
        costs[slowest] / bare,
        "",
    )
    ROWS.append(("its processor seconds", f"{costs[slowest]:.2f}", ""))
    assert costs[slowest] / bare < 6


_STEPS = """
import resource, sys
import torch
from dagaug.classifiers.backbones import build
from dagaug.runtime.freed_memory import keep_freed_memory
if sys.argv[1] == "keep":
    assert keep_freed_memory()
network = build("resnet18", 20, size=128).train()
images, labels = torch.rand(32, 3, 128, 128), torch.arange(32) % 20
def used():
    now = resource.getrusage(resource.RUSAGE_SELF)
    return now.ru_utime + now.ru_stime
for step in range(6):
    if step == 1:
        started = used()
    torch.nn.functional.cross_entropy(network(images), labels).backward()
print(used() - started)
"""


def test_keeping_freed_memory_over_returning_it(benchmark: Any) -> None:
    """Processor time of training steps, in the kernel too; the command line keeps freed memory."""

    def measure(how: str) -> float:
        done = subprocess.run([sys.executable, "-c", _STEPS, how], capture_output=True, text=True, check=True)
        return float(done.stdout)

    kept, returned = (min(measure(how) for _ in range(3)) for how in ("keep", "return"))
    benchmark.pedantic(lambda: None, rounds=1)
    note(benchmark, "training step with freed memory kept / returned", kept / returned, "below 1")


def test_a_fine_tuning_step_with_folded_batch_norms_over_without(benchmark: Any) -> None:
    """EfficientNet-Lite0 at 160 px, its last two stages trained, as ``score`` does it on a CPU."""
    network = build_pretrained(LITE0, 20, input_size=160, for_features=False).to(memory_format=torch.channels_last)
    freeze_stages(network.train(), suitable_frozen_stages("finetune", LITE0, "cpu"))
    images, labels = torch.rand(16, 160, 160, 3).permute(0, 3, 1, 2) * 2 - 1, torch.arange(16)

    def step() -> None:
        torch.nn.functional.cross_entropy(network(images), labels).backward()

    plain = least([step] * 6)
    with folded_frozen_layers(network, 160):
        folded = least([step] * 6)
    benchmark.pedantic(lambda: None, rounds=1)
    note(benchmark, "fine-tuning step with batch norms folded / not", folded / plain, "below 1")
