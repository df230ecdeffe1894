"""Augmenting: what was asked for, each morph with its provenance, the same bytes however often it was stopped."""

from __future__ import annotations

import functools
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from making_runs import (
    FRAMING,
    SIZE,
    SPECIES,
    TEST_PER_CLASS,
    TRAINING_IMAGES,
    Killed,
    Listener,
    interrupt_at,
)

from dagaug.augment import job as morphing
from dagaug.augment.checks import check_classes
from dagaug.augment.engine import Engine
from dagaug.augment.estimate import estimate
from dagaug.augment.options import AugmentOptions
from dagaug.augment.plan import DEFAULT_VARIANTS, VARIANTS
from dagaug.augment.provenance import backgrounds_of
from dagaug.augment.run import Augmented, augment
from dagaug.augment.selection import VERDICTS
from dagaug.classifiers.classifier import Classifier
from dagaug.classifiers.cross_fit import CrossFitted
from dagaug.classifiers.fit import FitOptions
from dagaug.data.dataset import Dataset
from dagaug.data.image_files import decode
from dagaug.data.layouts import read_dataset
from dagaug.data.patches import read_patches
from dagaug.hdf5.reader import Store
from dagaug.hdf5.run import Run
from dagaug.hdf5.shards import parts_of
from dagaug.hdf5.torch_dataset import AugmentedDataset
from dagaug.hdf5.verify import verify
from dagaug.model.trained_model import TrainedModel, load_model
from dagaug.runtime.errors import CheckpointError, DataError, ImageError, OutputExistsError, UsageError
from dagaug.runtime.signals import Interrupted

REFS = 2
CANDIDATES = TRAINING_IMAGES * REFS * len(DEFAULT_VARIANTS)
TEST_IMAGES = SPECIES * TEST_PER_CLASS


@pytest.fixture(scope="module")
def model(birds_run: Path) -> TrainedModel:
    return load_model(birds_run)


@pytest.fixture(scope="module")
def judged(birds_judge: Path) -> AugmentOptions:
    """Options with a judge that needs no training; what is kept is told by every test for itself."""
    return AugmentOptions(refs=REFS, weights=birds_judge, classifier="test_resnet", batch_size=16)


@pytest.fixture(autouse=True)
def _small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(morphing, "_SOURCES_PER_SHARD", 5)
    monkeypatch.setattr(morphing, "_REAL_PER_SHARD", 9)


SHARDS = 3 + 4  # of 24 real images and of 16 sources


def run(model: TrainedModel, data: Dataset, options: AugmentOptions, out: Path, **more: Any) -> Augmented:
    return augment(model, data, options, out, device="cpu", workers=1, **more)


@pytest.fixture(scope="module")
def made(
    model: TrainedModel, birds: Dataset, judged: AugmentOptions, tmp_path_factory: pytest.TempPathFactory
) -> Augmented:
    """One augmentation with the default rules, as png."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(morphing, "_SOURCES_PER_SHARD", 5)
        patch.setattr(morphing, "_REAL_PER_SHARD", 9)
        out = tmp_path_factory.mktemp("made") / "birds.h5"
        return run(model, birds, judged.model_copy(update={"encoding": "png"}), out)


@pytest.fixture(scope="module")
def store(made: Augmented) -> Store:
    return Store(made.out)


def morphs_of(store: Store) -> np.ndarray:
    return np.flatnonzero(store.images.synthetic)


# ---- counts


def test_there_are_sources_times_references_times_variants_candidates(made: Augmented, store: Store) -> None:
    assert (made.sources, made.candidates) == (TRAINING_IMAGES, CANDIDATES)
    candidates = store.candidates
    assert len(candidates) == CANDIDATES
    assert set(Counter(candidates.source.tolist()).values()) == {REFS * len(DEFAULT_VARIANTS)}
    per_pair = Counter(zip(candidates.source.tolist(), candidates.reference.tolist(), strict=True))
    assert len(per_pair) == TRAINING_IMAGES * REFS  # all references of a source are different
    assert set(per_pair.values()) == {len(DEFAULT_VARIANTS)}


def test_the_summary_counts_what_lies_in_the_file(made: Augmented, store: Store) -> None:
    kept = len(morphs_of(store))
    assert made.kept == kept == int((store.candidates.image >= 0).sum()) == made.verdicts["kept"]
    assert made.real == len(store) - kept == TRAINING_IMAGES + TEST_IMAGES
    assert sum(made.verdicts.values()) == CANDIDATES
    assert made.references == len(set(store.candidates.reference.tolist()))
    assert 0 < kept < TRAINING_IMAGES * REFS  # else the tests of the selection say nothing
    assert made.skipped == ()


def test_the_file_is_valid_and_nothing_else_is_left(made: Augmented) -> None:
    verify(made.out)
    assert [path.name for path in made.out.parent.iterdir()] == [made.out.name]


# ---- splits


def test_a_model_that_was_trained_on_another_drawn_split_is_refused(
    model: TrainedModel, birds: Dataset, judged: AugmentOptions, tmp_path: Path
) -> None:
    trained = replace(model, card=model.card.model_copy(update={"split_seed": 7}))
    with pytest.raises(CheckpointError, match="seed 7 draws"):
        run(trained, replace(birds, split_origin="drawn", split_seed=8), judged, tmp_path / "out.h5")
    assert list(tmp_path.iterdir()) == []


# ---- provenance


def test_no_source_is_its_own_reference_and_all_are_training_images(store: Store) -> None:
    candidates, split = store.candidates, store.header.files_split
    assert (candidates.source != candidates.reference).all()
    assert (split[candidates.source] == 0).all()
    assert (split[candidates.reference] == 0).all()
    assert (store.images.split[morphs_of(store)] == 0).all()


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


def test_the_file_says_from_what_and_how_it_was_made(store: Store, model: TrainedModel, birds: Dataset) -> None:
    header = store.header
    assert (header.classes, header.checkpoint_sha256) == (birds.classes, model.sha256)
    assert header.options["data"] == str(birds.root)
    assert header.options["refs"] == REFS
    assert header.options["framing"] == FRAMING.model_dump(mode="json")
    assert (header.variants, header.verdicts) == (VARIANTS, VERDICTS)
    assert header.created_by.startswith("dagaug ")


def test_a_torch_data_set_reads_training_images_real_and_synthetic(made: Augmented) -> None:
    data = AugmentedDataset(made.out)
    assert len(data) == TRAINING_IMAGES + made.kept
    image, label = data[len(data) - 1]
    assert isinstance(image, np.ndarray)
    assert image.shape == (64, 64, 3)
    assert 0 <= label < SPECIES


# ---- selection


def verdict_of(store: Store) -> list[str]:
    return [VERDICTS[code] for code in store.candidates.verdict]


def test_what_is_kept_is_recognised_better_than_by_chance_and_what_is_not_says_why(store: Store) -> None:
    candidates = store.candidates
    for row, verdict in enumerate(verdict_of(store)):
        assert (verdict == "below --min-confidence") == (candidates.confidence[row] < 1 / SPECIES)
        assert (verdict == "kept") == (candidates.image[row] >= 0)
    assert "below --min-confidence" in verdict_of(store)


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


def test_mislabelled_results_are_rejected_where_that_is_asked_for(
    model: TrainedModel, birds: Dataset, judged: AugmentOptions, tmp_path: Path, store: Store
) -> None:
    assert "mislabelled" not in verdict_of(store)
    run(model, birds, judged.model_copy(update={"min_confidence": 0.0, "keep": "all"}), tmp_path / "all.h5")
    with Store(tmp_path / "all.h5") as lenient:
        rows = morphs_of(lenient)
        assert (lenient.images.predicted[rows] != lenient.images.label[rows]).any()
    run(model, birds, judged.model_copy(update={"allow_mislabelled": False, "keep": "all"}), tmp_path / "a.h5")
    with Store(tmp_path / "a.h5") as strict:
        candidates = strict.candidates
        wrong = candidates.predicted != candidates.label
        assert (wrong == (candidates.verdict == VERDICTS.index("mislabelled"))).all()


@pytest.mark.parametrize(
    "bounds",
    [{}, {"min_confidence": 0.0}, {"max_confidence": 1 / SPECIES}],
    ids=["default", "none", "only the hardest"],
)
def test_the_least_confidence_is_chance_unless_a_bound_says_otherwise(
    model: TrainedModel, birds: Dataset, judged: AugmentOptions, tmp_path: Path, bounds: dict[str, float]
) -> None:
    run(model, birds, judged.model_copy(update={"keep": "all", **bounds}), tmp_path / "a.h5")
    least, most = 0.0 if bounds else 1 / SPECIES, bounds.get("max_confidence", 1.0)
    with Store(tmp_path / "a.h5") as store:
        kept, confidence = store.candidates.verdict == VERDICTS.index("kept"), store.candidates.confidence
        assert (kept == (confidence >= least) & (confidence <= most)).all()
        assert kept.any()
        assert kept.all() == ("min_confidence" in bounds)


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
        assert {"below --min-confidence", "above --max-confidence"} <= set(verdict_of(bounded))


# ---- how many and which


def test_a_limit_bounds_the_sources_and_real_images_can_be_left_out(
    model: TrainedModel, birds: Dataset, judged: AugmentOptions, tmp_path: Path
) -> None:
    done = run(model, birds, judged.model_copy(update={"limit": 3, "real": False}), tmp_path / "a.h5")
    assert (done.sources, done.candidates, done.real) == (3, 3 * REFS * len(DEFAULT_VARIANTS), 0)
    with Store(tmp_path / "a.h5") as store:
        assert store.images.synthetic.all()
        assert not (store.header.files_split == 1).any()  # no test image is even named


def test_the_first_images_of_each_class_alone_are_sources_and_references(
    model: TrainedModel, birds: Dataset, judged: AugmentOptions, tmp_path: Path
) -> None:
    done = run(model, birds, judged.model_copy(update={"per_class": 2}), tmp_path / "a.h5")
    assert (done.sources, done.real) == (2 * SPECIES, 2 * SPECIES + TEST_IMAGES)
    few = {sample.path.as_posix() for sample in birds.subset(2).train}
    with Store(tmp_path / "a.h5") as store:
        named = {store.header.files[row] for row in (*store.candidates.source, *store.candidates.reference)}
        assert named == few


def test_pairs_give_exactly_these_morphs_and_all_of_them(
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


def test_more_references_than_images_are_refused_and_nothing_is_left(
    model: TrainedModel, birds: Dataset, judged: AugmentOptions, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=f"--refs 16: there are only {TRAINING_IMAGES - 1} other training images"):
        run(model, birds, judged.model_copy(update={"refs": TRAINING_IMAGES}), tmp_path / "a.h5")
    assert list(tmp_path.iterdir()) == []


# ---- how they are stored


def test_crops_have_the_size_of_the_patches(
    model: TrainedModel, birds: Dataset, judged: AugmentOptions, tmp_path: Path
) -> None:
    run(model, birds, judged.model_copy(update={"frame": "crop", "limit": 4}), tmp_path / "a.h5")
    with Store(tmp_path / "a.h5") as store:
        for image in store.read(morphs_of(store).tolist()):
            assert image.shape == (SIZE, SIZE, 3)


@pytest.mark.parametrize("variant", VARIANTS)
def test_whole_images_are_the_reference_or_its_mirror_image_but_for_the_place_of_the_object(
    model: TrainedModel, birds: Dataset, judged: AugmentOptions, tmp_path: Path, variant: str
) -> None:
    options = judged.model_copy(update={"variants": (variant,), "encoding": "png", "min_confidence": 0.0, "limit": 6})
    run(model, birds, options, tmp_path / "a.h5")
    patches = read_patches(birds, birds.train, FRAMING)
    region_of = {s.path.as_posix(): r for s, r in zip(patches.samples, patches.regions, strict=True)}
    outside = 0
    with Store(tmp_path / "a.h5") as store:
        rows = morphs_of(store)
        assert len(rows) == 6 * REFS
        for row in rows:
            name = store.header.files[store.images.reference[row]]
            reference, result = decode(birds.root / name), store.image(int(row))
            left, top, side = region_of[name].pixels()
            far = np.ones(reference.shape[:2], bool)
            far[max(top, 0) : top + side, max(left, 0) : left + side] = False
            if variant == "mirror":
                reference, far = reference[:, ::-1], far[:, ::-1]
            assert result.shape == reference.shape
            np.testing.assert_array_equal(result[far], reference[far])
            assert (result != reference).any()
            outside += int(far.sum())
    assert outside > 0


@pytest.mark.parametrize("background", ["source", "other"])
def test_on_another_background_an_image_is_the_one_that_gives_it_but_for_the_place_of_the_object(
    model: TrainedModel, birds: Dataset, judged: AugmentOptions, tmp_path: Path, background: str
) -> None:
    changes = {"background": background, "encoding": "png", "min_confidence": 0.0, "limit": 6}
    run(model, birds, judged.model_copy(update=changes), tmp_path / "a.h5")
    regions = read_patches(birds, birds.train, FRAMING)
    region_of = {s.path.as_posix(): r for s, r in zip(regions.samples, regions.regions, strict=True)}
    with Store(tmp_path / "a.h5") as store:
        images, files = store.images, store.header.files
        for row, behind in zip(morphs_of(store), backgrounds_of(store)[morphs_of(store)], strict=True):
            source, reference = images.source[row], images.reference[row]
            assert behind == source if background == "source" else behind not in (source, reference)
            whole, result = decode(birds.root / files[behind]), store.image(int(row))
            left, top, side = region_of[files[behind]].pixels()
            far = np.ones(whole.shape[:2], bool)
            far[max(top, 0) : top + side, max(left, 0) : left + side] = False
            if images.variant[row] == VARIANTS.index("mirror"):
                whole, far = whole[:, ::-1], far[:, ::-1]
            np.testing.assert_array_equal(result[far], whole[far])
            assert (result != whole).any()


def test_cutouts_are_candidates_of_their_own_that_no_morph_has_to_beat(
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


def test_what_backgrounds_and_variants_do_not_allow_is_refused(
    model: TrainedModel, birds: Dataset, judged: AugmentOptions, tmp_path: Path
) -> None:
    for update, told in (
        ({"background": "source", "variants": ("morph", "cutout")}, "copies of the sources; leave cutout out"),
        ({"background": "other", "refs": 1}, "--refs 2 or more"),
    ):
        with pytest.raises(UsageError, match=told):
            run(model, birds, judged.model_copy(update=update), tmp_path / "a.h5")
    assert list(tmp_path.iterdir()) == []


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


# ---- the same bytes


def test_the_same_options_give_the_same_bytes_in_another_place(
    made: Augmented, model: TrainedModel, birds: Dataset, judged: AugmentOptions, tmp_path: Path
) -> None:
    run(model, birds, judged.model_copy(update={"encoding": "png"}), tmp_path / "elsewhere" / "again.h5")
    assert (tmp_path / "elsewhere" / "again.h5").read_bytes() == made.out.read_bytes()


def kill_at_shard(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """End the run as SIGKILL would when it is about to write its shard of this number."""
    write = Run.write

    def until(self: Run, index: int, content: Any) -> None:
        if index == number:
            raise Killed
        write(self, index, content)

    monkeypatch.setattr(Run, "write", until)


def test_cutouts_on_other_backgrounds_are_the_same_bytes_when_their_run_was_killed(
    model: TrainedModel, birds: Dataset, judged: AugmentOptions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = judged.model_copy(update={"background": "other", "variants": VARIANTS})
    run(model, birds, options, tmp_path / "straight.h5")
    with monkeypatch.context() as patch:
        kill_at_shard(patch, SHARDS - 2)
        with pytest.raises(Killed):
            run(model, birds, options, tmp_path / "a.h5")
    with pytest.raises(OutputExistsError, match=r'options\.background = "?other"?, while this one has .*reference'):
        run(model, birds, options.model_copy(update={"background": "reference"}), tmp_path / "a.h5")
    run(model, birds, options, tmp_path / "a.h5")
    assert (tmp_path / "a.h5").read_bytes() == (tmp_path / "straight.h5").read_bytes()


@pytest.mark.parametrize("number", [0, 1, SHARDS - 2])
def test_a_run_that_was_killed_between_shards_goes_on_to_the_same_bytes(
    made: Augmented,
    model: TrainedModel,
    birds: Dataset,
    judged: AugmentOptions,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    number: int,
) -> None:
    options, out = judged.model_copy(update={"encoding": "png"}), tmp_path / "a.h5"
    with monkeypatch.context() as patch:
        kill_at_shard(patch, number)
        with pytest.raises(Killed):
            run(model, birds, options, out)
    assert not out.exists()
    encoded = Listener()
    run(model, birds, options, out, progress=encoded)
    assert out.read_bytes() == made.out.read_bytes()
    assert not parts_of(out).exists()


@pytest.mark.parametrize("retry", [False, True])
def test_a_run_that_was_killed_when_its_file_was_whole_is_finished_by_the_same_call(
    model: TrainedModel,
    birds: Dataset,
    judged: AugmentOptions,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    retry: bool,
) -> None:
    out, listener = tmp_path / "a.h5", Listener()
    options = judged.model_copy(update={"limit": 2})

    def killed(self: Run) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(Run, "_remove", killed)
        with pytest.raises(Killed):
            run(model, birds, options, out)
    content = out.read_bytes()
    assert parts_of(out).exists()
    done = run(model, birds, options, out, retry_failed=retry, progress=listener)
    assert out.read_bytes() == content
    assert [path.name for path in tmp_path.iterdir()] == ["a.h5"]
    assert done.candidates == 2 * REFS * len(DEFAULT_VARIANTS)
    assert listener.lines == [
        f"{out}: no file was skipped; it stays as it is"
        if retry
        else f"{out}: was whole already when the call before was killed"
    ]
    with pytest.raises(OutputExistsError, match=r"a\.h5 exists; --overwrite replaces it"):
        run(model, birds, options, out)


def test_a_run_that_was_interrupted_keeps_its_shards_and_goes_on_to_the_same_bytes(
    made: Augmented, model: TrainedModel, birds: Dataset, judged: AugmentOptions, tmp_path: Path
) -> None:
    options, out = judged.model_copy(update={"encoding": "png"}), tmp_path / "a.h5"
    shard = 5 * REFS * len(DEFAULT_VARIANTS)
    with pytest.raises(Interrupted, match="finished shards are kept"):
        run(model, birds, options, out, progress=interrupt_at("Morphing", shard))
    kept = sorted(path.name for path in parts_of(out).glob("index-*.h5"))
    assert 3 < len(kept) < SHARDS
    times = {name: (parts_of(out) / name).stat().st_mtime_ns for name in kept}
    with pytest.raises(Interrupted):
        run(model, birds, options, out, progress=interrupt_at("Morphing", 2 * shard))
    assert {name: (parts_of(out) / name).stat().st_mtime_ns for name in kept} == times  # not made again
    run(model, birds, options, out)
    assert out.read_bytes() == made.out.read_bytes()


def test_an_unfinished_run_with_other_options_is_refused_with_the_option_and_both_values(
    model: TrainedModel, birds: Dataset, judged: AugmentOptions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        kill_at_shard(patch, 2)
        with pytest.raises(Killed):
            run(model, birds, judged, tmp_path / "a.h5")
    with pytest.raises(OutputExistsError, match=r"refs = 2, while this one has options\.refs = 3"):
        run(model, birds, judged.model_copy(update={"refs": 3}), tmp_path / "a.h5")
    done = run(model, birds, judged.model_copy(update={"refs": 1}), tmp_path / "a.h5", overwrite=True)
    assert done.candidates == TRAINING_IMAGES * len(DEFAULT_VARIANTS)


def test_a_finished_file_is_replaced_only_when_asked_for(
    made: Augmented, model: TrainedModel, birds: Dataset, judged: AugmentOptions, tmp_path: Path
) -> None:
    out = shutil.copy(made.out, tmp_path / "a.h5")
    before = out.read_bytes()
    with pytest.raises(OutputExistsError, match=r"a\.h5 exists; --overwrite replaces it"):
        run(model, birds, judged, out)
    assert out.read_bytes() == before
    run(model, birds, judged.model_copy(update={"limit": 2}), out, overwrite=True)
    with Store(out) as store:
        assert len(store.candidates) == 2 * REFS * len(DEFAULT_VARIANTS)


def test_an_error_before_the_first_shard_leaves_nothing_that_stands_in_the_way(
    model: TrainedModel, birds: Dataset, tmp_path: Path, judged: AugmentOptions
) -> None:
    wrong = AugmentOptions(refs=REFS, classifier="resnet1")
    with pytest.raises(UsageError, match=r"resnet1.*resnet"):
        run(model, birds, wrong, tmp_path / "a.h5")
    assert list(tmp_path.iterdir()) == []
    run(model, birds, judged.model_copy(update={"limit": 1}), tmp_path / "a.h5")


def test_too_little_memory_changes_nothing_but_the_batches(
    made: Augmented,
    model: TrainedModel,
    birds: Dataset,
    judged: AugmentOptions,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    whole, sizes = Engine._draw, []

    def limited(self: Engine, sources: Any, of: np.ndarray, *more: Any) -> Any:
        if len(of) > 6:
            raise torch.OutOfMemoryError("CUDA out of memory")
        sizes.append(len(of))
        return whole(self, sources, of, *more)

    monkeypatch.setattr(Engine, "_draw", limited)
    done = run(model, birds, judged.model_copy(update={"encoding": "png"}), tmp_path / "a.h5")
    assert max(sizes) <= 6
    assert sum(sizes) == CANDIDATES
    assert (done.candidates, done.verdicts, done.kept) == (made.candidates, made.verdicts, made.kept)


# ---- images that cannot be read


@pytest.fixture
def damaged(birds_folder: Path, tmp_path: Path) -> tuple[Dataset, set[str]]:
    """The birds with a training image cut off and a test image that is none; their names."""
    root = tmp_path / "damaged"
    shutil.copytree(birds_folder, root)
    data = read_dataset(root)
    cut_off, none = data.train[6], data.test[3]
    data.file(cut_off).write_bytes(data.file(cut_off).read_bytes()[:200])
    data.file(none).write_bytes(b"<html>not found</html>")
    return data, {cut_off.path.as_posix(), none.path.as_posix()}


def test_unreadable_images_are_passed_over_counted_and_listed_in_the_file(
    model: TrainedModel, damaged: tuple[Dataset, set[str]], judged: AugmentOptions, tmp_path: Path
) -> None:
    data, bad = damaged
    listener = Listener()
    done = run(model, data, judged, tmp_path / "a.h5", progress=listener)
    assert {skip.path.relative_to(data.root).as_posix() for skip in done.skipped} == bad
    assert len(done.skipped) == 2
    assert (done.sources, done.real) == (TRAINING_IMAGES - 1, TRAINING_IMAGES + TEST_IMAGES - 2)
    assert any("skipped" in line for line in listener.lines)
    with Store(tmp_path / "a.h5") as store:
        listed = {Path(path).relative_to(data.root).as_posix(): reason for path, reason in store.header.skipped}
        assert listed.keys() == bad
        assert all(listed.values())
        used = {store.header.files[row] for row in (*store.images.source, *store.candidates.reference)}
        assert not used & bad


def test_a_run_that_goes_on_lists_the_unreadable_images_of_finished_shards_too(
    model: TrainedModel,
    damaged: tuple[Dataset, set[str]],
    judged: AugmentOptions,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    data, _ = damaged
    straight = run(model, data, judged, tmp_path / "straight.h5")
    with monkeypatch.context() as patch:
        kill_at_shard(patch, 4)  # all real images are written
        with pytest.raises(Killed):
            run(model, data, judged, tmp_path / "stopped.h5")
    resumed = run(model, data, judged, tmp_path / "stopped.h5")
    assert resumed.skipped == straight.skipped
    assert (tmp_path / "stopped.h5").read_bytes() == (tmp_path / "straight.h5").read_bytes()


def test_strictly_the_first_unreadable_image_is_an_error(
    model: TrainedModel, damaged: tuple[Dataset, set[str]], judged: AugmentOptions, tmp_path: Path
) -> None:
    with pytest.raises(ImageError, match="not a readable image"):
        run(model, damaged[0], judged, tmp_path / "a.h5", strict=True)
    assert not (tmp_path / "a.h5").exists()


def test_a_reference_that_vanishes_meanwhile_is_told_and_the_run_can_go_on(
    model: TrainedModel, birds_folder: Path, judged: AugmentOptions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, out = tmp_path / "birds", tmp_path / "a.h5"
    shutil.copytree(birds_folder, root)
    data = read_dataset(root)
    options = judged.model_copy(update={"real": False, "min_confidence": 0.0})
    with monkeypatch.context() as patch:
        patch.setattr(morphing.Job, "_decode", lambda self, path: decode(path.with_suffix(".gone")))
        with pytest.raises(DataError, match="readable when this run began; restore it and run again"):
            run(model, data, options, out)
    assert run(model, data, options, out).kept == TRAINING_IMAGES * REFS


# ---- the judge


def test_judges_are_cross_fitted_kept_beside_the_run_and_not_trained_again(
    model: TrainedModel, birds: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(morphing, "FitOptions", functools.partial(FitOptions, steps=3, batch_size=8))
    cache, options = tmp_path / "judges.safetensors", AugmentOptions(refs=1, folds=2, limit=4)
    first = Listener()
    done = run(model, birds, options, tmp_path / "a.h5", cache=cache, progress=first)
    assert 0 <= done.accuracy <= 1
    assert any("right on" in line for line in first.lines)
    second = Listener()
    again = run(model, birds, options, tmp_path / "b.h5", cache=cache, progress=second)
    assert any("not trained again" in line for line in second.lines)
    assert again.accuracy == done.accuracy
    assert (tmp_path / "a.h5").read_bytes() == (tmp_path / "b.h5").read_bytes()
    judges = CrossFitted.load(cache)
    images = read_patches(birds, birds.train, FRAMING).images
    for row, fold in enumerate(judges.fold_of):
        assert not judges.classifiers[fold].saw(images[row : row + 1]).any()
    tests = read_patches(birds, birds.test, FRAMING).images
    assert not any(judge.saw(tests).any() for judge in judges.classifiers)


def test_a_judge_that_is_given_judges_as_it_is(
    model: TrainedModel, birds: Dataset, judged: AugmentOptions, birds_judge: Path, tmp_path: Path
) -> None:
    listener = Listener()
    options = judged.model_copy(update={"frame": "crop", "encoding": "png", "keep": "all", "limit": 3})
    done = run(model, birds, options.model_copy(update={"min_confidence": 0.0}), tmp_path / "a.h5", progress=listener)
    assert any("judges as it is" in line for line in listener.lines)
    assert np.isnan(done.accuracy)
    judge = Classifier.load(birds_judge)
    with Store(tmp_path / "a.h5") as store:
        rows = morphs_of(store)
        probabilities = judge.probabilities(np.stack(store.read(rows.tolist())))
        own = probabilities[np.arange(len(rows)), store.images.label[rows]]
        np.testing.assert_allclose(own, store.images.confidence[rows], atol=0.02)  # stored pixels are rounded


# ---- another model


def test_a_model_of_other_classes_is_refused_naming_both(birds: Dataset, model: TrainedModel, tmp_path: Path) -> None:
    other = replace(birds, classes=("a.Raven", *birds.classes[1:]), root=tmp_path / "ravens")
    with pytest.raises(CheckpointError) as told:
        check_classes(model, other)
    message = str(told.value)
    assert str(model.path) in message
    assert "4 classes of birds" in message
    assert f"{tmp_path / 'ravens'} has 4" in message
    assert birds.classes[0] in message
    with pytest.raises(CheckpointError, match="first difference: their order"):
        check_classes(model, replace(birds, classes=birds.classes[::-1]))
    check_classes(model, birds)


def test_a_model_of_two_folders_is_refused(birds: Dataset, model: TrainedModel) -> None:
    paper = replace(model, card=model.card.model_copy(update={"mode": "paper"}))
    with pytest.raises(CheckpointError, match="use dagaug translate"):
        check_classes(paper, birds)


# ---- the estimate


def test_the_estimate_counts_what_would_be_made_and_writes_nothing(
    model: TrainedModel, birds: Dataset, judged: AugmentOptions, made: Augmented, tmp_path: Path
) -> None:
    guess = estimate(model, birds, judged.model_copy(update={"encoding": "png"}), tmp_path / "a.h5", device="cpu")
    assert (guess.sources, guess.candidates) == (TRAINING_IMAGES, CANDIDATES)
    assert guess.seconds > 0
    assert guess.free > 0
    assert guess.size > 0.8 * made.out.stat().st_size  # if all were kept that can be
    assert list(tmp_path.iterdir()) == []


def test_every_morph_differs_from_its_reference_and_no_two_are_the_same(store: Store) -> None:
    images = store.read(morphs_of(store).tolist())
    assert len({cv2.imencode(".png", image)[1].tobytes() for image in images}) == len(images)


def test_judges_that_are_mostly_wrong_reject_nothing_unless_asked_to(
    model: TrainedModel, birds: Dataset, judged: AugmentOptions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their word counts only where it is asked for."""
    monkeypatch.setattr(morphing, "TRUSTED", 1.01)  # of which all fall short
    monkeypatch.setattr(morphing, "FitOptions", functools.partial(FitOptions, steps=30))
    given = judged.model_copy(update={"weights": None, "folds": 2, "classifier": "auto"})
    cache = tmp_path / "judges"
    done = run(model, birds, given, tmp_path / "a.h5", cache=cache)
    strict = run(model, birds, given.model_copy(update={"allow_mislabelled": False}), tmp_path / "b.h5", cache=cache)
    assert set(done.verdicts) == {"kept", "not the best of its reference"}
    assert strict.verdicts["mislabelled"] > 0
