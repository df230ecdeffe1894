"""Identity, error and pose of a run's morphs against true answers (examples/results.md, "Built-in birds", "Aircraft").

    dagaug sample-data ./cub --pose-band narrow && dagaug train ./cub --out runs/cub
    dagaug sample-data ./plenty --pose-band all --per-class 150 --test-per-class 1
    python examples/quality.py runs/cub ./cub --plenty ./plenty --sheet birds.png

    python examples/quality.py runs/aircraft AIRCRAFT --plenty AIRCRAFT --pairs AIRCRAFT/pairs.csv

Two judges are trained on all images of PLENTY, a folder of the same classes. One predicts the class; the other, for the
built-in birds only, predicts facing, tilt, neck and wing. Masks are the networks' outputs.
"""

from __future__ import annotations

import csv
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import cv2
import numpy as np
import torch
import typer
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch.nn import functional as F

from dagaug.birds.dataset import true_morph
from dagaug.classifiers.backbones import Network, build, network_for
from dagaug.classifiers.classifier import Classifier
from dagaug.classifiers.fit import FitOptions, fit
from dagaug.compute.tensors import to_pixels, to_tensor
from dagaug.data.dataset_records import Dataset
from dagaug.data.grabcut_and_inpainting import fill_background
from dagaug.data.image_files import decode
from dagaug.data.layouts import read_dataset
from dagaug.data.object_patches import Patches, read_patches
from dagaug.data.square_crops import cut, cut_mask
from dagaug.model.mode_translators import ReferenceTranslator, composite
from dagaug.model.trained_model import load_model
from dagaug.runtime.execution_settings import Execution

CPU = torch.device("cpu")
POSE = {"facing": 1.0, "tilt": 35.0, "neck": 25.0, "wing": 60.0}  # unit of each value, in degrees but for facing


@dataclass(frozen=True)
class Pairs:
    """Pairs of patches (rows of ``patches``) and their true answers with masks."""

    source: np.ndarray
    reference: np.ndarray
    truth: np.ndarray
    mask: np.ndarray


def relative(path: Path) -> Path:
    """A bird's path below ``images/``."""
    return path.relative_to("images") if path.parts[0] == "images" else path


def birds(root: Path, patches: Patches, count: int, seed: int) -> Pairs:
    """Random pairs of different species with their true answers."""
    rng = np.random.default_rng(seed)
    source = rng.integers(len(patches.samples), size=count)
    reference = np.array([rng.choice(np.flatnonzero(patches.labels != patches.labels[row])) for row in source])
    size, answers, masks = patches.images.shape[1], [], []
    for s, t in zip(source, reference, strict=True):
        true = true_morph(root, relative(patches.samples[s].path), relative(patches.samples[t].path))
        answers.append(cut(true.image, patches.regions[t], size))
        masks.append(cut_mask(true.mask.astype(np.float32), patches.regions[t], size))
    return Pairs(source, reference, np.stack(answers), np.stack(masks))


def pairs_of_table(table: Path, patches: Patches) -> Pairs:
    """Pairs of a CSV with the columns s, t, gt and gt_mask; files are relative to it."""
    row_of = {sample.path.as_posix(): row for row, sample in enumerate(patches.samples)}
    size, rows = patches.images.shape[1], []
    with table.open(newline="") as stream:
        for line in csv.DictReader(stream):
            s, t = row_of[line["s"]], row_of[line["t"]]
            mask = decode(table.parent / line["gt_mask"]).mean(-1, dtype=np.float32) / 255
            answer = cut(decode(table.parent / line["gt"]), patches.regions[t], size)
            rows.append((s, t, answer, cut_mask(mask, patches.regions[t], size)))
    source, reference, answers, masks = zip(*rows, strict=True)
    return Pairs(np.array(source), np.array(reference), np.stack(answers), np.stack(masks))


@torch.inference_mode()
def morphs(translator: ReferenceTranslator, patches: Patches, pairs: Pairs) -> tuple[np.ndarray, np.ndarray]:
    """Morphs on their references' inpainted backgrounds, and their masks."""
    images, masks = [], []
    for start in track(range(0, len(pairs.source), 50), "Morphing"):
        s, t = pairs.source[start : start + 50], pairs.reference[start : start + 50]
        structure, appearance = translator.read(to_tensor(patches.images[s], CPU))
        target, _ = translator.read(to_tensor(patches.images[t], CPU))
        background = np.stack(
            [fill_background(patches.images[row], target.object[k, 0].numpy())[0] for k, row in enumerate(t)]
        )
        morph = translator.finished(appearance, structure, target)
        images.append(to_pixels(composite(morph, to_tensor(background, CPU))))
        masks.append(morph.mask[:, 0].numpy())
    return np.concatenate(images), np.concatenate(masks)


def poses(data: Dataset, patches: Patches) -> np.ndarray:
    """Poses of the built-in birds, in the units of :data:`POSE`."""
    with (data.root / "metadata.csv").open(newline="") as stream:
        rows = {line["path"]: line for line in csv.DictReader(stream)}
    found = [rows[relative(sample.path).as_posix()] for sample in patches.samples]
    return np.array([[float(row[name]) / unit for name, unit in POSE.items()] for row in found], np.float32)


def pose_reader(images: np.ndarray, target: np.ndarray, steps: int, cache: Path) -> Network:
    """A small network that predicts poses from patches; trained, or read from ``cache``."""
    torch.manual_seed(0)
    network = build("resnet10t", len(POSE), size=images.shape[1])
    if cache.exists():
        network.load_state_dict(torch.load(cache, weights_only=True))
        return network.eval()
    rng, optimizer = np.random.default_rng(0), torch.optim.AdamW(network.parameters(), 2e-3)
    for step in track(range(steps), "Training the pose judge"):
        for group in optimizer.param_groups:
            group["lr"] = 2e-3 * (0.5 + 0.5 * math.cos(math.pi * step / steps))
        rows = rng.integers(len(images), size=32)
        batch, answer = to_tensor(images[rows], CPU), torch.from_numpy(target[rows])
        batch = batch * (0.8 + 0.4 * torch.rand(32, 1, 1, 1)) + 0.2 * torch.randn(32, 3, 1, 1)
        shift = rng.integers(-4, 5, size=2)
        batch = torch.roll(batch, tuple(shift.tolist()), (2, 3))
        mirrored = torch.from_numpy(rng.random(32) < 0.5)
        batch = torch.where(mirrored[:, None, None, None], batch.flip(-1), batch)
        answer[:, 0] *= 1 - 2 * mirrored.float()
        loss = F.smooth_l1_loss(network(batch), answer, beta=0.1)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    torch.save(network.state_dict(), cache)
    return network.eval()


@torch.inference_mode()
def pose_errors(network: Network, images: np.ndarray, target: np.ndarray) -> list[float]:
    """Share of images with the right facing, and mean errors of the angles in degrees."""
    read = torch.cat([network(to_tensor(images[k : k + 100], CPU)) for k in range(0, len(images), 100)]).numpy()
    right = float(((read[:, 0] > 0) == (target[:, 0] > 0)).mean())
    angles = np.abs(read - target).mean(0)[1:] * np.array(list(POSE.values()))[1:]
    return [right, *angles.tolist()]


def identity_judge(plenty: Dataset, patches: Patches, network: str, steps: int, cache: Path) -> Classifier:
    """A classifier trained on all images of PLENTY, or read from ``cache``."""
    if cache.exists():
        return Classifier.load(cache)
    size = patches.images.shape[1]
    judge = fit(
        patches.images, patches.labels, plenty.classes,
        FitOptions(name=network_for(network, size), size=size, steps=steps), seed=0, execution=Execution("cpu"),
    )  # fmt: skip
    judge.save(cache)
    return judge


def main(
    run: Path,
    data: Path,
    plenty: Annotated[Path, typer.Option(help="Folder with many images of the same classes, to train the judges on.")],
    pairs: Annotated[
        Path | None, typer.Option(help="CSV of pairs with true answers (default: random pairs of the built-in birds).")
    ] = None,
    count: Annotated[int, typer.Option(help="Number of random pairs of birds.")] = 400,
    steps: Annotated[int, typer.Option(help="Training steps of each judge.")] = 1500,
    network: Annotated[str, typer.Option(help="timm name of the class judge.")] = "auto",
    cache: Annotated[Path, typer.Option(help="Folder of the trained judges.")] = Path("judges"),
    sheet: Annotated[Path | None, typer.Option(help="Image file to write: source, reference, morph, truth.")] = None,
    seed: int = 5,
) -> None:
    """Measure a run's morphs against true answers."""
    model = load_model(run)
    assert isinstance(model.translator, ReferenceTranslator)
    framing, dataset = model.card.framing, read_dataset(data)
    patches = read_patches(dataset, dataset.train if pairs is None else dataset.samples, framing)
    chosen = birds(data, patches, count, seed) if pairs is None else pairs_of_table(pairs, patches)
    made, masks = morphs(model.translator, patches, chosen)
    cache.mkdir(parents=True, exist_ok=True)
    judge_data = read_dataset(plenty)
    judge_patches = read_patches(judge_data, judge_data.samples, framing)
    judge = identity_judge(
        judge_data, judge_patches, network, steps, cache / f"{network}-{plenty.name}-{framing.size}.safetensors"
    )
    reader = target = None
    if pairs is None:
        reader = pose_reader(
            judge_patches.images[:],
            poses(judge_data, judge_patches),
            steps,
            cache / f"pose-{plenty.name}-{framing.size}.pt",
        )
        target = poses(dataset, patches)[chosen.reference]
    union = np.maximum(chosen.mask, masks)[..., None]
    answers = {
        "copy of the source": patches.images[chosen.source],
        "copy of the reference": patches.images[chosen.reference],
        "morph": made,
        "truth": chosen.truth,
    }
    table = Table("answer", "identity", "error", "mask IoU", "faces right", "tilt °", "neck °", "wing °")
    result: dict[str, dict[str, float]] = {}
    label = patches.labels[chosen.source]
    for name, images in answers.items():
        row = {
            "identity": float((judge.probabilities(images).argmax(1) == label).mean()),
            "error": float((np.abs(images.astype(float) - chosen.truth) * union).sum() / (union.sum() * 3) / 255),
        }
        if name == "morph":
            both, either = (masks > 0.5) & (chosen.mask > 0.5), (masks > 0.5) | (chosen.mask > 0.5)
            row["overlap"] = float((both.sum((1, 2)) / either.sum((1, 2))).mean())
        if reader is not None and target is not None:
            row |= dict(zip(("facing", "tilt", "neck", "wing"), pose_errors(reader, images, target), strict=True))
        result[name] = row
        keys = ("identity", "error", "overlap", "facing", "tilt", "neck", "wing")
        digits = (3, 3, 2, 2, 1, 1, 1)
        table.add_row(name, *(f"{row[k]:.{n}f}" if k in row else "" for k, n in zip(keys, digits, strict=True)))
    Console(width=110).print(table)
    print(json.dumps(result))
    if sheet is not None:
        rows = np.concatenate([patches.images[chosen.source], patches.images[chosen.reference], made, chosen.truth], 2)[
            : 3 * (len(made) // 3)
        ][:36]
        picture = np.concatenate([np.concatenate(list(rows[first::3])) for first in range(3)], 1)
        cv2.imwrite(str(sheet), picture[:, :, ::-1])


if __name__ == "__main__":
    typer.run(main)
