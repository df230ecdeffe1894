"""Dense correspondence between two images from the similarities of their features.

A flow says for each cell of the reference's grid where in the source it is found. Positions are x, y in [-1, 1], as in
``torch.nn.functional.grid_sample`` with ``align_corners=False``. Letters: B pairs, n cells of the reference (row by
row), m cells of the source.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from dagaug.model.known_warps import identity_grid

__all__ = ["enlarge_flow", "mutual_share", "refine_flow", "similarities"]

_TEMPERATURE = 0.05  # of the softmax of cosine similarities
_REACH = 0.12  # distance between a cell and where it comes back to at which confidence falls to 0.61
_AFFINE_WIDTH = 0.4  # standard deviation of the prior round the affine map
_ROUNDS = ((0.24, 2.0), (0.16, 1.5))  # standard deviation of the prior, and of the blur in cells, one pair a round
_LAST_BLUR = 1.2  # cells; a warp along a flow that is not blurred has creases (examples/experiments.md)
_NEAR = 2  # cells round the object that are looked at, too
_EMPTY = 0.01  # weight up to which a cell lies off the object
_FAR = 0.6  # distance from the affine map at which a match counts for 0.61 in the smoothed flow


def _cells(side: int, like: Tensor) -> Float[Tensor, "n 2"]:
    return identity_grid(side, like.device).to(like.dtype).flatten(0, 1)


def _squared_distances(a: Float[Tensor, "n 2"], b: Float[Tensor, "m 2"]) -> Float[Tensor, "n m"]:
    return (a.square().sum(-1, keepdim=True) + b.square().sum(-1) - 2 * a @ b.mT).clamp_min(0)


def _cycle_confidence(scores: Float[Tensor, "B n m"], reach: float) -> Float[Tensor, "B n"]:
    """How near each reference cell comes back to itself by its best match's best match, in [0, 1]."""
    places = _cells(round(scores.shape[1] ** 0.5), scores)
    back = scores.argmax(1).gather(1, scores.argmax(2))
    gap = (places[back] - places).square().sum(-1)
    return torch.exp(-gap / (2 * reach**2))


def mutual_share(scores: Float[Tensor, "B n m"], weight: Float[Tensor, "B n"]) -> Float[Tensor, " B"]:
    """Weighted share of reference cells that are the best match of their best match, give or take one cell.

    Args:
        scores: cosine similarities.
        weight: of each reference cell, in [0, 1]: 1 on the object.

    Returns:
        Shares in [0, 1].
    """
    cell = 2 / round(scores.shape[1] ** 0.5)
    near = (_cycle_confidence(scores, cell) > 0.3).to(scores.dtype)
    return (near * weight).sum(1) / weight.sum(1).clamp_min(1e-6)


def _fit_affine(
    places: Float[Tensor, "n 2"], flow: Float[Tensor, "n 2"], weight: Float[Tensor, " n"], *, rounds: int = 5
) -> Float[Tensor, "3 2"]:
    """The affine map of (x, y, 1) that most of a flow agrees with: least squares with Geman-McClure weights."""
    ones = torch.cat([places, torch.ones_like(places[:, :1])], -1)
    # A weak pull towards the identity keeps the fit sane where few matches are trusted.
    pull = 1e-3 * weight.sum().clamp_min(1.0) * (ones.T @ ones / len(ones))
    eye = 1e-6 * torch.eye(3, dtype=flow.dtype, device=flow.device)
    robust = torch.ones_like(weight)
    for _ in range(rounds):
        trust = (weight * robust)[:, None]
        found = torch.linalg.solve(ones.T @ (trust * ones) + pull + eye, ones.T @ (trust * flow) + pull[:, :2])
        robust = (1 + (flow - ones @ found).square().sum(-1) / 0.2**2).pow(-2)
    return found


def _smooth(flow: Float[Tensor, "B n 2"], weight: Float[Tensor, "B n"], width: float) -> Float[Tensor, "B n 2"]:
    """Gaussian blur of a flow with a standard deviation of ``width`` cells; cells count by their weight."""
    side = round(flow.shape[1] ** 0.5)
    maps = torch.cat([flow * weight[..., None], weight[..., None]], -1).mT.reshape(-1, 3, side, side)
    reach = min(max(1, round(2.5 * width)), side - 1)
    line = torch.arange(-reach, reach + 1, dtype=flow.dtype, device=flow.device)
    kernel = torch.exp(-line.square() / (2 * width**2))
    kernel = (kernel / kernel.sum()).expand(3, 1, 1, -1)
    padded = F.pad(maps, (reach, reach, reach, reach), mode="replicate")
    blurred = F.conv2d(F.conv2d(padded, kernel, groups=3), kernel.mT, groups=3)
    return (blurred[:, :2] / blurred[:, 2:].clamp_min(1e-6)).flatten(2).mT


def refine_flow(scores: Float[Tensor, "B n m"], weight: Float[Tensor, "B n"]) -> Float[Tensor, "B n 2"]:
    """Turn similarities into a flow that is smooth where matches are doubtful.

    The affine map that most matches agree with, then the smoothed flow itself, serve as Gaussian priors for the next
    look at the similarities. Each look takes the expected position under a softmax, narrowed to a window round the
    best match. The result is smoothed once more. Only cells on the object or near it are looked at; the others
    continue the smoothed flow.

    Args:
        scores: cosine similarities.
        weight: of each reference cell, in [0, 1]: 1 on the object.
    """
    with torch.autocast(scores.device.type, enabled=False):
        return torch.stack([_refine_one(one, where) for one, where in zip(scores.float(), weight.float(), strict=True)])


def similarities(reference: Float[Tensor, "B K g g"], source: Float[Tensor, "B K g g"]) -> Float[Tensor, "B n n"]:
    """Cosines of each cell of the references (rows) and each cell of the sources, from keys of unit length.

    In 32 bits also under autocast: positions of 1/1000 of the image are lost in 16.
    """
    with torch.autocast(source.device.type, enabled=False):
        return reference.float().flatten(2).mT @ source.float().flatten(2)


def _refine_one(scores: Float[Tensor, "n m"], weight: Float[Tensor, " n"]) -> Float[Tensor, "n 2"]:
    side = round(scores.shape[0] ** 0.5)
    places = _cells(side, scores)
    trust = _cycle_confidence(scores[None], _REACH)[0] * weight
    near = F.max_pool2d(weight.view(1, 1, side, side), 2 * _NEAR + 1, 1, _NEAR).flatten() > _EMPTY
    rows = torch.nonzero(near)[:, 0]
    if not len(rows):
        return places
    here, sure = places[rows], trust[rows]
    logits = scores[rows] / _TEMPERATURE
    window = 4 / side

    def look(prior: Tensor | None) -> Tensor:
        best = (logits if prior is None else logits - prior).argmax(1)
        narrow = _squared_distances(places[best], places) / (2 * window**2)
        return torch.softmax(logits - narrow, -1) @ places

    def deviation(flow: Tensor, fitted: Tensor, blur: float) -> Tensor:
        """The smoothed difference of a flow from the affine map, everywhere."""
        agree = torch.exp(-(flow - fitted).square().sum(-1) / (2 * _FAR**2))
        offset, counts = torch.zeros_like(places), torch.full_like(weight, 1e-6)
        offset[rows], counts[rows] = flow - fitted, sure * agree + 1e-4
        return _smooth(offset[None], counts[None], blur)[0]

    flow = look(None)
    everywhere = torch.cat([places, torch.ones_like(places[:, :1])], -1) @ _fit_affine(here, flow, sure)
    fitted = everywhere[rows]
    flow = look(_squared_distances(fitted, places) / (2 * _AFFINE_WIDTH**2))
    for width, blur in _ROUNDS:
        smooth = deviation(flow, fitted, blur)
        flow = look(_squared_distances(fitted + smooth[rows], places) / (2 * width**2))
    return everywhere + deviation(flow, fitted, _LAST_BLUR)


def enlarge_flow(flow: Float[Tensor, "B n 2"], size: int) -> Float[Tensor, "B {size} {size} 2"]:
    """A flow on a grid of cells at the resolution of an image, extrapolated at its border."""
    side = round(flow.shape[1] ** 0.5)
    here = identity_grid(side, flow.device).to(flow.dtype)
    offset = (flow.unflatten(1, (side, side)) - here).permute(0, 3, 1, 2)
    large = F.interpolate(offset, (size, size), mode="bilinear", align_corners=False)
    return large.permute(0, 2, 3, 1) + identity_grid(size, flow.device).to(flow.dtype)
