"""Training modes: images, batches, sample images."""

from __future__ import annotations

import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from making_images import make_transparent
from making_masks import write_mask, write_masks
from making_runs import FRAMING, SIZE, TRAINING_IMAGES, Listener

from dagaug.compute.tensors import to_pixels
from dagaug.data.dataset_records import Dataset, Domains
from dagaug.data.domains_layout import read_domains
from dagaug.data.layouts import read_dataset
from dagaug.data.mask_files import find_masks
from dagaug.data.object_patches import read_patches
from dagaug.model.mode_translators import PaperTranslator, ReferenceTranslator
from dagaug.model.task_presets import AttentionSettings
from dagaug.model.trained_model import build_translator
from dagaug.report.contact_sheets import contact_sheet
from dagaug.runtime.errors import DataError
from dagaug.runtime.execution_settings import Execution
from dagaug.runtime.image_cache import ImageCache
from dagaug.runtime.streamed_array import StreamedArray
from dagaug.training import modes
from dagaug.training.modes import PaperMode, ReferenceMode, TrainingMode

pytestmark = pytest.mark.usefixtures("quickly")

ONE_THREAD = Execution(workers=1)


def reference_mode(data: Dataset, *, seed: int = 0, execution: Execution = ONE_THREAD) -> ReferenceMode:
    torch.manual_seed(0)
    translator = build_translator("reference", AttentionSettings(3, 0.3))
    assert isinstance(translator, ReferenceTranslator)
    return ReferenceMode(
        data,
        FRAMING,
        translator,
        distance="l2",
        weights=None,
        without=frozenset(),
        seed=seed,
        execution=execution,
    )


def paper_mode(domains: Domains, *, seed: int = 0, execution: Execution = ONE_THREAD) -> PaperMode:
    torch.manual_seed(0)
    translator = build_translator("paper", AttentionSettings(1, 0.9))
    assert isinstance(translator, PaperTranslator)
    return PaperMode(
        domains,
        FRAMING,
        translator,
        distance="l2",
        weights=None,
        without=frozenset(),
        seed=seed,
        execution=execution,
    )


# ---- pixels


@given(st.lists(st.integers(0, 255), min_size=12, max_size=12))
def test_bytes_survive_the_way_to_the_networks_range_and_back(values: list[int]) -> None:
    pixels = np.array(values, np.uint8).reshape(1, 2, 2, 3)
    tensor = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 127.5 - 1
    np.testing.assert_array_equal(to_pixels(tensor), pixels)


def test_values_out_of_range_become_black_and_white() -> None:
    image = torch.tensor([-7.0, -1.0, 0.0, 1.0, 7.0]).expand(3, 1, 5)
    assert to_pixels(image)[0, :, 0].tolist() == [0, 0, 128, 255, 255]


# ---- pose morphing


def test_both_modes_have_what_a_trainer_needs(birds: Dataset, tmp_path: Path) -> None:
    assert isinstance(reference_mode(birds), TrainingMode)
    assert isinstance(paper_mode(domains(tmp_path, ("0", "1"), ("0", "1"))), TrainingMode)


def test_only_training_images_are_read(birds: Dataset) -> None:
    mode = reference_mode(birds)
    held = {image.tobytes() for image in mode.data.images}
    train, test = (
        {image.tobytes() for image in read_patches(birds, samples, FRAMING).images}
        for samples in (birds.train, birds.test)
    )
    assert held == train
    assert not held & test
    assert (mode.image_count, mode.label_count, mode.classes) == (TRAINING_IMAGES, 4, birds.classes)


def test_given_masks_take_the_place_of_grabcut(birds: Dataset, tmp_path: Path) -> None:
    masked = find_masks(birds, write_masks(birds, tmp_path))
    mode, bare = reference_mode(masked), reference_mode(birds)
    given = read_patches(masked, masked.train, FRAMING, masks=True).masks
    for mask, known in zip(mode.data.masks, given, strict=True):
        np.testing.assert_array_equal(mask, known)
    assert not np.array_equal(mode.data.masks[:], bare.data.masks[:])
    assert not np.array_equal(mode.data.backgrounds[:], bare.data.backgrounds[:])


def test_images_with_unusable_masks_are_no_training_images(
    birds: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_masks(birds, tmp_path)
    write_mask(birds, birds.train[2], folder, np.full((64, 64), 255, np.uint8))
    mode = reference_mode(find_masks(birds, folder))
    assert mode.image_count == TRAINING_IMAGES - 1
    assert [skip.path for skip in mode.skipped] == [birds.file(birds.train[2])]
    assert "covers the whole patch" in mode.skipped[0].reason

    def torn(images: StreamedArray, boxes: object, **more: object) -> StreamedArray:
        masks = np.zeros(images.shape[:3], np.uint8)
        masks[:, 8:24, 8:24] = 255
        masks[4] = 0
        masks[4, 4::8, 4::8] = 255
        return StreamedArray(len(masks), masks.shape[1:], masks.__getitem__)

    monkeypatch.setattr(modes, "grabcut_masks", torn)
    mode = reference_mode(birds)
    assert mode.image_count == TRAINING_IMAGES - 1
    assert [skip.path for skip in mode.skipped] == [birds.file(birds.train[4])]
    assert "GrabCut's is torn into 16 pieces" in mode.skipped[0].reason


def test_the_structure_phase_takes_more_pairs(birds: Dataset) -> None:
    mode = reference_mode(birds)
    sizes = {}
    for phase in ("structure", "pairs", "full"):
        result = mode.forward(mode.objective, 0, phase, 4)  # type: ignore[arg-type]
        sizes[phase] = len(result.real)
        assert (result.fakes is not None) == (phase == "full")
        assert result.real_label is not None
        assert len(result.real_label) == len(result.real)
    assert sizes == {"structure": 6, "pairs": 4, "full": 4}


def test_a_step_depends_on_its_number_and_the_seed_alone(birds: Dataset) -> None:
    mode, other = reference_mode(birds), reference_mode(birds, seed=1)
    results = [mode.forward(mode.objective, step, "full", 4).real for step in (3, 5, 3)]
    assert torch.equal(results[0], results[2])
    assert not torch.equal(results[0], results[1])
    assert not torch.equal(results[0], other.forward(other.objective, 3, "full", 4).real)


@pytest.mark.parametrize("rows_in_memory", [0, 5])
def test_the_cache_changes_no_step(birds: Dataset, tmp_path: Path, rows_in_memory: int) -> None:
    two = domains(tmp_path, ("a", "b"), ("a", "b"))
    masked = find_masks(birds, write_masks(birds, tmp_path / "masks"))
    execution = Execution(workers=2, memory=ImageCache(rows_in_memory * SIZE * SIZE * 3))
    for make in (partial(reference_mode, birds), partial(reference_mode, masked), partial(paper_mode, two)):
        known, mode = make(), make(execution=execution)
        for step, phase in ((0, "structure"), (1, "structure"), (1, "full"), (5, "full"), (6, "full")):
            expected, found = (one.forward(one.objective, step, phase, 4) for one in (known, mode))
            assert torch.equal(expected.real, found.real)
            assert expected.terms.keys() == found.terms.keys()
            assert all(torch.equal(expected.terms[name], found.terms[name]) for name in expected.terms)
        with torch.no_grad():
            shown = [one.snapshot(one.objective.translator.eval()).morphs for one in (known, mode)]
        assert np.array_equal(*shown)


@torch.no_grad()
def test_snapshots_show_each_source_in_each_pose_and_always_the_same_images(birds: Dataset) -> None:
    mode = reference_mode(birds)
    translator = mode.objective.translator.eval()
    first, again = mode.snapshot(translator), mode.snapshot(translator)
    assert first.morphs.shape == (4, 8, SIZE, SIZE, 3)  # a source of each species, eight references
    assert first.centres.shape == (8, 3, 2)
    assert first.half_size == 0.3
    np.testing.assert_array_equal(first.morphs, again.morphs)
    np.testing.assert_array_equal(first.references, first.attended)


def test_one_class_is_refused(birds: Dataset) -> None:
    one = replace(birds, samples=tuple(sample for sample in birds.samples if sample.label == 1))
    with pytest.raises(DataError, match="at least two classes"):
        reference_mode(one)


# ---- two folders


def domains(root: Path, ours: tuple[str, ...], theirs: tuple[str, ...]) -> Domains:
    """Two images in each of the folders of each domain; the grey level identifies domain and folder."""
    for domain, folders in (("trainA", ours), ("trainB", theirs)):
        for label, name in enumerate(folders):
            folder = root / domain / name
            folder.mkdir(parents=True)
            level = 20 * label + (100 if domain == "trainB" else 0)
            for number in range(2):
                cv2.imwrite(str(folder / f"{number}.png"), np.full((20, 20, 3), level + number, np.uint8))
    return read_domains(root)


def test_folders_of_the_same_names_in_both_domains_are_labels(tmp_path: Path) -> None:
    mode = paper_mode(domains(tmp_path, ("a", "b", "c"), ("c", "a", "b")))
    assert mode.classes == ("a", "b", "c")
    assert mode.label_count == 3
    (source, target), (source_label, target_label) = mode._batch(0, 16)
    levels = {"trainA": (0, 20, 40), "trainB": (120, 140, 100)}  # of a, b and c
    for images, label, domain in ((source, source_label, "trainA"), (target, target_label, "trainB")):
        assert label is not None
        assert [levels[domain][index] for index in label.tolist()] == [
            int(image[0, 0, 0]) // 2 * 2 for image in to_pixels(images)
        ]
    assert mode.image_count == 12


@pytest.mark.parametrize(
    ("ours", "theirs"), [(("a", "b"), ("a", "c")), (("a", "b"), ("a",)), (("a",), ("a",)), ((".",), (".",))]
)
def test_folders_that_differ_are_no_labels(tmp_path: Path, ours: tuple[str, ...], theirs: tuple[str, ...]) -> None:
    mode = paper_mode(domains(tmp_path, ours, theirs))
    assert (mode.classes, mode.label_count) == ((), 0)
    result = mode.forward(mode.objective, 0, "full", 4)
    assert result.real_label is None
    assert not {"label", "identity"} & result.terms.keys()


def test_a_step_on_two_folders_depends_on_its_number_and_the_seed_alone(tmp_path: Path) -> None:
    both = domains(tmp_path, ("a", "b"), ("a", "b"))
    mode, other = paper_mode(both), paper_mode(both, seed=1)
    first, again, next_one = (mode._batch(step, 16)[0][0] for step in (3, 3, 4))
    assert torch.equal(first, again)
    assert not torch.equal(first, next_one)
    assert not torch.equal(first, other._batch(3, 16)[0][0])


@torch.no_grad()
def test_snapshots_of_two_folders_show_sources_and_their_translations(tmp_path: Path) -> None:
    mode = paper_mode(domains(tmp_path, ("a", "b"), ("a", "b")))
    shown = mode.snapshot(mode.objective.translator.eval())
    assert shown.morphs.shape == (4, 1, SIZE, SIZE, 3)
    assert len(shown.references) == 0
    assert shown.centres.shape == (4, 1, 2)
    red = np.full_like(shown.morphs, (200, 10, 10))
    sheet = contact_sheet(shown.sources, shown.references, red, scale=1)
    assert (sheet == (200, 10, 10)).all(-1).sum() == red[..., 0].size  # all results stand beside their sources


def test_unreadable_images_of_a_domain_are_skipped_and_listed(tmp_path: Path) -> None:
    domains(tmp_path, ("a", "b"), ("a", "b"))
    (tmp_path / "trainA" / "a" / "bad.png").write_bytes(b"no image")
    mode = paper_mode(read_domains(tmp_path))
    assert mode.image_count == 8
    assert [skip.path.name for skip in mode.skipped] == ["bad.png"]


def test_images_with_transparent_pixels_are_told_once(birds: Dataset, tmp_path: Path) -> None:
    shutil.copytree(birds.root, tmp_path / "birds")
    data = read_dataset(tmp_path / "birds")
    make_transparent(data.file(data.train[0]))
    make_transparent(data.file(data.test[0]))  # not trained on
    for name in ("trainA", "trainB"):
        for number, sample in enumerate(data.train[:3]):
            (tmp_path / "two" / name).mkdir(parents=True, exist_ok=True)
            shutil.copy(data.file(sample), tmp_path / "two" / name / f"{number}.png")
    told = "images have transparent pixels, which are laid over white"
    first, second = Listener(), Listener()
    reference_mode(data, execution=Execution(workers=1, progress=first))
    assert [line for line in first.lines if "transparent" in line] == [f"1 of {TRAINING_IMAGES} {told}"]
    paper_mode(read_domains(tmp_path / "two"), execution=Execution(workers=1, progress=second))
    assert second.lines == [f"2 of 6 {told}"]
