"""Given masks in place of those that a pose model estimates; a structure keeps everything else."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from dagaug.data.mask_files import PatchMask
from dagaug.model.training_free import PoseStructure

__all__ = ["with_given_masks", "with_masks"]


def with_given_masks(
    estimated: Float[Tensor, "B 1 H W"], given: Sequence[PatchMask | None]
) -> Float[Tensor, "B 1 H W"]:
    """Object masks in [0, 1]: the given ones, in [0, 255], and the estimated ones where none is given."""
    rows = [row for row, mask in enumerate(given) if mask is not None]
    if not rows:
        return estimated
    known = torch.from_numpy(np.stack([mask for mask in given if mask is not None])).to(estimated.device)
    masks = estimated.clone()
    masks[rows] = known[:, None].to(masks.dtype) / 255
    return masks


def with_masks(structure: PoseStructure, given: Sequence[PatchMask | None]) -> PoseStructure:
    """Structures whose objects are the given masks, where there are any."""
    return replace(structure, object=with_given_masks(structure.object, given))
