"""Loss terms of DA-GAN (eqs. 5 to 9) and of the exact supervision of pose morphing, as pure functions.

Expectations over images are means over the batch. Logits are unbounded, images in [-1, 1], masks in [0, 1].
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from dagaug.model.known_warps import sample
from dagaug.model.mode_translators import fineness

__all__ = [
    "Scalar",
    "adversarial_loss",
    "consistency_loss",
    "correspondence_loss",
    "detail_loss",
    "discriminator_loss",
    "equivariance_loss",
    "flow_loss",
    "full_objective",
    "inside_loss",
    "label_loss",
    "object_loss",
    "pose_loss",
    "separation_loss",
    "symmetry_loss",
    "truth_at",
]

Scalar = Float[Tensor, ""]
"""A single number."""


# ---- the paper's terms


def label_loss(logits: Float[Tensor, "B Y"], labels: Int[Tensor, " B"]) -> Scalar:
    """The "geometric regularization" E[d(Y, DAE(X))] of Sec. 3.1 for a classifier d: cross-entropy."""
    return F.cross_entropy(logits, labels)


def consistency_loss(source: Float[Tensor, "B C"], translated: Float[Tensor, "B C"]) -> Scalar:
    """L_cst (eq. 5): d(DAE(s), DAE(F(s))), the mean squared distance of unit-length representations; 0 when equal."""
    return (F.normalize(source, dim=1) - F.normalize(translated, dim=1)).square().sum(1).mean()


def symmetry_loss(
    target: Float[Tensor, "B C H W"],
    reconstructed: Float[Tensor, "B C H W"],
    weight: Float[Tensor, "B 1 H W"] | None = None,
    scales: int = 3,
) -> Scalar:
    """L_sym (eq. 6): d(t, F(t)) as L1 distance on ``scales`` sizes, each half the one before.

    At smaller sizes a slightly displaced detail costs less than a missing one.

    Args:
        target: t.
        reconstructed: F(t).
        weight: weight of each pixel (the object's mask); 1 by default.
        scales: number of sizes; the result is the mean over them.
    """
    weight = torch.ones_like(target[:, :1]) if weight is None else weight
    difference = (target - reconstructed) * weight
    total = target.new_zeros(())
    for scale in range(scales):
        if scale:
            difference, weight = F.avg_pool2d(difference, 2), F.avg_pool2d(weight, 2)
        area = weight.sum((1, 2, 3)) * target.shape[1] + 1e-6
        total = total + (difference.abs().sum((1, 2, 3)) / area).mean()
    return total / scales


def detail_loss(
    target: Float[Tensor, "B C H W"], drawn: Float[Tensor, "B C H W"], mask: Float[Tensor, "B 1 H W"], cell: int = 4
) -> Scalar:
    """Difference of the amount of fine detail in each cell, so that drawn images are as sharp as the target.

    The L1 loss alone is smallest if everything uncertain is blurred. This loss needs an edge somewhere in the cell, at
    any place.

    Args:
        target: the true image.
        drawn: the generated image.
        mask: weight of each pixel.
        cell: side of the cells in pixels.
    """
    weight = F.avg_pool2d(mask, cell)
    difference = (fineness(target, mask, cell) - fineness(drawn, mask, cell)).abs() * weight
    return difference.sum() / (weight.sum() + 1e-6)


def discriminator_loss(real: Float[Tensor, " R"], fake: Float[Tensor, " F"]) -> Scalar:
    """Loss of D1 (eq. 7) or D2 (eq. 8): -E[log D(t)] - E[log(1 - D(F(·)))], with D = sigmoid(logits)."""
    return F.softplus(-real).mean() + F.softplus(fake).mean()


def adversarial_loss(fake: Float[Tensor, " F"]) -> Scalar:
    """Loss of F against D1 or D2: -E[log D(F(·))], the non-saturating form that Sec. 3.3 gives for D2."""
    return F.softplus(-fake).mean()


def full_objective(terms: Mapping[str, Tensor], weights: Mapping[str, float]) -> Scalar:
    """Eq. 9: the weighted sum of all terms (α and β are the weights of consistency and symmetry).

    Raises:
        KeyError: a term has no weight.
    """
    return torch.stack([weights[name] * term for name, term in terms.items()]).sum()


# ---- exact supervision for pose morphing (not in the paper)


def object_loss(logits: Float[Tensor, "B 1 H W"], mask: Float[Tensor, "B 1 H W"]) -> Scalar:
    """Binary cross-entropy of the object's mask."""
    return F.binary_cross_entropy_with_logits(logits, mask)


def flow_loss(
    flow: Float[Tensor, "B h w 2"], truth: Float[Tensor, "B H W 2"], mask: Float[Tensor, "B 1 H W"]
) -> Scalar:
    """Mean L1 distance between flow and true flow inside the object; both are sampling grids."""
    size = flow.shape[1]
    truth, mask = truth_at(truth, size), F.interpolate(mask, (size, size), mode="area")[:, 0]
    distance = (flow - truth).abs().sum(-1)
    return (distance * mask).sum() / (mask.sum() + 1e-6)


def truth_at(grid: Float[Tensor, "B H W 2"], size: int) -> Float[Tensor, "B {size} {size} 2"]:
    """The true sampling grid, resized to ``size`` × ``size``."""
    moved = F.interpolate(grid.permute(0, 3, 1, 2), (size, size), mode="bilinear", align_corners=False, antialias=True)
    return moved.permute(0, 2, 3, 1)


def correspondence_loss(
    log_match: Float[Tensor, "B hw hw"], truth: Float[Tensor, "B H W 2"], mask: Float[Tensor, "B 1 H W"]
) -> Scalar:
    """Cross-entropy of the correspondence; the target is spread bilinearly over the four cells around the true point.

    Args:
        log_match: log-probabilities, cells of the result × cells of the source.
        truth: the true sampling grid.
        mask: mask of the object in the result; only its cells count.
    """
    side = round(log_match.shape[1] ** 0.5)
    grid = truth_at(truth, side).flatten(1, 2)  # B hw 2
    weight = F.interpolate(mask, (side, side), mode="area").flatten(1)  # B hw
    position = ((grid + 1) * side - 1) / 2
    inside = ((position > -0.5) & (position < side - 0.5)).all(-1)
    base = position.floor()
    share = position - base
    loss = torch.zeros_like(weight)
    for dx in (0, 1):
        for dy in (0, 1):
            x, y = (base[..., 0] + dx).clamp(0, side - 1), (base[..., 1] + dy).clamp(0, side - 1)
            part = (share[..., 0] if dx else 1 - share[..., 0]) * (share[..., 1] if dy else 1 - share[..., 1])
            cell = (y * side + x).long().unsqueeze(-1)
            loss = loss - part * log_match.gather(-1, cell)[..., 0]
    weight = weight * inside
    return (loss * weight).sum() / (weight.sum() + 1e-6)


def equivariance_loss(
    warped_centres: Float[Tensor, "B N 2"], centres: Float[Tensor, "B N 2"], truth: Float[Tensor, "B H W 2"]
) -> Scalar:
    """Centres must move with the object: L1 distance of the warped image's centres, mapped back, to the centres."""
    came_from = sample(truth.permute(0, 3, 1, 2), warped_centres[:, :, None])[..., 0].transpose(1, 2)  # B N 2
    return (came_from - centres).abs().sum(-1).mean()


def separation_loss(centres: Float[Tensor, "B N 2"], reach: float = 0.15) -> Scalar:
    """Mean overlap of Gaussians around the centres: 0 if all are far from each other, 1 if all are equal."""
    count = centres.shape[1]
    if count < 2:
        return centres.new_zeros(())
    distance = (centres[:, :, None] - centres[:, None]).square().sum(-1)
    different = ~torch.eye(count, dtype=torch.bool, device=centres.device)
    return torch.exp(-distance[:, different] / (2 * reach**2)).mean()


def inside_loss(centres: Float[Tensor, "B N 2"], mask: Float[Tensor, "B 1 H W"]) -> Scalar:
    """Mean of 1 - mask at the centres; the mask is blurred, so that the gradient leads back to the object."""
    blurred = F.avg_pool2d(F.interpolate(mask, (16, 16), mode="area"), 5, 1, 2, count_include_pad=False)
    return 1 - sample(blurred, centres[:, :, None]).mean()


def pose_loss(
    reference_centres: Float[Tensor, "B N 2"],
    centres: Float[Tensor, "B N 2"],
    reference_keys: Float[Tensor, "B K h w"],
    keys: Float[Tensor, "B K h w"],
    mask: Float[Tensor, "B 1 h w"],
) -> Scalar:
    """L_cst of the pose in ``reference`` mode: centres and keys of s′ must agree with the reference's."""
    differing = (1 - (reference_keys * keys).sum(1, keepdim=True)) * mask
    return (reference_centres - centres).abs().sum(-1).mean() + differing.sum() / (mask.sum() + 1e-6)
