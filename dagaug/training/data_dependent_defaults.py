"""Preset, frozen network and patch size that suit a data set, where the user names none."""

from __future__ import annotations

from dagaug.compute.devices import pick_device
from dagaug.data.dataset_records import Dataset
from dagaug.data.object_patches import Framing
from dagaug.model.task_presets import PRESETS
from dagaug.model.training_free_checkpoint import suitable_size

__all__ = ["suit_data"]

_SMALL = 96  # px; the frozen network finds parts of larger objects only
_SMALL_PATCH = 64
_LARGEST = {"cpu": 128, "cuda": 256}
_NONE = "none"


def suit_data(
    dataset: Dataset, framing: Framing, *, preset: str, features: str | None, size: int | None, device: str
) -> tuple[str, str | None, int, str]:
    """Choose what the user left open for pose morphing.

    Args:
        dataset: only its training images are looked at.
        framing: how patches are cut; its size does not matter.
        preset: ``auto``, or the name of a preset.
        features: frozen network; ``none`` stands for the preset ``pose``; None leaves the choice open.
        size: side of the patches in pixels; None leaves the choice open.
        device: where to train.

    Returns:
        preset, frozen network or None, patch size, and a line that names them.
    """
    largest = _LARGEST.get(pick_device(device).type, _LARGEST["cpu"])
    suitable = suitable_size(dataset, dataset.train, framing, largest)
    if preset == "auto":
        small = suitable < _SMALL and features is None
        preset = "pose" if features == _NONE or small else "photos"
    frozen = None if features == _NONE else features
    on_features = preset in PRESETS and PRESETS[preset].features is not None
    side = size or (suitable if on_features else _SMALL_PATCH)
    how = f"frozen {frozen or PRESETS[preset].features}" if on_features else "all networks trained"
    return preset, frozen, side, f"Preset {preset} ({how}), patches of {side} px"
