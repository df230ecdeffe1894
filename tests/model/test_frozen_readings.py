"""Frozen features and masks: the same bits with and without the cache, and what an entry depends on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dagaug.classifiers.frozen_feature_maps import FeatureExtractor, build_extractor
from dagaug.compute.tensors import to_tensor
from dagaug.data.dataset_records import Dataset
from dagaug.data.object_patches import Framing, Patches, read_patches
from dagaug.model.frozen_encoder_translator import FeatureTranslator
from dagaug.model.frozen_readings import FrozenReader, StructureReader
from dagaug.model.task_presets import AttentionSettings
from dagaug.model.training_free import FrozenTranslator
from dagaug.model.training_free_statistics import fit_frozen
from dagaug.runtime.disk_cache import DiskCache
from dagaug.runtime.execution_settings import Execution

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def patches(birds: Dataset) -> Patches:
    return read_patches(birds, birds.train[:6], Framing(size=64))


@pytest.fixture(scope="module")
def extractor() -> FeatureExtractor:
    torch.manual_seed(2)
    return build_extractor("test_resnet", input_size=96, pretrained=False)


@pytest.fixture(scope="module")
def translator(patches: Patches, extractor: FeatureExtractor) -> FrozenTranslator:
    return fit_frozen(patches.images[:], patches.boxes(), extractor)


def asleep(monkeypatch: pytest.MonkeyPatch) -> None:
    """The frozen network is asked for nothing from here on."""

    def refuse(*arguments: Any) -> None:
        raise AssertionError("the frozen network ran")

    monkeypatch.setattr(FeatureExtractor, "forward", refuse)


def bits(structure: Any) -> list[bytes]:
    return [getattr(structure, name).numpy().tobytes() for name in ("object", "keys", "mirrored")]


def test_the_cache_gives_the_same_bits_without_the_network(
    translator: FrozenTranslator, patches: Patches, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    boxes = patches.boxes()
    plain = bits(StructureReader(translator, CPU).structure(patches.images[:], boxes))
    assert bits(StructureReader(translator, CPU, DiskCache(tmp_path)).structure(patches.images[:], boxes)) == plain
    asleep(monkeypatch)
    reader = StructureReader(translator, CPU, DiskCache(tmp_path))
    assert bits(reader.structure(patches.images[:], boxes)) == plain
    assert reader.masks(patches.images[:], boxes).numpy().tobytes() == plain[0]


def test_a_reading_is_that_of_the_translator_in_16_bits(translator: FrozenTranslator, patches: Patches) -> None:
    boxes = patches.boxes()
    read = StructureReader(translator, CPU).structure(patches.images[:], boxes)
    direct = translator.structure(to_tensor(patches.images[:], CPU), boxes)
    torch.testing.assert_close(read.object, direct.object, atol=0.01, rtol=0)
    torch.testing.assert_close(read.keys, direct.keys, atol=2e-3, rtol=0)
    torch.testing.assert_close(read.mirrored, direct.mirrored, atol=2e-3, rtol=0)


def test_a_reading_does_not_depend_on_the_other_images(translator: FrozenTranslator, patches: Patches) -> None:
    reader, boxes = StructureReader(translator, CPU), patches.boxes()
    together = reader.structure(patches.images[:], boxes)
    alone = reader.structure(patches.images[3:4], boxes[3:4])
    assert bits(together[torch.tensor([3])]) == bits(alone)


@pytest.mark.parametrize("other", ["image", "box", "statistics", "network", "threads"])
def test_another_input_is_another_entry(
    translator: FrozenTranslator, patches: Patches, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, other: str
) -> None:
    patch, box, dae = patches.images[0], patches.boxes()[0], translator.dae
    FrozenReader(dae, CPU, DiskCache(tmp_path)).read(patch, box)
    if other == "image":
        patch = patch.copy()
        patch[0, 0, 0] ^= 1
    elif other == "box":
        box = None
    elif other == "statistics":
        dae = fit_frozen(patches.images[:5], patches.boxes()[:5], dae.extractor).dae
    elif other == "network":
        monkeypatch.setattr(FeatureExtractor, "sha256", lambda self: "other")
    else:
        monkeypatch.setattr(torch, "get_num_threads", lambda: 7)
    asleep(monkeypatch)
    with pytest.raises(AssertionError, match="the frozen network ran"):
        FrozenReader(dae, CPU, DiskCache(tmp_path)).read(patch, box)


def test_trained_keys_share_the_entries_of_their_frozen_encoder(
    translator: FrozenTranslator, patches: Patches, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    boxes = patches.boxes()
    StructureReader(translator, CPU, DiskCache(tmp_path)).structure(patches.images[:], boxes)
    trained = FeatureTranslator(translator.dae.extractor, translator.dae.reduction, AttentionSettings(2, 0.3)).eval()
    with torch.inference_mode():
        torch.nn.init.normal_(trained.dae.head.body[-1].weight)  # type: ignore[arg-type]
        direct = trained.structure(to_tensor(patches.images[:], CPU), boxes)
        asleep(monkeypatch)
        read = StructureReader(trained, CPU, DiskCache(tmp_path)).structure(patches.images[:], boxes)
    torch.testing.assert_close(read.keys, direct.keys, atol=0.02, rtol=0)


def test_statistics_are_fitted_once_for_the_same_images(
    patches: Patches, extractor: FeatureExtractor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    execution = Execution(cache=tmp_path / "cache")
    plain, first = (
        fit_frozen(patches.images[:], patches.boxes(), extractor, execution=one) for one in (Execution(), execution)
    )
    mask = np.zeros((64, 64), np.uint8)
    asleep(monkeypatch)
    second = fit_frozen(patches.images[:], patches.boxes(), extractor, execution=execution)
    for name, tensor in plain.dae.reduction.state_dict().items():
        assert torch.equal(first.dae.reduction.state_dict()[name], tensor)
        assert torch.equal(second.dae.reduction.state_dict()[name], tensor)
    for changes in ({"masks": [mask] * 6}, {"dimensions": 8}, {"layer_weights": (2.0,) * len(extractor.layers)}):
        with pytest.raises(AssertionError, match="the frozen network ran"):
            fit_frozen(patches.images[:], patches.boxes(), extractor, execution=execution, **changes)  # type: ignore[arg-type]
