"""Makes and keeps the model without training of a data set: what ``--checkpoint frozen`` stands for."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from dagaug.classifiers.backbones import LITE0
from dagaug.classifiers.frozen_feature_maps import FeatureExtractor, build_extractor
from dagaug.classifiers.pretrained_networks import absolute_name, licence_of
from dagaug.compute.devices import pick_device
from dagaug.data.dataset_records import Dataset, Sample
from dagaug.data.image_headers import TooLargeError, UnreadableError, read_header
from dagaug.data.mask_files import hash_masks
from dagaug.data.object_patches import Framing, read_patches
from dagaug.model import checkpoint
from dagaug.model.trained_model import FeatureCard, ModelCard, TrainedModel, load_model, save_model
from dagaug.model.training_free_statistics import fit_frozen
from dagaug.runtime.execution_settings import Execution
from dagaug.runtime.output_marks import mark_output
from dagaug.runtime.versions import library_versions

__all__ = ["INPUT_SIZE", "feature_card", "fit_training_free", "suitable_size"]

INPUT_SIZE = 384
"""Side of the frozen network's input; 256 px find fewer parts, 512 px no more (examples/experiments.md)."""

_SMALLEST, _STEP = 64, 32  # of a patch, in pixels
_LOOKED_AT = 100  # images whose size is looked at
_LITE0_WEIGHTS = (1.0, 1.5, 1.0)  # of the three layers in the similarity


def suitable_size(dataset: Dataset, samples: Sequence[Sample], framing: Framing, largest: int) -> int:
    """Side of a patch in pixels: the median object with its margin, in steps of 32 from 64 to ``largest``.

    Args:
        dataset: the data set.
        samples: some of its images; at most 100 of them, at equal distances, are looked at.
        framing: how patches are cut; its size does not matter. An image without a box is its own object.
        largest: upper bound in pixels.
    """
    few = [
        samples[row] for row in np.unique(np.linspace(0, len(samples) - 1, min(len(samples), _LOOKED_AT)).astype(int))
    ]
    sides = [side for side in (_object_side(dataset.file(sample), sample, framing) for sample in few) if side]
    if not sides:
        return largest
    return int(min(max(float(np.median(sides)) // _STEP * _STEP, _SMALLEST), largest))


def _object_side(file: Path, sample: Sample, framing: Framing) -> float | None:
    """Side in pixels of the square that a patch shows; None if the file cannot be read."""
    if sample.box is not None and framing.crop == "box":
        return max(sample.box[2:]) * (1 + 2 * framing.margin)
    try:
        header = read_header(file.read_bytes())
    except (OSError, UnreadableError, TooLargeError):
        return None
    return float((max if framing.fit == "letterbox" else min)(header.height, header.width))


def fit_training_free(
    dataset: Dataset,
    root: Path,
    *,
    name: str,
    per_class: int | None = None,
    size: int | None = None,
    framing: Framing | None = None,
    features: str = LITE0,
    weights: Path | None = None,
    execution: Execution = Execution(),
) -> TrainedModel:
    """Load the model without training of a data set, or fit and save it.

    Args:
        dataset: its training images are used, no others.
        root: folder of runs; the model lies in a folder of it whose name begins with ``name``-frozen.
        name: name of the data set, for display.
        per_class: largest number of training images of each class; None for all.
        size: side of a patch in pixels; None follows from the boxes, up to 224 px on a CPU and 256 px on a GPU.
        framing: how patches are cut, instead of ``size``.
        features: frozen network, a name of :func:`dagaug.classifiers.pretrained_networks.build_pretrained`.
        weights: file of weights in place of those that belong to the name.
        execution: where to compute, and how to read images; its progress receives the number of images read.

    Raises:
        UsageError: the network is unknown, or the size is no multiple of 16.
        CheckpointError: the weights cannot be fetched or do not fit.
        DataError: no training image can be read.
    """
    device, progress, features = pick_device(execution.device), execution.progress, absolute_name(features)
    train = dataset.subset(per_class).train
    if framing is None:
        largest = 224 if device.type == "cpu" else 256
        framing = Framing().with_size(size or suitable_size(dataset, train, Framing(), largest))
    extractor = build_extractor(features, input_size=INPUT_SIZE, weights=weights)
    card = ModelCard(
        mode="reference", classes=dataset.classes, framing=framing, regions=1, half_size=1.0, sharpness=1.0, steps=0,
        seed=0, data=name, per_class=per_class, split_seed=dataset.split_seed,
        features=feature_card(features, weights, extractor),
    )  # fmt: skip
    folder = root / f"{name}-{checkpoint.FROZEN}-{_identity(card, train)}"
    if (folder / checkpoint.MODEL_FILE).exists():
        progress.say(f"{folder}: using this model without training, made before")
        return load_model(folder)
    patches = read_patches(dataset, train, framing, masks=True, execution=execution)
    progress.say(
        f"Morphs without training: frozen {features}, patches of {framing.size} px, {len(patches.samples)} images"
    )
    assert card.features is not None
    translator = fit_frozen(
        patches.images, patches.boxes(), extractor, layer_weights=card.features.layer_weights,
        masks=patches.masks, execution=execution,
    )  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    mark_output(folder, "run")
    save_model(folder / checkpoint.MODEL_FILE, card, translator.dae.reduction.state_dict())
    return load_model(folder)


def feature_card(
    features: str, weights: Path | None, extractor: FeatureExtractor, *, dimensions: int = 48
) -> FeatureCard:
    """Description of a frozen network, whose features are reduced to ``dimensions``."""
    layers = len(extractor.layers)
    return FeatureCard(
        name=features,
        weights="" if weights is None else str(weights.absolute()),
        weights_sha256=extractor.sha256(),
        licence=licence_of(extractor.network, weights),
        input_size=extractor.network.input_size,
        layer_weights=_LITE0_WEIGHTS if features == LITE0 else (1.0,) * layers,
        dimensions=min(dimensions, sum(extractor.channels)),
        grid=32,
    )


def _identity(card: ModelCard, train: Sequence[Sample]) -> str:
    """Eight hexadecimal digits of a hash of everything that the model depends on."""
    files = [(sample.path.as_posix(), sample.label, sample.box) for sample in train]
    versions = library_versions("torch", "timm", "opencv-python", "numpy")
    masks = hash_masks(train)
    everything = [card.model_dump(mode="json"), files, versions, *([masks] if masks else [])]
    text = json.dumps(everything, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:8]
