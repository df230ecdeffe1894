"""What shards contain: provenance of each image, selection, encodings."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest
from making_augmentations import (
    REFS,
    morphs_of,
    run,
    verdict_names,
)
from making_masks import write_masks
from making_runs import FRAMING, SPECIES, TRAINING_IMAGES

from dagaug.augment.morph_plan import VARIANTS
from dagaug.augment.options import AugmentOptions
from dagaug.augment.selection import VERDICTS
from dagaug.data.dataset_records import Dataset
from dagaug.data.image_files import decode, decode_mask
from dagaug.data.mask_files import find_masks
from dagaug.data.object_patches import read_patches
from dagaug.hdf5.reader import Store
from dagaug.hdf5.verify import verify
from dagaug.model.trained_model import TrainedModel


def test_each_morph_names_the_source_whose_label_it_has_and_the_candidate_it_was(store: Store) -> None:
    images, candidates, header = store.images, store.candidates, store.header
    for row in morphs_of(store):
        candidate = images.candidate[row]
        assert candidates.image[candidate] == row
        for column in ("source", "reference", "variant", "label", "predicted", "confidence"):
            assert getattr(images, column)[row] == getattr(candidates, column)[candidate]
        assert images.label[row] == header.files_label[images.source[row]]
    assert (candidates.label == header.files_label[candidates.source]).all()


def test_real_images_are_those_of_the_data_set_with_their_labels_and_splits(store: Store, birds: Dataset) -> None:
    images, header = store.images, store.header
    real = np.flatnonzero(~images.synthetic)
    samples = {sample.path.as_posix(): sample for sample in birds.samples}
    assert sorted(header.files[images.source[row]] for row in real) == sorted(samples)
    for row in real:
        sample = samples[header.files[images.source[row]]]
        assert (images.label[row], images.split[row]) == (sample.label, int(sample.split == "test"))
        np.testing.assert_array_equal(store.image(int(row)), decode(birds.file(sample)))
        assert (images.reference[row], images.candidate[row]) == (-1, -1)


def test_kept_candidates_are_above_chance_and_the_others_have_a_reason(store: Store) -> None:
    candidates = store.candidates
    for row, verdict in enumerate(verdict_names(store)):
        assert (verdict == "below --min-confidence") == (candidates.confidence[row] < 1 / SPECIES)
        assert (verdict == "kept") == (candidates.image[row] >= 0)
    assert "below --min-confidence" in verdict_names(store)


def test_per_reference_keeps_the_best_candidate_of_each_source_and_reference(store: Store) -> None:
    candidates = store.candidates
    pairs: dict[tuple[int, int], list[int]] = {}
    for row in np.flatnonzero(candidates.confidence >= 1 / SPECIES).tolist():
        pairs.setdefault((int(candidates.source[row]), int(candidates.reference[row])), []).append(row)
    best = {max(rows, key=lambda row: (candidates.confidence[row], -row)) for rows in pairs.values()}
    assert best == set(np.flatnonzero(candidates.image >= 0).tolist())


def test_per_image_keeps_one_morph_of_a_source_at_most(
    model: TrainedModel, birds: Dataset, judged: AugmentOptions, tmp_path: Path, store: Store
) -> None:
    options = judged.model_copy(update={"keep": "per-image", "encoding": "png"})
    run(model, birds, options, tmp_path / "a.h5")
    with Store(tmp_path / "a.h5") as per_image:
        sources = per_image.images.source[morphs_of(per_image)]
    assert Counter(sources.tolist()) == Counter(set(store.images.source[morphs_of(store)].tolist()))


def test_mislabelled_candidates_are_rejected_on_request(
    model: TrainedModel, birds: Dataset, judged: AugmentOptions, tmp_path: Path, store: Store
) -> None:
    assert "mislabelled" not in verdict_names(store)
    run(model, birds, judged.model_copy(update={"min_confidence": 0.0, "keep": "all"}), tmp_path / "all.h5")
    with Store(tmp_path / "all.h5") as lenient:
        rows = morphs_of(lenient)
        assert (lenient.images.predicted[rows] != lenient.images.label[rows]).any()
    run(model, birds, judged.model_copy(update={"allow_mislabelled": False, "keep": "all"}), tmp_path / "a.h5")
    with Store(tmp_path / "a.h5") as strict:
        candidates = strict.candidates
        wrong = candidates.predicted != candidates.label
        assert (wrong == (candidates.verdict == VERDICTS.index("mislabelled"))).all()


def test_confidences_out_of_bounds_are_dropped(
    model: TrainedModel, birds: Dataset, judged: AugmentOptions, tmp_path: Path, store: Store
) -> None:
    low, high = np.quantile(store.candidates.confidence, [0.3, 0.7])
    bounds = {"min_confidence": float(low), "max_confidence": float(high)}
    run(model, birds, judged.model_copy(update=bounds), tmp_path / "a.h5")
    with Store(tmp_path / "a.h5") as bounded:
        kept = bounded.images.confidence[morphs_of(bounded)]
        assert len(kept)
        assert ((kept >= low) & (kept <= high)).all()
        assert {"below --min-confidence", "above --max-confidence"} <= set(verdict_names(bounded))


def test_cutouts_do_not_compete_with_morphs(
    model: TrainedModel, birds: Dataset, judged: AugmentOptions, tmp_path: Path, store: Store
) -> None:
    names = ("reference", "mirror", "cutout")  # as it was called before, too
    options = AugmentOptions(**{**judged.model_dump(), "variants": names, "encoding": "png"})
    done = run(model, birds, options, tmp_path / "a.h5")
    assert done.candidates == TRAINING_IMAGES * REFS * len(VARIANTS)
    with Store(tmp_path / "a.h5") as both:
        cutouts = both.images.variant == VARIANTS.index("cutout")
        assert 0 < cutouts.sum() <= TRAINING_IMAGES * REFS
        morphs = np.flatnonzero(both.images.synthetic & ~cutouts)
        assert len(morphs) == done.kept - cutouts.sum()
        np.testing.assert_array_equal(both.images.source[morphs], store.images.source[morphs_of(store)])
        np.testing.assert_array_equal(both.images.reference[morphs], store.images.reference[morphs_of(store)])


@pytest.mark.parametrize("encoding", ["jpeg", "raw"])
def test_other_encodings_hold_the_same_images(
    model: TrainedModel, birds: Dataset, judged: AugmentOptions, tmp_path: Path, store: Store, encoding: str
) -> None:
    run(model, birds, judged.model_copy(update={"encoding": encoding}), tmp_path / "a.h5")
    with Store(tmp_path / "a.h5") as other:
        assert other.header.encoding == encoding
        assert other.images.source.tolist() == store.images.source.tolist()
        for row in range(0, len(other), 5):
            difference = other.image(row).astype(float) - store.image(row)
            assert np.abs(difference).mean() < (4 if encoding == "jpeg" else 1e-9)


def test_every_morph_differs_from_its_reference_and_no_two_are_the_same(store: Store) -> None:
    images = store.read(morphs_of(store).tolist())
    assert len({cv2.imencode(".png", image)[1].tobytes() for image in images}) == len(images)


def test_every_morph_has_a_mask_and_real_images_the_boxes_of_the_data_set(store: Store, birds: Dataset) -> None:
    samples = {sample.path.as_posix(): sample for sample in birds.samples}
    assert store.boxes is not None
    for row in range(len(store)):
        mask, box = store.mask(row), store.boxes[row]
        if store.images.synthetic[row]:
            assert mask is not None
            assert mask.shape == store.image(row).shape[:2]
            assert mask.any() == (not np.isnan(box).any())
        else:
            assert mask is None
            given = samples[store.header.files[store.images.source[row]]].box
            np.testing.assert_allclose(box, given, rtol=1e-6)


def test_the_mask_of_a_cutout_shows_the_unchanged_pixels_of_its_source(
    model: TrainedModel, birds: Dataset, judged: AugmentOptions, tmp_path: Path
) -> None:
    changes = {"frame": "crop", "variants": ("cutout",), "encoding": "png", "min_confidence": 0.0, "limit": 6}
    run(model, birds, judged.model_copy(update=changes), tmp_path / "a.h5")
    patches = read_patches(birds, birds.train, FRAMING)
    patch_of = {s.path.as_posix(): image for s, image in zip(patches.samples, patches.images, strict=True)}
    inside, outside = [], []
    with Store(tmp_path / "a.h5") as made:
        for row in morphs_of(made).tolist():
            source, mask = patch_of[made.header.files[made.images.source[row]]], made.mask(row)
            assert mask is not None
            difference = np.abs(made.image(row).astype(int) - source).mean(2)
            inside.append(difference[mask])
            outside.append(difference[~mask])
    assert len(np.concatenate(inside))
    assert np.concatenate(inside).mean() < np.concatenate(outside).mean()


def test_given_masks_of_real_images_are_stored_and_unusable_ones_are_not(
    model: TrainedModel, birds: Dataset, judged: AugmentOptions, tmp_path: Path
) -> None:
    write_masks(birds, tmp_path / "masks")
    data = find_masks(birds, tmp_path / "masks")
    bad = next(sample for sample in data.test if sample.mask is not None)
    assert bad.mask is not None
    bad.mask.write_bytes(b"no image")
    run(model, data, judged.model_copy(update={"limit": 2}), tmp_path / "a.h5")
    verify(tmp_path / "a.h5")
    with Store(tmp_path / "a.h5") as made:
        name_of = {
            made.header.files[source]: row for row, source in enumerate(made.images.source[~made.images.synthetic])
        }
        assert made.mask(name_of[bad.path.as_posix()]) is None
        known = 0
        for sample in data.samples:
            if sample.mask is not None and sample != bad:
                np.testing.assert_array_equal(made.mask(name_of[sample.path.as_posix()]), decode_mask(sample.mask))
                known += 1
    assert known
