"""The torch data set: items, weights, workers."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from altered_files import TOTAL, seeds
from making_stores import (
    MORPHS,
    REAL,
    SIZE,
    encode,
    header,
    mask,
    picture,
    write,
)
from torch.utils.data import DataLoader, WeightedRandomSampler
from torchvision import tv_tensors
from torchvision.datasets import ImageFolder
from torchvision.transforms import v2

from dagaug.exchange.export import export
from dagaug.hdf5 import raw_dataset_bytes as byte_positions
from dagaug.hdf5.torch_dataset import AugmentedDataset
from dagaug.runtime.errors import StoreError


def test_items_are_the_images_and_labels_of_the_chosen_split_and_kind(files: dict[str, Path]) -> None:
    path = files["png"]
    assert len(AugmentedDataset(path)) == 4 + 2 * MORPHS
    assert len(AugmentedDataset(path, synthetic=False)) == 4
    assert len(AugmentedDataset(path, real=False)) == 2 * MORPHS
    assert len(AugmentedDataset(path, split="all")) == TOTAL
    test = AugmentedDataset(path, split="test")
    assert test.classes == list(header().classes)
    assert test.labels.tolist() == [0, 1]
    image, label = test[1]
    np.testing.assert_array_equal(image, picture(5))
    assert label == 1
    np.testing.assert_array_equal(test[-1][0], picture(5))
    with pytest.raises(IndexError):
        test[2]
    assert len(list(iter_items(test))) == 2
    with pytest.raises(ValueError, match="split"):
        AugmentedDataset(path, split="validation")


def iter_items(data: AugmentedDataset) -> list[object]:
    return [data[index] for index in range(len(data))]


def test_transform_and_decode_are_used(files: dict[str, Path]) -> None:
    data = AugmentedDataset(
        files["png"], transform=np.mean, decode=lambda stored: np.full((1, 1, 3), len(stored) % 256, np.uint8)
    )
    assert data[0] == (len(encode(picture(0), "png")) % 256, 0)


def test_weights_give_morphs_the_requested_share(files: dict[str, Path]) -> None:
    data = AugmentedDataset(files["png"], synthetic_share=0.25)
    assert data.weights.sum() == pytest.approx(1)
    assert data.weights[data.synthetic].sum() == pytest.approx(0.25)
    assert len(set(AugmentedDataset(files["png"]).weights)) == 1
    with pytest.raises(ValueError, match="synthetic_share"):
        AugmentedDataset(files["png"], synthetic_share=1.5)


@pytest.mark.parametrize("start", ["fork", pytest.param("spawn", marks=pytest.mark.slow)])
def test_a_loader_with_workers_gives_what_one_process_gives(files: dict[str, Path], start: str) -> None:
    data = AugmentedDataset(files["raw"])
    data[0]  # the file is open before the workers are started
    loader = DataLoader(data, batch_size=5, num_workers=2, multiprocessing_context=start)
    images, labels = (torch.cat(parts) for parts in zip(*loader, strict=True))
    assert labels.tolist() == data.labels.tolist()
    expected = [seed for row, seed in enumerate(seeds()) if row not in (4, 5)]
    for image, seed in zip(images.numpy(), expected, strict=True):
        np.testing.assert_array_equal(image, picture(seed))


def test_a_weighted_sampler_may_draw_an_image_twice(files: dict[str, Path]) -> None:
    data = AugmentedDataset(files["jpeg"], synthetic_share=0.5)
    loader = DataLoader(data, batch_size=32, sampler=WeightedRandomSampler(data.weights.tolist(), 64))
    assert sum(len(labels) for _, labels in loader) == 64


def test_it_pickles_small_and_refuses_a_file_that_was_changed_since(files: dict[str, Path], tmp_path: Path) -> None:
    path = tmp_path / "x.h5"
    path.write_bytes(files["png"].read_bytes())
    data = AugmentedDataset(path)
    pickled = pickle.dumps(data)
    np.testing.assert_array_equal(pickle.loads(pickled)[0][0], picture(0))
    path.write_bytes(path.read_bytes() + b"\0")
    with pytest.raises(StoreError, match="changed since it was opened"):
        pickle.loads(pickled)[0]


def test_neighbouring_images_are_read_with_one_call(files: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    read = byte_positions.ByteReader.read

    def counted(self: byte_positions.ByteReader, start: int, count: int) -> np.ndarray:
        calls.append(count)
        return read(self, start, count)

    data = AugmentedDataset(files["raw"], split="all")
    monkeypatch.setattr(byte_positions.ByteReader, "read", counted)
    data.__getitems__(np.random.default_rng(0).permutation(TOTAL).tolist())
    assert calls == [TOTAL * SIZE * (SIZE + 2) * 3]


# ---- as torchvision's ImageFolder


def test_it_has_the_attributes_of_an_image_folder_of_the_same_images(tmp_path: Path) -> None:
    path = write(tmp_path / "x.h5", classes=("robin", "wren"))  # ImageFolder sorts its classes
    export(path, tmp_path / "folders")
    data, folder = AugmentedDataset(path), ImageFolder(str(tmp_path / "folders" / "train"))
    assert data.classes == folder.classes
    assert data.class_to_idx == folder.class_to_idx
    assert sorted(data.targets) == sorted(folder.targets)
    assert type(data.targets[0]) is int
    assert [label for _, label in data.samples] == data.targets == [label for _, label in data]
    names = [name for name, _ in data.samples]
    assert names[:2] == [f"{path}#0", f"{path}#1"]
    assert len(set(names)) == len(names) == len(data)


# ---- objects


def test_masks_are_handed_out_as_torchvisions_detection_takes_them(files: dict[str, Path]) -> None:
    data = AugmentedDataset(files["png"], objects="mask")
    assert data.rows.tolist() == [1, *range(REAL, TOTAL)]  # one real image has a mask
    assert data.left_out == 3
    image, target = data[1]
    assert isinstance(image, tv_tensors.Image)
    np.testing.assert_array_equal(image.permute(1, 2, 0).numpy(), picture(100))
    assert target.keys() == {"boxes", "labels", "masks"}
    assert isinstance(target["boxes"], tv_tensors.BoundingBoxes)
    assert (target["boxes"].dtype, target["boxes"].tolist()) == (torch.float32, [[2.0, 2.0, 9.0, 7.0]])
    assert (target["labels"].dtype, target["labels"].tolist()) == (torch.int64, [1])
    np.testing.assert_array_equal(target["masks"].numpy(), mask(1, 0)[None])


def test_boxes_are_handed_out_where_no_mask_is_known(files: dict[str, Path]) -> None:
    data = AugmentedDataset(files["raw"], objects="box", split="all")
    assert (len(data), data.left_out) == (TOTAL, 0)
    target = data[0][1]
    assert target.keys() == {"boxes", "labels"}
    assert target["boxes"].tolist() == [[1.5, 2.0, 7.75, 6.0]]


def test_transforms_v2_change_image_mask_and_box_together_also_in_workers(files: dict[str, Path]) -> None:
    data = AugmentedDataset(files["png"], objects="mask", transform=v2.RandomHorizontalFlip(1.0))
    loader = DataLoader(data, batch_size=4, num_workers=1, collate_fn=lambda items: tuple(zip(*items, strict=True)))
    images, targets = next(iter(loader))
    np.testing.assert_array_equal(images[1].permute(1, 2, 0).numpy(), picture(100)[:, ::-1])
    np.testing.assert_array_equal(targets[1]["masks"][0].numpy(), mask(1, 0)[:, ::-1])
    assert targets[1]["boxes"].tolist() == [[SIZE - 9.0, 2.0, SIZE - 2.0, 7.0]]
    with pytest.raises(TypeError, match="must return both"):
        AugmentedDataset(files["png"], objects="mask", transform=lambda image, target: image)[0]


def test_objects_that_no_image_has_are_an_error(files: dict[str, Path], tmp_path: Path) -> None:
    path = write(tmp_path / "x.h5", objects=False)
    with pytest.raises(StoreError, match=r"x\.h5: holds no masks of objects; make the file again"):
        AugmentedDataset(path, objects="mask")
    with pytest.raises(ValueError, match="choose box, mask or None"):
        AugmentedDataset(files["png"], objects="masks")
