"""Classifiers that train only their last layer: pooled features of the frozen network, then logistic regression.

Each image is read once, so judges with ImageNet weights are ready in a minute where fine-tuning takes an hour on a CPU.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float32, Integer
from torch import Tensor, nn

from dagaug.classifiers.backbones import Network
from dagaug.classifiers.classifier import Classifier, hash_images
from dagaug.classifiers.fit import FitOptions
from dagaug.classifiers.pretrained_networks import build_pretrained
from dagaug.compute.tensors import to_tensor
from dagaug.runtime.errors import UsageError
from dagaug.runtime.progress import SILENT, Progress
from dagaug.runtime.streamed_array import ImageArray, batches

__all__ = ["fit_head", "pooled_features"]

_BATCH = 32
_RIDGE = 1e-3  # penalty on the squared weights of standardised features
_ITERATIONS = 200  # of L-BFGS


def pooled_features(network: Network, images: ImageArray, *, progress: Progress = SILENT) -> Float32[Tensor, "N D"]:
    """What a network's last layer sees of images, on the CPU.

    Args:
        network: a timm network on any device.
        images: RGB.
        progress: receives the number of images read.
    """
    model, device = cast(Any, network.model), network.mean.device
    found = []
    with torch.no_grad(), progress.task("Reading features for the judges", len(images), "images") as task:
        for part in batches(images, _BATCH):
            batch = network.prepare(to_tensor(part, device))
            found.append(model.forward_head(model.forward_features(batch), pre_logits=True).float().cpu())
            task.advance(len(batch))
    return torch.cat(found)


def fit_head(
    options: FitOptions,
    classes: Sequence[str],
    images: ImageArray,
    features: Float32[Tensor, "N D"],
    labels: Integer[np.ndarray, " N"],
    synthetic: tuple[Float32[Tensor, "M D"], Integer[np.ndarray, " M"]] | None = None,
) -> Classifier:
    """Fit the last layer of a pretrained network; the result is deterministic.

    Args:
        options: network, its weights and input size, and the weight of the synthetic images (``synthetic_share``).
        classes: class names.
        images: real training images, whose hashes the classifier remembers.
        features: of the real images, by :func:`pooled_features`.
        labels: their classes.
        synthetic: features and classes of synthetic images.

    Raises:
        UsageError: the network's last layer is not linear.
    """
    sets = [(features, torch.from_numpy(np.asarray(labels, np.int64)), 1.0)]
    if synthetic is not None and len(synthetic[1]):
        share = options.synthetic_share
        sets = [(*sets[0][:2], 1 - share), (synthetic[0], torch.from_numpy(np.asarray(synthetic[1], np.int64)), share)]
    inputs, targets = torch.cat([x for x, _, _ in sets]), torch.cat([y for _, y, _ in sets])
    weight = torch.cat([torch.full((len(y),), share / len(y)) for _, y, share in sets])
    mean, deviation = inputs.mean(0), inputs.std(0).clamp_min(1e-6)
    head = _logistic_regression((inputs - mean) / deviation, targets, weight / weight.sum(), len(classes))
    network = build_pretrained(options.name, len(classes), input_size=options.size, weights=options.weights)
    last = cast(Any, network.model).get_classifier()
    if not isinstance(last, nn.Linear):
        raise UsageError(
            "its last layer is not linear; choose another network", option="classifier", value=options.name
        )
    with torch.no_grad():
        last.weight.copy_(head.weight / deviation)
        last.bias.copy_(head.bias - (head.weight / deviation) @ mean)
    return Classifier(network, classes, options.size, hash_images(images))


def _logistic_regression(
    inputs: Float32[Tensor, "N D"], targets: Integer[Tensor, " N"], weight: Float32[Tensor, " N"], classes: int
) -> nn.Linear:
    head = nn.Linear(inputs.shape[1], classes)
    nn.init.zeros_(head.weight)
    nn.init.zeros_(head.bias)
    optimiser = torch.optim.LBFGS(head.parameters(), max_iter=_ITERATIONS, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimiser.zero_grad()
        losses = F.cross_entropy(head(inputs), targets, reduction="none")
        value = (weight * losses).sum() + _RIDGE * head.weight.square().sum()
        value.backward()
        return value

    optimiser.step(loss)  # type: ignore[arg-type]
    return head
