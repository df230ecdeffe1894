"""Which candidates a job plans, what its header says, and which options it refuses."""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from making_augmentations import (
    CANDIDATES,
    REFS,
    TEST_IMAGES,
    morphs_of,
    run,
)
from making_images import make_transparent
from making_masks import write_mask, write_masks
from making_runs import FRAMING, SPECIES, TRAINING_IMAGES, Listener

from dagaug.augment.judge_practice_images import practice_images
from dagaug.augment.morph_plan import DEFAULT_VARIANTS, VARIANTS
from dagaug.augment.options import AugmentOptions
from dagaug.augment.prepared_augmentation import Job
from dagaug.augment.run import Augmented, augment, skipped_log
from dagaug.augment.selection import VERDICTS
from dagaug.data.dataset_records import Dataset
from dagaug.data.layouts import read_dataset
from dagaug.data.mask_files import find_masks, hash_masks
from dagaug.data.mask_refinement import refine_mask
from dagaug.data.object_patches import read_patches
from dagaug.hdf5.reader import Store
from dagaug.hdf5.shard_folder import first_difference
from dagaug.model import training_free
from dagaug.model.frozen_readings import FrozenReader
from dagaug.model.mode_translators import PaperTranslator
from dagaug.model.trained_model import TrainedModel
from dagaug.runtime.errors import UsageError
from dagaug.runtime.execution_settings import Execution


def test_there_are_sources_times_references_times_variants_candidates(made: Augmented, store: Store) -> None:
    assert (made.sources, made.candidates) == (TRAINING_IMAGES, CANDIDATES)
    candidates = store.candidates
    assert len(candidates) == CANDIDATES
    assert set(Counter(candidates.source.tolist()).values()) == {REFS * len(DEFAULT_VARIANTS)}
    per_pair = Counter(zip(candidates.source.tolist(), candidates.reference.tolist(), strict=True))
    assert len(per_pair) == TRAINING_IMAGES * REFS  # all references of a source are different
    assert set(per_pair.values()) == {len(DEFAULT_VARIANTS)}


def test_no_source_is_its_own_reference_and_all_are_training_images(store: Store) -> None:
    candidates, split = store.candidates, store.header.files_split
    assert (candidates.source != candidates.reference).all()
    assert (split[candidates.source] == 0).all()
    assert (split[candidates.reference] == 0).all()
    assert (store.images.split[morphs_of(store)] == 0).all()


def test_the_file_says_from_what_and_how_it_was_made(store: Store, model: TrainedModel, birds: Dataset) -> None:
    header = store.header
    assert (header.classes, header.checkpoint_sha256) == (birds.classes, model.sha256)
    assert header.options["checkpoint"] == str(model.path)
    assert header.options["data"] == str(birds.root)
    assert header.options["refs"] == REFS
    assert header.options["framing"] == FRAMING.model_dump(mode="json")
    assert (header.variants, header.verdicts) == (VARIANTS, VERDICTS[:-1])
    assert header.created_by.startswith("dagaug ")


def test_a_limit_bounds_the_sources_and_real_images_can_be_left_out(
    model: TrainedModel, birds: Dataset, judged: AugmentOptions, tmp_path: Path
) -> None:
    done = run(model, birds, judged.model_copy(update={"limit": 3, "real": False}), tmp_path / "a.h5")
    assert (done.sources, done.candidates, done.real) == (3, 3 * REFS * len(DEFAULT_VARIANTS), 0)
    with Store(tmp_path / "a.h5") as store:
        assert store.images.synthetic.all()
        assert not (store.header.files_split == 1).any()  # no test image is even named


def test_per_class_restricts_sources_and_references(
    model: TrainedModel, birds: Dataset, judged: AugmentOptions, tmp_path: Path
) -> None:
    done = run(model, birds, judged.model_copy(update={"per_class": 2}), tmp_path / "a.h5")
    assert (done.sources, done.real) == (2 * SPECIES, 2 * SPECIES + TEST_IMAGES)
    few = {sample.path.as_posix() for sample in birds.subset(2).train}
    with Store(tmp_path / "a.h5") as store:
        named = {store.header.files[row] for row in (*store.candidates.source, *store.candidates.reference)}
        assert named == few


def test_pairs_give_exactly_these_morphs_and_keep_all(
    model: TrainedModel, birds: Dataset, judged: AugmentOptions, tmp_path: Path
) -> None:
    names = [sample.path.as_posix() for sample in birds.train]
    pairs = [(names[0], names[5]), (names[9], names[1]), (names[0], names[12])]
    table = tmp_path / "pairs.csv"
    table.write_text("source,reference\n" + "".join(f"{a},{b}\n" for a, b in pairs))
    options = judged.model_copy(update={"pairs": table, "keep": "per-image", "min_confidence": 0.9})
    done = run(model, birds, options, tmp_path / "a.h5")
    assert done.kept == done.candidates == 3
    with Store(tmp_path / "a.h5") as store:
        rows, files = morphs_of(store), store.header.files
        got = [(files[store.images.source[row]], files[store.images.reference[row]]) for row in rows]
    assert Counter(got) == Counter(pairs)


def test_an_image_with_an_unusable_mask_is_stored_but_neither_source_nor_reference(
    model: TrainedModel, birds: Dataset, judged: AugmentOptions, tmp_path: Path
) -> None:
    folder = write_masks(birds, tmp_path / "masks")
    write_mask(birds, birds.train[3], folder, np.zeros((64, 64), np.uint8))
    write_mask(birds, birds.test[0], folder, np.zeros((64, 64), np.uint8))  # its mask is not needed
    done = run(model, find_masks(birds, folder), judged, tmp_path / "a.h5")
    assert done.sources == TRAINING_IMAGES - 1
    assert done.real == TRAINING_IMAGES + TEST_IMAGES
    assert [(skip.path, skip.for_its_mask) for skip in done.skipped] == [(birds.file(birds.train[3]), True)]
    assert "is empty" in skipped_log(tmp_path / "a.h5").read_text()
    with Store(tmp_path / "a.h5") as store:
        bad = store.header.files.index(birds.train[3].path.as_posix())
        assert bad not in store.candidates.source
        assert bad not in store.candidates.reference


def test_masks_change_the_morphs_and_other_masks_continue_no_run(
    model: TrainedModel, birds: Dataset, judged: AugmentOptions, tmp_path: Path
) -> None:
    options = judged.model_copy(
        update={"limit": 2, "real": False, "keep": "all", "variants": ("morph", "cutout"), "min_confidence": 0.0}
    )
    folder = write_masks(birds, tmp_path / "masks")
    masked = find_masks(birds, folder)
    run(model, birds, options, tmp_path / "bare.h5")
    run(model, masked, options, tmp_path / "masked.h5")
    with Store(tmp_path / "bare.h5") as bare, Store(tmp_path / "masked.h5") as other:
        assert bare.header.provenance.masks_sha256 == bare.header.provenance.masks == ""
        assert (other.header.provenance.masks_sha256, other.header.provenance.masks) == (
            hash_masks(masked.train), str(folder)
        )  # fmt: skip
        pairs = zip(bare.read(list(range(len(bare)))), other.read(list(range(len(other)))), strict=True)
        assert all((first != second).any() for first, second in pairs)
    job = Job(model, masked, options)
    write_mask(birds, birds.train[0], folder, np.full((64, 64), 255, np.uint8))
    assert first_difference(job.identity(), Job(model, masked, options).identity()) is not None
    assert "masks" not in Job(model, birds, options).identity()


def test_more_references_than_images_are_refused_and_nothing_is_left(
    model: TrainedModel, birds: Dataset, judged: AugmentOptions, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=f"refs=16: there are only {TRAINING_IMAGES - 1} other training images"):
        run(model, birds, judged.model_copy(update={"refs": TRAINING_IMAGES}), tmp_path / "a.h5")
    assert list(tmp_path.iterdir()) == []


def test_backgrounds_that_do_not_fit_variants_or_references_are_refused(
    model: TrainedModel, birds: Dataset, judged: AugmentOptions, tmp_path: Path
) -> None:
    for update, message in (
        ({"background": "source", "variants": ("morph", "cutout")}, "background=source: .*leave cutout out"),
        ({"background": "other", "refs": 1}, "2 references or more; try refs=2"),
    ):
        with pytest.raises(UsageError, match=message):
            run(model, birds, judged.model_copy(update=update), tmp_path / "a.h5")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_morphs_of_poor_correspondence_are_dropped_for_models_with_frozen_features(
    frozen: TrainedModel, model: TrainedModel, birds: Dataset, birds_judge: Path, tmp_path: Path
) -> None:
    options = AugmentOptions(refs=2, limit=3, weights=birds_judge, classifier="test_resnet", keep="all")
    options = options.model_copy(update={"min_confidence": 0.0, "variants": ("morph", "mirror", "cutout")})
    dropped = {}
    for least in (0.0, 0.4, 1.0):
        chosen = options.model_copy(update={"min_correspondence": least})
        dropped[least] = run(frozen, birds, chosen, tmp_path / f"{least}.h5").verdicts.get("poor correspondence", 0)
    assert dropped[0.0] == 0
    assert 0 <= dropped[0.4] <= dropped[1.0] == 12  # morphs and mirrors, no cut-outs
    strict = options.model_copy(update={"min_correspondence": 0.4})
    with pytest.raises(UsageError, match=r"min_correspondence=0\.4: used only for .*checkpoint=frozen"):
        Job(model, birds, strict)
    with pytest.raises(UsageError, match=r"min_correspondence=0\.4: has no effect"):
        Job(frozen, birds, strict.model_copy(update={"pairs": tmp_path / "pairs.csv", "limit": None}))


def test_an_image_whose_estimated_mask_is_wrong_is_neither_source_nor_reference_and_is_listed(
    frozen: TrainedModel, birds: Dataset, judged: AugmentOptions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad = birds.train[2]
    image = read_patches(birds, [bad], frozen.card.framing).images[0]

    def empty(patch: np.ndarray, *rest: Any) -> np.ndarray:
        found = refine_mask(patch, *rest)
        return np.zeros_like(found) if (patch == image).all() else found

    monkeypatch.setattr(training_free, "refine_mask", empty)
    said = Listener()
    options = judged.model_copy(update={"variants": ("cutout",), "frame": "crop"})
    done = run(frozen, birds, options, tmp_path / "a.h5", progress=said)
    assert (done.sources, done.real) == (TRAINING_IMAGES - 1, TRAINING_IMAGES + TEST_IMAGES)
    assert [(skip.path, skip.for_its_mask) for skip in done.skipped] == [(birds.file(bad), True)]
    assert "the estimated mask is empty" in skipped_log(tmp_path / "a.h5").read_text()
    assert any(line.startswith("1 of 16 images have unusable masks and are left out") for line in said.lines)
    with Store(tmp_path / "a.h5") as store:
        row = store.header.files.index(bad.path.as_posix())
        assert row not in {*store.candidates.source, *store.candidates.reference}
        assert set(Counter(store.candidates.source.tolist()).values()) == {REFS}
    table = tmp_path / "pairs.csv"
    table.write_text(f"source,reference\n{bad.path.as_posix()},{birds.train[5].path.as_posix()}\n")
    job = Job(frozen, birds, judged.model_copy(update={"pairs": table}), execution=Execution("cpu"))
    assert len(job.plan) == 1  # what is asked for by name is made


def test_a_second_run_takes_masks_and_features_from_the_cache_with_the_same_bytes(
    frozen: TrainedModel, birds: Dataset, judged: AugmentOptions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = judged.model_copy(update={"limit": 2, "refs": 1, "variants": ("morph",), "min_confidence": 0.0})
    patches = read_patches(birds, birds.train[:3], frozen.card.framing)

    def made(name: str, cache: Path | None) -> tuple[bytes, bytes]:
        out, execution = tmp_path / f"{name}.h5", Execution("cpu", 1, cache=cache)
        augment(frozen, birds, options, out, execution=execution)
        assert not isinstance(frozen.translator, PaperTranslator)
        practice = practice_images(
            frozen.translator, patches.images, patches.labels, seed=0, boxes=patches.boxes(), execution=execution
        )
        return out.read_bytes(), practice.images[:].tobytes()

    plain, first = made("plain", None), made("first", tmp_path / "cache")
    entries = sum(path.is_file() for path in (tmp_path / "cache").glob("??/*"))
    monkeypatch.setattr(FrozenReader, "_computed", None)
    assert made("second", tmp_path / "cache") == first == plain
    assert entries == TRAINING_IMAGES


def test_images_with_transparent_pixels_are_told_once(
    model: TrainedModel, birds: Dataset, judged: AugmentOptions, tmp_path: Path
) -> None:
    shutil.copytree(birds.root, tmp_path / "birds")
    data, listener = read_dataset(tmp_path / "birds"), Listener()
    for sample in data.train[:2]:
        make_transparent(data.file(sample))
    Job(model, data, judged, execution=Execution("cpu", progress=listener))
    told = f"2 of {TRAINING_IMAGES} images have transparent pixels, which are laid over white"
    assert listener.lines == [told]
