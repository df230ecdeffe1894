"""The controls: as many images as morphs, each without one ingredient, from the right checkpoint only."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from making_masks import write_mask, write_masks
from making_runs import SIZE, Listener

from dagaug.augment.morph_plan import VARIANTS
from dagaug.augment.options import AugmentOptions
from dagaug.augment.run import augment
from dagaug.classifiers.cross_fit import CrossFitted, cross_fit
from dagaug.classifiers.fit import FitOptions
from dagaug.compute.tensors import to_tensor
from dagaug.data.dataset_records import Dataset
from dagaug.data.grabcut_and_inpainting import fill_background
from dagaug.data.image_files import decode
from dagaug.data.mask_files import find_masks
from dagaug.data.object_patches import Framing, Patches, read_patches
from dagaug.hdf5.reader import Store
from dagaug.hdf5.schema import Images
from dagaug.model import training_free_statistics
from dagaug.model.frozen_readings import FrozenReader
from dagaug.model.trained_model import load_model
from dagaug.model.training_free_checkpoint import fit_training_free
from dagaug.runtime.errors import CheckpointError, DataError
from dagaug.runtime.execution_settings import Execution
from dagaug.score.control_images import Controls, find_checkpoint, use_of_features
from dagaug.score.experiment import score
from dagaug.score.leak_checks import check_selector
from dagaug.score.options import CONTROLS, ScoreOptions, arm_names

WHOLE = 64


def make(birds: Dataset, run: Path, judge: Path, out: Path, **changes: object) -> Path:
    options = {"refs": 2, "min_confidence": 0.0, "weights": judge, "encoding": "png"} | changes
    augment(load_model(run), birds, AugmentOptions(**options), out, execution=Execution("cpu"))  # type: ignore[arg-type]
    return out


@pytest.fixture(scope="module")
def stores(
    birds: Dataset, birds_run: Path, birds_judge: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Path]:
    """Files of morphs in whole frames, and as patches."""
    folder = tmp_path_factory.mktemp("controls")
    return {
        frame: make(birds, birds_run, birds_judge, folder / f"{frame}.h5", frame=frame) for frame in ("whole", "crop")
    }


@pytest.fixture(scope="module")
def patches(birds: Dataset, birds_run: Path) -> Patches:
    return read_patches(birds, birds.train, load_model(birds_run).card.framing)


def table(path: Path) -> tuple[Images, list[tuple[str, str]]]:
    """The file's table, and the names of source and reference of each image in it."""
    with Store(path) as store:
        files = store.header.files
        images = store.images
        return images, [
            (files[s], files[r] if r >= 0 else "") for s, r in zip(images.source, images.reference, strict=True)
        ]


@pytest.mark.parametrize("frame", ["whole", "crop"])
def test_there_is_one_for_each_morph_with_its_label(birds: Dataset, stores: dict[str, Path], frame: str) -> None:
    images, names = table(stores[frame])
    label_of = {sample.path.as_posix(): sample.label for sample in birds.train}
    kept = images.synthetic
    controls = Controls(stores[frame], birds, size=SIZE)
    for name in (name for name in CONTROLS if name != "frozen"):
        made, labels = controls.make(name)
        assert made.shape == (kept.sum(), SIZE, SIZE, 3)
        origins = controls.origins(name)
        assert [label_of[origin[0]] for origin in origins] == labels.tolist()
        if name != "random":
            np.testing.assert_array_equal(labels, images.label[kept])
            assert [origin[:2] for origin in origins] == [pair for pair in names if pair[1]]
    assert [path for path in stores[frame].parent.iterdir() if path.suffix != ".h5"] == []


def test_a_cutout_is_the_source_inside_its_mask_and_the_reference_s_background_outside(
    birds: Dataset, birds_run: Path, stores: dict[str, Path], patches: Patches
) -> None:
    made, _ = Controls(stores["crop"], birds, size=SIZE).make("cutout")
    dae = load_model(birds_run).translator.dae
    with torch.inference_mode():
        masks = dae.structure(to_tensor(patches.images[:], torch.device("cpu")))[0].object[:, 0].numpy()  # type: ignore[operator]
        flipped = patches.images[:, :, ::-1].copy()
        mirrored = dae.structure(to_tensor(flipped, torch.device("cpu")))[0].object[:, 0].numpy()  # type: ignore[operator]
    row_of = {sample.path.as_posix(): row for row, sample in enumerate(patches.samples)}
    images, names = table(stores["crop"])
    for image, row in zip(made, np.flatnonzero(images.synthetic).tolist(), strict=True):
        source, reference = (row_of[name] for name in names[row])
        mirror = VARIANTS[images.variant[row]] == "mirror"
        there = flipped[reference] if mirror else patches.images[reference]
        behind, hole = fill_background(there, (mirrored if mirror else masks)[reference])
        alpha = masks[source][..., None]
        expected = alpha * patches.images[source] + (1 - alpha) * behind
        np.testing.assert_allclose(image, expected, atol=1.5)
        untouched = (masks[source] < 1e-3) & (hole == 0)
        np.testing.assert_array_equal(image[untouched], there[untouched])


def test_cutouts_of_a_file_that_was_made_with_masks_have_these_masks(
    birds: Dataset, birds_run: Path, birds_judge: Path, tmp_path: Path
) -> None:
    folder = write_masks(birds, tmp_path / "masks")
    masked = find_masks(birds, folder)
    path = make(masked, birds_run, birds_judge, tmp_path / "a.h5", frame="crop", background="source", refs=1)
    made, _ = Controls(path, birds, size=SIZE).make("cutout")  # the file says where its masks are
    again, _ = Controls(path, find_masks(birds, shutil.copytree(folder, tmp_path / "copy")), size=SIZE).make("cutout")
    np.testing.assert_array_equal(made, again)
    patches = read_patches(masked, masked.train, load_model(birds_run).card.framing, masks=True)
    row_of = {sample.path.as_posix(): row for row, sample in enumerate(patches.samples)}
    images, names = table(path)
    for image, row in zip(made, np.flatnonzero(images.synthetic).tolist(), strict=True):
        mask, source = patches.masks[row_of[names[row][0]]], patches.images[row_of[names[row][0]]]
        assert mask is not None
        np.testing.assert_array_equal(image[mask == 255], source[mask == 255])
    write_mask(birds, birds.train[0], folder, np.zeros((64, 64), np.uint8))
    for gone in (False, True):
        if gone:
            shutil.rmtree(folder)
        with pytest.raises(DataError, match=r"was made with masks from .*, which have changed or are gone; try"):
            Controls(path, birds, size=SIZE)
    # Published data sets and tables give their masks other names than their images'.
    folder.mkdir()
    copies = find_masks(birds, tmp_path / "copy").samples
    named = [replace(one, mask=Path(shutil.copy(str(one.mask), folder / f"{n}.png"))) for n, one in enumerate(copies)]
    listed, _ = Controls(path, replace(birds, samples=tuple(named), masks=folder), size=SIZE).make("cutout")
    np.testing.assert_array_equal(made, listed)


def test_a_cutout_stands_in_the_reference_s_whole_frame(
    birds: Dataset, stores: dict[str, Path], patches: Patches
) -> None:
    made, _ = Controls(stores["whole"], birds, size=WHOLE).make("cutout")
    row_of = {sample.path.as_posix(): row for row, sample in enumerate(patches.samples)}
    images, names = table(stores["whole"])
    for image, row in zip(made, np.flatnonzero(images.synthetic).tolist(), strict=True):
        reference = row_of[names[row][1]]
        frame = decode(birds.file(patches.samples[reference]))
        outside = np.ones(frame.shape[:2], bool)
        left, top, side = patches.regions[reference].pixels()
        outside[max(top, 0) : max(top + side, 0), max(left, 0) : max(left + side, 0)] = False
        if VARIANTS[images.variant[row]] == "mirror":
            frame, outside = frame[:, ::-1], outside[:, ::-1]
        np.testing.assert_array_equal(image[outside], frame[outside])


def test_a_cutout_is_the_candidate_of_that_kind_to_the_bit(
    birds: Dataset, birds_run: Path, birds_judge: Path, tmp_path: Path
) -> None:
    changes = {"variants": ("cutout",), "background": "other", "frame": "crop", "limit": 8}
    path = make(birds, birds_run, birds_judge, tmp_path / "cutouts.h5", **changes)
    made, _ = Controls(path, birds, size=SIZE).make("cutout")
    with Store(path) as store:
        kept = np.flatnonzero(store.images.synthetic).tolist()
        np.testing.assert_array_equal(made, np.stack(store.read(kept)))
    drawn, _ = Controls(path, birds, size=SIZE).make("random")
    np.testing.assert_array_equal(drawn, made)


def test_warps_depend_on_the_seed_alone_and_move_the_object(birds: Dataset, stores: dict[str, Path]) -> None:
    def warped(seed: int) -> np.ndarray:
        return Controls(stores["crop"], birds, size=SIZE, seed=seed).make("cutwarp")[0][:]

    plain = Controls(stores["crop"], birds, size=SIZE).make("cutout")[0][:]
    np.testing.assert_array_equal(warped(1), warped(1))
    assert (warped(1) != warped(2)).any((1, 2, 3)).all()
    assert (warped(1) != plain).any((1, 2, 3)).all()


def test_random_morphs_are_the_plan_s_candidates_kept_or_not(
    birds: Dataset, birds_run: Path, birds_judge: Path, stores: dict[str, Path], tmp_path: Path
) -> None:
    everything = make(birds, birds_run, birds_judge, tmp_path / "all.h5", keep="all")
    with Store(everything) as store:
        rows = np.flatnonzero(store.images.synthetic)
        candidates = np.stack(store.read(rows.tolist()))
        every_label = store.images.label[rows]
    whole, labels = Controls(everything, birds, size=WHOLE).make("random")
    np.testing.assert_allclose(whole, candidates, atol=2)  # in the plan's order, since all are drawn
    np.testing.assert_array_equal(labels, every_label)
    few, _ = Controls(stores["whole"], birds, size=WHOLE, seed=1).make("random")
    others, _ = Controls(stores["whole"], birds, size=WHOLE, seed=2).make("random")
    assert (few[:] != others[:]).any()
    near = [np.abs(candidates.astype(int) - image).max((1, 2, 3)).min() for image in few]
    assert max(near) <= 2


@pytest.fixture(scope="module")
def frozen_store(birds: Dataset, birds_judge: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of morphs made without training, by the features of the control."""
    folder = tmp_path_factory.mktemp("frozen")
    model = fit_training_free(birds, folder, name="birds", framing=Framing(size=SIZE))
    return make(birds, model.path, birds_judge, folder / "frozen.h5", frame="crop", keep="all")


@pytest.mark.slow
def test_frozen_morphs_are_those_of_the_model_without_training_at_the_file_s_framing(
    birds: Dataset,
    birds_run: Path,
    birds_judge: Path,
    frozen_store: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    trained = make(birds, birds_run, birds_judge, tmp_path / "trained.h5", frame="crop", keep="all")
    execution = Execution("cpu", cache=tmp_path / "cache.h5")
    made, labels = Controls(trained, birds, size=SIZE, execution=execution).make("frozen")
    with monkeypatch.context() as patch:
        patch.setattr(FrozenReader, "_computed", None)
        patch.setattr(training_free_statistics, "_maps", None)
        again, _ = Controls(trained, birds, size=SIZE, execution=execution).make("frozen")
    np.testing.assert_array_equal(made, again)
    with Store(frozen_store) as store:  # the plan depends on the seed alone
        kept = np.flatnonzero(store.images.synthetic)
        np.testing.assert_allclose(made, np.stack(store.read(kept.tolist())), atol=2)
        np.testing.assert_array_equal(labels, store.images.label[kept])
    assert use_of_features(trained) == "none"
    assert [path for path in tmp_path.iterdir() if path.suffix != ".h5"] == []


@pytest.mark.slow
def test_a_file_made_without_training_has_no_arm_of_frozen_morphs(birds: Dataset, frozen_store: Path) -> None:
    assert use_of_features(frozen_store) == "alone"
    listener = Listener()
    options = ScoreOptions(
        FitOptions("test_resnet", SIZE, steps=1, batch_size=4), seeds=2, arms=("real", "real+dagaug", "frozen")
    )
    result = score(birds, frozen_store, options, execution=Execution(progress=listener))
    assert [arm.arm for arm in result.arms] == ["real", "real+dagaug"]
    assert any("was made without training" in line for line in listener.lines)


def test_jpeg_files_have_controls_that_lost_as_much(
    birds: Dataset, birds_run: Path, birds_judge: Path, stores: dict[str, Path], tmp_path: Path
) -> None:
    path = make(birds, birds_run, birds_judge, tmp_path / "j.h5", encoding="jpeg", quality=60, frame="crop")
    lossy = Controls(path, birds, size=SIZE).make("cutout")[0][:]
    plain = Controls(stores["crop"], birds, size=SIZE).make("cutout")[0][:]
    gap = np.abs(lossy.astype(int) - plain).mean()
    assert 0.5 < gap < 12


# The checkpoint


@contextmanager
def moved(birds: Dataset, run: Path, judge: Path, folder: Path) -> Iterator[tuple[Path, Path]]:
    """A file made with a checkpoint in another folder, and that checkpoint."""
    model = folder / "run" / "model.safetensors"
    model.parent.mkdir()
    shutil.copy(run / "model.safetensors", model)
    yield make(birds, model.parent, judge, folder / "a.h5", limit=2, real=False), model


def test_another_checkpoint_is_refused_naming_both(
    birds: Dataset, birds_run: Path, birds_judge: Path, tmp_path: Path
) -> None:
    with moved(birds, birds_run, birds_judge, tmp_path) as (path, model), Store(path) as store:
        header = store.header
        assert find_checkpoint(path, header) == model
        model.write_bytes(b"another")
        with pytest.raises(CheckpointError, match=r"run/model\.safetensors: not the .*SHA-256.*; .*/a\.h5 need"):
            Controls(path, birds, size=SIZE)
        assert find_checkpoint(path, header, birds_run) == birds_run / "model.safetensors"
        model.unlink()
        with pytest.raises(CheckpointError, match=r"run/model\.safetensors: not found; .*/a\.h5 .*controls=False"):
            Controls(path, birds, size=SIZE)
        shutil.copy(birds_run / "model.safetensors", tmp_path)  # beside the file, as augment writes it by default
        assert find_checkpoint(path, header) == tmp_path / "model.safetensors"


def test_a_checkpoint_that_was_named_by_a_relative_path_is_found_from_any_folder(
    birds: Dataset, birds_run: Path, birds_judge: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(birds_run.parent)
    path = make(birds, Path(birds_run.name), birds_judge, tmp_path / "a.h5", limit=2, real=False)
    monkeypatch.chdir(tmp_path)
    with Store(path) as store:
        assert find_checkpoint(path, store.header) == birds_run / "model.safetensors"


def test_a_data_folder_without_a_source_is_an_error(birds: Dataset, stores: dict[str, Path]) -> None:
    with Store(stores["whole"]) as store:
        lost = store.header.files[int(store.candidates.source[0])]
    others = Dataset(
        birds.root, birds.layout, birds.classes,
        tuple(sample for sample in birds.samples if sample.path.as_posix() != lost), birds.split_origin,
    )  # fmt: skip
    with pytest.raises(DataError, match="is not a readable training image"):
        Controls(stores["whole"], others, size=SIZE).make("cutout")


# The selector


def test_a_selector_that_saw_test_images_is_reported(
    birds: Dataset, stores: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert check_selector(stores["whole"], birds) is None
    with Store(stores["whole"]) as store:
        recorded = store.header.options["judges"]
    file = stores["whole"].with_name("judges.safetensors")
    options = FitOptions("test_resnet", SIZE, steps=1, batch_size=4)
    try:
        for samples, seen in ((birds.train, 0), ((*birds.train, *birds.test[:3]), 3)):
            shown = read_patches(birds, samples, load_model(_model_of(stores)).card.framing)
            fitted = cross_fit(shown.images, shown.labels, birds.classes, options, folds=2, seed=0)
            assert isinstance(fitted, CrossFitted)
            fitted.save(file)
            assert check_selector(stores["whole"], birds) is None  # others than those that selected
            with monkeypatch.context() as patch:
                patch.setattr(CrossFitted, "sha256", lambda self: recorded)
                found = check_selector(stores["whole"], birds)
            assert found is not None
            assert (found.seen, found.test, found.learned) == (seen, len(birds.test), len(samples))
        file.write_bytes(b"broken")
        assert check_selector(stores["whole"], birds) is None
    finally:
        file.unlink(missing_ok=True)


def _model_of(stores: dict[str, Path]) -> Path:
    with Store(stores["whole"]) as store:
        return find_checkpoint(stores["whole"], store.header)


# The whole protocol


def test_all_arms_are_scored_in_one_table(birds: Dataset, stores: dict[str, Path], tmp_path: Path) -> None:
    options = ScoreOptions(FitOptions("test_resnet", SIZE, steps=1, batch_size=4), seeds=2, arms=arm_names())
    result = score(birds, stores["whole"], options, resume=tmp_path / "r.jsonl")
    count = result.synthetic
    assert [(arm.arm, arm.images) for arm in result.arms] == [
        ("real", 0), ("cutmix", 0), ("mixup", 0), ("trivialaugment", 0), ("real+dagaug", count),
        ("dagaug+cutmix", count),
        ("cutout", count), ("cutwarp", count), ("random", count), ("cutout+dagaug", count),
    ]  # fmt: skip
    assert (result.comparisons[0].arm, result.comparisons[0].baseline) == ("real+dagaug", "real")
    assert len(result.comparisons) == 9 + 6 + 2 + 2
    assert score(birds, stores["whole"], options, resume=tmp_path / "r.jsonl") == result
