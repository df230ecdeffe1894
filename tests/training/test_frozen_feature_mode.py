"""Pose morphing on frozen features: what is trained in each phase, resuming, and what the result rests on."""

from __future__ import annotations

from functools import partialmethod
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from making_runs import Killed, assert_same_bits, kill_at_step, options, tensors_of, train_small

from dagaug.classifiers.frozen_feature_maps import build_extractor
from dagaug.classifiers.pretrained_networks import build_pretrained
from dagaug.compute.tensors import to_tensor
from dagaug.data.dataset_records import Dataset
from dagaug.data.mask_refinement import refine_mask
from dagaug.data.object_patches import Framing, read_patches
from dagaug.model import training_free, training_free_statistics
from dagaug.model.frozen_encoder_translator import FeatureTranslator
from dagaug.model.frozen_readings import FrozenReader
from dagaug.model.trained_model import load_model
from dagaug.model.training_free_statistics import fit_frozen
from dagaug.runtime.errors import CheckpointError, UsageError
from dagaug.runtime.execution_settings import Execution
from dagaug.runtime.image_cache import ImageCache
from dagaug.training.data_dependent_defaults import suit_data
from dagaug.training.fabric import make_fabric
from dagaug.training.frozen_feature_mode import FeatureMode
from dagaug.training.train import Schedule
from dagaug.training.trainer import Trainer

SIZE = 64
CPU = torch.device("cpu")
ONE_THREAD = Execution(workers=1)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of a small convolutional network."""
    torch.manual_seed(1)
    path = tmp_path_factory.mktemp("features") / "weights.pth"
    torch.save(build_pretrained("test_resnet", input_size=64, pretrained=False).model.state_dict(), path)
    return path


def changes(weights: Path, **more: Any) -> dict[str, Any]:
    return {
        "preset": "photos", "features": "test_resnet", "feature_weights": weights, "framing": Framing(size=SIZE),
        **more,
    }  # fmt: skip


@pytest.fixture(scope="module")
def mode(birds: Dataset, weights: Path) -> FeatureMode:
    return new_mode(birds, weights)


def new_mode(birds: Dataset, weights: Path, execution: Execution = ONE_THREAD) -> FeatureMode:
    resolved = options(**changes(weights)).resolved()
    return FeatureMode(
        birds, resolved.framing, build_extractor("test_resnet", input_size=96, weights=weights),
        layer_weights=(1.0,) * len(build_extractor("test_resnet", input_size=96, pretrained=False).layers),
        attention=resolved.attention, own_pixels=0.0, distance="resblock", weights=None, without=frozenset(), seed=0,
        execution=execution,
    )  # fmt: skip


@pytest.fixture
def trainer(mode: FeatureMode, weights: Path) -> Trainer:
    return Trainer(make_fabric("cpu", "32-true"), mode, mode.translator, options(**changes(weights)).resolved())


def test_before_its_training_it_morphs_as_the_model_without_training(birds: Dataset, mode: FeatureMode) -> None:
    patches = read_patches(birds, birds.train[:6], Framing(size=SIZE))
    extractor = build_extractor("test_resnet", input_size=96, pretrained=False)
    translator = mode.translator.eval()
    frozen = fit_frozen(patches.images, patches.boxes(), extractor, dimensions=translator.dae.head.keys)
    frozen.dae.extractor, reduction = translator.dae.extractor, translator.dae.reduction
    frozen.dae.reduction = reduction
    images = to_tensor(patches.images[:4], CPU)
    with torch.inference_mode():
        structure = translator.structure(images)
        made = translator(translator.appearance(images, structure), structure, structure[torch.tensor([1, 2, 3, 0])])
    keys = torch.nn.functional.normalize(translator.dae.components(images)[0][:, : translator.dae.head.keys], dim=1)
    assert torch.allclose(structure.keys, keys, atol=1e-5)
    assert made.blend.min() > 0.6  # most of the source's own pixels
    assert torch.allclose(made.mask, structure.object[[1, 2, 3, 0]], atol=0.03)  # the reference's outline


def test_its_batches_hold_all_three_kinds_of_pairs(mode: FeatureMode) -> None:
    batch = mode.sampler.batch(0, 12, with_teacher=True)
    assert (batch.source_label[batch.of_class] == batch.reference_label[batch.of_class]).all()
    assert (batch.source_label[batch.cross] != batch.reference_label[batch.cross]).all()
    assert batch.teacher is not None
    assert len(batch.teacher.flow) == 12 - batch.exact_count
    truth = mode.translator.dae.components(batch.reference[batch.exact])[0]
    assert torch.allclose(batch.reference_components[batch.exact], truth, atol=1e-4)
    again = mode.sampler.batch(0, 12, with_teacher=True)
    assert torch.equal(batch.reference, again.reference)
    assert not torch.equal(batch.reference, mode.sampler.batch(1, 12, with_teacher=True).reference)


def test_the_cache_changes_no_batch(birds: Dataset, weights: Path, mode: FeatureMode) -> None:
    other = new_mode(birds, weights, Execution(workers=2, memory=ImageCache(20 * SIZE * SIZE * 3)))
    for step, with_teacher in ((0, True), (1, True), (1, False), (7, False), (8, False)):
        ours, theirs = (one.sampler.batch(step, 8, with_teacher=with_teacher) for one in (mode, other))
        tensors = [(mine, yours) for mine, yours in zip(ours, theirs, strict=True) if isinstance(mine, torch.Tensor)]
        assert len(tensors) == 10
        assert all(torch.equal(mine, yours) for mine, yours in tensors)


def test_the_features_of_a_batch_are_those_of_its_images(mode: FeatureMode) -> None:
    batch = mode.sampler.batch(3, 8, with_teacher=False)
    found = mode.translator.dae.components(batch.source)[0]
    assert (found - batch.source_components).abs().mean() < 0.02 * found.abs().mean()  # stored in 16 bits


def test_images_with_surely_wrong_masks_are_left_out(
    birds: Dataset, weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    third = read_patches(birds, birds.train, Framing(size=SIZE)).images[2]

    def empty(image: np.ndarray, *rest: Any) -> np.ndarray:
        found = refine_mask(image, *rest)
        return np.zeros_like(found) if (image == third).all() else found

    monkeypatch.setattr(training_free, "refine_mask", empty)
    mode = new_mode(birds, weights)
    assert mode.image_count == len(birds.train) - 1
    assert [str(skip.path.name) for skip in mode.skipped] == [birds.train[2].path.name]
    assert "the estimated mask is empty" in mode.skipped[0].reason
    batch = mode.sampler.batch(3, 8, with_teacher=False)
    found = mode.translator.dae.components(batch.source)[0]
    assert (found - batch.source_components).abs().mean() < 0.02 * found.abs().mean()


def test_the_cache_gives_the_same_training_without_the_frozen_network(
    birds: Dataset, weights: Path, mode: FeatureMode, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = new_mode(birds, weights, Execution(workers=1, cache=tmp_path))
    monkeypatch.setattr(FrozenReader, "_computed", None)
    monkeypatch.setattr(training_free_statistics, "_maps", None)
    second = new_mode(birds, weights, Execution(workers=1, cache=tmp_path))
    for one in (first, second):
        assert one.translator.dae.head.scale == mode.translator.dae.head.scale
        for name, tensor in one.translator.dae.reduction.state_dict().items():
            assert torch.equal(tensor, mode.translator.dae.reduction.state_dict()[name])
        batch, plain = (which.sampler.batch(3, 8, with_teacher=False) for which in (one, mode))
        assert torch.equal(batch.source_components, plain.source_components)
        assert torch.equal(batch.source_mask, plain.source_mask)
        assert torch.equal(batch.spread, plain.spread)


def test_keys_and_regions_are_trained_first_and_then_kept(trainer: Trainer, mode: FeatureMode) -> None:
    dae, morpher = mode.translator.dae, mode.translator.morpher

    def values(module: torch.nn.Module) -> list[np.ndarray]:
        return [parameter.detach().numpy().copy() for parameter in module.parameters()]

    def changed(before: list[np.ndarray], module: torch.nn.Module) -> bool:
        return any((a != b).any() for a, b in zip(before, values(module), strict=True))

    network = values(dae.extractor)
    head, regions, generator = values(dae.head), values(dae.localise), values(morpher)
    trainer.step(100)
    assert changed(head, dae.head)
    assert changed(regions, dae.localise)
    assert not changed(generator, morpher)
    head, regions = values(dae.head), values(dae.localise)
    for at in (30, 60, 98):
        trainer.done = at
        terms = trainer.step(100)
        assert all(np.isfinite(value) for value in terms.values())
    assert {"identity", "consistency", "pose", "cycle", "adversarial", "discriminators"} <= set(terms)
    assert changed(generator, morpher)
    assert not changed(head, dae.head)
    assert not changed(regions, dae.localise)
    trainer.recalibrate(2)
    assert not changed(network, dae.extractor)
    assert trainer.averaged.dae.extractor is dae.extractor  # type: ignore[union-attr]


def test_training_keys_lowers_the_loss_of_known_correspondences(mode: FeatureMode, trainer: Trainer) -> None:
    batch = mode.sampler.batch(1000, 12, with_teacher=True)

    def loss() -> float:
        with torch.no_grad():
            return float(mode.objective(batch, "structure")[0]["match"])

    before = loss()
    for at in range(12):
        trainer.done = at
        trainer.step(1000)
    assert loss() < before


@pytest.mark.slow
def test_a_killed_run_resumes_to_the_same_bits(
    birds: Dataset, weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Trainer, "recalibrate", partialmethod(Trainer.recalibrate, batches=2))
    often = Schedule(save_seconds=0.0)
    train_small(birds, tmp_path / "straight", **changes(weights))
    with pytest.raises(Killed):
        train_small(birds, tmp_path / "killed", progress=kill_at_step(4), schedule=often, **changes(weights))
    done = train_small(birds, tmp_path / "killed", **changes(weights))
    assert done.resumed_at == 3
    assert_same_bits(*(tensors_of(tmp_path / name / "model.safetensors") for name in ("straight", "killed")))


def test_a_model_holds_no_weights_of_the_frozen_network_and_needs_the_same(
    birds: Dataset, weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Trainer, "recalibrate", partialmethod(Trainer.recalibrate, batches=2))
    mine = tmp_path / "weights.pth"
    mine.write_bytes(weights.read_bytes())
    train_small(birds, tmp_path / "run", **changes(mine, steps=2))
    assert not [name for name in tensors_of(tmp_path / "run" / "model.safetensors") if "extractor" in name]
    model = load_model(tmp_path / "run")
    assert isinstance(model.translator, FeatureTranslator)
    assert model.card.features is not None
    assert model.card.features.name == "test_resnet"
    torch.manual_seed(2)
    torch.save(build_pretrained("test_resnet", input_size=64, pretrained=False).model.state_dict(), mine)
    with pytest.raises(CheckpointError, match="other weights"):
        load_model(tmp_path / "run")


def test_options_that_do_not_fit_the_preset_are_refused(weights: Path) -> None:
    with pytest.raises(UsageError, match="has no effect with pose"):
        options(features="lite0").resolved()
    with pytest.raises(UsageError, match="starts from them"):
        options(**changes(weights, start="general")).resolved()


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, ("pose", None, 64)),
        ({"features": "lite0"}, ("photos", "lite0", 64)),
        ({"preset": "photos"}, ("photos", None, 64)),
        ({"features": "none", "size": 128}, ("pose", None, 128)),
        ({"size": 128}, ("pose", None, 128)),
    ],
)
def test_small_images_train_all_networks(
    birds: Dataset, given: dict[str, Any], expected: tuple[str, str | None, int]
) -> None:
    """The built-in birds have 64 px."""
    chosen = {"preset": "auto", "features": None, "size": None, **given}
    preset, features, size, line = suit_data(birds, Framing(), device="cpu", **chosen)
    assert (preset, features, size) == expected
    assert str(size) in line
