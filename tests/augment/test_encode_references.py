"""The encoder of references: inpainted backgrounds, blocks, tables that processes share."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from making_engines import ALL, COUNT, PLAN, new_engine

from dagaug.augment.encode_references import ImageEncoder
from dagaug.augment.morph_plan import DEFAULT_VARIANTS
from dagaug.classifiers.cross_fit import CrossFitted
from dagaug.compute.tensors import to_tensor
from dagaug.model.trained_model import TrainedModel
from dagaug.model.training_free import FrozenTranslator


def test_a_background_is_the_reference_except_for_the_inpainted_area(
    birds_run: Path, patches: np.ndarray, judges: CrossFitted, tmp_path: Path
) -> None:
    encoder = new_engine(birds_run, patches, judges, tmp_path).encoder
    for variant, patch in ((0, patches[1]), (1, patches[1][:, ::-1])):
        image, painted = (one[0] for one in encoder.backgrounds(np.array([1]), np.array([variant], np.uint8)))
        assert set(np.unique(painted)) <= {0, 255}
        np.testing.assert_array_equal(image[painted == 0], patch[painted == 0])


def test_given_masks_are_cut_out_and_inpainted_in_both_orientations_but_trained_networks_keep_theirs(
    birds_run: Path, patches: np.ndarray, judges: CrossFitted, tmp_path: Path
) -> None:
    side = patches.shape[1]
    given = np.zeros((side, side), np.uint8)
    given[8:20, 4:12] = 255
    rows, mirror = np.arange(COUNT), np.ones(COUNT, np.uint8)
    plain = new_engine(birds_run, patches, judges, tmp_path, block_size=4).encoder
    masked = new_engine(
        birds_run, patches, judges, tmp_path, block_size=4, masks=[None, given, None, None, None, given]
    ).encoder
    for row in rows:
        objects = masked.objects(rows[row : row + 1])[0]
        record, own = (one.records(rows[row : row + 1], mirror[:1])["object"][0, 0] for one in (masked, plain))
        np.testing.assert_array_equal(record, own)
        if row in (1, 5):
            np.testing.assert_array_equal(objects * 255, given)
            _, painted = masked.backgrounds(rows[row : row + 1], mirror[:1])
            assert painted[0][given[:, ::-1] > 0].all()
            assert not painted[0][:, :10].any()
        else:
            np.testing.assert_array_equal(objects, plain.objects(rows[row : row + 1])[0])


def test_morphs_without_training_take_given_masks_for_their_structures(
    frozen: TrainedModel, patches: np.ndarray, tmp_path: Path
) -> None:
    translator = frozen.translator
    assert isinstance(translator, FrozenTranslator)
    given = np.zeros(patches.shape[1:3], np.uint8)
    given[8:20, 4:12] = 255
    encoder = ImageEncoder(
        translator, patches, device=torch.device("cpu"), scratch=tmp_path, masks=[given] + [None] * (COUNT - 1)
    )
    encoder.encode()
    row = np.zeros(1, np.int64)
    for variant, mask in ((0, given), (1, given[:, ::-1])):
        np.testing.assert_array_equal(encoder.records(row, np.array([variant], np.uint8))["object"][0, 0], mask)
    assert (encoder.original_records(row + 1)["object"][0, 0] != given).any()


def test_only_the_blocks_that_a_part_needs_are_encoded_and_they_suffice(
    birds_run: Path, patches: np.ndarray, judges: CrossFitted, tmp_path: Path
) -> None:
    part = slice(0, len(DEFAULT_VARIANTS))  # the first source and one reference
    whole = new_engine(birds_run, patches, judges, tmp_path, block_size=2)
    some = new_engine(birds_run, patches, judges, tmp_path, encoded=False, block_size=2)
    blocks = some.encoder.blocks(PLAN, [part])
    per_variant = -(-COUNT // 2)
    source, reference = PLAN.source[0] // 2, PLAN.reference[0] // 2
    assert set(blocks) == {source, reference, per_variant + reference}
    with pytest.raises(OSError, match="was not written"):
        some.morph(PLAN, part)
    assert sum(some.encoder.encode_block(number) for number in blocks) == 2 * len(blocks)
    np.testing.assert_array_equal(some.morph(PLAN, part).images, whole.morph(PLAN, part).images)


def test_an_images_record_does_not_depend_on_how_many_others_there_are(
    birds_run: Path, patches: np.ndarray, judges: CrossFitted, tmp_path: Path
) -> None:
    rows = np.arange(COUNT - 1)
    tables = [
        new_engine(birds_run, patches[:count], judges, tmp_path, block_size=4).encoder.table
        for count in (COUNT - 1, COUNT)
    ]
    first, second = (table.read(rows).tobytes() for table in tables)
    assert first == second


def test_a_table_may_be_shared_by_name(
    birds_run: Path, patches: np.ndarray, judges: CrossFitted, tmp_path: Path
) -> None:
    first = new_engine(birds_run, patches, judges, tmp_path / "table")
    other = new_engine(birds_run, patches, judges, tmp_path / "table", encoded=False)
    np.testing.assert_array_equal(other.morph(PLAN, ALL).images, first.morph(PLAN, ALL).images)


def test_nothing_lies_in_the_scratch_folder(
    birds_run: Path, patches: np.ndarray, judges: CrossFitted, tmp_path: Path
) -> None:
    new_engine(birds_run, patches, judges, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_frozen_model_encodes_an_image_once_for_both_orientations(
    frozen: TrainedModel, patches: np.ndarray, tmp_path: Path
) -> None:
    translator = frozen.translator
    assert isinstance(translator, FrozenTranslator)
    images = np.stack([cv2.resize(patch, (64, 64)) for patch in patches])
    boxes = [(0.1, 0.2, 0.6, 0.7)] * COUNT
    encoder = ImageEncoder(
        translator, images, device=torch.device("cpu"), scratch=tmp_path, boxes=boxes, block_size=COUNT
    )
    encoder.encode()
    assert encoder.table.rows == COUNT
    assert encoder.blocks(PLAN, [ALL]) == [0]
    rows = np.arange(COUNT)
    plain, mirrored = (encoder.records(rows, np.full(COUNT, variant, np.uint8)) for variant in (0, 1))
    seen = translator.structure(to_tensor(images[:, :, ::-1], torch.device("cpu")))
    for name in ("keys", "mirrored"):
        np.testing.assert_allclose(mirrored[name] / 127, getattr(seen, name).numpy(), atol=0.01)
    np.testing.assert_array_equal(mirrored["object"], plain["object"][..., ::-1])
    both = encoder.records(np.array([2, 2]), np.array([1, 0], np.uint8))
    assert both.tobytes() == mirrored[2:3].tobytes() + plain[2:3].tobytes()
